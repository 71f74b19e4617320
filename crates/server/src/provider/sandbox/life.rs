//! The life of one replica, from the first word of its init to the last trace of it, as one task.
//!
//! A replica that this server starts and one that an earlier server left differ only in where their init
//! comes from; from the connection to it on they are the same.

use std::{fs, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use pinnace_core::{Exit, FunctionRef, Network, limits, probes::Probes, secret};
use pinnace_sandbox::{
    adoption::kill,
    channel::Channel,
    directory,
    images::Lease,
    protocol::{Bind, FromInit, SandboxSpec, SlotSpec, ToInit},
};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Ground,
    endpoint::{NamespaceConnector, UnixConnector},
    link::Link,
    probing::{Found, Prober},
    record::{Door, Record},
    spawner::{StartFailure, Started},
};
use crate::{
    logs::Source,
    provider::keeper::{Event, Reports},
    proxy::gateway::{KeptOpen, OwnListener},
    replica::Endpoint,
    watched::watched,
};

/// How much longer than the function's grace period its init may take to end.
const INIT_END_MAX: Duration = Duration::from_secs(5);

/// Spawners that may die over one start.
const SPAWNER_DEATHS_MAX: u32 = 5;

/// Pipes that an init sends first of its descriptors.
const PIPES: usize = 2;

/// How long the connection by which an init has found that its function listens is kept for a first call. A
/// function that serves one connection at a time serves no other meanwhile.
const FIRST_CONNECTION_KEPT: Duration = Duration::from_millis(20);

/// Sockets of its namespace are asked for when fewer than this are left.
const SOCKETS_LOW: usize = 4;

/// So many at once. Each is a descriptor of the server's, for each replica.
const SOCKETS_ASKED: u32 = 8;
const _: () = assert!(SOCKETS_ASKED <= limits::SOCKETS_PER_REQUEST_MAX);

/// A replica and what it needs to live.
pub struct Life {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub function: FunctionRef,
    /// Its slot.
    pub slot: SlotSpec,
    /// How it is reached.
    pub door: Door,
    /// What it needs of the provider.
    pub ground: Arc<Ground>,
    /// Where it reports.
    pub reports: Reports,
    /// Where it hears that it is to stop, and how much time it has.
    pub stops: mpsc::Receiver<Duration>,
    /// Keeps the layers that it runs on, `None` for image `host`.
    pub layers: Option<Arc<Lease>>,
    /// How it is asked whether it is ready and healthy.
    pub probes: Probes,
    /// What it reaches beside the platform.
    pub network: Network,
}

/// What a replica is waiting for, and until when.
struct Watch {
    /// Set once it was asked to stop.
    stopping: bool,
    /// Set once it was found not to be healthy, and is ended for that.
    unhealthy: Option<Exit>,
    /// When patience ends: with a start that takes too long, or a stop.
    patience: Option<Instant>,
    /// When the first connection is let go of.
    first_until: Option<Instant>,
}

impl Life {
    /// Has the sandbox made, at once, and lives in it until its end. `record` is what is to be written down of
    /// it.
    pub fn start(
        mut self,
        spec: SandboxSpec,
        listeners: Vec<OwnedFd>,
        record: Record,
    ) -> impl Future<Output = ()> + Send {
        let starting = self.ground.spawner.start(spec.clone(), listeners);
        async move {
            let exit = match self.begin(starting, spec, record).await {
                Ok(pidfd) => self.live(pidfd).await,
                Err(reason) => Exit::CannotStart { reason },
            };
            self.end(exit).await;
        }
    }

    /// The same, once the secrets that its record names can be seen.
    pub async fn start_with_secrets(
        self,
        mut spec: SandboxSpec,
        listeners: Vec<OwnedFd>,
        record: Record,
    ) {
        let (ground, id, namespace) =
            (self.ground.clone(), self.id.clone(), self.function.namespace().to_owned());
        let names = record.secrets.clone();
        let shown = spawn_blocking(move || ground.secrets.show(&id, &namespace, names)).await;
        match shown.map_err(|error| error.to_string()).and_then(|s| s.map_err(|e| e.to_string())) {
            Ok(source) => {
                spec.binds.push(Bind { source, target: secret::DIRECTORY.into() });
                self.start(spec, listeners, record).await;
            }
            Err(reason) => self.end(Exit::CannotStart { reason }).await,
        }
    }

    /// Has the sandbox made: again if the spawner dies over it.
    async fn begin(
        &mut self,
        first: impl Future<Output = Result<Started, StartFailure>> + Send,
        mut spec: SandboxSpec,
        mut record: Record,
    ) -> Result<OwnedFd, String> {
        let mut starting = first.boxed();
        let mut deaths = 0;
        loop {
            // While the spawner works: a sandbox without a record is cleared away by the next server.
            let written = record.write();
            match starting.await {
                Ok(started) => {
                    let unwritten = |error| format!("its record cannot be written: {error}");
                    return written.map(|()| started.pidfd).map_err(unwritten);
                }
                Err(StartFailure::Refused(reason)) => return Err(reason),
                Err(StartFailure::Ending) => return Err("the server is ending".to_owned()),
                Err(StartFailure::SpawnerDied) => {
                    deaths += 1;
                    if deaths == SPAWNER_DEATHS_MAX {
                        return Err(format!(
                            "the spawner died {deaths} times while it made the sandbox"
                        ));
                    }
                    let listeners = self.move_on().await?;
                    spec.slot = self.slot.clone();
                    record.slot = self.slot.clone();
                    starting = self.ground.spawner.start(spec.clone(), listeners).boxed();
                }
            }
        }
    }

