//! The spawner: the one process that makes namespaces, and that keeps the server's sockets.
//!
//! It has one thread and one loop, serves one server at a time (a new connection replaces the old), and
//! outlives servers: when one goes away it waits for the next. It holds slots that wait, and no replica's
//! state; a replica whose start it does not finish is taken back, and one that runs does not need it.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    net::TcpListener,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use pinnace_core::limits;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{SealFlags, fcntl_add_seals},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    cgroup::Cgroups,
    channel::{Channel, Listener},
    custody::Custody,
    failed::{Doing as _, Failed},
    host,
    ids::{self, Ids},
    network::{self, Renewed, Standing, Wiring},
    protocol::{Expected, FromSpawner, SandboxSpec, SlotSpec, ToSpawner},
    rootfs::Scaffold,
    seccomp,
    slot::Workshop,
    slots::Slots,
    start,
    sys::{self, Disposition, SingleThreaded},
};

/// What a spawner is told on its command line, in this order.
#[derive(Clone, Debug)]
pub struct Config {
    /// Path of its control socket, in the directory of what runs.
    pub socket: PathBuf,
    /// The init's program.
    pub init: PathBuf,
    /// An empty directory to mount on.
    pub scaffold: PathBuf,
    /// Directory of the router's process.
    pub router: PathBuf,
    /// Name of this Pinnace's control groups, devices and rules: a DNS label of at most 12 characters.
    pub name: String,
}

impl Config {
    /// The arguments that say this.
    #[must_use]
    pub fn to_args(&self) -> [OsString; 5] {
        [
            self.socket.clone().into(),
            self.init.clone().into(),
            self.scaffold.clone().into(),
            self.router.clone().into(),
            self.name.clone().into(),
        ]
    }

    /// Reads what [`Self::to_args`] made; `None` if it is something else.
    #[must_use]
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Option<Self> {
        let [socket, init, scaffold, router, name] = args.collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            socket: socket.into(),
            init: init.into(),
            scaffold: scaffold.into(),
            router: router.into(),
            name: name.into_string().ok()?,
        })
    }
}

/// A spawner at work.
#[derive(Debug)]
struct Spawner {
    listener: Listener,
    server: Option<Channel>,
    custody: Custody,
    slots: Slots,
    wiring: Wiring,
    tools: Tools,
}

/// What making sandboxes needs; the same for all of them.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) proof: SingleThreaded,
    pub(crate) scaffold: Scaffold,
    pub(crate) cgroups: Cgroups,
    pub(crate) init: OwnedFd,
    pub(crate) seccomp: OwnedFd,
    pub(crate) null: OwnedFd,
    pub(crate) ids: Ids,
}

/// The first descriptor after the standard ones.
const FIRST_STRAY_FD: i32 = 3;

/// Runs a spawner; the whole of its program. Returns only to report an error, or when told to quit.
///
/// # Errors
/// If it cannot be set up, with what is in the way.
pub fn main(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|word| word == host::PROBE) {
        return host::print_probe(args.get(1));
    }
    if args.first().is_some_and(|word| word == host::network::PROBE_NETWORK) {
        return host::network::print_probe();
    }
    let usage = "usage: pinnace-spawner SOCKET INIT_PROGRAM EMPTY_DIRECTORY ROUTER_DIRECTORY NAME";
    let config = Config::from_args(args.into_iter()).ok_or_else(|| io::Error::other(usage))?;
    sys::close_strays(FIRST_STRAY_FD)?;
    // The server has none, and what it starts would have none either.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    // Fails only for the leader of a group, which has no need of it.
    let _ = rustix::process::setsid();
    // Ignored SIGCHLD has the kernel reap the inits, whose ends the server watches.
    for signal in [libc::SIGPIPE, libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        sys::set_disposition(signal, Disposition::Ignore);
    }
    Spawner::new(&config)?.serve()
}

