//! Sandboxes that share the host's network, which here is the test's.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use pinnace_core::Exit;
use pinnace_sandbox::{
    channel::Channel,
    protocol::{FromInit, SandboxSpec, ToInit},
};

use crate::host::{Host, PATIENCE};

/// Where its function finds the platform.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 99, 1, 2);

/// A sandbox on the host's network that runs a script, with the listeners for its start; `None` where the
/// host has no ranges of ids, without which no server asks for one.
fn on_host(host: &Host, script: &str) -> Option<(SandboxSpec, UnixListener, TcpListener)> {
    if !host.has_ranges {
        return None;
    }
    let mut spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    spec.listens = true;
    spec.slot.host_gateway = Some(GATEWAY);
    let own = UnixListener::bind(spec.slot.dir.join("fn.sock")).unwrap();
    Some((spec, own, TcpListener::bind((GATEWAY, 0)).unwrap()))
}

#[test]
fn it_has_the_hosts_network_and_no_power_over_it() {
    let mut host = Host::new();
    let served = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = served.local_addr().unwrap().port();
    let script = format!(
        "import os, socket\n\
         print(socket.create_connection(('127.0.0.1', {port})).recv(99).decode())\n\
         print(socket.gethostbyname('gateway'), socket.gethostbyname('gateway.openfaas'))\n\
         def refused(act):\n\
         \x20   try: act()\n\
         \x20   except OSError as error: print(error.errno)\n\
         \x20   else: print('done')\n\
         def beside(port):\n\
         \x20   s = socket.socket()\n\
         \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n\
         \x20   s.bind(('127.0.0.1', port))\n\
         refused(lambda: beside({port}))\n\
         refused(lambda: beside(80))\n\
         refused(lambda: open('/proc/sys/net/ipv4/ip_forward', 'w'))\n\
         refused(lambda: socket.if_nametoindex('lo') and os.listdir('/sys/class/net'))\n\
         print(open('/proc/net/dev').read())\n"
    );
    let Some((spec, own, gateway)) = on_host(&host, &script) else { return };
    let shared = socket_of_the_same_port(&served);
    let mut replica = host.ask(&spec, &[own.as_fd(), gateway.as_fd()]).unwrap();
    replica.attach().unwrap();
    served.accept().unwrap().0.write_all(b"from the host").unwrap();
    let (out, err) = replica.output();
    assert_eq!(replica.exit(), Exit::Code { code: 0 }, "{err}");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("from the host"));
    assert_eq!(lines.next(), Some("127.99.1.2 127.99.1.2"));
    let errors: Vec<&str> = lines.by_ref().take(4).collect();
    let in_use = libc::EADDRINUSE.to_string();
    assert_eq!(errors[..2], [in_use.as_str(), &libc::EACCES.to_string()], "{out}");
    assert!(errors[2..].iter().all(|error| *error != "done"), "{out}");
    let devices = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    let seen = devices(&lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(seen, devices(&fs::read_to_string("/proc/net/dev").unwrap()));
    drop(shared);
    host.clean_up(&replica);
}

/// Root's own sockets may share a port with each other, as those of Pinnace's workers do.
fn socket_of_the_same_port(served: &TcpListener) -> OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    let address = served.local_addr().unwrap();
    sockopt::set_socket_reuseport(served, true).unwrap();
    let beside = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseport(&beside, true).unwrap();
    bind(&beside, &address).unwrap();
    beside
}

#[test]
fn its_init_keeps_the_gateways_listener_for_every_server() {
    let mut host = Host::new();
    let script = "import os, time\nos.write(4, b'1')\ntime.sleep(1000)";
    let Some((spec, own, gateway)) = on_host(&host, script) else { return };
    let count = host.ask(&spec, &[own.as_fd()]).err().unwrap();
    assert!(count.contains("it needs 2"), "{count}");
    let address = gateway.local_addr().unwrap();
    let replica = host.ask(&spec, &[own.as_fd(), gateway.as_fd()]).unwrap();
    drop(gateway);
    for _ in 0..2 {
        assert_eq!(sent_listener(&spec.slot.dir), address);
    }
    // It goes with its init, and not before.
    assert!(TcpListener::bind(address).is_err());
    let init = pinnace_sandbox::adoption::Adopted::find(&spec.slot.dir).unwrap().unwrap();
    init.kill().unwrap();
    host.clean_up(&replica);
    TcpListener::bind(address).unwrap();
}

/// Where the listener is that a server gets from the init.
fn sent_listener(dir: &Path) -> SocketAddr {
    let channel = crate::host::eventually("the init can be reached", || {
        Channel::connect(&dir.join("init.sock")).ok()
    });
    channel.set_recv_time_max(PATIENCE).unwrap();
    channel.send(&ToInit::Attach, &[]).unwrap();
    let Some((FromInit::Attached { .. }, fds)) = channel.recv().unwrap() else {
        panic!("not attached")
    };
    assert_eq!(fds.len(), 3, "two pipes, the listener, and no sockets");
    let listener = fds.into_iter().next_back().unwrap();
    TcpListener::from(listener).local_addr().unwrap()
}
