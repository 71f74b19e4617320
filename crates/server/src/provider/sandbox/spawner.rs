//! The server's side of the spawner: starts it, finds one that an earlier server left, replaces one that
//! died.
//!
//! What is asked goes over the [`Line`] of the one that serves; while none does, requests wait in a queue.

use std::{
    fs::OpenOptions,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinnace_core::limits;
use pinnace_sandbox::{
    channel::Channel,
    client::SpawnerLink,
    network::{Policy, Standing},
    protocol::{Expected, FromSpawner, SandboxSpec, SlotSpec, ToSpawner, VERSION},
    spawner::Config,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    line::{Asker, Line},
    link::Link,
    outside::lacks,
};
use crate::state_dir::MOUNTS;

/// Wait before another spawner is tried after one that could not be started.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A sandbox that was made.
#[derive(Debug)]
pub struct Started {
    /// The init's process id on the host.
    pub pid: i32,
    /// A handle on the init.
    pub pidfd: OwnedFd,
}

/// Why there is no sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// It cannot be made: a sentence saying why. Nothing of it is left.
    Refused(String),
    /// The spawner died with it. It may be there all the same.
    SpawnerDied,
    /// The server is ending.
    Ending,
}

/// What was made ahead and is no more.
#[derive(Debug)]
pub enum Loss {
    /// The slot of this name.
    Slot(String),
    /// All slots, with the spawner that kept them.
    Spawner,
}

/// Where the spawner and what it needs lie.
#[derive(Clone, Debug)]
pub struct SpawnerPaths {
    /// Directory of our programs.
    pub programs: PathBuf,
    /// Directory for sockets and records of what runs.
    pub run: PathBuf,
    /// Name of this Pinnace: of its control groups, devices and rules.
    pub name: String,
}

/// A handle on the spawner, whichever process that is now.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
    current: Current,
}

/// The line of the spawner that serves, if one does.
type Current = Arc<Mutex<Option<Arc<Line>>>>;

#[derive(Debug)]
enum Request {
    Start {
        spec: Box<SandboxSpec>,
        listeners: Vec<OwnedFd>,
        answer: oneshot::Sender<Result<Started, StartFailure>>,
    },
    Prepare {
        slot: Box<SlotSpec>,
        expected: Expected,
        answer: oneshot::Sender<Result<(), String>>,
    },
    Retire {
        slot: String,
    },
    Quit {
        done: oneshot::Sender<()>,
    },
}

/// Where a [`Loss`] is told. At most as many wait as there are slots.
pub type Losses = mpsc::UnboundedReceiver<Loss>;

/// Sockets that the spawner keeps while no server runs, by name.
pub type Kept = Vec<(String, OwnedFd)>;

impl Spawner {
    /// Finds the spawner of an earlier server, with the sockets that it kept, or starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn find_or_start(paths: SpawnerPaths) -> io::Result<(IdleSpawner, Kept)> {
        let config = paths.clone();
        let (link, kept) = blocking(move || {
            let link = config.open()?;
            let kept = link.lend()?;
            Ok((link, kept))
        })
        .await?;
        Ok((IdleSpawner { paths, link }, kept))
    }

    /// Asks for a sandbox: at once if that can be, not only when the answer is waited for. `listener` is the
    /// function's socket, if it is to have one.
    ///
    /// # Errors
    /// It could not be made.
    pub fn start(
        &self,
        spec: SandboxSpec,
        listeners: Vec<OwnedFd>,
    ) -> impl Future<Output = Result<Started, StartFailure>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Start { spec: Box::new(spec), listeners, answer };
        let left = self.ask_at_once(request).err();
        let requests = self.requests.clone();
        async move {
            if let Some(request) = left {
                requests.send(request).await.map_err(|_| StartFailure::Ending)?;
            }
            answered.await.map_err(|_| StartFailure::Ending)?
        }
    }

    /// Asks for a sandbox on the caller's thread: each change of tasks on the way to the spawner would take
    /// microseconds.
    fn ask_at_once(&self, request: Request) -> Result<(), Request> {
        // Held until it is asked: what is asked of one that has died must be among those that are told so.
        let current = lock(&self.current);
        match (&*current, request) {
            (Some(line), Request::Start { spec, listeners, answer }) => {
                let message = |request| ToSpawner::Start { request, spec: spec.clone() };
                match line.try_ask(Asker::Start(answer), &listeners, message) {
                    Err(Asker::Start(answer)) => Err(Request::Start { spec, listeners, answer }),
                    _ => Ok(()),
                }
            }
            (_, request) => Err(request),
        }
    }

    /// Asks for a slot that is made ahead. Resolves when it waits.
    ///
    /// # Errors
    /// It could not be made. Something of it may be left.
    pub async fn prepare(&self, slot: SlotSpec, expected: Expected) -> Result<(), StartFailure> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(Request::Prepare { slot: Box::new(slot), expected, answer })
            .await
            .map_err(|_| StartFailure::Ending)?;
        let prepared = answered.await.map_err(|_| StartFailure::Ending)?;
        prepared.map_err(StartFailure::Refused)
    }

    /// Gives a slot up that was made ahead.
    pub async fn retire(&self, slot: String) {
        // A spawner that is gone has given it up.
        let _ = self.requests.send(Request::Retire { slot }).await;
    }

    /// Has it end, which closes the sockets that it keeps. Resolves when it has.
    pub async fn quit(&self) {
        let (done, quit) = oneshot::channel();
        // Gone already is what is wished for.
        if self.requests.send(Request::Quit { done }).await.is_ok() {
            let _ = quit.await;
        }
    }
}

