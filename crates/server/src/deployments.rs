//! What is deployed: the one place where a deploy, an update, a scale or a removal happens.
//!
//! Each is checked, made durable, shown in the catalog and told to the provider, in this order. Changes of
//! one function happen one after the other; changes of different functions share disk flushes.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use pinnace_core::{
    FunctionRef, FunctionSpec, limits,
    name::NameError,
    scaling::on_alert,
    spec::{Faults, Scale},
    wire::FunctionDeployment,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use crate::{
    catalog::{Catalog, Deployed, Entry},
    namespaces::{Inside, NamespaceError, Namespaces},
    provider::{Provider, Refusal},
    secrets::Secrets,
    store::{Store, StoreError, Stored},
    turns::Turns,
};

/// Functions of a namespace that are removed with it side by side: as many as share a disk flush.
const REMOVALS_AT_ONCE: usize = 64;

/// Deployed functions and what changes them.
pub struct Deployments {
    /// The live table.
    pub catalog: Arc<Catalog>,
    /// Runs them.
    pub provider: Arc<dyn Provider>,
    /// What they are deployed in.
    pub namespaces: Namespaces,
    /// What they are deployed with.
    pub secrets: Arc<Secrets>,
    store: Store,
    changes: watch::Sender<()>,
    turns: Turns,
    /// Of namespaces whose functions are counted.
    counts: Turns,
}

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The deployment has faults.
    #[error(transparent)]
    Faults(#[from] Faults),
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The provider does not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It names secrets that are not there.
    #[error("unable to fetch secrets: secret {0:?} not found")]
    NoSecret(String),
    /// Its namespace is not there, or not to be changed so.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// As many functions as the namespace may have.
    #[error(
        "namespace {namespace} has {most} functions, the most it may have (annotation \
         dev.pinnace.quota.functions)"
    )]
    Quota {
        /// The namespace.
        namespace: String,
        /// Its bound.
        most: u32,
    },
    /// A function of this name is deployed.
    #[error("function {0} exists already; update it with PUT, or remove it first")]
    Exists(FunctionRef),
    /// No such function.
    #[error("function {0} is not deployed")]
    Unknown(FunctionRef),
    /// As many functions are deployed as may be.
    #[error(
        "{} functions are deployed, the most there may be (FUNCTIONS_MAX)",
        limits::FUNCTIONS_MAX
    )]
    TooMany,
    /// More replicas than may be.
    #[error(
        "function {id} may have at most {max} replicas (label com.openfaas.scale.max), not {asked}"
    )]
    Replicas {
        /// The function.
        id: FunctionRef,
        /// The most it may have.
        max: u32,
        /// What was asked for.
        asked: u64,
    },
}

