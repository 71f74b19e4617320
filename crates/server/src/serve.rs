//! From settings to a running server, and back to nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use pinnace_core::{FunctionRef, queue::RetryPolicy};
use pinnace_sandbox::{
    allocator,
    cgroup::Cgroups,
    host::Host,
    host_root,
    images::{ImageStore, Ownership},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, mpsc, oneshot, watch},
};

use crate::{
    api::{Access, Api, ControlPlane, Password, USER},
    builder::{self, Builder, BuilderParts},
    catalog::Catalog,
    certificate::Certificate,
    deployments::Deployments,
    descriptors,
    distribution::{Distribution, OwnHosts},
    listeners::Listeners,
    logs::LogBook,
    metrics::{self, Metrics, Requests},
    namespaces::Namespaces,
    provider::{
        keeper::KeeperSettings,
        sandbox::{
            self, GATEWAY, Outside, SandboxParts, SandboxProvider, Served, Spawner, SpawnerPaths,
        },
    },
    proxy::{
        call::Calls,
        door::Door,
        gateway::{Callers, Gateway, Hall},
        sweeping::Sweeping,
        worker::{HandedOver, Shared, Worker},
    },
    queue::{AsyncQueue, Callbacks, Delivery, Pump},
    registry::{OwnRegistry, Puller},
    rest,
    scaler::Scaler,
    schedules::Schedules,
    secrets::{Projections, Seal, Secrets},
    settings::Settings,
    state_dir::StateDir,
    store::{Kept, Store, Stored},
    tokens::Issuer,
};

/// Threads of the control plane.
const CONTROL_THREADS: usize = 2;

/// How much longer than the drain the end of all replicas may take.
const END_MAX: Duration = Duration::from_secs(30);

/// Runs the server until SIGINT or SIGTERM, then drains, stops what it started, and returns.
///
/// # Errors
/// It cannot start: the state directory is in use, the address is taken, the host lacks what it needs.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    allocator::give_back_at_once();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("the control plane has no threads")?;
    let ended = runtime.block_on(serve(settings));
    // What still runs has had its time: threads that wait for a client are not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let state = StateDir::open(&settings.state_dir, settings.run_dir.as_deref())?;
    let mut signals = Signals::new()?;
    let started = match Started::new(settings, &state).await {
        Ok(started) => started,
        Err(error) => {
            // Replicas of an earlier server wait for the next try; a spawner alone waits for nobody.
            if !state.has_replicas() {
                crate::down::clear(state.path()).await?;
            }
            return Err(error);
        }
    };
    started.announce(settings, &state)?;
    signals.next().await;
    tracing::info!(drain = ?settings.drain, "ending: calls under way may finish; a second signal skips that");
    tokio::select! {
        () = started.end(settings.drain) => {}
        () = signals.next() => tracing::warn!("ending at once"),
    }
    crate::down::clear(state.path()).await?;
    Ok(())
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A running server.
struct Started {
    provider: Arc<SandboxProvider>,
    workers: Vec<JoinHandle<()>>,
    deliveries: Deliveries,
    ending: watch::Sender<bool>,
    address: std::net::SocketAddr,
    missing: Vec<String>,
    /// The password, if it was made just now.
    new_password: Option<String>,
}

/// The delivery of asynchronous calls.
struct Deliveries {
    task: tokio::task::JoinHandle<()>,
    /// Tells it that calls under way have had their time.
    drained: oneshot::Sender<()>,
}

