//! Functions in sandboxes of this host, by system calls; no daemon.
//!
//! The spawner makes each sandbox; a task per replica ([`life`]) speaks to its init. What a replica is, a
//! later server reads from its slot's directory ([`record`]).

mod endpoint;
mod errand;
mod id_ranges;
mod life;
mod line;
mod link;
mod loopback;
mod outside;
mod plan;
mod prepared;
mod probing;
mod record;
mod slots;
mod spawner;
mod usage;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use pinnace_core::{Exit, FunctionRef, FunctionSpec, Network, limits, probes::Probes, wire::Usage};
use pinnace_sandbox::{
    adoption,
    cgroup::Cgroups,
    host::Host,
    host_root::HostRoot,
    images::{ImageStore, Lease},
    protocol::{Expected, SlotSpec},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

pub use self::{
    errand::{Ended, Errand, Errands, Place, Printed},
    outside::{Outside, no_host_network, policy, resolvers},
    record::replicas_in,
    spawner::{GATEWAY, IdleSpawner, Kept, Losses, ROUTER, Served, Spawner, SpawnerPaths, quit},
};
use self::{
    life::Life,
    plan::{Defaults, WayOut},
    prepared::{Prepared, Preparer},
    record::{Door, Record},
    slots::SlotPool,
    spawner::Renewal,
    usage::{CpuSeen, Spent},
    waiting::Waiting,
};
use crate::{
    catalog::{Deployed, Entry},
    logs::{LogBook, LogQuery, LogStream},
    provider::{
        Provider, Refusal, Used,
        keeper::{Adopted, Event, Keeper, KeeperSettings, Reports, Runtime},
    },
    proxy::{
        admission::Activate,
        gateway::{Caller, Callers, OwnListener},
    },
    registry::Puller,
    secrets::Projections,
};

/// What the tasks of all replicas share.
pub struct Ground {
    spawner: Spawner,
    logs: LogBook,
    cgroups: Arc<Cgroups>,
    slots: Arc<SlotPool>,
    secrets: Projections,
    callers: Arc<Callers>,
    own_listeners: mpsc::UnboundedSender<OwnListener>,
    lives: Mutex<HashMap<String, LifeHandle>>,
    /// Of functions that are deployed.
    spent: Mutex<HashMap<FunctionRef, Spent>>,
}

struct LifeHandle {
    function: FunctionRef,
    /// Name of its control group.
    slot: String,
    /// Whether it shares the host's network.
    on_host: bool,
    stop: mpsc::Sender<Duration>,
    cpu_seen: CpuSeen,
}

/// What the provider is made of.
pub struct SandboxParts {
    /// Makes sandboxes.
    pub spawner: Spawner,
    /// Sandboxes that are made ahead at most.
    pub slots_max: usize,
    /// Keeps what functions print.
    pub logs: LogBook,
    /// Shows secrets to replicas.
    pub secrets: Projections,
    /// Bounds.
    pub cgroups: Arc<Cgroups>,
    /// What this host can do.
    pub host: Host,
    /// What functions reach beside the platform.
    pub outside: Outside,
    /// Who calls by the gateway.
    pub callers: Arc<Callers>,
    /// Where the gateway is told of the listeners of replicas on the host's network.
    pub own_listeners: mpsc::UnboundedSender<OwnListener>,
    /// Layers that come from no image.
    pub host_root: HostRoot,
    /// Images.
    pub images: Arc<ImageStore>,
    /// Brings images that are not there.
    pub puller: Puller,
    /// Directory of the slots' directories.
    pub slots: PathBuf,
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
    /// Replicas that have no sandbox yet.
    waiting: Waiting,
    host: Host,
    outside: ArcSwap<Outside>,
    /// What plans go by of what is outside.
    way_out: Arc<ArcSwap<WayOut>>,
    slots: PathBuf,
    expected: Expected,
}

/// A replica that an earlier server left.
pub struct Leftover {
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
        let SandboxParts { spawner, logs, secrets, cgroups, host, host_root, .. } = parts;
        let SandboxParts { images, puller, callers, own_listeners, .. } = parts;
        let has_ranges = host.id_ranges.is_ok();
        let slots =
            SlotPool::new(parts.slots.clone(), parts.slots_max, has_ranges, cgroups.clone());
        let slots = Arc::new(slots);
        let ground = Ground {
            spawner,
            logs,
            cgroups,
            slots,
            secrets,
            callers,
            own_listeners,
            lives: Mutex::default(),
            spent: Mutex::default(),
        };
        let defaults = Defaults { memory_bytes: parts.memory_bytes, pids: parts.pids };
        let way_out = parts.outside.way_out();
        // An image's function leaves unless it is told not to.
        let expected = Expected { bounds: defaults.bounds(), leaves: way_out.missing.is_none() };
        let way_out = Arc::new(ArcSwap::from_pointee(way_out));
        let sandboxes = Arc::new(Sandboxes {
            ground: Arc::new(ground),
            preparer: Preparer::new(
                images,
                puller,
                host_root,
                parts.programs,
                defaults,
                way_out.clone(),
            ),
            waiting: Waiting::default(),
            host,
            outside: ArcSwap::from_pointee(parts.outside),
            way_out,
            slots: parts.slots,
            expected,
        });
        let keeper = Keeper::start(sandboxes.clone(), settings);
        Self { keeper, sandboxes }
    }

    /// Begins to make sandboxes ahead. Not before what an earlier server left is cleared away. `losses` tells
    /// what the spawner has lost of them.
    pub fn make_slots(&self, losses: Losses) {
        let Sandboxes { ground, expected, .. } = &*self.sandboxes;
        tokio::spawn(ground.slots.clone().keep(ground.spawner.clone(), expected.clone(), losses));
    }

    /// Goes by each new network, and replaces the replicas that are not attached to it.
    pub fn renew(&self, mut renewals: mpsc::UnboundedReceiver<Renewal>) {
        let sandboxes = self.sandboxes.clone();
        tokio::spawn(async move {
            while let Some(Renewal { standing, cuts_off }) = renewals.recv().await {
                let outside = Outside { standing, ..Outside::clone(&sandboxes.outside.load()) };
                sandboxes.way_out.store(Arc::new(outside.way_out()));
                sandboxes.outside.store(Arc::new(outside));
                if !cuts_off {
                    continue;
                }
                let ground = &sandboxes.ground;
                for life in ground.lives().values().filter(|life| !life.on_host) {
                    // Full: it has been asked to stop already.
                    let _ = life.stop.try_send(limits::GRACE_DEFAULT);
                }
            }
        });
    }

    /// Finds what an earlier server left, and clears away what cannot be taken over.
    ///
    /// # Errors
    /// The directory of slots cannot be read.
    pub fn find_leftovers(&self) -> io::Result<HashMap<FunctionRef, Vec<Leftover>>> {
        let mut found: HashMap<FunctionRef, Vec<Leftover>> = HashMap::new();
        for entry in fs::read_dir(&self.sandboxes.slots)? {
            let dir = entry?.path();
            let Ok(record) = Record::read(&dir) else { continue };
            let (Ok(function), Ok(Some(init))) = (record.function(), adoption::Adopted::find(&dir))
            else {
                continue;
            };
            if !self.sandboxes.preparer.may_go_on(&record.slot) {
                continue;
            }
            self.sandboxes.ground.slots.claim(&record.slot);
            found.entry(function).or_default().push(Leftover { record, init });
        }
        for (slot, error) in self.sandboxes.ground.slots.sweep()?.left {
            tracing::warn!(%slot, %error, "remains of an earlier sandbox cannot be cleared away");
        }
        Ok(found)
    }

    /// Takes a function over from an earlier run, with the replicas that it left.
    pub fn restore(&self, entry: &Arc<Entry>, wanted: u32, leftovers: Vec<Leftover>) {
        let adopted = leftovers
            .iter()
            .map(|Leftover { record, .. }| Adopted {
                replica: record.replica.clone(),
                revision: record.revision,
            })
            .collect();
        self.sandboxes.ground.spent().entry(entry.id.clone()).or_default();
        self.keeper.apply(entry, entry.deployed(), wanted, adopted);
        for leftover in leftovers {
            let reports = self.keeper.reports(&entry.id, &leftover.record.replica);
            self.sandboxes.adopt(entry, leftover, reports);
        }
    }

    /// Ends replicas whose function is no more.
    ///
    /// # Errors
    /// Something of one stays.
    pub fn discard(&self, leftovers: impl IntoIterator<Item = Leftover>) -> io::Result<()> {
        let slots = &self.sandboxes.ground.slots;
        leftovers.into_iter().try_for_each(|leftover| slots.clear(&leftover.record.slot))
    }

    /// Shows secrets as they are now to the replicas that were taken over, and removes what others have left.
    ///
    /// # Errors
    /// A directory cannot be read or removed.
    pub fn renew_secrets(&self) -> io::Result<()> {
        self.sandboxes.ground.secrets.renew()
    }

    /// Runs single commands in sandboxes.
    #[must_use]
    pub fn errands(&self) -> Errands {
        let Sandboxes { ground, preparer, way_out, host, .. } = &*self.sandboxes;
        Errands::new(ground.clone(), preparer.host_root().clone(), way_out.clone(), host.root)
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
        self.sandboxes.ground.spent().entry(entry.id.clone()).or_default();
        self.keeper.apply(entry, deployed, wanted, Vec::new());
    }

    fn want(&self, id: &FunctionRef, replicas: u32) {
        self.keeper.want(id, replicas);
    }

    fn remove(&self, id: &FunctionRef) {
        self.keeper.remove(id);
        self.sandboxes.preparer.forget(id);
        self.sandboxes.ground.logs.forget(id);
        self.sandboxes.ground.spent().remove(id);
    }

    fn secret_changed<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let (ground, namespace, name) =
            (self.sandboxes.ground.clone(), namespace.to_owned(), name.to_owned());
        let refresh = spawn_blocking(move || ground.secrets.refresh(&namespace, &name));
        Box::pin(async move {
            let refreshed = refresh.await.map_err(|error| Refusal::Broken(error.to_string()))?;
            refreshed.map_err(|error| Refusal::Broken(error.to_string()))
        })
    }

    fn logs<'a>(
        &'a self,
        id: &'a FunctionRef,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Refusal>> {
        Box::pin(self.sandboxes.ground.logs.open(id, query))
    }

    fn missing(&self) -> Vec<String> {
        let Sandboxes { host, outside, ground, .. } = &*self.sandboxes;
        let mut missing = host.missing();
        missing.extend(outside.load().missing(host));
        missing.extend(ground.secrets.missing());
        missing
    }

    fn used(&self, wanted: Option<&HashSet<FunctionRef>>) -> HashMap<FunctionRef, Used> {
        self.sandboxes.ground.used(wanted)
    }

    fn usage(&self, id: &FunctionRef) -> Usage {
        self.sandboxes.ground.usage(id)
    }

    fn network(&self, spec: &FunctionSpec) -> Network {
        self.sandboxes.preparer.network(spec)
    }
}

