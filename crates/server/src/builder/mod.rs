//! Native builds: a function's source becomes an image of the store, without Docker.
//!
//! A request is taken in whole ([`intake`]), on disk, and judged; then its job runs to its end in a task
//! ([`job`]): what the image stands on ([`footing`]), a layer of dependencies, a layer of code ([`step`] runs a
//! command in a sandbox), and the image. A layer that was made of the same before is used again ([`cache`]).
//!
//! What is kept between builds is derived, and may be removed at any time:
//!
//! ```text
//! STATE/builds/layers/HEX   which layer was made of what HEX is the digest of
//! STATE/builds/work/N       a build at work; swept at start
//! ```

mod cache;
mod disk;
mod environment;
mod footing;
mod intake;
mod job;
mod log;
mod sealed;
mod step;
mod work;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use pinnace_core::build::PublicKey;
use pinnace_sandbox::images::{ImageStore, LoadError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::spawn_blocking,
};

pub use self::job::pin_owner;
use self::{
    cache::LayerCache,
    job::Job,
    log::Log,
    sealed::SealingKey,
    work::{WorkDir, WorkDirs},
};
use crate::{key_file, provider::sandbox::Errands, registry::Puller};

/// Events that wait for a slow client, which makes its build wait.
const EVENTS_MAX: usize = 256;

/// Bytes of the file of a payload secret.
const PAYLOAD_SECRET_BYTES: usize = 4096;

/// What a builder is told by its operator.
#[derive(Clone, Debug)]
pub struct BuilderSettings {
    /// Builds at a time.
    pub builds_max: usize,
    /// Memory of a command, in bytes.
    pub memory_bytes: u64,
    /// How long a command may run.
    pub time_max: Duration,
    /// File of the secret that requests are signed with, if they are to be.
    pub payload_secret: Option<PathBuf>,
}

/// Builds images.
#[derive(Clone)]
pub struct Builder(Arc<Workshop>);

/// What builds have in common.
struct Workshop {
    images: Arc<ImageStore>,
    puller: Puller,
    errands: Errands,
    settings: BuilderSettings,
    payload_secret: Option<Vec<u8>>,
    places: Arc<Semaphore>,
    cache: LayerCache,
    work: WorkDirs,
    key: SealingKey,
    /// Where unsealed secrets are shown to commands, in memory where there is such a place.
    secrets: PathBuf,
    ending: watch::Receiver<bool>,
}

/// The right to build.
pub struct Admission {
    _place: OwnedSemaphorePermit,
}

/// Something that has happened in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// A line of its log.
    Line(String),
    /// It has ended: the image, or why there is none.
    Ended(Result<Built, String>),
}

/// What an archive is known by while it is read.
pub struct Archive {
    /// Its size.
    pub bytes: u64,
    _work: WorkDir,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its name.
    pub image: String,
    /// Digest of its configuration.
    pub digest: String,
}

/// A build under way. It ends when this is dropped.
pub struct Building {
    /// The name that the image is to have.
    pub image: String,
    /// What happens; the last is that it ends, unless the server failed.
    pub events: mpsc::Receiver<BuildEvent>,
    _until_dropped: StopWhenDropped,
}

struct StopWhenDropped(Arc<watch::Sender<Option<String>>>);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.send_if_modified(|reason| {
            reason.is_none() && reason.replace("its client has left".to_owned()).is_none()
        });
    }
}

