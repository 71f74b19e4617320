//! Images from registries: the distribution protocol's pulling half, and who waits for what.
//!
//! [`Puller::pull`] begins a pull, or joins the one of the same image that is under way; when nobody waits
//! for it any more, it ends, and what it has fetched is kept for the next. A pull asks one [`source`] after
//! the other; each is asked for the manifest, perhaps over an index, then for what the image store lacks.
//! Nothing of it counts before its digest is checked, and nothing leads to the image before all of it is in
//! the store (see `pinnace_sandbox::images`).
//!
//! What is this server's own is taken from its [store](crate::distribution) ([`holder`]). Other registries are
//! strangers: whatever they send is bounded in size and in time, and what proves who we are
//! goes only to the server that it is for ([`repository`], [`auth`]).

mod auth;
mod blob;
mod client;
mod credentials;
mod error;
mod holder;
mod progress;
mod repository;
mod source;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use pinnace_core::{
    image::{Reference, is_host, stored_name},
    limits,
    wire::ImageSummary,
};
use pinnace_sandbox::images::{ImageStore, PullPlan, RemoteBlob, RemoteDocument, RemoteManifest};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OnceCell, Semaphore, watch},
    task::{JoinHandle, spawn_blocking},
};

use self::{
    client::Client,
    holder::Holder,
    progress::{State, Teller},
    repository::Repository,
    source::{Source, sources},
};
pub use self::{
    error::{PullError, PullFault},
    holder::OwnRegistry,
    progress::{PullProgress, PullStep},
    source::{Mirror, PlainHosts},
};

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Hosts, beside this one, that are spoken to without TLS.
    pub plain: PlainHosts,
    /// Asked before the registries that they stand for.
    pub mirrors: Vec<Mirror>,
    /// How long a registry may bring next to nothing.
    pub idle: Duration,
    /// Docker's configuration file, which has the logins.
    pub docker_config: Option<PathBuf>,
}

/// Pulls images into a store.
#[derive(Clone)]
pub struct Puller(Arc<Pulls>);