impl Runtime for Sandboxes {
    fn start(self: Arc<Self>, replica: &str, deployed: &Arc<Deployed>, reports: Reports) {
        if let Some(prepared) = self.preparer.ready(deployed) {
            return self.launch(replica, deployed, prepared, reports);
        }
        let stopped = self.waiting.enter(replica);
        let (replica, deployed) = (replica.to_owned(), deployed.clone());
        tokio::spawn(self.start_when_prepared(replica, deployed, reports, stopped));
    }

    fn stop(&self, replica: &str, grace: Duration) {
        if self.waiting.stop(replica, grace) {
            return;
        }
        // Gone already: it has said so.
        let Some(stop) = self.ground.lives().get(replica).map(|life| life.stop.clone()) else {
            return;
        };
        // Full: it has been asked already.
        let _ = stop.try_send(grace);
    }
}

impl Sandboxes {
    async fn start_when_prepared(
        self: Arc<Self>,
        replica: String,
        deployed: Arc<Deployed>,
        reports: Reports,
        mut stopped: oneshot::Receiver<Duration>,
    ) {
        let prepared = tokio::select! {
            prepared = self.preparer.prepare(&deployed, &reports) => prepared,
            Ok(_) = &mut stopped => return reports.send(Event::Gone(Exit::Stopped)).await,
        };
        self.launch(&replica, &deployed, prepared, reports);
        self.waiting.leave(&replica);
        if let Ok(grace) = stopped.try_recv() {
            self.stop(&replica, grace);
        }
    }