impl Spawner {
    fn new(config: &Config) -> io::Result<Self> {
        refuse_if_served(&config.socket)?;
        let tools = Tools::new(config)?;
        let (router, name) = (config.router.clone(), config.name.clone());
        let wiring = Wiring::new(router, name, tools.init.try_clone()?, tools.ids != Ids::Roots);
        // Last of all: a server that gets a connection can rely on the rest.
        let listener = Channel::listen(&config.socket)
            .doing(|| format!("listen at {}", config.socket.display()))?;
        Ok(Self {
            listener,
            server: None,
            custody: Custody::default(),
            slots: Slots::default(),
            wiring,
            tools,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let happened = self.wait()?;
            if happened.connection {
                self.meet();
            } else if happened.message && self.hear().is_quit() {
                return Ok(());
            }
            if happened.slots {
                let news = self.slots.hear(&self.tools.cgroups);
                self.tell(news);
            }
            if happened.router || self.wiring.retry_in().is_some_and(|wait| wait.is_zero()) {
                self.renew_router();
            }
        }
    }

    fn wait(&self) -> io::Result<Happened> {
        let mut polled = vec![PollFd::new(&self.listener, PollFlags::IN)];
        polled.extend(self.slots.sources().map(|slot| PollFd::new(slot, PollFlags::IN)));
        let of_slots = 1..polled.len();
        polled.extend(
            self.wiring.end().iter().map(|end| PollFd::from_borrowed_fd(*end, PollFlags::IN)),
        );
        let of_router = of_slots.end..polled.len();
        polled.extend(self.server.as_ref().map(|server| PollFd::new(server, PollFlags::IN)));
        let timeout = self.wiring.retry_in().and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |polled: &PollFd<'_>| !polled.revents().is_empty();
        Ok(Happened {
            connection: polled.first().is_some_and(happened),
            message: polled.get(of_router.end).is_some_and(happened),
            slots: polled.get(of_slots).is_some_and(|slots| slots.iter().any(happened)),
            router: polled.get(of_router).is_some_and(|router| router.iter().any(happened)),
        })
    }

    fn meet(&mut self) {
        let own = rustix::process::geteuid().as_raw();
        let Ok(server) = self.listener.accept() else { return };
        let known = server.peer_uid().is_ok_and(|uid| uid == own);
        if known && server.set_send_time_max(limits::CONTROL_SEND_TIME_MAX).is_ok() {
            self.server = Some(server);
            // This one does not know of them.
            self.slots.clear();
        }
    }

    fn hear(&mut self) -> Next {
        let Some(server) = self.server.take() else { return Next::GoOn };
        let answered = match server.try_recv::<ToSpawner>() {
            Ok(Some((ToSpawner::Quit, _))) => return Next::Quit,
            Ok(Some((message, fds))) => self.answer(&server, message, fds),
            Ok(None) => return Next::GoOn,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        };
        // A server that speaks another language or does not listen is left; its sandboxes go on.
        self.server = answered.is_ok().then_some(server);
        Next::GoOn
    }

    fn answer(
        &mut self,
        server: &Channel,
        message: ToSpawner,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        match message {
            ToSpawner::Start { request, spec } => self.start(server, request, &spec, &fds),
            ToSpawner::Prepare { request, slot, expected } => {
                self.prepare(server, request, &slot, &expected)
            }
            ToSpawner::Retire { slot } => {
                self.slots.retire(&slot);
                Ok(())
            }
            ToSpawner::Network { policy } => {
                let (standing, listener) = self.wiring.set_up(policy);
                tell_of_network(server, standing, listener.as_ref())
            }
            ToSpawner::Keep { names } => {
                if self.custody.keep(names, fds) {
                    server.send(&FromSpawner::Kept, &[])
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                }
            }
            ToSpawner::Lend => {
                let (names, sockets) = self.custody.lend();
                server.send(&FromSpawner::Lent { names }, &sockets)
            }
            ToSpawner::Quit => Ok(()),
        }
    }

    fn prepare(
        &mut self,
        server: &Channel,
        request: u64,
        slot: &SlotSpec,
        expected: &Expected,
    ) -> io::Result<()> {
        let prepared = match self.tools.workshop() {
            Ok(shop) => self.slots.prepare(&shop, &mut self.wiring, request, slot, expected),
            Err(error) => Err(error.to_string()),
        };
        match prepared {
            // Answered when its init is parked.
            Ok(()) => Ok(()),
            Err(reason) => server.send(&FromSpawner::Refused { request, reason }, &[]),
        }
    }

    /// Replaces a router that has ended. What was attached to it has no network any more.
    fn renew_router(&mut self) {
        let Some(Renewed { standing, listener, keeps_slots }) = self.wiring.renew() else { return };
        if !keeps_slots {
            let reason = "the router of the sandboxes' network has ended";
            let lost = self.slots.lose(reason, &self.tools.cgroups);
            self.tell(lost);
        }
        if let Some(server) = &self.server
            && tell_of_network(server, standing, listener.as_ref()).is_err()
        {
            self.server = None;
        }
    }

    fn tell(&mut self, news: Vec<FromSpawner>) {
        for news in news {
            if let Some(server) = &self.server
                && server.send(&news, &[]).is_err()
            {
                self.server = None;
            }
        }
    }

    fn start(
        &mut self,
        server: &Channel,
        request: u64,
        spec: &SandboxSpec,
        fds: &[OwnedFd],
    ) -> io::Result<()> {
        match start::start(&self.tools, (&mut self.slots, &mut self.wiring), spec, fds) {
            Ok((pid, pidfd)) => {
                server.send(&FromSpawner::Started { request, pid }, &[pidfd.as_fd()])
            }
            Err(reason) => server.send(&FromSpawner::Refused { request, reason }, &[]),
        }
    }
}

/// What the spawner was woken by.
struct Happened {
    /// A server connects.
    connection: bool,
    /// The present server has said something.
    message: bool,
    /// A slot has.
    slots: bool,
    /// The router has ended.
    router: bool,
}

fn tell_of_network(
    server: &Channel,
    standing: Standing,
    listener: Option<&TcpListener>,
) -> io::Result<()> {
    let listener = listener.map(|listener| listener.as_fd());
    let carried: Vec<_> = listener.into_iter().collect();
    server.send(&FromSpawner::Network { standing }, &carried)
}

enum Next {
    GoOn,
    Quit,
}

impl Next {
    fn is_quit(&self) -> bool {
        matches!(self, Self::Quit)
    }
}

impl Tools {
    /// What making a slot needs.
    ///
    /// # Errors
    /// The devices cannot be copied.
    pub(crate) fn workshop(&self) -> Result<Workshop<'_>, Failed> {
        Ok(Workshop {
            proof: &self.proof,
            cgroups: &self.cgroups,
            init: self.init.as_fd(),
            null: self.null.as_fd(),
            scaffold: &self.scaffold,
            devices: self.scaffold.devices()?,
            seccomp: self.seccomp.as_fd(),
            ids: self.ids,
        })
    }

