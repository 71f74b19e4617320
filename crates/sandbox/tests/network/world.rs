//! The stand-ins: this test's network namespace is the host; beyond it lies an internet of one namespace that
//! holds every address that functions may try.
//!
//! ```text
//! slots -- router -- host 203.0.113.2 -- 203.0.113.1 internet: 198.51.100.1, 10.77.0.1, 169.254.169.254, …
//! ```
//!
//! The internet has no route to anything behind the host, so whoever gets an answer came from its address.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pinnace_sandbox::network::{Attachment, Policy, Router, Uplink};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer that must not come is waited for, where no refusal tells.
pub const SILENCE: Duration = Duration::from_millis(500);

pub const HOST: &str = "203.0.113.2";
pub const PUBLIC: &str = "198.51.100.1";
pub const METADATA: &str = "169.254.169.254";
pub const PRIVATE: [&str; 4] = ["10.77.0.1", "172.20.0.1", "192.168.77.1", "100.100.0.1"];
/// Next to the first private one, in the next block of 24 bits.
pub const NEIGHBOUR: &str = "10.77.1.1";

/// First argument of a process that serves.
pub const SERVE: &str = "--serve";

pub const WEB: u16 = 80;
pub const DNS: u16 = 53;

pub const NAME: &str = "0123456789ab";

pub struct World {
    pub dir: tempfile::TempDir,
    pub program: File,
    servers: Vec<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

pub fn ip(arguments: &str) {
    run("ip", arguments);
}

pub fn run(program: &str, arguments: &str) -> String {
    let ran = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(
        ran.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
    String::from_utf8(ran.stdout).unwrap()
}

/// A network namespace, by the name that `ip netns` knows.
pub fn namespace(name: &str) -> File {
    File::open(Path::new("/run/netns").join(name)).unwrap()
}

impl World {
    pub fn new() -> Self {
        // Names of namespaces are files here: they end with this test's mounts.
        run("mount", "-t tmpfs tmpfs /run");
        // A new namespace has the setting of the first one.
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        ip("link set lo up");
        ip("netns add internet");
        ip("link add wan type veth peer name eth0 netns internet");
        ip("addr add 203.0.113.2/24 dev wan");
        ip("link set wan up");
        ip("route add default via 203.0.113.1");
        ip("-n internet addr add 203.0.113.1/24 dev eth0");
        ip("-n internet link set eth0 up");
        ip("-n internet link set lo up");
        for address in [PUBLIC, METADATA, NEIGHBOUR].into_iter().chain(PRIVATE) {
            ip(&format!("-n internet addr add {address}/32 dev lo"));
        }
        let dir = tempfile::tempdir().unwrap();
        let program = File::open(env!("CARGO_BIN_EXE_pinnace-init")).unwrap();
        let mut world = Self { dir, program, servers: Vec::new() };
        for (kind, port) in [("tcp", WEB), ("tcp", DNS), ("udp", DNS)] {
            world.serve(Some("internet"), kind, port);
        }
        world
    }

    /// Serves at a port of all addresses: each caller is told the address it comes from.
    pub fn serve(&mut self, namespace: Option<&str>, kind: &str, port: u16) {
        let this = std::env::current_exe().unwrap();
        let mut command = match namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(this);
                command
            }
            None => Command::new(this),
        };
        command.args([SERVE, kind, &port.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut ready = [0; 1];
        server.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        self.servers.push(server);
    }

    pub fn policy(allowed: &[&str]) -> Policy {
        let allowed = allowed.iter().map(ToString::to_string).collect();
        Policy { allowed, resolvers: Vec::new() }
    }

    pub fn router(&self, policy: &Policy) -> Router {
        // A thread that has ended is still listed for a moment.
        eventually("this process has one thread", || {
            (fs::read_dir("/proc/self/task").unwrap().count() == 1).then_some(())
        });
        Router::make(self.dir.path(), self.program.as_fd(), policy).unwrap()
    }

    /// A router with its uplink, and two slots that may leave.
    pub fn two_slots(&self, policy: &Policy) -> (Router, Uplink, [Slot; 2]) {
        let mut router = self.router(policy);
        let uplink = Uplink::make(&mut router, NAME).unwrap();
        let slots = [slot(&mut router, "one"), slot(&mut router, "two")];
        for slot in &slots {
            router.let_leave(slot.at.place, true).unwrap();
        }
        (router, uplink, slots)
    }
}

/// A slot: an empty network namespace that is attached.
pub struct Slot {
    pub namespace: File,
    pub at: Attachment,
}

pub fn slot(router: &mut Router, name: &str) -> Slot {
    ip(&format!("netns add {name}"));
    let namespace = namespace(name);
    let at = router.attach(namespace.as_fd()).unwrap();
    Slot { namespace, at }
}

impl Slot {
    /// What a server answers to a connection from here.
    pub fn dial(&self, address: &str, port: u16) -> io::Result<String> {
        dial(&self.namespace, address.parse().unwrap(), port, PATIENCE)
    }

    /// Whether a connection is refused at once.
    pub fn is_refused(&self, address: &str, port: u16) -> bool {
        match self.dial(address, port) {
            Err(error) => error.raw_os_error() == Some(libc::EHOSTUNREACH),
            Ok(_) => false,
        }
    }

    pub fn ask_by_udp(&self, address: &str, port: u16) -> io::Result<String> {
        let to = SocketAddrV4::new(address.parse().unwrap(), port);
        inside(&self.namespace, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"?")?;
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
        })
    }
}

/// Does something in a network namespace, in a thread that ends with it.
pub fn inside<T: Send>(
    namespace: &File,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network)?;
            act()
        });
        there.join().unwrap()
    })
}

pub fn dial(
    namespace: &File,
    address: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> io::Result<String> {
    inside(namespace, || {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddrV4::new(address, port).into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        thread::yield_now();
    }
}

/// The whole of a serving process.
pub fn serve(args: &[String]) {
    let [kind, port] = args else { panic!("{args:?}") };
    let port: u16 = port.parse().unwrap();
    let say_ready = || {
        print!("!");
        io::stdout().flush().unwrap();
    };
    if kind == "udp" {
        // One socket per address: a socket of all addresses would answer from another one.
        let sockets: Vec<UdpSocket> = [PUBLIC]
            .into_iter()
            .chain(PRIVATE)
            .map(|address| UdpSocket::bind((address, port)).unwrap())
            .collect();
        say_ready();
        thread::scope(|scope| {
            for socket in &sockets {
                scope.spawn(|| {
                    loop {
                        let (_, peer) = socket.recv_from(&mut [0; 64]).unwrap();
                        let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
                    }
                });
            }
        });
    }
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    say_ready();
    let mut held = Vec::new();
    loop {
        let (mut stream, peer) = listener.accept().unwrap();
        if kind == "hold" {
            held.push(stream);
        } else {
            let _ = stream.write_all(peer.ip().to_string().as_bytes());
        }
    }
}
