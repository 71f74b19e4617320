//! Functions in sandboxes of this host, by system calls; no daemon.
//!
//! The spawner makes each sandbox; a task per replica ([`life`]) speaks to its init. What a replica is, a
//! later server reads from its directory ([`record`]).

mod endpoint;
mod life;
mod link;
mod plan;
mod prepared;
mod record;
mod spawner;

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use pinnace_core::{Exit, FunctionRef, FunctionSpec, wire::Usage};
use pinnace_sandbox::{
    adoption,
    cgroup::Cgroups,
    host::Host,
    host_root::HostRoot,
    images::{ImageStore, Lease},
    protocol::SandboxSpec,
    sweep,
};
use tokio::sync::mpsc;

pub use self::spawner::{IdleSpawner, Kept, Spawner, SpawnerPaths, quit};
use self::{
    endpoint::UnixConnector,
    life::Life,
    plan::Defaults,
    prepared::{Prepared, Preparer},
    record::{Door, Record},
};
use crate::{
    catalog::{Deployed, Entry},
    logs::{LogBook, LogQuery, LogStream},
    provider::{
        Provider, Refusal,
        keeper::{Adopted, Event, Keeper, KeeperSettings, Reports, Runtime},
    },
    proxy::admission::Activate,
};

/// First of the host ids that sandboxes use, 65,536 for each function.
const ID_BASE: u32 = 0x2000_0000;

/// Ranges of so many ids that there are from there on. Functions beyond that number share them.
const ID_RANGES: u32 = (u32::MAX - ID_BASE) / 65_536;

/// What the tasks of all replicas share.
pub struct Ground {
    spawner: Spawner,
    logs: LogBook,
    cgroups: Arc<Cgroups>,
    lives: Mutex<HashMap<String, LifeHandle>>,
}

struct LifeHandle {
    function: FunctionRef,
    stop: mpsc::Sender<Duration>,
    cpu_seen: Option<(u64, std::time::Instant)>,
}

/// What the provider is made of.
pub struct SandboxParts {
    /// Makes sandboxes.
    pub spawner: Spawner,
    /// Keeps what functions print.
    pub logs: LogBook,
    /// Bounds.
    pub cgroups: Arc<Cgroups>,
    /// What this host can do.
    pub host: Host,
    /// Layers that come from no image.
    pub host_root: HostRoot,
    /// Images.
    pub images: Arc<ImageStore>,
    /// Directory of the replicas' directories.
    pub replicas: PathBuf,
    /// Directory of our programs.
    pub programs: PathBuf,
    /// Memory of a replica that names no limit, in bytes.
    pub memory_bytes: u64,
    /// Processes and threads of a replica.
    pub pids: u32,
}

/// The default provider.
pub struct SandboxProvider {
    keeper: Keeper,
    sandboxes: Arc<Sandboxes>,
}

/// Starts and stops single sandboxes.
struct Sandboxes {
    ground: Arc<Ground>,
    preparer: Preparer,
    host: Host,
    replicas: PathBuf,
}

/// A replica that an earlier server left.
pub struct Leftover {
    id: String,
    record: Record,
    init: adoption::Adopted,
}

impl Leftover {
    /// Whether it is a replica of this very function, not of an earlier one of the same name.
    #[must_use]
    pub fn belongs_to(&self, entry: &Entry) -> bool {
        self.record.created_at == entry.created_at
    }
}

impl SandboxProvider {
    /// A provider without replicas.
    #[must_use]
    pub fn start(parts: SandboxParts, settings: KeeperSettings) -> Self {
        let SandboxParts { spawner, logs, cgroups, host, host_root, images, .. } = parts;
        let ground = Ground { spawner, logs, cgroups, lives: Mutex::default() };
        let defaults = Defaults { memory_bytes: parts.memory_bytes, pids: parts.pids };
        let sandboxes = Arc::new(Sandboxes {
            ground: Arc::new(ground),
            preparer: Preparer::new(images, host_root, parts.programs, defaults),
            host,
            replicas: parts.replicas,
        });
        let keeper = Keeper::start(sandboxes.clone(), settings);
        Self { keeper, sandboxes }
    }

