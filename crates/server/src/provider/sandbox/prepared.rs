//! What a deploy has prepared, so that a start need not read anything from disk, nor ask a registry.
//!
//! The first start of a deploy finds out which image it runs, pulling it if need be, and pins that image in
//! the store: however often the deploy is started, also by a later server, it is the same image.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use pinnace_core::{FunctionRef, FunctionSpec, Network, image::Reference, spec::PullPolicy};
use pinnace_sandbox::{
    host_root::HostRoot,
    images::{Image, ImageStore, Lease, StoreError},
    protocol::{Bind, Bounds, Root, SandboxSpec, SlotSpec},
};
use tokio::{sync::OnceCell, task::spawn_blocking};

use super::{
    plan::{Defaults, Offer, Plan, WayOut, bounds},
    record::{Door, Record},
};
use crate::{
    catalog::Deployed,
    pace::Pace,
    provider::{
        Refusal,
        keeper::{Event, Reports},
    },
    registry::Puller,
};

/// Prepares functions, and remembers each function's latest deploy.
pub struct Preparer {
    images: Arc<ImageStore>,
    puller: Puller,
    host_root: HostRoot,
    programs: PathBuf,
    defaults: Defaults,
    way_out: Arc<ArcSwap<WayOut>>,
    ready: Mutex<HashMap<FunctionRef, (u64, Preparation)>>,
}

/// One attempt to prepare a deploy, whose outcome all share that wait for it.
type Preparation = Arc<OnceCell<Result<Arc<Prepared>, Refusal>>>;

/// Everything of a sandbox that does not differ between the replicas of one deploy.
pub struct Prepared {
    plan: Plan,
    root: Root,
    bounds: Bounds,
    binds: Vec<Bind>,
    resolv_conf: String,
    /// Keeps the layers from the garbage collector.
    image: Option<Image>,
}

impl Preparer {
    /// A preparer of functions on these images.
    #[must_use]
    pub fn new(
        images: Arc<ImageStore>,
        puller: Puller,
        host_root: HostRoot,
        programs: PathBuf,
        defaults: Defaults,
        way_out: Arc<ArcSwap<WayOut>>,
    ) -> Self {
        let ready = Mutex::default();
        Self { images, puller, host_root, programs, defaults, way_out, ready }
    }

    /// Whether a function could be started, as far as that is known without its registry.
    ///
    /// # Errors
    /// Its image is not there and cannot be pulled, or there is nothing to run.
    pub fn check(&self, spec: &FunctionSpec) -> Result<(), Refusal> {
        if spec.is_host() {
            return self.make(spec, None).map(drop);
        }
        // What an image has no part in need not wait until it is pulled.
        self.way_out.load().permit(spec)?;
        let reference = Reference::parse(spec.image()).ok();
        let may_be_pulled = spec.pull != PullPolicy::Never && reference.is_some();
        if may_be_pulled && reference.is_some_and(|reference| is_here(&self.puller, &reference)) {
            return Ok(());
        }
        match self.images.resolve(spec.image()) {
            _ if may_be_pulled && spec.pull == PullPolicy::Always => Ok(()),
            Err(error) if may_be_pulled && error.is_mended_by_pull() => Ok(()),
            found => self.make(spec, Some(found.map_err(|error| unfit(spec, &error))?)).map(drop),
        }
    }

    /// Layers that come from no image.
    pub fn host_root(&self) -> &HostRoot {
        &self.host_root
    }

    /// What a function reaches beside the platform.
    pub fn network(&self, spec: &FunctionSpec) -> Network {
        self.way_out.load().network(spec)
    }

    /// Whether a replica may go on in this slot, which an earlier server gave it.
    pub fn may_go_on(&self, slot: &SlotSpec) -> bool {
        slot.host_gateway.is_none() || self.way_out.load().no_host.is_none()
    }

    /// What was prepared for this deploy, if that can be said at once.
    pub fn ready(&self, deployed: &Deployed) -> Option<Result<Arc<Prepared>, Refusal>> {
        let preparation = self.preparation(deployed);
        if let Some(prepared) = preparation.get() {
            return Some(prepared.clone());
        }
        let made =
            deployed.spec.is_host().then(|| self.make(&deployed.spec, None).map(Arc::new))?;
        // Set already: by another start, to the same.
        drop(preparation.set(made.clone()));
        Some(made)
    }