/// A spawner that nobody asks anything yet.
#[derive(Debug)]
pub struct IdleSpawner {
    paths: SpawnerPaths,
    link: SpawnerLink,
}

impl IdleSpawner {
    /// Has it make the network, gives it these sockets to keep, and begins to serve requests; starts another
    /// spawner whenever this one dies. `kept` holds the gateway's listener of an earlier server as well, under
    /// the name [`GATEWAY`].
    ///
    /// # Errors
    /// It does not take the sockets.
    pub async fn serve(self, kept: Kept, policy: Policy) -> io::Result<Served> {
        let Self { paths, link } = self;
        let earlier = kept.iter().find(|(name, _)| name == GATEWAY);
        let earlier = earlier.map(|(_, listener)| listener.try_clone()).transpose()?;
        let handed = hand_over(link, Arc::new(kept), policy.clone()).await?;
        let (requests, inbox) = mpsc::channel(limits::STORE_QUEUE_MAX);
        let (tell_loss, losses) = mpsc::unbounded_channel();
        let (tell_gateway, gateways) = mpsc::unbounded_channel();
        let (tell_renewal, renewals) = mpsc::unbounded_channel();
        if let Some(listener) = handed.gateway.or(earlier) {
            let _ = tell_gateway.send(listener);
        }
        let Handed { alive, kept, standing, .. } = handed;
        let told = Told {
            losses: tell_loss,
            gateways: tell_gateway,
            renewals: tell_renewal,
            kept: Mutex::new(kept),
        };
        let current = Current::default();
        let spawner = Spawner { requests, current: current.clone() };
        tokio::spawn(run(paths, policy, (alive, current), inbox, told));
        Ok(Served { spawner, losses, standing, gateways, renewals })
    }
}

/// A spawner that serves, and what it tells unasked.
#[derive(Debug)]
pub struct Served {
    /// It takes requests.
    pub spawner: Spawner,
    /// What is lost of what was made ahead. Ends with the spawner.
    pub losses: Losses,
    /// How the network stands.
    pub standing: Standing,
    /// The gateway's listener, and each that takes its place.
    pub gateways: mpsc::UnboundedReceiver<OwnedFd>,
    /// Told when the network is another one.
    pub renewals: mpsc::UnboundedReceiver<Renewal>,
}

/// Another network than there was.
#[derive(Debug)]
pub struct Renewal {
    /// How it stands.
    pub standing: Standing,
    /// Whether there is another router: replicas that were attached to the one before have no network.
    pub cuts_off: bool,
}

/// What a spawner's messages change beside their askers.
struct Told {
    losses: mpsc::UnboundedSender<Loss>,
    gateways: mpsc::UnboundedSender<OwnedFd>,
    renewals: mpsc::UnboundedSender<Renewal>,
    /// What the spawner keeps, for the next one.
    kept: Mutex<Arc<Kept>>,
}

/// Name of the gateway's listener among the kept sockets.
pub const GATEWAY: &str = "gateway";

/// Directory of the router's process, in the one of what runs.
pub const ROUTER: &str = "router";

/// A spawner that keeps the sockets and can be asked.
struct Alive {
    line: Arc<Line>,
    process: Option<Child>,
}

