//! A host to try sandboxes on: a spawner of its own, a state directory, images made of busybox.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use pinnace_core::{Exit, image::User};
use pinnace_sandbox::{
    adoption::Adopted,
    cgroup::Cgroups,
    channel::Channel,
    host::Host as Abilities,
    host_root::{self, HostRoot},
    protocol::{
        Bounds, Expected, FromInit, FromSpawner, Root, SandboxSpec, SlotSpec, ToInit, ToSpawner,
    },
    spawner::Config,
};

/// Longest time that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where Debian's package busybox-static puts its program.
const BUSYBOX: &str = "/bin/busybox";

/// First id of the ranges that tests use.
const ID_BASE: u32 = 1_000_000_000;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A spawner with all it needs.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub layers: HostRoot,
    pub cgroups: Cgroups,
    pub spawner: Option<Child>,
    pub server: Channel,
    /// Whether sandboxes get id ranges, as a server decides it.
    pub has_ranges: bool,
    requests: u64,
}

/// A sandbox that has been asked for.
pub struct Replica {
    pub spec: SandboxSpec,
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// Connection to its init, and the log pipes.
    pub init: Option<(Channel, OwnedFd, OwnedFd)>,
    pub ready_at_attach: bool,
}

/// Asks until the answer is something.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::yield_now();
    }
}

impl Host {
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("pinnace-test").tempdir().unwrap();
        for name in ["scaffold", "run", "layers"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let name = format!("test-{}-{number}", std::process::id());
        let config = Config {
            socket: dir.path().join("spawner.sock"),
            init: env!("CARGO_BIN_EXE_pinnace-init").into(),
            scaffold: dir.path().join("scaffold"),
            router: dir.path().join("router"),
            name: name.clone(),
        };
        let layers = host_root::prepare(&dir.path().join("layers")).unwrap();
        let cgroups = Cgroups::detect(&name, dir.path());
        cgroups.prepare().unwrap();
        let (spawner, server) = start_spawner(&config);
        let program = Path::new(env!("CARGO_BIN_EXE_pinnace-spawner"));
        let abilities = Abilities::probe(program, dir.path(), &cgroups).unwrap();
        Self {
            dir,
            config,
            layers,
            cgroups,
            has_ranges: abilities.id_ranges.is_ok(),
            spawner: Some(spawner),
            server,
            requests: 0,
        }
    }

    /// Ends the spawner as a crash would, and starts another.
    pub fn replace_spawner(&mut self) {
        let mut spawner = self.spawner.take().unwrap();
        spawner.kill().unwrap();
        spawner.wait().unwrap();
        let (spawner, server) = start_spawner(&self.config);
        self.spawner = Some(spawner);
        self.server = server;
    }

    /// What image `host` is.
    pub fn host_image(&self) -> Root {
        let layers = vec![self.layers.skeleton.clone(), self.layers.host.clone()];
        Root { layers, read_only: false, host_usr: true, kept_in: None }
    }

