//! Errands: one command, run to its end in a sandbox of its own, with all fences that functions have. What it has
//! written is left in a directory of the server's.

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use pinnace_core::{Exit, Network, image::User, limits};
use pinnace_sandbox::{
    adoption::kill,
    channel::Channel,
    directory,
    host_root::HostRoot,
    protocol::{Bind, Bounds, FromInit, Root, SandboxSpec, SlotSpec, ToInit},
};
use tokio::{
    io::{AsyncReadExt as _, unix::AsyncFd},
    net::unix::pipe,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

use super::{Ground, link::Link, plan::WayOut, record::Door, spawner::StartFailure};
use crate::watched::watched;

/// How long the last words of a command that has ended may take to be taken.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);

/// Bytes that are read of a command's output at once.
const READ_BYTES: usize = 16 << 10;

const SIGKILL: i32 = 9;

/// Runs errands.
#[derive(Clone)]
pub struct Errands {
    ground: Arc<Ground>,
    host_root: HostRoot,
    way_out: Arc<ArcSwap<WayOut>>,
    /// Whether this process is root, and so what it makes can be another's.
    is_root: bool,
}

/// A sandbox that an errand may have.
pub struct Place {
    slot: Option<SlotSpec>,
    errands: Errands,
}

/// A command and where it runs.
pub struct Errand {
    /// Its name, which its host name is.
    pub name: String,
    /// Layers under what it writes, lowest first.
    pub layers: Vec<PathBuf>,
    /// Whether the host's own programs lie under those.
    pub on_host: bool,
    /// Where what it writes is kept; see [`Root::kept_in`].
    pub kept_in: PathBuf,
    /// Files and directories of the host that it sees.
    pub binds: Vec<Bind>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment, `NAME=VALUE` each.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// Who it runs as: user and group.
    pub owner: (u32, u32),
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How long it may run.
    pub time_max: Duration,
}

/// A piece of what a command has printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// Whether on its standard error.
    pub is_error: bool,
    /// What.
    pub bytes: Bytes,
}

/// How an errand has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Done(Exit),
    /// It was ended, since its time was over.
    TimedOut(Duration),
    /// It was ended, for this reason.
    Stopped(String),
    /// It could not be run.
    NotRun(String),
}

impl Errands {
    pub(super) fn new(
        ground: Arc<Ground>,
        host_root: HostRoot,
        way_out: Arc<ArcSwap<WayOut>>,
        is_root: bool,
    ) -> Self {
        Self { ground, host_root, way_out, is_root }
    }

    /// Takes a sandbox for an errand.
    ///
    /// # Errors
    /// There is none.
    pub fn place(&self) -> io::Result<Place> {
        // A port, which nobody knocks at: no listener is needed.
        let (slot, _) = self.ground.slot(Door::Port(0), false)?;
        Ok(Place { slot: Some(slot), errands: self.clone() })
    }

    /// What tells the host's programs of today from those of another day.
    #[must_use]
    pub fn host_root(&self) -> &HostRoot {
        &self.host_root
    }

    /// Why an errand cannot leave this host, if so.
    #[must_use]
    pub fn no_way_out(&self) -> Option<String> {
        self.way_out.load().missing.clone()
    }
}

impl Place {
    /// The root of the sandbox, and a user and group of it, as the host counts; `None` where all of them are this
    /// process's own.
    #[must_use]
    pub fn host_ids(&self, owner: (u32, u32)) -> Option<((u32, u32), (u32, u32))> {
        let base = self.slot.as_ref()?.id_base.unwrap_or(0);
        self.errands
            .is_root
            .then(|| ((base, base), (base.saturating_add(owner.0), base.saturating_add(owner.1))))
    }

    /// Runs an errand. What it prints goes to `printed`, whose reader may make it wait. `stop` tells that it is to end,
    /// and why.
    pub async fn run(
        mut self,
        errand: Errand,
        printed: mpsc::Sender<Printed>,
        mut stop: watch::Receiver<Option<String>>,
    ) -> Ended {
        let Some(slot) = self.slot.clone() else {
            return Ended::NotRun("it has no sandbox".to_owned());
        };
        let time_max = errand.time_max;
        let spec = self.errands.spec(slot.clone(), errand);
        // Not broken off: what is made must be known to be there before it is cleared away.
        let ended = match self.errands.ground.spawner.start(spec, Vec::new()).await {
            Ok(started) => attend(&slot, started.pidfd, time_max, printed, &mut stop).await,
            Err(StartFailure::Refused(reason)) => Ended::NotRun(reason),
            Err(StartFailure::SpawnerDied) => {
                Ended::NotRun("the spawner died over it; try again".into())
            }
            Err(StartFailure::Ending) => Ended::NotRun("the server is ending".into()),
        };
        self.clear().await;
        ended
    }