    /// Finds what an earlier server left, and clears away what cannot be taken over.
    ///
    /// # Errors
    /// The directory of replicas cannot be read.
    pub fn find_leftovers(&self) -> io::Result<HashMap<FunctionRef, Vec<Leftover>>> {
        let mut found: HashMap<FunctionRef, Vec<Leftover>> = HashMap::new();
        let mut live = std::collections::BTreeSet::new();
        for entry in fs::read_dir(&self.sandboxes.replicas)? {
            let dir = entry?.path();
            let Some(id) = dir.file_name().and_then(|name| name.to_str()) else { continue };
            let Ok(record) = Record::read(&dir) else { continue };
            let (Ok(function), Ok(Some(init))) = (record.function(), adoption::Adopted::find(&dir))
            else {
                continue;
            };
            live.insert(id.to_owned());
            found.entry(function).or_default().push(Leftover { id: id.to_owned(), record, init });
        }
        self.sandboxes.sweep(&live)?;
        Ok(found)
    }

    /// Takes a function over from an earlier run, with the replicas that it left.
    pub fn restore(&self, entry: &Arc<Entry>, wanted: u32, leftovers: Vec<Leftover>) {
        let adopted = leftovers
            .iter()
            .map(|left| Adopted { replica: left.id.clone(), revision: left.record.revision })
            .collect();
        self.keeper.apply(entry, entry.deployed(), wanted, adopted);
        for leftover in leftovers {
            let reports = self.keeper.reports(&entry.id, &leftover.id);
            self.sandboxes.adopt(&entry.id, leftover, reports);
        }
    }

    /// Ends replicas whose function is no more.
    pub fn discard(&self, leftovers: impl IntoIterator<Item = Leftover>) -> io::Result<()> {
        for leftover in leftovers {
            leftover.init.kill()?;
        }
        let live = self.sandboxes.ground.lives().keys().cloned().collect();
        self.sandboxes.sweep(&live)
    }

    /// Drains and ends every replica, then the spawner.
    pub async fn end_all(&self) {
        self.keeper.end_all().await;
        self.sandboxes.ground.spawner.quit().await;
    }
}

impl Activate for SandboxProvider {
    fn activate(&self, entry: &Arc<Entry>) {
        self.keeper.activate(entry);
    }
}

impl Provider for SandboxProvider {
    fn check(&self, spec: &FunctionSpec) -> Result<(), Refusal> {
        self.sandboxes.preparer.check(spec)
    }

    fn apply(&self, entry: &Arc<Entry>, deployed: Arc<Deployed>, wanted: u32) {
        self.sandboxes.ground.logs.remember(&entry.id);
        self.keeper.apply(entry, deployed, wanted, Vec::new());
    }

    fn want(&self, id: &FunctionRef, replicas: u32) {
        self.keeper.want(id, replicas);
    }

    fn remove(&self, id: &FunctionRef) {
        self.keeper.remove(id);
        self.sandboxes.preparer.forget(id);
        self.sandboxes.ground.logs.forget(id);
    }

    fn logs<'a>(
        &'a self,
        id: &'a FunctionRef,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Refusal>> {
        Box::pin(self.sandboxes.ground.logs.open(id, query))
    }

    fn missing(&self) -> Vec<String> {
        self.sandboxes.host.missing()
    }

    fn usage(&self, id: &FunctionRef) -> Usage {
        self.sandboxes.ground.usage(id)
    }
}