struct Pulls {
    images: Arc<ImageStore>,
    settings: RegistrySettings,
    own: OwnRegistry,
    /// Bytes of one image as its registry keeps it.
    image_bytes_max: u64,
    client: OnceCell<Client>,
    places: Semaphore,
    /// Pulls by the name under which the image is stored.
    known: Mutex<HashMap<String, Weak<Flight>>>,
    /// Who may write a blob, by digest: images share layers.
    writers: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// A pull under way. Ends when nobody waits for it.
struct Flight {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// A share in a pull.
pub struct Pulling {
    state: watch::Receiver<State>,
    _flight: Arc<Flight>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pulling {
    /// Waits for news; `None` when the pull has ended.
    pub async fn news(&mut self) -> Option<PullProgress> {
        // Who ends without a word has no news either.
        self.state.changed().await.ok()?;
        match &*self.state.borrow_and_update() {
            State::Under(progress) => Some(progress.clone()),
            State::Done(_) => None,
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The image was not pulled; the store is as it was.
    pub async fn end(mut self) -> Result<ImageSummary, PullError> {
        let ended = self.state.wait_for(|state| matches!(state, State::Done(_))).await;
        match ended.as_deref() {
            Ok(State::Done(done)) => done.clone(),
            _ => Err(PullError::new(PullFault::Host, "the pull ended without a word")),
        }
    }
}

impl Puller {
    /// A puller into a store, of images of at most so many bytes.
    #[must_use]
    pub fn new(
        images: Arc<ImageStore>,
        settings: RegistrySettings,
        own: OwnRegistry,
        image_bytes_max: u64,
    ) -> Self {
        Self(Arc::new(Pulls {
            images,
            settings,
            own,
            image_bytes_max,
            client: OnceCell::new(),
            places: Semaphore::new(limits::PULLS_MAX),
            known: Mutex::default(),
            writers: Mutex::default(),
        }))
    }

    /// The registry of this server.
    #[must_use]
    pub fn own(&self) -> &OwnRegistry {
        &self.0.own
    }

    /// Begins to pull an image, or joins those who wait for it already.
    ///
    /// # Errors
    /// The reference names no image of a registry, or too many pulls are known.
    pub fn pull(&self, text: &str) -> Result<Pulling, PullError> {
        let reference = Reference::parse(text);
        let reference =
            reference.map_err(|e| PullError::new(PullFault::Reference, e.to_string()))?;
        let name = stored_name(text).filter(|_| !is_host(text)).ok_or_else(|| {
            PullError::new(PullFault::Reference, format!("`{text}` cannot name a pulled image"))
        })?;
        let mut known = lock(&self.0.known);
        if let Some(flight) = known.get(&name).and_then(Weak::upgrade)
            && !matches!(*flight.state.borrow(), State::Done(_))
        {
            return Ok(Pulling { state: flight.state.clone(), _flight: flight });
        }
        known.retain(|_, flight| flight.strong_count() > 0);
        if known.len() >= limits::PULLS_KNOWN_MAX {
            let max = limits::PULLS_KNOWN_MAX;
            let text =
                format!("{max} images are being pulled, the most there may be (PULLS_KNOWN_MAX)");
            return Err(PullError::new(PullFault::Busy, text));
        }
        let (sender, state) = watch::channel(State::Under(PullProgress::default()));
        let task = tokio::spawn(self.0.clone().run(reference, name.clone(), Teller(sender)));
        let flight = Arc::new(Flight { state: state.clone(), task });
        known.insert(name, Arc::downgrade(&flight));
        Ok(Pulling { state, _flight: flight })
    }
}

impl Pulls {
    async fn run(self: Arc<Self>, reference: Reference, name: String, teller: Teller) {
        let pulled = self.pull_from_any(&reference, &name, &teller).await;
        let pulled = pulled.map_err(|error| error.of(&name));
        match &pulled {
            Ok(image) => tracing::info!(image = %name, digest = %image.digest, "pulled"),
            Err(error) => tracing::warn!(%error, "not pulled"),
        }
        teller.0.send_replace(State::Done(pulled));
    }

    async fn pull_from_any(
        &self,
        reference: &Reference,
        name: &str,
        teller: &Teller,
    ) -> Result<ImageSummary, PullError> {
        let _place = self.places.acquire().await.map_err(|e| PullError::registry(e.to_string()))?;
        teller.step(PullStep::Asking);
        if self.own.is_of(reference) {
            let holder = Holder::Own(self.own.repository(reference)?);
            return self.pull_from(&holder, reference, name, teller).await;
        }
        let idle = self.settings.idle;
        let client = self.client.get_or_try_init(|| blocking(move || Client::new(idle))).await?;
        let mut failed = None;
        for source in sources(reference.registry(), &self.settings.mirrors) {
            match self.pull_from_source(client, source, reference, name, teller).await {
                Err(error) if error.is_of_this_source() => {
                    tracing::info!(image = %name, %error, "a source did not give it");
                    failed = Some(error);
                }
                done => return done,
            }
        }
        Err(failed.unwrap_or_else(|| PullError::registry("nobody was asked")))
    }

    async fn pull_from_source(
        &self,
        client: &Client,
        source: Source,
        reference: &Reference,
        name: &str,
        teller: &Teller,
    ) -> Result<ImageSummary, PullError> {
        let settings = &self.settings;
        let config = settings.docker_config.as_deref();
        let name_there = reference.repository();
        let repository =
            Repository::open(client, &settings.plain, source, name_there, config).await?;
        self.pull_from(&Holder::Remote(Box::new(repository)), reference, name, teller).await
    }

    async fn pull_from(
        &self,
        holder: &Holder<'_>,
        reference: &Reference,
        name: &str,
        teller: &Teller,
    ) -> Result<ImageSummary, PullError> {
        let images = &self.images;
        let manifest = manifest(holder, reference).await?;
        let bytes_max = self.image_bytes_max;
        if manifest.bytes() > bytes_max {
            let text = format!(
                "its layers have {} bytes, at most {bytes_max} (--image-bytes-max)",
                manifest.bytes()
            );
            return Err(PullError::new(PullFault::TooLarge, text));
        }
        let (store, stored, digest) =
            (images.clone(), name.to_owned(), manifest.config.digest.clone());
        if let Some(image) = blocking(move || store.name_image(&stored, &digest)).await? {
            return Ok(image);
        }
        let config = config_of(holder, &manifest).await?;
        let layers = manifest.layers.len();
        let (store, stored) = (images.clone(), name.to_owned());
        let plan = blocking(move || store.plan_pull(&stored, &manifest, &config)).await?;
        self.fetch(holder, &plan, layers, teller).await?;
        self.store(plan, teller).await
    }

    /// Fetches the layers that the store lacks, some at a time.
    async fn fetch(
        &self,
        holder: &Holder<'_>,
        plan: &PullPlan,
        layers: usize,
        teller: &Teller,
    ) -> Result<(), PullError> {
        let missing = plan.missing();
        teller.change(|progress| {
            *progress = PullProgress {
                step: PullStep::Fetching,
                layers: layers - missing.len(),
                layers_total: layers,
                bytes: 0,
                bytes_total: missing.iter().map(|blob| blob.bytes).sum(),
            };
        });
        let each = missing.iter().map(|blob| self.fetch_one(holder, blob, teller).boxed());
        stream::iter(each.collect::<Vec<_>>())
            .buffer_unordered(limits::PULL_LAYERS_MAX)
            .try_collect::<()>()
            .await
    }

    async fn fetch_one(
        &self,
        holder: &Holder<'_>,
        blob: &RemoteBlob,
        teller: &Teller,
    ) -> Result<(), PullError> {
        let writer = self.writer(&blob.digest);
        let _turn = writer.lock().await;
        let path = self.images.partial_path(&blob.digest);
        holder.fetch(blob, &path, teller).await?;
        teller.change(|progress| progress.layers += 1);
        Ok(())
    }

    async fn store(&self, plan: PullPlan, teller: &Teller) -> Result<ImageSummary, PullError> {
        let (store, told) = (self.images.clone(), teller.0.clone());
        blocking(move || {
            let teller = Teller(told);
            store.finish_pull(plan, &mut |progress| {
                teller.step(PullStep::Storing(progress.step.into_owned()));
            })
        })
        .await
    }

    fn writer(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut writers = lock(&self.writers);
        if let Some(writer) = writers.get(digest).and_then(Weak::upgrade) {
            return writer;
        }
        writers.retain(|_, writer| writer.strong_count() > 0);
        let writer = Arc::default();
        writers.insert(digest.to_owned(), Arc::downgrade(&writer));
        writer
    }
}

/// The manifest that a reference leads to, over indexes if need be.
async fn manifest(holder: &Holder<'_>, reference: &Reference) -> Result<RemoteManifest, PullError> {
    let mut wanted = reference.wanted().to_owned();
    let mut expected = reference.digest().map(str::to_owned);
    for _ in 0..=limits::IMAGE_INDEX_DEPTH_MAX {
        let what = format!("the manifest {wanted}");
        let (said, content) = holder.document(&wanted, &what).await?;
        let found = blob::hex_digest(Sha256::new_with_prefix(&content));
        // A digest that was asked for binds; else one that the server itself names must at least be right.
        let said = said.filter(|digest| digest.starts_with("sha256:"));
        if let Some(other) = expected.or(said).filter(|digest| *digest != found) {
            let server = holder.server();
            let text = format!(
                "{server} sent something else than the manifest {other}: its digest is another"
            );
            return Err(PullError::registry(text));
        }
        match RemoteDocument::read(&content, &what)? {
            RemoteDocument::Image(manifest) => return Ok(manifest),
            RemoteDocument::Index(chosen) => {
                wanted = chosen.digest;
                expected = Some(wanted.clone());
            }
        }
    }
    let max = limits::IMAGE_INDEX_DEPTH_MAX;
    Err(PullError::registry(format!(
        "its indexes lie more than {max} deep (IMAGE_INDEX_DEPTH_MAX)"
    )))
}

async fn config_of(holder: &Holder<'_>, manifest: &RemoteManifest) -> Result<Vec<u8>, PullError> {
    let config = &manifest.config;
    let what = format!("the configuration {}", config.digest);
    let bytes_max = limits::IMAGE_JSON_BYTES_MAX.min(config.bytes);
    let content = holder.content(config, bytes_max, &what).await?;
    config.check(&content)?;
    Ok(content)
}

/// Does something that blocks, on a thread for that.
async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, PullError>
where
    PullError: From<E>,
{
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => {
            Err(PullError::new(PullFault::Host, format!("the image store failed: {error}")))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