impl Started {
    async fn new(settings: &Settings, state: &StateDir) -> anyhow::Result<Self> {
        let certificate = settings.certificate.clone().map(Certificate::load).transpose()?;
        let certificate = certificate.map(Arc::new);
        let shares = descriptors::share_out();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        tracing::info!(
            descriptors = shares.limit,
            client_connections_max = shares.clients,
            workers,
            "limits"
        );
        state.remove_older_programs(&settings.programs);
        let cgroups = Arc::new(Cgroups::detect(&StateDir::name(state.path()), &state.run()));
        // Before there is a spawner, which starts where this process is.
        cgroups.prepare().context("control groups cannot be made")?;
        if let Err(error) = cgroups.note_owner(state.path()) {
            tracing::debug!(%error, "control groups do not say whose they are");
        }
        let spawner_program = settings.programs.join("pinnace-spawner");
        let host = Host::probe(&spawner_program, state.path(), &cgroups)
            .context("what this host can do is unknown")?;
        let images = open_images(state, &host)?;
        let distribution =
            Distribution::open(&state.path().join("registry"), settings.image_bytes_max);
        let distribution = Arc::new(distribution.context("the registry cannot be opened")?);
        let (store, kept_state) = Store::open(&state.path().join("functions.db"))?;
        let Kept { functions, namespaces, secrets } = kept_state;
        let secrets = open_secrets(state, secrets, &store)?;
        let projections = Projections::new(state.secrets(), secrets.clone())
            .context("secrets cannot be shown to functions")?;
        let queue = AsyncQueue::open(state.path(), settings.async_body_bytes_max)?;
        let mut owners: HashSet<String> = functions.keys().map(ToString::to_string).collect();
        let logs = LogBook::start(&state.path().join("logs"), settings.log_files_max)
            .context("the logs have no thread")?;
        let paths = SpawnerPaths {
            programs: settings.programs.clone(),
            run: state.run(),
            name: StateDir::name(state.path()),
        };
        let (spawner, mut kept) = Spawner::find_or_start(paths).await?;
        let http = Listeners::take_or_bind_all(&mut kept, "http", &settings.listen, workers)?;
        let address = http.first().context("no address is served")?.address();
        let metrics = Listeners::take_or_bind(&mut kept, "metrics", settings.metrics_listen, 1)?;
        let own = OwnRegistry {
            hosts: OwnHosts::new(
                http.iter().map(Listeners::address).collect(),
                settings.certificate.is_some(),
                settings.external_url.as_deref(),
            ),
            store: distribution.clone(),
        };
        let puller =
            Puller::new(images.clone(), settings.registry.clone(), own, settings.image_bytes_max);
        // Clients on this host send the password only where this says that we listen.
        if let Err(error) = std::fs::write(state.run().join("listen"), address.to_string()) {
            tracing::warn!(%error, "clients on this host will not find the password by themselves");
        }
        let mut copies = metrics.copies()?;
        for listeners in &http {
            copies.extend(listeners.copies()?);
        }
        // The gateway's listener of an earlier server.
        copies.extend(kept.into_iter().filter(|(name, _)| name == GATEWAY));
        let resolvers = sandbox::resolvers();
        let policy = sandbox::policy(&settings.allow_net, &resolvers);
        let Served { spawner, losses, standing, gateways, renewals } =
            spawner.serve(copies, policy).await?;
        let no_host = sandbox::no_host_network(settings.auth, &host);
        let outside = Outside { standing, resolvers, no_host };
        let callers = Arc::new(Callers::default());
        let (own_listeners, opened) = mpsc::unbounded_channel();

        let mut missing = host.missing();
        missing.extend(outside.missing(&host));
        missing.extend(projections.missing());
        let parts = SandboxParts {
            spawner,
            slots_max: settings.slots_max,
            logs,
            secrets: projections,
            cgroups,
            host,
            outside,
            callers: callers.clone(),
            own_listeners,
            host_root: host_root::prepare(&state.path().join("root"))?,
            images: images.clone(),
            puller: puller.clone(),
            slots: state.slots(),
            programs: settings.programs.clone(),
            memory_bytes: settings.memory_bytes,
            pids: settings.pids,
        };
        let keeper = KeeperSettings {
            workers,
            zero_by_default: settings.zero_by_default,
            call_deadline: settings.call_deadline,
        };
        let provider = Arc::new(SandboxProvider::start(parts, keeper));
        let catalog = Arc::new(Catalog::new(workers));
        let namespaces = Namespaces::new(namespaces, store.clone());
        let deployments = Arc::new(Deployments::new(
            catalog.clone(),
            provider.clone(),
            namespaces,
            secrets,
            store,
        ));
        restore(&deployments, &provider, functions, settings.zero_by_default)?;
        provider.make_slots(losses);
        provider.renew(renewals);
        // What an interrupted removal left; layers that adopted replicas run on are leased by now.
        let swept = images.clone();
        let sweep = move || {
            owners.extend(swept.list()?.iter().map(|image| builder::pin_owner(&image.reference)));
            swept.unpin_others(&owners)?;
            swept.collect_garbage(&HashSet::new())
        };
        tokio::task::spawn_blocking(sweep).await??;

        let (password, is_new) = state.password()?;
        state.keep_user(USER)?;
        let new_password = is_new.then(|| password.clone());
        let access =
            if settings.auth { Access::Password(Password::new(&password)) } else { Access::Open };
        let issuer = open_issuer(settings, state)?;
        let image_bytes_max = settings.image_bytes_max;
        let (ending, is_ending) = watch::channel(false);
        if let Some(scaler) = Scaler::new(deployments.clone()) {
            tokio::spawn(scaler.run());
        }
        tokio::spawn(Distribution::collect_always(Arc::downgrade(&distribution)));
        let parts = BuilderParts {
            images: images.clone(),
            puller: puller.clone(),
            errands: provider.errands(),
            state: state.path().to_owned(),
            run: state.run(),
            settings: settings.builder.clone(),
            ending: is_ending.clone(),
        };
        let builder = Builder::open(parts).context("images cannot be built")?;
        let requests = Arc::new(Requests::default());
        let changes = deployments.changes();
        tokio::spawn(rest::give_back_at_rest(deployments.changes()));
        let schedules = settings.schedules.then(|| Schedules::new(catalog.clone(), queue.clone()));
        let api = Arc::new(Api {
            deployments,
            access,
            issuer,
            external_url: settings.external_url.clone(),
            has_tls: settings.certificate.is_some(),
            requests: requests.clone(),
            queue: queue.clone(),
            schedules: schedules.clone(),
            images,
            puller,
            distribution: distribution.clone(),
            builder,
            image_bytes_max,
            ending: is_ending.clone(),
        });
        let ports = http.iter().map(Listeners::address).chain([metrics.address()]);
        let ports = ports.map(|address| address.port()).collect();
        let sources =
            || Metrics::new(catalog.clone(), provider.clone(), requests.clone(), queue.clone());
        serve_metrics(metrics, sources)?;
        let connections_max = (shares.clients / workers).max(1);
        let shared = Arc::new(Shared {
            control: Arc::new(ControlPlane::new(api, tokio::runtime::Handle::current())),
            certificate: certificate.clone(),
            places: (0..workers).map(|_| Arc::new(Semaphore::new(connections_max))).collect(),
            connections_max,
            ending: is_ending,
        });
        if let Some(certificate) = certificate {
            tokio::spawn(certificate.keep_fresh());
        }
        let calls = |worker| Calls {
            catalog: catalog.clone(),
            activate: provider.clone(),
            queue: queue.clone(),
            requests: requests.clone(),
            deadline: settings.call_deadline,
            worker,
            sweeping: Sweeping::default(),
        };
        let (outboxes, inboxes) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        if let Some(schedules) = schedules {
            tokio::spawn(schedules.run(changes, shared.ending.clone()));
        }
        let (drained, is_drained) = oneshot::channel();
        let delivery = Delivery {
            queue: queue.clone(),
            catalog: catalog.clone(),
            door: Door::new(shared.places.clone(), Vec::clone(&outboxes)),
            callbacks: Callbacks::new(ports, &settings.allow_net),
            policy: RetryPolicy::default(),
            ending: shared.ending.clone(),
        };
        let pump = Pump {
            queue: queue.clone(),
            delivery: Arc::new(delivery),
            ending: shared.ending.clone(),
            drained: is_drained,
        };
        let gateway = Gateway {
            hall: Hall { callers, places: shared.places.clone(), inboxes: Vec::clone(&outboxes) },
            listeners: gateways,
            own_listeners: opened,
            ending: shared.ending.clone(),
        };
        tokio::spawn(gateway.run());
        let workers = start_workers(http, &shared, (outboxes, inboxes), calls)?;
        let deliveries = Deliveries { task: tokio::spawn(pump.run()), drained };
        Ok(Self { provider, workers, deliveries, ending, address, missing, new_password })
    }