    /// An image that has busybox and nothing else, plus what `more` puts there.
    pub fn busybox_image(&self, name: &str, more: impl FnOnce(&Path)) -> Root {
        assert!(
            Path::new(BUSYBOX).exists(),
            "{BUSYBOX} is missing: install Debian's package busybox-static"
        );
        let layer = self.dir.path().join("layers").join(name);
        fs::create_dir_all(layer.join("bin")).unwrap();
        fs::copy(BUSYBOX, layer.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "ls", "id", "sleep", "touch", "mkdir", "dd", "hostname", "kill", "true",
            "wc", "head",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        more(&layer);
        Root {
            layers: vec![self.layers.skeleton.clone(), layer],
            read_only: false,
            host_usr: false,
            kept_in: None,
        }
    }

    /// A slot of a new name, with a range of its own.
    pub fn slot(&self) -> SlotSpec {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id_base = self.has_ranges.then_some(ID_BASE + number * 65_536);
        let name = format!("slot-{number}");
        let dir = self.dir.path().join("run").join(&name);
        fs::create_dir(&dir).unwrap();
        SlotSpec { name, id_base, dir, host_gateway: None }
    }

    /// Has a slot made ahead, and waits until it is or cannot be.
    pub fn prepare(&mut self, slot: &SlotSpec) -> FromSpawner {
        self.requests += 1;
        let (request, slot) = (self.requests, slot.clone());
        let expected = Expected { bounds: bounds(), leaves: false };
        self.server.send(&ToSpawner::Prepare { request, slot, expected }, &[]).unwrap();
        self.server.recv::<FromSpawner>().unwrap().unwrap().0
    }

    /// A specification to change at will.
    pub fn spec(&self, root: Root, command: &[&str]) -> SandboxSpec {
        SandboxSpec {
            leaves: false,
            resolv_conf: String::new(),
            slot: self.slot(),
            hostname: "inside".into(),
            root,
            binds: Vec::new(),
            command: command.iter().map(|&word| word.into()).collect(),
            env: vec!["PATH=/usr/bin:/bin".into(), "GREETING=hello".into()],
            working_dir: String::new(),
            user: User::default(),
            stop_signal: 15,
            bounds: bounds(),
            listens: false,
            port: None,
        }
    }

    /// Asks for a start and gives the spawner's answer.
    pub fn ask(&mut self, spec: &SandboxSpec, fds: &[BorrowedFd<'_>]) -> Result<Replica, String> {
        self.requests += 1;
        let wanted = self.requests;
        let message = ToSpawner::Start { request: wanted, spec: Box::new(spec.clone()) };
        self.server.send(&message, fds).unwrap();
        let (answer, mut fds) = self.server.recv::<FromSpawner>().unwrap().unwrap();
        match answer {
            FromSpawner::Started { request, pid } => {
                assert_eq!((request, fds.len()), (wanted, 1));
                let pidfd = fds.remove(0);
                let spec = spec.clone();
                Ok(Replica { spec, pid, pidfd, init: None, ready_at_attach: false })
            }
            FromSpawner::Refused { request, reason } => {
                assert_eq!(request, wanted);
                Err(reason)
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn start(&mut self, spec: &SandboxSpec) -> Replica {
        self.ask(spec, &[]).unwrap()
    }

    /// Starts, attaches, waits for the end: standard output, standard error, and how it ended.
    pub fn run(&mut self, spec: &SandboxSpec) -> (String, String, Exit) {
        let mut replica = self.start(spec);
        if replica.attach().is_err() {
            replica.wait_for_end();
            let exit = replica.exit_on_disk().unwrap();
            return (String::new(), String::new(), exit);
        }
        let (out, err) = replica.output();
        let exit = replica.exit();
        self.clean_up(&replica);
        (out, err, exit)
    }

    /// Runs a shell command in a busybox image.
    pub fn sh(&mut self, script: &str) -> (String, String, Exit) {
        let root = self.busybox_image(&format!("sh-{}", COUNT.load(Ordering::Relaxed)), |_| {});
        let spec = self.spec(root, &["sh", "-c", script]);
        self.run(&spec)
    }

    /// What a server does when a replica has ended.
    pub fn clean_up(&self, replica: &Replica) {
        replica.wait_for_end();
        self.cgroups.remove(&replica.spec.slot.name).unwrap();
        fs::remove_dir_all(&replica.spec.slot.dir).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path().join("run")).unwrap().flatten() {
            if let Ok(Some(init)) = Adopted::find(&entry.path()) {
                init.kill().unwrap();
            }
        }
        if let Some(mut spawner) = self.spawner.take() {
            let _ = spawner.kill();
            let _ = spawner.wait();
        }
        for id in self.cgroups.list() {
            let _ = self.cgroups.kill_all(&id);
            let _ = self.cgroups.remove(&id);
        }
        self.cgroups.remove_base();
    }
}

impl Replica {
    pub fn attach(&mut self) -> io::Result<()> {
        let channel = Channel::connect(&self.spec.slot.dir.join("init.sock"))?;
        channel.set_recv_time_max(PATIENCE)?;
        channel.send(&ToInit::Attach, &[])?;
        match channel.recv::<FromInit>()? {
            Some((FromInit::Attached { ready }, fds)) if fds.len() >= 2 => {
                let mut fds = fds.into_iter();
                let mut next = || fds.next().unwrap();
                self.init = Some((channel, next(), next()));
                self.ready_at_attach = ready;
                Ok(())
            }
            other => Err(io::Error::other(format!("not attached: {other:?}"))),
        }
    }

    pub fn channel(&self) -> &Channel {
        &self.init.as_ref().expect("attached").0
    }

    /// The next message of the init.
    pub fn hear(&self) -> Option<(FromInit, Vec<OwnedFd>)> {
        self.channel().recv().unwrap()
    }

    /// All of standard output and standard error, to their ends.
    pub fn output(&mut self) -> (String, String) {
        let (channel, out, err) = self.init.take().unwrap();
        let read = |fd: OwnedFd| {
            let mut bytes = Vec::new();
            fs::File::from(fd).read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let texts = std::thread::scope(|scope| {
            let err = scope.spawn(|| read(err));
            (read(out), err.join().unwrap())
        });
        let null = || fs::File::open("/dev/null").unwrap().into();
        self.init = Some((channel, null(), null()));
        texts
    }

    /// Reads until standard output has said this.
    pub fn hears_line(&mut self, wanted: &str) {
        let (_, out, _) = self.init.as_mut().unwrap();
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(wanted) {
            let mut byte = [0];
            let read = rustix::io::read(&*out, &mut byte).unwrap();
            assert_eq!(read, 1, "it ended and had said {:?}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
    }

    /// How it ended, as it tells; the record on disk must say the same.
    pub fn exit(&self) -> Exit {
        let told = loop {
            match self.hear() {
                Some((FromInit::Exited { exit }, _)) => break exit,
                Some((FromInit::Ready | FromInit::Sockets, _)) => {}
                other => panic!("unexpected {other:?}"),
            }
        };
        assert_eq!(self.exit_on_disk().as_ref(), Some(&told));
        told
    }

    pub fn exit_on_disk(&self) -> Option<Exit> {
        serde_json::from_slice(&fs::read(self.spec.slot.dir.join("exit.json")).unwrap()).ok()
    }

    pub fn wait_for_end(&self) {
        eventually("the init ends", || has_ended(self.pidfd.as_fd()).then_some(()));
    }

    pub fn stop(&self, grace: Duration) {
        self.channel().send(&ToInit::Stop { grace }, &[]).unwrap();
    }
}

pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap() == 1
}

/// Bounds that a test may change.
pub fn bounds() -> Bounds {
    Bounds {
        memory_bytes: 64 << 20,
        cpu_millicores: None,
        pids: 64,
        open_files: 256,
        upper_bytes: 8 << 20,
        tmp_bytes: 4 << 20,
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn start_spawner(config: &Config) -> (Child, Channel) {
    let mut spawner = Command::new(env!("CARGO_BIN_EXE_pinnace-spawner"))
        .args(config.to_args())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let server = eventually("the spawner listens", || {
        if let Some(status) = spawner.try_wait().unwrap() {
            panic!("the spawner ended: {status}");
        }
        Channel::connect(&config.socket).ok()
    });
    server.set_recv_time_max(PATIENCE).unwrap();
    (spawner, server)
}