    /// Prepares a deploy, unless that was done or is being done. `reports` hears how far a pull is.
    ///
    /// # Errors
    /// As [`Self::check`], or the image cannot be pulled.
    pub async fn prepare(
        &self,
        deployed: &Deployed,
        reports: &Reports,
    ) -> Result<Arc<Prepared>, Refusal> {
        let preparation = self.preparation(deployed);
        let prepared = preparation.get_or_init(async || {
            let image = self.image(deployed, reports).await?;
            self.make(&deployed.spec, Some(image)).map(Arc::new)
        });
        prepared.await.clone()
    }

    /// Keeps the layers of an image that a replica of an earlier server runs on.
    #[must_use]
    pub fn lease(&self, digest: &str) -> Option<Arc<Lease>> {
        match self.images.resolve(digest) {
            Ok(image) => Some(image.lease),
            Err(error) => {
                tracing::warn!(%error, "an adopted replica's image is not in the store");
                None
            }
        }
    }

    /// A function is no more.
    pub fn forget(&self, id: &FunctionRef) {
        self.preparations().remove(id);
        if let Err(error) = self.images.unpin(&id.to_string()) {
            tracing::warn!(function = %id, %error, "its image stays until the next start");
        }
    }

    /// The image of a deploy: the one that it was found to have before, or else what its reference stands
    /// for now.
    async fn image(&self, deployed: &Deployed, reports: &Reports) -> Result<Image, Refusal> {
        let owner = deployed.spec.id.to_string();
        let deploy = format!("{} {}", deployed.created_at, deployed.revision);
        let (asked_owner, asked_deploy) = (owner.clone(), deploy.clone());
        let pinned = self.in_store(move |images| {
            let pinned = images.pinned(&asked_owner, &asked_deploy)?;
            pinned.map(|digest| images.resolve(&digest)).transpose()
        });
        match pinned.await? {
            Ok(Some(image)) => return Ok(image),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(function = %owner, %error, "its image is looked for anew");
            }
        }
        let image = self.image_now(&deployed.spec, reports).await?;
        let digest = image.digest.clone();
        let pin = self.in_store(move |images| images.pin(&owner, &deploy, &digest)).await?;
        pin.map_err(|error| Refusal::Broken(error.to_string()))?;
        Ok(image)
    }

    /// What a function's reference stands for now, pulled if its policy says so.
    async fn image_now(&self, spec: &FunctionSpec, reports: &Reports) -> Result<Image, Refusal> {
        let reference = spec.image().to_owned();
        let parsed = Reference::parse(spec.image()).ok();
        let (asked, puller) = (parsed.clone(), self.puller.clone());
        let looked = self.in_store(move |images| {
            // What was pushed here last is what a deploy means, and it is not far.
            let is_here = asked.is_some_and(|reference| is_here(&puller, &reference));
            Ok((images.resolve(&reference), is_here))
        });
        let (found, is_here) = looked.await?.map_err(|error| unfit(spec, &error))?;
        let is_fixed = parsed.as_ref().is_some_and(|reference| reference.digest().is_some());
        match (spec.pull, found) {
            (PullPolicy::Missing, Ok(image)) if is_fixed || !is_here => return Ok(image),
            (PullPolicy::Missing, _) if is_here => {}
            // What a digest names never changes.
            (PullPolicy::Always, Ok(image)) if is_fixed => return Ok(image),
            (PullPolicy::Always, _) if parsed.is_some() => {}
            (PullPolicy::Missing, Err(error)) if parsed.is_some() && error.is_mended_by_pull() => {}
            (_, found) => return found.map_err(|error| unfit(spec, &error)),
        }
        let digest = self.pull(spec.image(), reports).await?;
        let pulled = self.in_store(move |images| images.resolve(&digest)).await?;
        pulled.map_err(|error| unfit(spec, &error))
    }

    /// Pulls an image and answers its digest.
    async fn pull(&self, reference: &str, reports: &Reports) -> Result<String, Refusal> {
        let broken = |error: crate::registry::PullError| Refusal::Broken(error.to_string());
        let mut pulling = self.puller.pull(reference).map_err(broken)?;
        let mut pace = Pace::default();
        while let Some(progress) = pulling.news().await {
            if pace.is_due(&progress.step()) {
                let told = format!("pulling {reference}: {progress}");
                reports.send(Event::Preparing(told)).await;
            }
        }
        pulling.end().await.map(|image| image.digest).map_err(broken)
    }

    /// Asks the store, on a thread that may block.
    async fn in_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&ImageStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, StoreError>, Refusal> {
        let images = self.images.clone();
        let asked = spawn_blocking(move || ask(&images)).await;
        asked.map_err(|error| Refusal::Broken(format!("the image store failed: {error}")))
    }

    fn make(&self, spec: &FunctionSpec, image: Option<Image>) -> Result<Prepared, Refusal> {
        let offer = match &image {
            None => Offer { is_host: true, ..Offer::default() },
            Some(image) => Offer {
                config: image.config.clone(),
                has_watchdog: image.watchdog.is_some(),
                watchdog_kind: image.watchdog_kind,
                is_host: false,
            },
        };
        let way_out = self.way_out.load();
        let plan = Plan::new(spec, &offer, &way_out)?;
        let mut layers = vec![self.host_root.skeleton.clone()];
        match &image {
            None => layers.push(self.host_root.host.clone()),
            Some(image) => {
                layers.extend(image.on_host.then(|| self.host_root.host.clone()));
                layers.extend(image.layers.iter().cloned());
            }
        }
        let host_usr = image.as_ref().is_none_or(|image| image.on_host);
        let read_only = spec.deployment.read_only_root_filesystem;
        Ok(Prepared {
            root: Root { layers, read_only, host_usr, kept_in: None },
            bounds: bounds(spec, self.defaults),
            binds: plan.binds(&self.programs),
            resolv_conf: way_out.resolv_conf(plan.network),
            plan,
            image,
        })
    }

    /// The preparation of this deploy, a new one if it failed before; that of another deploy of the function
    /// is dropped.
    fn preparation(&self, deployed: &Deployed) -> Preparation {
        let mut preparations = self.preparations();
        let failed = |preparation: &Preparation| preparation.get().is_some_and(Result::is_err);
        match preparations.get(&deployed.spec.id) {
            Some((revision, preparation))
                if *revision == deployed.revision && !failed(preparation) =>
            {
                preparation.clone()
            }
            _ => {
                let preparation = Preparation::default();
                let latest = (deployed.revision, preparation.clone());
                preparations.insert(deployed.spec.id.clone(), latest);
                preparation
            }
        }
    }

    fn preparations(&self) -> MutexGuard<'_, HashMap<FunctionRef, (u64, Preparation)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this server's registry has what a reference names. What is not known is asked for when it is pulled.