impl Runtime for Sandboxes {
    fn start(&self, replica: &str, deployed: &Arc<Deployed>, reports: Reports) {
        let function = deployed.spec.id.clone();
        let started = self.preparer.prepare(deployed).and_then(|prepared| {
            self.begin(replica, deployed, &prepared)
                .map_err(|error| Refusal::Broken(format!("its directory cannot be made: {error}")))
                .map(|(spec, listener)| (spec, listener, prepared))
        });
        match started {
            Ok((spec, listener, prepared)) => {
                let (door, layers) = (prepared.door(), prepared.lease());
                let life = self.life(replica, function, door, layers, reports);
                tokio::spawn(life.start(spec, listener));
            }
            Err(refusal) => {
                let exit = Exit::CannotStart { reason: refusal.to_string() };
                tokio::spawn(async move { reports.send(Event::Gone(exit)).await });
            }
        }
    }

    fn stop(&self, replica: &str, grace: Duration) {
        // Gone already: it has said so.
        let Some(stop) = self.ground.lives().get(replica).map(|life| life.stop.clone()) else {
            return;
        };
        // Full: it has been asked already.
        let _ = stop.try_send(grace);
    }
}

impl Sandboxes {
    fn begin(
        &self,
        replica: &str,
        deployed: &Deployed,
        prepared: &Prepared,
    ) -> io::Result<(SandboxSpec, Option<std::os::fd::OwnedFd>)> {
        let dir = self.replicas.join(replica);
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        prepared.record(deployed).write(&dir)?;
        let listener = match prepared.door() {
            Door::Socket => Some(UnixConnector::listen(&dir)?),
            Door::Port(_) => None,
        };
        let id_base =
            self.host.id_ranges.is_ok().then(|| ID_BASE + deployed.slot % ID_RANGES * 65_536);
        Ok((prepared.sandbox(replica, dir, id_base), listener))
    }

    fn adopt(&self, function: &FunctionRef, leftover: Leftover, reports: Reports) {
        let Record { door, image, .. } = leftover.record;
        let layers = image.and_then(|digest| self.preparer.lease(&digest));
        let life = self.life(&leftover.id, function.clone(), door, layers, reports);
        tokio::spawn(life.adopt(leftover.init.pidfd));
    }

    fn life(
        &self,
        id: &str,
        function: FunctionRef,
        door: Door,
        layers: Option<Arc<Lease>>,
        reports: Reports,
    ) -> Life {
        let (stop, stops) = mpsc::channel(1);
        let handle = LifeHandle { function: function.clone(), stop, cpu_seen: None };
        self.ground.lives().insert(id.to_owned(), handle);
        Life {
            id: id.to_owned(),
            function,
            dir: self.replicas.join(id),
            door,
            ground: self.ground.clone(),
            reports,
            stops,
            layers,
        }
    }

    fn sweep(&self, live: &std::collections::BTreeSet<String>) -> io::Result<()> {
        let swept = sweep::sweep(&self.replicas, &self.ground.cgroups, live)?;
        for (replica, error) in swept.left {
            tracing::warn!(%replica, %error, "remains of an earlier replica cannot be cleared away");
        }
        Ok(())
    }
}

impl Ground {
    fn lives(&self) -> MutexGuard<'_, HashMap<String, LifeHandle>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: &str) {
        self.lives().remove(id);
    }

    /// What a function's replicas use now; processor time as the mean since it was last asked for.
    fn usage(&self, function: &FunctionRef) -> Usage {
        let now = crate::clock::now();
        let mut sum = Usage::default();
        for (id, life) in self.lives().iter_mut().filter(|(_, life)| life.function == *function) {
            let Some(used) = self.cgroups.usage(id) else { continue };
            sum.total_memory_bytes += used.memory_bytes as f64;
            if let Some((cpu_ns, at)) = life.cpu_seen.replace((used.cpu_ns, now)) {
                let wall_ns = now.saturating_duration_since(at).as_nanos().max(1) as f64;
                sum.cpu += used.cpu_ns.saturating_sub(cpu_ns) as f64 / wall_ns * 1000.0;
            }
        }
        sum
    }
}