impl Deployments {
    /// Takes over what the store holds. Nothing runs before [`Deployments::restored`] is done with.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        provider: Arc<dyn Provider>,
        namespaces: Namespaces,
        secrets: Arc<Secrets>,
        store: Store,
    ) -> Self {
        Self {
            catalog,
            provider,
            namespaces,
            secrets,
            store,
            changes: watch::Sender::new(()),
            turns: Turns::default(),
            counts: Turns::default(),
        }
    }

    /// Tells when something else is deployed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Shows the functions of an earlier run in the catalog. A function whose deployment this version
    /// refuses is left out and said; it stays in the store.
    pub fn restore(&self, functions: BTreeMap<FunctionRef, Stored>) -> Vec<(Arc<Entry>, Stored)> {
        let mut restored = Vec::new();
        for (id, stored) in functions {
            match FunctionSpec::check_kept(stored.deployment.clone()) {
                Ok((spec, refused)) => {
                    if let Some(error) = refused {
                        tracing::error!(function = %id, %error, "goes on without what does not count any more");
                    }
                    restored.push((self.entry(spec, &stored), stored));
                }
                Err(error) => tracing::error!(function = %id, %error, "left out"),
            }
        }
        self.catalog.insert_all(restored.iter().map(|(entry, _)| entry.clone()));
        restored
    }

    /// Deploys a new function.
    ///
    /// # Errors
    /// It is faulty, cannot run here, exists already, or cannot be made durable.
    pub async fn create(&self, deployment: FunctionDeployment) -> Result<(), ChangeError> {
        let (spec, inside) = self.check(deployment).await?;
        let most = inside.namespace.quota.functions;
        let _count = match most {
            Some(_) => Some(self.counts.of(&spec.id.namespace()).await),
            None => None,
        };
        let _turn = self.turns.of(&spec.id).await;
        if self.catalog.get(&spec.id).is_some() {
            return Err(ChangeError::Exists(spec.id));
        }
        self.fits(most, &spec.id)?;
        if self.catalog.len() >= limits::FUNCTIONS_MAX {
            return Err(ChangeError::TooMany);
        }
        let stored = Stored {
            deployment: spec.deployment.clone(),
            revision: 1,
            replicas: spec.scale.min,
            created_at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        };
        self.store.put(spec.id.clone(), stored.clone()).await?;
        let entry = self.entry(spec, &stored);
        self.catalog.insert_all([entry.clone()]);
        self.changes.send_replace(());
        self.provider.apply(&entry, entry.deployed(), stored.replicas);
        Ok(())
    }

    /// Deploys a function anew.
    ///
    /// # Errors
    /// It is faulty, cannot run here, does not exist, or cannot be made durable.
    pub async fn update(&self, deployment: FunctionDeployment) -> Result<(), ChangeError> {
        let (spec, _inside) = self.check(deployment).await?;
        let _turn = self.turns.of(&spec.id).await;
        let entry = self.known(&spec.id)?;
        let before = entry.deployed();
        let (min, max) = (spec.scale.min, spec.scale.max);
        let stored = Stored {
            deployment: spec.deployment.clone(),
            revision: before.revision + 1,
            replicas: entry.marks.wished().clamp(min, max),
            created_at: entry.created_at.clone(),
        };
        let revision = stored.revision;
        // The load, or an alert, may ask for more than was wished.
        let wanted = entry.standing().wanted.clamp(min, max);
        let wished = stored.replicas;
        self.store.put(spec.id.clone(), stored).await?;
        entry.marks.wish(wished);
        let created_at = before.created_at.clone();
        let deployed = Arc::new(Deployed { spec, revision, created_at });
        let mut standing = crate::catalog::Standing::unknown(wanted);
        standing.message = format!("revision {revision} is being started");
        entry.set_deployed(deployed.clone());
        self.changes.send_replace(());
        entry.set_standing(standing);
        self.provider.apply(&entry, deployed, wanted);
        Ok(())
    }

    /// Removes a function; its replicas drain.
    ///
    /// # Errors
    /// It does not exist, or its removal cannot be made durable.
    pub async fn remove(&self, id: &FunctionRef) -> Result<(), ChangeError> {
        let _turn = self.turns.of(id).await;
        let entry = self.known(id)?;
        self.store.remove(id.clone()).await?;
        self.catalog.remove(id);
        self.changes.send_replace(());
        entry.mark_removed();
        self.provider.remove(id);
        Ok(())
    }

    /// Sets how many replicas a function has, by its user's wish: until its load, or an alert, asks for another
    /// number.
    ///
    /// # Errors
    /// It does not exist, may not have so many, or the wish cannot be made durable.
    pub async fn scale(&self, id: &FunctionRef, replicas: u64) -> Result<(), ChangeError> {
        let _turn = self.turns.of(id).await;
        let entry = self.known(id)?;
        let max = entry.deployed().spec.scale.max;
        let wanted = u32::try_from(replicas).ok().filter(|wanted| *wanted <= max);
        let Some(wanted) = wanted else {
            return Err(ChangeError::Replicas { id: id.clone(), max, asked: replicas });
        };
        self.store.scale(id.clone(), wanted).await?;
        entry.marks.wish(wanted);
        entry.marks.set_floor(0);
        self.want(&entry, wanted);
        Ok(())
    }

    /// Sets how many replicas a function has now, because of its load: no wish of its user, so it is not kept
    /// for a next server. A function that was scaled to zero meanwhile stays there.
    pub async fn follow_load(&self, id: &FunctionRef, replicas: u32) {
        let _turn = self.turns.of(id).await;
        let Some(entry) = self.catalog.get(id) else { return };
        let Scale { min, max, .. } = entry.deployed().spec.scale;
        if entry.standing().wanted > 0 {
            tracing::info!(function = %id, replicas, "scaled by its load");
            self.want(&entry, replicas.clamp(min, max));
        }
    }

    /// An alert about a function's load fires, or is resolved (contract section 4.11). Like the load itself it
    /// is no wish of the user. While it fires the load takes no replica of it away.
    ///
    /// # Errors
    /// It does not exist.
    pub async fn alert(&self, id: &FunctionRef, is_firing: bool) -> Result<(), ChangeError> {
        let _turn = self.turns.of(id).await;
        let entry = self.known(id)?;
        let deployed = entry.deployed();
        let before = entry.standing().wanted;
        let wanted = on_alert(&deployed.spec.scale, before, is_firing);
        entry.marks.set_floor(if is_firing { wanted } else { 0 });
        // Nobody calls a function that has no replica: the end of an alert does not start it.
        if wanted != before && (before > 0 || is_firing) {
            tracing::info!(function = %id, replicas = wanted, is_firing, "scaled by an alert");
            self.want(&entry, wanted);
        }
        Ok(())
    }

    fn want(&self, entry: &Entry, wanted: u32) {
        let mut standing = crate::catalog::Standing::clone(&entry.standing());
        standing.wanted = wanted;
        entry.set_standing(standing);
        self.provider.want(&entry.id, wanted);
    }

    /// Removes a namespace with all that is in it.
    ///
    /// # Errors
    /// It is the default one, does not exist, or a removal cannot be made durable. What was removed by then is gone.
    pub async fn remove_namespace(&self, name: &str) -> Result<(), ChangeError> {
        let closed = self.namespaces.close(name).await?;
        let mut functions = self.catalog.all();
        functions.retain(|entry| entry.id.namespace() == name);
        let removals = functions.into_iter().map(|entry| async move {
            match self.remove(&entry.id).await {
                Ok(()) | Err(ChangeError::Unknown(_)) => Ok(()),
                Err(error) => Err(error),
            }
        });
        let removed = stream::iter(removals).buffer_unordered(REMOVALS_AT_ONCE);
        removed.try_for_each(|()| future::ready(Ok(()))).await?;
        self.namespaces.remove(closed).await?;
        self.secrets.forget_namespace(name);
        Ok(())
    }

    async fn check(
        &self,
        deployment: FunctionDeployment,
    ) -> Result<(FunctionSpec, Inside), ChangeError> {
        let spec = FunctionSpec::check(deployment)?;
        let namespace = spec.id.namespace();
        let inside = self.namespaces.enter(namespace).await?;
        if let Some(secret) =
            spec.secrets().into_iter().find(|name| !self.secrets.has(namespace, name))
        {
            return Err(ChangeError::NoSecret(secret.to_owned()));
        }
        self.provider.check(&spec)?;
        Ok((spec, inside))
    }

    /// Whether one more function may be in a namespace.
    fn fits(&self, most: Option<u32>, id: &FunctionRef) -> Result<(), ChangeError> {
        let Some(most) = most else { return Ok(()) };
        let namespace = id.namespace();
        let own =
            self.catalog.all().iter().filter(|entry| entry.id.namespace() == namespace).count();
        if own >= most as usize {
            return Err(ChangeError::Quota { namespace: namespace.to_owned(), most });
        }
        Ok(())
    }

    fn entry(&self, spec: FunctionSpec, stored: &Stored) -> Arc<Entry> {
        let created_at = stored.created_at.clone();
        let revision = stored.revision;
        let deployed = Deployed { spec, revision, created_at: created_at.clone() };
        let workers = self.catalog.workers();
        Arc::new(Entry::new(Arc::new(deployed), stored.replicas, created_at, workers))
    }

    fn known(&self, id: &FunctionRef) -> Result<Arc<Entry>, ChangeError> {
        self.catalog.get(id).ok_or_else(|| ChangeError::Unknown(id.clone()))
    }
}