impl SpawnerPaths {
    fn open(&self) -> io::Result<SpawnerLink> {
        let config = Config {
            socket: socket_path(&self.run),
            init: self.programs.join("pinnace-init"),
            scaffold: self.run.join(MOUNTS),
            router: self.run.join(ROUTER),
            name: self.name.clone(),
        };
        // Its words go to a file: it outlives this server, and must not hold its terminal.
        let log =
            OpenOptions::new().create(true).append(true).open(self.run.join("spawner.log"))?;
        SpawnerLink::open(&self.programs.join("pinnace-spawner"), &config, log)
    }
}

/// What is there once a spawner has everything.
struct Handed {
    alive: Alive,
    kept: Arc<Kept>,
    standing: Standing,
    /// The gateway's listener, if it is a new one.
    gateway: Option<OwnedFd>,
}

async fn hand_over(link: SpawnerLink, kept: Arc<Kept>, policy: Policy) -> io::Result<Handed> {
    let (link, kept, standing, gateway) = blocking(move || {
        let (standing, gateway) = link.network(policy)?;
        let kept = match &gateway {
            Some(listener) => Arc::new(with_gateway(&kept, listener)?),
            None => kept,
        };
        link.keep(&kept)?;
        Ok((link, kept, standing, gateway))
    })
    .await?;
    let line = Arc::new(Line::new(Link::new(link.channel)?));
    let alive = Alive { line, process: link.process };
    Ok(Handed { alive, kept, standing, gateway })
}