    fn launch(
        &self,
        replica: &str,
        deployed: &Arc<Deployed>,
        prepared: Result<Arc<Prepared>, Refusal>,
        reports: Reports,
    ) {
        let function = deployed.spec.id.clone();
        let started = prepared.and_then(|prepared| {
            self.ground
                .slot(prepared.door(), prepared.is_on_host())
                .map_err(|error| Refusal::Broken(format!("it gets no slot: {error}")))
                .map(|(slot, listeners)| (slot, listeners, prepared))
        });
        match started {
            Ok((slot, listeners, prepared)) => {
                let record = prepared.record(replica, deployed, slot.clone());
                let spec = prepared.sandbox(replica, slot.clone());
                let (door, layers) = (prepared.door(), prepared.lease());
                let mut life = self.life(replica, function, slot, (door, layers), reports);
                life.probes = deployed.spec.probes.clone();
                life.network = prepared.network();
                if record.secrets.is_empty() {
                    tokio::spawn(life.start(spec, listeners, record));
                } else {
                    tokio::spawn(life.start_with_secrets(spec, listeners, record));
                }
            }
            Err(refusal) => {
                let exit = Exit::CannotStart { reason: refusal.to_string() };
                tokio::spawn(async move { reports.send(Event::Gone(exit)).await });
            }
        }
    }