    fn new(config: &Config) -> io::Result<Self> {
        let proof = SingleThreaded::prove()?;
        let ordinary_user = !rustix::process::geteuid().is_root();
        let run = config.socket.parent().unwrap_or(Path::new("/"));
        let cgroups = Cgroups::detect(&config.name, run);
        cgroups.prepare()?;
        let init = fs::read(&config.init).doing(|| format!("read {}", config.init.display()))?;
        let init = sealed(c"pinnace-init", &init)?;
        let seccomp = sealed(c"pinnace-seccomp", &seccomp::to_bytes(&seccomp::program()))?;
        let null = fs::File::options().read(true).write(true).open("/dev/null")?.into();
        let ids = if ordinary_user {
            let mapped = match network::user_namespace(&config.router)? {
                Some(namespace) => rejoin_user_namespace(&proof, &namespace)?,
                None => ids::enter(&proof)?.is_ok(),
            };
            if mapped { Ids::Range } else { Ids::One }
        } else {
            sys::unshare(&proof, libc::CLONE_NEWNS)?;
            Ids::Roots
        };
        let scaffold = Scaffold::new(&config.scaffold, ordinary_user).map_err(io::Error::other)?;
        Ok(Self { proof, scaffold, cgroups, init, seccomp, null, ids })
    }
}

/// Enters the user namespace of an earlier spawner, in which its router is. Whether it has more ids than one.
fn rejoin_user_namespace(proof: &SingleThreaded, namespace: &OwnedFd) -> io::Result<bool> {
    let user = Some(LinkNameSpaceType::User);
    move_into_link_name_space(namespace.as_fd(), user)
        .doing(|| "enter the user namespace of the router")?;
    sys::unshare(proof, ids::APART)?;
    ids::has_range()
}

/// Removes the socket of a spawner that has died; refuses where one lives.
fn refuse_if_served(socket: &Path) -> io::Result<()> {
    match Channel::connect(socket) {
        Ok(_) => {
            let text = format!("another spawner serves at {}", socket.display());
            Err(io::Error::new(io::ErrorKind::AddrInUse, text))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(socket).doing(|| format!("remove {}", socket.display()))?)
        }
        Err(_) => Ok(()),
    }
}

/// A file in memory that nobody can change any more.
fn sealed(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let file = sys::executable_memfd(name)?;
    fs::File::from(file.try_clone()?).write_all(content)?;
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    Ok(file)
}