    /// Removes what is left of its sandbox.
    async fn clear(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let ground = self.errands.ground.clone();
        let cleared = spawn_blocking(move || ground.slots.clear(&slot)).await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(%error, "something of a build's sandbox stays until the next start");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.errands.ground.slots.discard(slot);
        }
    }
}

impl Errands {
    fn spec(&self, slot: SlotSpec, errand: Errand) -> SandboxSpec {
        let mut layers = vec![self.host_root.skeleton.clone()];
        layers.extend(errand.on_host.then(|| self.host_root.host.clone()));
        layers.extend(errand.layers);
        let way_out = self.way_out.load();
        let leaves = way_out.missing.is_none();
        let network = if leaves { Network::Nat } else { Network::None };
        let (uid, gid) = errand.owner;
        SandboxSpec {
            slot,
            hostname: errand.name,
            root: Root {
                layers,
                read_only: false,
                host_usr: errand.on_host,
                kept_in: Some(errand.kept_in),
            },
            binds: errand.binds,
            command: errand.command,
            env: errand.env,
            working_dir: errand.working_dir,
            user: User { uid, gid, groups: Vec::new() },
            stop_signal: SIGKILL,
            bounds: Bounds {
                memory_bytes: errand.memory_bytes,
                cpu_millicores: None,
                pids: limits::BUILD_PIDS_MAX,
                open_files: limits::OPEN_FILES_PER_PROCESS,
                upper_bytes: 0,
                tmp_bytes: errand.memory_bytes / 4,
            },
            listens: false,
            port: None,
            leaves,
            resolv_conf: way_out.resolv_conf(network),
        }
    }
}

/// Listens to an errand's init until its end.
async fn attend(
    slot: &SlotSpec,
    pidfd: OwnedFd,
    time_max: Duration,
    printed: mpsc::Sender<Printed>,
    stop: &mut watch::Receiver<Option<String>>,
) -> Ended {
    let until = Instant::now() + time_max;
    let attached = async {
        let pidfd = watched(pidfd)?;
        let link = Link::new(Channel::connect(&slot.dir.join("init.sock"))?)?;
        link.send(&ToInit::Attach, &[]).await?;
        let attached = timeout(limits::ATTACH_TIME_MAX, link.recv::<FromInit>()).await??;
        let Some((FromInit::Attached { .. }, pipes)) = attached else {
            return Err(io::Error::other("it does not say how its command stands"));
        };
        io::Result::Ok((pidfd, link, readers(pipes, &printed)?))
    };
    let (pidfd, link, readers) = match attached.await {
        Ok(attached) => attached,
        // An init that could not set its sandbox up has written down why.
        Err(error) => {
            return match directory::exit(&slot.dir) {
                Some(Exit::CannotStart { reason }) => Ended::NotRun(reason),
                Some(exit) => Ended::Done(exit),
                None => Ended::NotRun(format!("its init cannot be reached: {error}")),
            };
        }
    };
    drop(printed);
    let ended = tokio::select! {
        exit = exit(slot, &link, &pidfd) => match exit {
            Exit::CannotStart { reason } => Ended::NotRun(reason),
            exit => Ended::Done(exit),
        },
        reason = stopped(stop) => Ended::Stopped(reason),
        () = sleep_until(until) => Ended::TimedOut(time_max),
    };
    // Its namespace of processes ends with it, and so all that hold the pipes.
    let _ = kill(pidfd.get_ref());
    let last_words = async {
        for reader in readers {
            let _ = reader.await;
        }
    };
    let _ = timeout(LAST_WORDS_MAX, last_words).await;
    ended
}

/// Why it is to end, once it is.
async fn stopped(stop: &mut watch::Receiver<Option<String>>) -> String {
    let reason = stop.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    // Who could say so is gone.
    reason.unwrap_or_else(|| "nobody waits for it".to_owned())
}

async fn exit(slot: &SlotSpec, link: &Link, pidfd: &AsyncFd<OwnedFd>) -> Exit {
    let silent = || directory::exit(&slot.dir).unwrap_or(Exit::Lost);
    loop {
        tokio::select! {
            biased;
            received = link.recv::<FromInit>() => match received {
                Ok(Some((FromInit::Exited { exit }, _))) => return exit,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return silent(),
            },
            _ = pidfd.readable() => return silent(),
        }
    }
}

fn readers(
    pipes: Vec<OwnedFd>,
    printed: &mpsc::Sender<Printed>,
) -> io::Result<Vec<JoinHandle<()>>> {
    // Behind the two are sockets for calls, which an errand does not get.
    let both = pipes.into_iter().zip([false, true]);
    both.map(|(pipe, is_error)| {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        Ok(tokio::spawn(read(pipe, is_error, printed.clone())))
    })
    .collect()
}

async fn read(mut pipe: pipe::Receiver, is_error: bool, printed: mpsc::Sender<Printed>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(bytes @ 1..) = pipe.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..bytes]);
        if printed.send(Printed { is_error, bytes }).await.is_err() {
            return;
        }
    }
}