    /// Says on standard output where the server is, and on the log what the host cannot do.
    fn announce(&self, settings: &Settings, state: &StateDir) -> anyhow::Result<()> {
        for missing in &self.missing {
            tracing::warn!("{missing}");
        }
        let scheme = if settings.certificate.is_some() { "https" } else { "http" };
        println!("Pinnace {} is up at {scheme}://{}", env!("CARGO_PKG_VERSION"), self.address);
        println!("State is kept in {}", state.path().display());
        if settings.auth {
            let file = state.path().join("basic-auth-password");
            match &self.new_password {
                Some(password) => {
                    println!("User admin, password {password}");
                    println!("It is shown this once and kept in {}", file.display());
                }
                None => println!("User admin, password in {}", file.display()),
            }
        } else {
            println!("No password is asked for");
        }
        Ok(())
    }

    /// Lets calls under way finish, then ends every replica.
    async fn end(self, drain: Duration) {
        let Self { provider, workers, deliveries, ending, .. } = self;
        let _ = ending.send(true);
        let workers = tokio::task::spawn_blocking(move || {
            for worker in workers {
                drop(worker.join());
            }
        });
        if tokio::time::timeout(drain, workers).await.is_err() {
            tracing::warn!(?drain, "calls were still under way when the drain ended (`--drain`)");
        }
        let _ = deliveries.drained.send(());
        let _ = deliveries.task.await;
        if tokio::time::timeout(END_MAX, provider.end_all()).await.is_err() {
            tracing::warn!("replicas that did not end are killed");
        }
    }
}

