//! What a deploy has prepared, so that a start need not read anything from disk.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinnace_core::{FunctionRef, FunctionSpec};
use pinnace_sandbox::{
    host_root::HostRoot,
    images::{Image, ImageStore, Lease},
    protocol::{Bind, Bounds, Root, SandboxSpec, SlotSpec},
};

use super::{
    plan::{Defaults, Offer, Plan, bounds},
    record::{Door, Record},
};
use crate::{catalog::Deployed, provider::Refusal};

/// Prepares functions, and remembers each function's latest deploy.
pub struct Preparer {
    images: Arc<ImageStore>,
    host_root: HostRoot,
    programs: PathBuf,
    defaults: Defaults,
    ready: Mutex<HashMap<FunctionRef, (u64, Arc<Prepared>)>>,
}

/// Everything of a sandbox that does not differ between the replicas of one deploy.
pub struct Prepared {
    plan: Plan,
    root: Root,
    bounds: Bounds,
    binds: Vec<Bind>,
    /// Keeps the layers from the garbage collector.
    image: Option<Image>,
}

impl Preparer {
    /// A preparer of functions on these images.
    #[must_use]
    pub fn new(
        images: Arc<ImageStore>,
        host_root: HostRoot,
        programs: PathBuf,
        defaults: Defaults,
    ) -> Self {
        Self { images, host_root, programs, defaults, ready: Mutex::default() }
    }

    /// Whether a function could be started.
    ///
    /// # Errors
    /// Its image is not there, or there is nothing to run.
    pub fn check(&self, spec: &FunctionSpec) -> Result<(), Refusal> {
        self.make(spec).map(drop)
    }

    /// What was prepared for this deploy, now if need be.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn prepare(&self, deployed: &Deployed) -> Result<Arc<Prepared>, Refusal> {
        let id = &deployed.spec.id;
        if let Some((revision, prepared)) = self.ready().get(id)
            && *revision == deployed.revision
        {
            return Ok(prepared.clone());
        }
        let prepared = Arc::new(self.make(&deployed.spec)?);
        self.ready().insert(id.clone(), (deployed.revision, prepared.clone()));
        Ok(prepared)
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
        self.ready().remove(id);
    }

    fn make(&self, spec: &FunctionSpec) -> Result<Prepared, Refusal> {
        let image = if spec.is_host() {
            None
        } else {
            let found = self.images.resolve(spec.image());
            Some(found.map_err(|error| Refusal::Unfit(format!("function {}: {error}", spec.id)))?)
        };
        let offer = match &image {
            None => Offer { is_host: true, ..Offer::default() },
            Some(image) => Offer {
                config: image.config.clone(),
                has_watchdog: image.watchdog.is_some(),
                is_host: false,
            },
        };
        let plan = Plan::new(spec, &offer)?;
        let mut layers = vec![self.host_root.skeleton.clone()];
        match &image {
            None => layers.push(self.host_root.host.clone()),
            Some(image) => layers.extend(image.layers.iter().cloned()),
        }
        let read_only = spec.deployment.read_only_root_filesystem;
        Ok(Prepared {
            root: Root { layers, read_only, host_usr: image.is_none() },
            bounds: bounds(spec, self.defaults),
            binds: plan.binds(&self.programs),
            plan,
            image,
        })
    }

    fn ready(&self) -> MutexGuard<'_, HashMap<FunctionRef, (u64, Arc<Prepared>)>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prepared {
    /// How its replicas are reached.
    #[must_use]
    pub fn door(&self) -> Door {
        self.plan.door
    }

    /// Keeps its layers.
    #[must_use]
    pub fn lease(&self) -> Option<Arc<Lease>> {
        self.image.as_ref().map(|image| image.lease.clone())
    }

    /// What is written down about a replica of it.
    #[must_use]
    pub fn record(&self, deployed: &Deployed, slot: SlotSpec) -> Record {
        Record {
            name: deployed.spec.id.name().to_owned(),
            namespace: deployed.spec.id.namespace().to_owned(),
            revision: deployed.revision,
            created_at: deployed.created_at.clone(),
            door: self.plan.door,
            memory_bytes: self.bounds.memory_bytes,
            slot,
            image: self.image.as_ref().map(|image| image.digest.clone()),
        }
    }

    /// What the spawner is told for one replica.
    #[must_use]
    pub fn sandbox(&self, id: &str, dir: PathBuf, slot: SlotSpec) -> SandboxSpec {
        SandboxSpec {
            slot,
            dir,
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
        }
    }
}
