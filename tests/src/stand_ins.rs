//! An internet of a test's own: the test runs in namespaces that it made, and every address that functions
//! try lies in another one beside it. No packet leaves them.
//!
//! ```text
//! functions -- Pinnace's router -- the test's host, 203.0.113.2 -- 203.0.113.1, the internet
//! ```
//!
//! The internet has no route to what is behind the host: whoever gets an answer came from the host's address.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::fd::AsFd,
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The host's address.
pub const HOST: &str = "203.0.113.2";
/// A public address.
pub const PUBLIC: &str = "198.51.100.1";
/// Where clouds keep a machine's metadata.
pub const METADATA: &str = "169.254.169.254";
/// Addresses of private ranges. The first is the host's nameserver.
pub const PRIVATE: [&str; 5] =
    ["10.77.0.1", "10.78.0.1", "172.20.0.1", "192.168.77.1", "100.100.0.1"];

/// Port at which every address of the internet answers the address of who connects.
pub const WEB: u16 = 80;

/// Says that this process is in namespaces of its own.
const ALONE: &str = "PINNACE_TEST_ALONE";

/// Whether this process is in network, mount and pid namespaces of its own. If not, the test of this name has
/// been run there, and passed.
///
/// # Panics
/// The test did not pass there; the message shows what it said.
#[must_use]
pub fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("a test has a file");
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("util-linux is installed");
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Runs a program of the host and answers what it printed. Words are split at single spaces.
///
/// # Panics
/// It fails.
#[must_use]
pub fn run(words: &str) -> String {
    let mut words = words.split(' ');
    let program = words.next().unwrap_or_default();
    let ran = Command::new(program).args(words).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Makes the internet, and a nameserver that knows every name as [`PUBLIC`].
///
/// # Panics
/// Something of it cannot be made.
pub fn internet() {
    // A new namespace has the setting of the first one.
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("this namespace is the test's own");
    let setup = [
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip netns add internet",
        "ip link add wan type veth peer name eth0 netns internet",
        "ip addr add 203.0.113.2/24 dev wan",
        "ip link set wan up",
        "ip route add default via 203.0.113.1",
        "ip -n internet addr add 203.0.113.1/24 dev eth0",
        "ip -n internet link set eth0 up",
        "ip -n internet link set lo up",
    ];
    setup.iter().for_each(|command| drop(run(command)));
    for address in [PUBLIC, METADATA].into_iter().chain(PRIVATE) {
        drop(run(&format!("ip -n internet addr add {address}/32 dev lo")));
    }
    fs::write("/run/resolv.conf", format!("nameserver {}\n", PRIVATE[0])).expect("/run is ours");
    drop(run("mount --bind /run/resolv.conf /etc/resolv.conf"));
    let namespace = File::open("/run/netns/internet").expect("it was just made");
    let web = bound(&namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, WEB)));
    thread::spawn(move || serve(&web));
    let dns = bound(&namespace, || UdpSocket::bind((PRIVATE[0], 53)));
    thread::spawn(move || answer_names(&dns));
}

/// Serves at a port of all addresses of the host.
///
/// # Panics
/// The port is taken.
pub fn serve_on_host(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    thread::spawn(move || serve(&listener));
}

/// A socket that is made in another network namespace belongs there.
fn bound<T: Send>(namespace: &File, bind: impl FnOnce() -> io::Result<T> + Send) -> T {
    let made = thread::scope(|scope| {
        let there = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            bind()
        });
        there.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    });
    made.expect("the port is free")
}

fn serve(listener: &TcpListener) {
    while let Ok((mut stream, peer)) = listener.accept() {
        // One that has left needs no answer.
        let _ = stream.write_all(peer.ip().to_string().as_bytes());
    }
}

/// Answers every question with one address (RFC 1035 section 4).
fn answer_names(socket: &UdpSocket) {
    const HEADER_BYTES: usize = 12;
    let address: Ipv4Addr = PUBLIC.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let mut packet = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut packet) {
        let Some(name) = packet[..length].get(HEADER_BYTES..) else { continue };
        let Some(end) = name.iter().position(|byte| *byte == 0) else { continue };
        let question_end = HEADER_BYTES + end + 5;
        let Some(question) = packet[..length].get(..question_end) else { continue };
        let is_ipv4 = question.get(question_end - 3) == Some(&1);
        let mut answer = question.to_vec();
        // An answer to a recursive question, with as many answers as there are, and nothing more.
        answer[2..HEADER_BYTES].copy_from_slice(&[
            0x81,
            0x80,
            0,
            1,
            0,
            u8::from(is_ipv4),
            0,
            0,
            0,
            0,
        ]);
        if is_ipv4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
        let _ = socket.send_to(&answer, peer);
    }
}