/// The same sockets with another listener of the gateway.
fn with_gateway(kept: &Kept, listener: &OwnedFd) -> io::Result<Kept> {
    let others = kept.iter().filter(|(name, _)| name != GATEWAY);
    let others = others.map(|(name, socket)| Ok((name.clone(), socket.try_clone()?)));
    others.chain([listener.try_clone().map(|listener| (GATEWAY.to_owned(), listener))]).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Tells the spawner of a state directory to end, if there is one.
///
/// # Errors
/// It is there but does not listen.
pub async fn quit(run: &Path) -> io::Result<()> {
    let Ok(channel) = Channel::connect(&socket_path(run)) else { return Ok(()) };
    let link = Link::new(channel)?;
    link.send(&ToSpawner::Quit, &[]).await?;
    // It closes the link when it ends.
    while link.recv::<FromSpawner>().await.is_ok_and(|message| message.is_some()) {}
    Ok(())
}

fn socket_path(run: &Path) -> PathBuf {
    run.join(format!("spawner-{VERSION}.sock"))
}

async fn run(
    paths: SpawnerPaths,
    policy: Policy,
    (mut alive, current): (Alive, Current),
    mut inbox: mpsc::Receiver<Request>,
    told: Told,
) {
    loop {
        let line = alive.line.clone();
        *lock(&current) = Some(line.clone());
        tokio::select! {
            quit = send_all(&line, &mut inbox) => {
                *lock(&current) = None;
                // Where nobody asked it to quit, it stays for the next server.
                if let Some(done) = quit {
                    await_end(alive).await;
                    let _ = done.send(());
                }
                return;
            }
            error = receive_all(&line, &told) => {
                tracing::error!(%error, "the spawner died; another is started");
            }
        }
        *lock(&current) = None;
        line.tell_of_death();
        // Nobody listens where none are made ahead.
        let _ = told.losses.send(Loss::Spawner);
        alive = replace(&paths, &policy, alive, &told).await;
    }
}

/// Ends what is left of a dead spawner, and tries until another one serves. Requests wait meanwhile.
async fn replace(paths: &SpawnerPaths, policy: &Policy, dead: Alive, told: &Told) -> Alive {
    if let Some(mut process) = dead.process {
        // It may have broken off without dying; one that cannot be waited for is gone.
        let _ = blocking(move || process.kill().and_then(|()| process.wait())).await;
    }
    loop {
        let paths = paths.clone();
        let started = match blocking(move || paths.open()).await {
            Ok(link) => hand_over(link, told.kept(), policy.clone()).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(Handed { alive, kept, standing, gateway }) => {
                *told.lock() = kept;
                told.network_changed(standing, gateway.is_some());
                if let Some(listener) = gateway {
                    told.new_gateway(listener);
                }
                return alive;
            }
            Err(error) => tracing::error!(%error, "no function can be started: no spawner"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Passes requests on until nobody makes any more, or it is told to quit: then says whom to tell.
async fn send_all(line: &Line, inbox: &mut mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
    loop {
        match inbox.recv().await? {
            Request::Start { spec, listeners, answer } => {
                let message = |request| ToSpawner::Start { request, spec };
                line.ask(Asker::Start(answer), &listeners, message).await;
            }
            Request::Prepare { slot, expected, answer } => {
                let message = |request| ToSpawner::Prepare { request, slot: *slot, expected };
                line.ask(Asker::Prepare(answer), &[], message).await;
            }
            Request::Retire { slot } => {
                // One that cannot be told has given it up.
                let _ = line.say(&ToSpawner::Retire { slot }, &[]).await;
            }
            Request::Quit { done } => {
                // One that cannot be told has ended.
                let _ = line.say(&ToSpawner::Quit, &[]).await;
                return Some(done);
            }
        }
    }
}

/// Waits until a spawner that was told to quit has closed its link.
async fn await_end(alive: Alive) {
    while alive.line.hear().await.is_ok_and(|message| message.is_some()) {}
    if let Some(mut process) = alive.process {
        let _ = blocking(move || process.wait()).await;
    }
}

async fn receive_all(line: &Line, told: &Told) -> io::Error {
    loop {
        match line.hear().await {
            Ok(Some((FromSpawner::Network { standing }, fds))) => {
                if let Err(error) = take_network(standing, line, fds, told).await {
                    return error;
                }
            }
            Ok(Some((said, fds))) => hear(said, fds, line, &told.losses),
            Ok(None) => return io::Error::other("it closed its socket"),
            Err(error) => return error,
        }
    }
}

/// Takes the listener of a router that was made anew, if there is one, and has the spawner keep it.
async fn take_network(
    standing: Standing,
    line: &Line,
    fds: Vec<OwnedFd>,
    told: &Told,
) -> io::Result<()> {
    let listener = fds.into_iter().next();
    match &listener {
        Some(_) => {
            tracing::warn!("the router of the functions' network had ended; there is another");
        }
        None => tracing::warn!("the functions' network is another one than it was"),
    }
    for sentence in lacks(&standing).into_iter().chain(standing.obstacles.iter().cloned()) {
        tracing::warn!("{sentence}");
    }
    told.network_changed(standing, listener.is_some());
    let Some(listener) = listener else { return Ok(()) };
    let kept = with_gateway(&told.kept(), &listener)?;
    let names = kept.iter().map(|(name, _)| name.clone()).collect();
    let sockets: Vec<OwnedFd> =
        kept.iter().map(|(_, socket)| socket.try_clone()).collect::<io::Result<_>>()?;
    *told.lock() = Arc::new(kept);
    told.new_gateway(listener);
    line.say(&ToSpawner::Keep { names }, &sockets).await
}

impl Told {
    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Arc<Kept> {
        self.lock().clone()
    }

    // Nobody listens any more where the server is ending.

    fn new_gateway(&self, listener: OwnedFd) {
        let _ = self.gateways.send(listener);
    }

    fn network_changed(&self, standing: Standing, cuts_off: bool) {
        let _ = self.renewals.send(Renewal { standing, cuts_off });
    }
}

fn hear(said: FromSpawner, fds: Vec<OwnedFd>, line: &Line, losses: &mpsc::UnboundedSender<Loss>) {
    let asker = |request| line.asker(request);
    // Those that have left have no use for an answer.
    match said {
        FromSpawner::Started { request, pid } => match (asker(request), fds.into_iter().next()) {
            (Some(Asker::Start(answer)), Some(pidfd)) => {
                drop(answer.send(Ok(Started { pid, pidfd })));
            }
            (Some(asker), _) => {
                asker.refuse("the spawner sent no handle on the sandbox".to_owned());
            }
            (None, _) => {}
        },
        FromSpawner::Prepared { request } => {
            if let Some(Asker::Prepare(answer)) = asker(request) {
                drop(answer.send(Ok(())));
            }
        }
        FromSpawner::Refused { request, reason } => {
            if let Some(asker) = asker(request) {
                asker.refuse(reason);
            }
        }
        FromSpawner::Lost { slot } => drop(losses.send(Loss::Slot(slot))),
        FromSpawner::Kept | FromSpawner::Lent { .. } | FromSpawner::Network { .. } => {}
    }
}

fn lock(current: &Current) -> MutexGuard<'_, Option<Arc<Line>>> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}