fn open_images(state: &StateDir, host: &Host) -> anyhow::Result<Arc<ImageStore>> {
    let ownership = if host.root { Ownership::Real } else { Ownership::Squashed };
    Ok(Arc::new(ImageStore::open(&state.path().join("images"), ownership)?))
}

/// Takes over what earlier servers left: functions from the store, replicas from their directories.
fn restore(
    deployments: &Deployments,
    provider: &SandboxProvider,
    functions: BTreeMap<FunctionRef, Stored>,
    zero_by_default: bool,
) -> anyhow::Result<()> {
    let mut leftovers = provider.find_leftovers().context("replicas cannot be looked for")?;
    let mut discarded = Vec::new();
    for (entry, stored) in deployments.restore(functions) {
        let left = leftovers.remove(&entry.id).unwrap_or_default();
        let (left, strangers): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|leftover| leftover.belongs_to(&entry));
        discarded.extend(strangers);
        let running = u32::try_from(left.len()).unwrap_or(u32::MAX);
        // What was wished for holds, however many were running. A function that may be at zero, or was wished
        // there, stays there until it is called; one that a call had woken goes on.
        let may_be_zero = entry.deployed().spec.scale.to_zero.unwrap_or(zero_by_default);
        let wanted = match stored.replicas {
            replicas if may_be_zero || replicas == 0 => replicas.max(1).min(running),
            replicas => replicas,
        };
        provider.restore(&entry, wanted, left);
    }
    provider.discard(leftovers.into_values().flatten().chain(discarded))?;
    provider.renew_secrets().context("secrets of earlier replicas cannot be looked through")?;
    Ok(())
}

fn open_secrets(
    state: &StateDir,
    names: BTreeMap<String, BTreeSet<String>>,
    store: &Store,
) -> anyhow::Result<Arc<Secrets>> {
    let path = state.path().join("secrets.key");
    let (seal, is_new) = Seal::open(&path)
        .with_context(|| format!("the key of secrets, {}, cannot be used", path.display()))?;
    if is_new && !names.is_empty() {
        tracing::error!(
            key = %path.display(),
            "the key of the secrets was gone, and a new one is there: they cannot be read until the old key is back, \
             or each is set anew"
        );
    }
    Ok(Arc::new(Secrets::new(names, seal, store.clone())))
}

fn open_issuer(settings: &Settings, state: &StateDir) -> anyhow::Result<Arc<Issuer>> {
    let (issuer, is_new) = Issuer::open(state.path(), settings.external_url.as_deref())?;
    if is_new && state.has_replicas() {
        tracing::warn!(
            "the key of tokens was gone, and a new one is there: functions that ask for tokens (`jwt_auth`) take none \
             until they are started anew"
        );
    }
    Ok(Arc::new(issuer))
}

fn serve_metrics(listeners: Listeners, sources: impl Fn() -> Metrics) -> anyhow::Result<()> {
    for socket in listeners.sockets {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        let router = metrics::router(sources());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
    }
    Ok(())
}

fn start_workers(
    mut http: Vec<Listeners>,
    shared: &Arc<Shared>,
    (outboxes, inboxes): (
        Vec<mpsc::UnboundedSender<HandedOver>>,
        Vec<mpsc::UnboundedReceiver<HandedOver>>,
    ),
    calls: impl Fn(usize) -> Calls,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let workers = inboxes.into_iter().enumerate();
    workers
        .map(|(number, inbox)| {
            let (outboxes, shared) = (outboxes.clone(), shared.clone());
            let listeners = http.iter_mut().filter_map(|address| address.sockets.pop()).collect();
            let worker = Worker { calls: calls(number), listeners, inbox, outboxes, shared };
            worker.start().context("a worker cannot start")
        })
        .collect()
}