fn is_here(puller: &Puller, reference: &Reference) -> bool {
    let own = puller.own();
    own.is_of(reference) && own.has(reference).unwrap_or(true)
}

fn unfit(spec: &FunctionSpec, error: &StoreError) -> Refusal {
    Refusal::Unfit(format!("function {}: {error}", spec.id))
}

impl Prepared {
    /// How its replicas are reached.
    #[must_use]
    pub fn door(&self) -> Door {
        self.plan.door
    }

    /// Whether its replicas share the host's network.
    #[must_use]
    pub fn is_on_host(&self) -> bool {
        self.network() == Network::Host
    }

    /// What its replicas reach beside the platform.
    #[must_use]
    pub fn network(&self) -> Network {
        self.plan.network
    }

    /// Keeps its layers.
    #[must_use]
    pub fn lease(&self) -> Option<Arc<Lease>> {
        self.image.as_ref().map(|image| image.lease.clone())
    }

    /// What is written down about a replica of it.
    #[must_use]
    pub fn record(&self, replica: &str, deployed: &Deployed, slot: SlotSpec) -> Record {
        Record {
            replica: replica.to_owned(),
            name: deployed.spec.id.name().to_owned(),
            namespace: deployed.spec.id.namespace().to_owned(),
            revision: deployed.revision,
            created_at: deployed.created_at.clone(),
            door: self.plan.door,
            memory_bytes: self.bounds.memory_bytes,
            slot,
            image: self.image.as_ref().map(|image| image.digest.clone()),
            secrets: deployed.spec.secrets().into_iter().map(str::to_owned).collect(),
        }
    }

    /// What the spawner is told for one replica.
    #[must_use]
    pub fn sandbox(&self, id: &str, slot: SlotSpec) -> SandboxSpec {
        SandboxSpec {
            slot,
            hostname: id.to_owned(),
            root: self.root.clone(),
            binds: self.binds.clone(),
            command: self.plan.command.clone(),
            env: self.plan.env.clone(),
            working_dir: self.plan.working_dir.clone(),
            user: self.plan.user.clone(),
            stop_signal: self.plan.stop_signal,
            bounds: self.bounds.clone(),
            listens: self.plan.door == Door::Socket,
            port: match self.plan.door {
                Door::Port(port) => Some(port),
                Door::Socket => None,
            },
            leaves: self.plan.network == Network::Nat,
            resolv_conf: self.resolv_conf.clone(),
        }
    }
}