    fn adopt(&self, entry: &Entry, leftover: Leftover, reports: Reports) {
        let Record { replica, door, image, slot, revision, secrets, .. } = leftover.record;
        if !secrets.is_empty() {
            self.ground.secrets.take_over(&replica, entry.id.namespace(), secrets);
        }
        let deployed = entry.deployed();
        let probes = (revision == deployed.revision).then(|| deployed.spec.probes.clone());
        let layers = image.and_then(|digest| self.preparer.lease(&digest));
        let mut life = self.life(&replica, entry.id.clone(), slot, (door, layers), reports);
        // Of an earlier revision nobody knows it any more.
        life.network = match probes {
            Some(_) => self.preparer.network(&deployed.spec),
            None => Network::None,
        };
        life.probes = probes.unwrap_or_default();
        self.ground.note_adoption(&replica);
        tokio::spawn(life.adopt(leftover.init.pidfd));
    }

    fn life(
        &self,
        id: &str,
        function: FunctionRef,
        slot: SlotSpec,
        (door, layers): (Door, Option<Arc<Lease>>),
        reports: Reports,
    ) -> Life {
        let (stop, stops) = mpsc::channel(1);
        let group = slot.name.clone();
        let on_host = slot.host_gateway.is_some();
        let function_of = function.clone();
        let cpu_seen = CpuSeen::new(crate::clock::now());
        let handle = LifeHandle { function: function_of, slot: group, on_host, stop, cpu_seen };
        self.ground.lives().insert(id.to_owned(), handle);
        Life {
            id: id.to_owned(),
            function,
            slot,
            door,
            ground: self.ground.clone(),
            reports,
            stops,
            layers,
            probes: Probes::default(),
            network: Network::None,
        }
    }
}

impl Ground {
    fn spent(&self) -> MutexGuard<'_, HashMap<FunctionRef, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<String, LifeHandle>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot, with the listeners that the start of a replica with this door needs.
    fn slot(&self, door: Door, on_host: bool) -> io::Result<(SlotSpec, Vec<OwnedFd>)> {
        let slot = if on_host { self.slots.take_on_host() } else { self.slots.take() }?;
        slot.with_listeners(door).map_err(|(spec, error)| {
            self.slots.discard(spec);
            error
        })
    }

    /// A replica has got another slot.
    fn moved(&self, id: &str, slot: &SlotSpec) {
        if let Some(life) = self.lives().get_mut(id) {
            life.slot = slot.name.clone();
        }
    }

    /// A replica's place in the network is known.
    fn located(
        &self,
        id: &str,
        function: &FunctionRef,
        address: std::net::Ipv4Addr,
        network: Network,
    ) {
        let caller = Caller { function: function.clone(), replica: id.to_owned(), network };
        self.callers.register(address, caller);
    }

    fn forget(&self, id: &str) {
        self.note_end(id);
        self.lives().remove(id);
        self.callers.forget(id);
    }
}