/// Why a build was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There are as many as may be.
    #[error(
        "{max} builds are under way, the most at a time (`--builds-max`): try again when one has ended"
    )]
    Busy {
        /// How many.
        max: usize,
    },
    /// It is not signed with the payload secret.
    #[error("{0}")]
    Unsigned(&'static str),
    /// It cannot be built as it is.
    #[error("{0}")]
    Unfit(String),
    /// It is too large.
    #[error("{0}")]
    TooLarge(String),
    /// The archive cannot be taken.
    #[error(transparent)]
    Archive(#[from] LoadError),
    /// The host cannot do it.
    #[error("the build cannot be begun: {0}")]
    Host(#[from] io::Error),
}

/// What a builder is made of.
pub struct BuilderParts {
    /// Where images go.
    pub images: Arc<ImageStore>,
    /// Brings bases that are not there.
    pub puller: Puller,
    /// Runs commands.
    pub errands: Errands,
    /// The state directory.
    pub state: PathBuf,
    /// The directory of what runs.
    pub run: PathBuf,
    /// What the operator says.
    pub settings: BuilderSettings,
    /// Turns true when the server is asked to end.
    pub ending: watch::Receiver<bool>,
}

impl Builder {
    /// A builder that builds nothing yet. What builds of an earlier server left at work is removed.
    ///
    /// # Errors
    /// Its directories or its key cannot be made.
    pub fn open(parts: BuilderParts) -> io::Result<Self> {
        let BuilderParts { images, puller, errands, state, run, settings, ending } = parts;
        let secrets = run.join("build-secrets");
        work::remove(&secrets)?;
        let dir = state.join("builds");
        Ok(Self(Arc::new(Workshop {
            places: Arc::new(Semaphore::new(settings.builds_max)),
            cache: LayerCache::open(&dir.join("layers"))?,
            work: WorkDirs::open(&dir.join("work"))?,
            key: SealingKey::open(&state.join("builder.key"))?,
            payload_secret: settings.payload_secret.as_deref().map(payload_secret).transpose()?,
            images,
            puller,
            errands,
            settings,
            secrets,
            ending,
        })))
    }

    /// A place for a build, before anything of it is taken in.
    ///
    /// # Errors
    /// There is none.
    pub fn admit(&self) -> Result<Admission, BuildError> {
        let place = self.0.places.clone().try_acquire_owned();
        let busy = |_| BuildError::Busy { max: self.0.settings.builds_max };
        Ok(Admission { _place: place.map_err(busy)? })
    }

    /// Begins a build.
    #[must_use]
    pub fn begin(&self, job: Job) -> Building {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (stop, stopped) = watch::channel(None);
        let stop = Arc::new(stop);
        let image = job.request.image.clone();
        let (workshop, log) = (self.0.clone(), Log::new(sender));
        let (ending, stop_at_end) = (self.0.ending.clone(), Arc::downgrade(&stop));
        tokio::spawn(async move {
            let mut ending = ending;
            // Who could say so is gone with the server.
            if ending.wait_for(|ending| *ending).await.is_ok()
                && let Some(stop) = stop_at_end.upgrade()
            {
                stop.send_replace(Some("the server is ending".to_owned()));
            }
        });
        tokio::spawn(async move {
            let ended = job.run(&workshop, &log, stopped).await;
            match &ended {
                Ok(built) => tracing::info!(image = %built.image, digest = %built.digest, "built"),
                Err(error) => tracing::info!(%error, "not built"),
            }
            log.end(ended).await;
        });
        Building { image, events, _until_dropped: StopWhenDropped(stop) }
    }

    /// An image of the store as an archive, an OCI image layout. Its file goes with what is returned beside it.
    ///
    /// # Errors
    /// There is no such image, or no room.
    pub async fn archive(
        &self,
        reference: String,
    ) -> Result<(tokio::fs::File, Archive), BuildError> {
        let workshop = self.0.clone();
        let made = spawn_blocking(move || {
            let work = workshop.work.make()?;
            let (scratch, path) = (work.subdirectory("layers")?, work.path().join("image.tar"));
            workshop.images.export(&reference, &scratch, &path)?;
            let file = std::fs::File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok::<_, BuildError>((tokio::fs::File::from_std(file), Archive { bytes, _work: work }))
        });
        made.await.map_err(|error| BuildError::Host(io::Error::other(error)))?
    }

    /// The key that secrets of builds are sealed with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.0.key.public()
    }

    /// Whether requests are to be signed.
    #[must_use]
    pub fn wants_signature(&self) -> bool {
        self.0.payload_secret.is_some()
    }
}

/// Reads the secret that requests are signed with, less the space around it (contract section 14.5).
fn payload_secret(path: &Path) -> io::Result<Vec<u8>> {
    let told = |error: io::Error| {
        let text = format!("the payload secret {} cannot be read: {error}", path.display());
        io::Error::new(error.kind(), text)
    };
    let secret = key_file::read(path, PAYLOAD_SECRET_BYTES).map_err(told)?;
    let secret = secret.ok_or_else(|| told(io::ErrorKind::NotFound.into()))?;
    match secret.trim_ascii() {
        [] => Err(told(io::Error::other("it is empty"))),
        secret => Ok(secret.to_owned()),
    }
}

/// Whether something is there.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
