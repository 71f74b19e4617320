//! The server's side of the spawner: starts it, finds one that an earlier server left, replaces one that
//! died.
//!
//! Requests of many tasks share one link; a number in each brings the answers back to who asked.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pinnace_core::limits;
use pinnace_sandbox::{
    channel::Channel,
    protocol::{FromSpawner, SandboxSpec, ToSpawner, VERSION},
    spawner::Config,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::link::Link;

/// How long a new spawner may take until it answers on its socket.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Wait between two looks for its socket.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A sandbox that was made.
#[derive(Debug)]
pub struct Started {
    /// The init's process id on the host.
    pub pid: i32,
    /// A handle on the init.
    pub pidfd: OwnedFd,
}

/// Where the spawner and what it needs lie.
#[derive(Clone, Debug)]
pub struct SpawnerPaths {
    /// Directory of our programs.
    pub programs: PathBuf,
    /// Directory for sockets and records of what runs.
    pub run: PathBuf,
    /// Name of our control groups' common parent.
    pub cgroup: String,
}

/// A handle on the spawner, whichever process that is now.
#[derive(Clone, Debug)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    say: ToSpawner,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Result<Started, String>>,
}

/// Sockets that the spawner keeps while no server runs, by name.
pub type Kept = Vec<(String, OwnedFd)>;

impl Spawner {
    /// Finds the spawner of an earlier server, with the sockets that it kept, or starts one.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn find_or_start(paths: SpawnerPaths) -> io::Result<(SpawnerLink, Kept)> {
        let socket = socket_path(&paths.run);
        let link = match Channel::connect(&socket) {
            Ok(channel) => Link::new(channel)?,
            Err(_nobody_there) => start(&paths).await?,
        };
        link.send(&ToSpawner::Lend, &[]).await?;
        let lent = match link.recv().await? {
            Some((FromSpawner::Lent { names }, fds)) => names.into_iter().zip(fds).collect(),
            _ => return Err(io::Error::other("the spawner does not say what it keeps")),
        };
        Ok((SpawnerLink { paths, link }, lent))
    }

    /// Asks for a sandbox. `listener` is the function's socket, if it is to have one.
    ///
    /// # Errors
    /// It could not be made: a sentence saying why.
    pub async fn start(
        &self,
        spec: SandboxSpec,
        listener: Option<OwnedFd>,
    ) -> Result<Started, String> {
        let (answer, answered) = oneshot::channel();
        // The number is filled in by the task that counts.
        let say = ToSpawner::Start { request: 0, spec: Box::new(spec) };
        let request = Request { say, fds: listener.into_iter().collect(), answer };
        let gone = || "the spawner is gone: the server is ending".to_owned();
        self.requests.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A link to a spawner that serves nobody yet.
#[derive(Debug)]
pub struct SpawnerLink {
    paths: SpawnerPaths,
    link: Link,
}

impl SpawnerLink {
    /// Gives it these sockets to keep, and begins to serve requests; starts another spawner whenever this
    /// one dies.
    ///
    /// # Errors
    /// It does not take the sockets.
    pub async fn serve(self, kept: Kept) -> io::Result<Spawner> {
        let (requests, inbox) = mpsc::channel(limits::STORE_QUEUE_MAX);
        keep(&self.link, &kept).await?;
        tokio::spawn(run(self.paths, self.link, kept, inbox));
        Ok(Spawner { requests })
    }
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

async fn start(paths: &SpawnerPaths) -> io::Result<Link> {
    let program = paths.programs.join("pinnace-spawner");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(paths.run.join("spawner.log"))?;
    let socket = socket_path(&paths.run);
    let config = Config {
        socket: socket.clone(),
        init: paths.programs.join("pinnace-init"),
        scaffold: paths.run.join("mnt"),
        cgroup_name: paths.cgroup.clone(),
    };
    let mut child = tokio::process::Command::new(&program)
        .args(config.to_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| {
            io::Error::other(format!("{} cannot be run: {error}", program.display()))
        })?;
    let deadline = Instant::now() + START_TIME_MAX;
    loop {
        if let Ok(channel) = Channel::connect(&socket) {
            return Link::new(channel);
        }
        let log = paths.run.join("spawner.log");
        if let Some(status) = child.try_wait()? {
            let text = format!("the spawner ended at once ({status}); see {}", log.display());
            return Err(io::Error::other(text));
        }
        if Instant::now() > deadline {
            let text = format!("the spawner does not answer; see {}", log.display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn keep(link: &Link, kept: &Kept) -> io::Result<()> {
    let names = kept.iter().map(|(name, _)| name.clone()).collect();
    let fds = kept.iter().map(|(_, fd)| fd.as_fd().try_clone_to_owned()).collect::<Result<Vec<_>, _>>()?;
    link.send(&ToSpawner::Keep { names }, &fds).await?;
    match link.recv().await? {
        Some((FromSpawner::Kept, _)) => Ok(()),
        _ => Err(io::Error::other("the spawner does not keep the listening sockets")),
    }
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<Result<Started, String>>>>;

async fn run(
    paths: SpawnerPaths,
    mut link: Link,
    kept: Kept,
    mut inbox: mpsc::Receiver<Request>,
) {
    loop {
        let waiting = Arc::new(Waiting::default());
        tokio::select! {
            // Nobody asks any more: the server is ending. The spawner stays for the next one.
            () = send_all(&link, &waiting, &mut inbox) => return,
            error = receive_all(&link, &waiting) => {
                tracing::error!(%error, "the spawner died; another is started");
            }
        }
        for (_, answer) in std::mem::take(&mut *lock(&waiting)) {
            drop(answer.send(Err("the spawner died while it made the sandbox".to_owned())));
        }
        link = match restart(&paths, &kept).await {
            Ok(link) => link,
            Err(error) => {
                tracing::error!(%error, "no function can be started any more: no spawner");
                return;
            }
        };
    }
}

async fn restart(paths: &SpawnerPaths, kept: &Kept) -> io::Result<Link> {
    let link = start(paths).await?;
    keep(&link, kept).await?;
    Ok(link)
}

async fn send_all(link: &Link, waiting: &Waiting, inbox: &mut mpsc::Receiver<Request>) {
    let mut number = 0;
    while let Some(Request { say, fds, answer }) = inbox.recv().await {
        number += 1;
        let say = match say {
            ToSpawner::Start { spec, .. } => ToSpawner::Start { request: number, spec },
            other => other,
        };
        lock(waiting).insert(number, answer);
        if let Err(error) = link.send(&say, &fds).await
            && let Some(answer) = lock(waiting).remove(&number)
        {
            drop(answer.send(Err(format!("the spawner cannot be asked: {error}"))));
        }
    }
}

async fn receive_all(link: &Link, waiting: &Waiting) -> io::Error {
    loop {
        let (request, result) = match link.recv().await {
            Ok(Some((FromSpawner::Started { request, pid }, fds))) => {
                let pidfd = fds.into_iter().next();
                let lacking = || "the spawner sent no handle on the sandbox".to_owned();
                (request, pidfd.map(|pidfd| Started { pid, pidfd }).ok_or_else(lacking))
            }
            Ok(Some((FromSpawner::Refused { request, reason }, _))) => (request, Err(reason)),
            Ok(Some(_)) => continue,
            Ok(None) => return io::Error::other("it closed its socket"),
            Err(error) => return error,
        };
        if let Some(answer) = lock(waiting).remove(&request) {
            drop(answer.send(result));
        }
    }
}

fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Started, String>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