    /// Leaves a slot in which a dead spawner has begun something, for another one. The listeners there.
    async fn move_on(&mut self) -> Result<Vec<OwnedFd>, String> {
        let (slot, ground) = (self.slot.clone(), self.ground.clone());
        spawn_blocking(move || ground.slots.clear(&slot))
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| format!("what a dead spawner began stays: {error}"))?;
        let (slot, listeners) = self
            .ground
            .slot(self.door, self.slot.host_gateway.is_some())
            .map_err(|error| format!("it gets no other slot: {error}"))?;
        self.slot = slot;
        self.ground.moved(&self.id, &self.slot);
        Ok(listeners)
    }

    /// Takes over a sandbox that an earlier server left.
    pub async fn adopt(mut self, pidfd: OwnedFd) {
        let exit = self.live(pidfd).await;
        self.end(exit).await;
    }

    async fn live(&mut self, pidfd: OwnedFd) -> Exit {
        self.locate();
        let result = async {
            let pidfd = watched(pidfd)?;
            let link = Link::new(Channel::connect(&self.slot.dir.join("init.sock"))?)?;
            let exit = self.attend(&link, &pidfd).await;
            if exit.is_err() {
                // Without a word with its init nothing is known of the replica: it must not go on unseen.
                let _ = kill(pidfd.get_ref());
            }
            drop(timeout(INIT_END_MAX, pidfd.readable()).await);
            exit
        };
        match result.await {
            Ok(exit) => exit,
            // An init that could not set its sandbox up has written down why.
            Err(error) => self.written_exit().unwrap_or_else(|| {
                tracing::warn!(replica = %self.id, %error, "its init cannot be reached");
                Exit::Lost
            }),
        }
    }

    /// Listens to the init until the replica's end.
    async fn attend(&mut self, link: &Link, pidfd: &AsyncFd<OwnedFd>) -> io::Result<Exit> {
        link.send(&ToInit::Attach, &[]).await?;
        let attached = timeout(limits::ATTACH_TIME_MAX, link.recv::<FromInit>()).await??;
        let Some((FromInit::Attached { ready }, mut fds)) = attached else {
            return Err(io::Error::other("it does not say how its function stands"));
        };
        let mut stock = fds.split_off(PIPES.min(fds.len()));
        self.keep_output(fds).await;
        let _open = self.open_gateway(&mut stock)?;

        let (wants, mut wanted) = mpsc::channel(1);
        let sockets = match self.door {
            Door::Port(port) => Some(Arc::new(NamespaceConnector::new(port, SOCKETS_LOW, wants))),
            Door::Socket => None,
        };
        let mut watch = Watch {
            stopping: false,
            unhealthy: None,
            patience: (!ready).then(|| Instant::now() + limits::START_TIME_MAX),
            first_until: None,
        };
        match &sockets {
            Some(_) if stock.is_empty() => ask_for_sockets(link).await?,
            Some(sockets) => sockets.stock(stock),
            None => {}
        }
        let mut prober = Prober::new(self.probes.clone());
        if ready {
            self.serves(sockets.as_ref(), &mut prober, true).await?;
        }
        loop {
            tokio::select! {
                received = link.recv::<FromInit>() => match received? {
                    Some((FromInit::Ready, connection)) => {
                        if !watch.stopping {
                            watch.patience = None;
                            if let Some(sockets) = &sockets
                                && let Some(connection) = connection.into_iter().next()
                            {
                                sockets.offer(connection);
                                watch.first_until = Some(Instant::now() + FIRST_CONNECTION_KEPT);
                            }
                            self.serves(sockets.as_ref(), &mut prober, false).await?;
                        }
                    }
                    Some((FromInit::Sockets, fds)) => {
                        if let Some(sockets) = &sockets {
                            sockets.stock(fds);
                        }
                    }
                    Some((FromInit::Exited { exit }, _)) => return Ok(watch.told(exit)),
                    Some((FromInit::Attached { .. }, _)) => {}
                    None => return Ok(watch.told(self.silent_end())),
                },
                Some(()) = wanted.recv() => ask_for_sockets(link).await?,
                Some(grace) = self.stops.recv() => {
                    Record::remove(&self.slot.dir);
                    link.send(&ToInit::Stop { grace }, &[]).await?;
                    prober.end();
                    watch.stopping = true;
                    watch.end_within(grace);
                }
                found = prober.next(), if !watch.is_ending() => match found {
                    Found::Ready => self.report_ready(sockets.as_ref()).await?,
                    Found::NotYet(why) => self.reports.send(Event::Preparing(why)).await,
                    Found::Unready(why) => self.reports.send(Event::Unready(why)).await,
                    Found::Unhealthy(exit) => {
                        self.reports.send(Event::Unready(exit.to_string())).await;
                        let grace = limits::GRACE_DEFAULT;
                        link.send(&ToInit::Stop { grace }, &[]).await?;
                        watch.unhealthy = Some(exit);
                        watch.end_within(grace);
                    }
                },
                ended = pidfd.readable() => {
                    ended?.retain_ready();
                    return Ok(watch.told(self.silent_end()));
                }
                () = wait(watch.first_until) => {
                    watch.first_until = None;
                    drop(sockets.as_ref().and_then(|sockets| sockets.take_offer()));
                }
                () = wait(watch.patience) => {
                    let _ = kill(pidfd.get_ref());
                    return Ok(watch.told(self.out_of_patience()));
                }
            }
        }
    }

    /// Notes the address by which the gateway knows it.
    fn locate(&self) {
        // The spawner has written it down; missing where there is no network.
        let at_router = || fs::read_to_string(self.slot.dir.join("address")).ok()?.parse().ok();
        if let Some(address) = self.slot.host_gateway.or_else(at_router) {
            self.ground.located(&self.id, &self.function, address, self.network);
        }
    }

    /// Has the gateway accept at the listener that its init keeps, if it is on the host's network, until what
    /// is returned is dropped.
    fn open_gateway(&self, listeners: &mut Vec<OwnedFd>) -> io::Result<Option<KeptOpen>> {
        let Some(address) = self.slot.host_gateway else { return Ok(None) };
        let missing = || io::Error::other("it has no listener of the gateway");
        let listener = listeners.pop().ok_or_else(missing)?;
        let (own, open) = OwnListener::new(address, listener)?;
        // Nobody accepts any more where the server is ending.
        let _ = self.ground.own_listeners.send(own);
        Ok(Some(open))
    }

    async fn keep_output(&self, pipes: Vec<OwnedFd>) {
        for (pipe, source) in pipes.into_iter().zip([Source::Stdout, Source::Stderr]) {
            self.ground.logs.attach(&self.function, &self.id, source, pipe).await;
        }
    }

    /// It accepts connections: it is ready, unless it is to say so itself.
    async fn serves(
        &self,
        sockets: Option<&Arc<NamespaceConnector>>,
        prober: &mut Prober,
        runs: bool,
    ) -> io::Result<()> {
        if !self.probes.is_empty() {
            prober.begin(&self.endpoint(sockets)?, runs);
        }
        if prober.asks_whether_ready() { Ok(()) } else { self.report_ready(sockets).await }
    }

    async fn report_ready(&self, sockets: Option<&Arc<NamespaceConnector>>) -> io::Result<()> {
        self.reports.send(Event::Ready(self.endpoint(sockets)?)).await;
        Ok(())
    }

    fn endpoint(&self, sockets: Option<&Arc<NamespaceConnector>>) -> io::Result<Endpoint> {
        Ok(match sockets {
            Some(sockets) => Endpoint::Via(sockets.clone()),
            None => Endpoint::Via(Arc::new(UnixConnector::open(&self.slot.dir)?)),
        })
    }

    /// The init is gone without having said so.
    fn silent_end(&self) -> Exit {
        self.written_exit().unwrap_or(Exit::Lost)
    }

    fn out_of_patience(&self) -> Exit {
        let place = match self.door {
            Door::Port(port) => format!("port {port}"),
            Door::Socket => "its socket (its `upstream_url`, in mode http)".to_owned(),
        };
        Exit::NeverListened { place, waited: limits::START_TIME_MAX }
    }

    fn written_exit(&self) -> Option<Exit> {
        directory::exit(&self.slot.dir)
    }

    /// Clears away what is left, then says that it is gone.
    async fn end(self, exit: Exit) {
        let Self { id, slot, ground, reports, layers, .. } = self;
        ground.forget(&id);
        let replica = id.clone();
        let cleared = spawn_blocking(move || {
            ground.secrets.forget(&replica);
            ground.slots.clear(&slot)
        });
        if let Ok(Err(error)) = cleared.await {
            tracing::warn!(replica = %id, %error, "something of an ended replica stays until the next start");
        }
        drop(layers);
        reports.send(Event::Gone(exit)).await;
    }
}

impl Watch {
    /// It was asked to end, within so much time.
    fn end_within(&mut self, grace: Duration) {
        self.patience = Some(Instant::now() + grace + INIT_END_MAX);
        self.first_until = None;
    }

    fn is_ending(&self) -> bool {
        self.stopping || self.unhealthy.is_some()
    }

    /// What is told of its end. One that the platform asked for is no failure, whatever the function made of it.
    fn told(&self, exit: Exit) -> Exit {
        if self.stopping { Exit::Stopped } else { self.unhealthy.clone().unwrap_or(exit) }
    }
}

async fn ask_for_sockets(link: &Link) -> io::Result<()> {
    link.send(&ToInit::Sockets { count: SOCKETS_ASKED }, &[]).await
}

async fn wait(until: Option<Instant>) {
    match until {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
