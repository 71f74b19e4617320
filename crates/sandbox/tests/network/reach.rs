//! What functions reach, and what they do not.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    time::Duration,
};

use pinnace_core::limits;
use pinnace_sandbox::network::{
    Policy, Uplink,
    plan::{GATEWAY, GATEWAY_PORT},
};

use crate::world::{
    DNS, HOST, METADATA, NAME, NEIGHBOUR, PATIENCE, PRIVATE, PUBLIC, SILENCE, WEB, World, dial,
    inside, ip, namespace, run, slot,
};

/// A port of the host on which something listens.
const HOST_PORT: u16 = 8080;

pub fn the_gateway_knows_who_calls() {
    let world = World::new();
    let mut router = world.router(&Policy::default());
    let listener = router.listener().unwrap();
    let slots = [slot(&mut router, "one"), slot(&mut router, "two")];
    assert_ne!(slots[0].at.address, slots[1].at.address);
    for slot in &slots {
        let gateway = SocketAddrV4::new(GATEWAY, GATEWAY_PORT);
        let caller = inside(&slot.namespace, || TcpStream::connect(gateway)).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), slot.at.address);
        drop(caller);
        assert!(slot.is_refused(&GATEWAY.to_string(), 22));
        assert!(slot.dial(PUBLIC, WEB).is_err());
    }
}

pub fn only_who_may_leave_leaves() {
    let world = World::new();
    let mut router = world.router(&Policy::default());
    Uplink::make(&mut router, NAME).unwrap();
    let (one, two) = (slot(&mut router, "one"), slot(&mut router, "two"));
    assert!(one.is_refused(PUBLIC, WEB));
    router.let_leave(one.at.place, true).unwrap();
    assert_eq!(one.dial(PUBLIC, WEB).unwrap(), HOST);
    assert!(two.is_refused(PUBLIC, WEB));
    router.let_leave(one.at.place, false).unwrap();
    assert!(one.is_refused(PUBLIC, WEB));
}

pub fn what_is_closed_stays_closed() {
    let mut world = World::new();
    world.serve(None, "tcp", HOST_PORT);
    let (_router, _uplink, [one, two]) = world.two_slots(&Policy::default());
    assert_eq!(one.dial(PUBLIC, WEB).unwrap(), HOST);
    for address in PRIVATE.into_iter().chain([METADATA, NEIGHBOUR]) {
        // The host itself reaches it: what keeps a function from it are the rules.
        assert_eq!(host_dials(address, WEB), HOST);
        assert!(one.is_refused(address, WEB), "{address}");
    }
    let uplink = run("ip", "-4 -o addr show dev pn-0123456789ab");
    let uplink = uplink.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
    assert!(uplink.starts_with("198.18."), "{uplink}");
    for address in [HOST, &uplink] {
        assert_eq!(host_dials(address, HOST_PORT), address);
        assert!(one.is_refused(address, HOST_PORT), "{address}");
    }
    // Another function's address, where something listens.
    let served = inside(&two.namespace, || std::net::TcpListener::bind("0.0.0.0:8080")).unwrap();
    assert!(one.is_refused(&two.at.address.to_string(), 8080));
    served.set_nonblocking(true).unwrap();
    assert_eq!(served.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // Broadcast and multicast stay where they are.
    for address in ["255.255.255.255", "224.0.0.1", "198.19.255.255"] {
        assert!(one.dial(address, WEB).is_err(), "{address}");
    }
}

fn host_dials(address: &str, port: u16) -> String {
    let host = std::fs::File::open("/proc/self/ns/net").unwrap();
    dial(&host, address.parse().unwrap(), port, PATIENCE).unwrap()
}

pub fn exactly_what_is_opened_is_open() {
    let world = World::new();
    let (mut router, _uplink, [one, _]) =
        world.two_slots(&World::policy(&["10.77.0.0/24", "192.168.77.1"]));
    for address in ["10.77.0.1", "192.168.77.1", PUBLIC] {
        assert_eq!(one.dial(address, WEB).unwrap(), HOST);
    }
    for address in [NEIGHBOUR, "172.20.0.1", "100.100.0.1", METADATA] {
        assert!(one.is_refused(address, WEB), "{address}");
    }
    assert!(router.apply(&World::policy(&["169.254.0.0/16"])).is_err());
    assert!(router.apply(&World::policy(&["0.0.0.0/0"])).is_err());
    assert_eq!(one.dial("10.77.0.1", WEB).unwrap(), HOST);
    router.apply(&World::policy(&["172.16.0.0/12"])).unwrap();
    assert_eq!(one.dial("172.20.0.1", WEB).unwrap(), HOST);
    assert!(one.is_refused("10.77.0.1", WEB));
}

pub fn names_are_asked_for_at_the_nameserver() {
    let world = World::new();
    let resolvers = vec![PRIVATE[0].parse().unwrap()];
    let (mut router, _uplink, [one, two]) =
        world.two_slots(&Policy { allowed: Vec::new(), resolvers });
    router.let_leave(two.at.place, false).unwrap();
    assert_eq!(one.ask_by_udp(PRIVATE[0], DNS).unwrap(), HOST);
    assert_eq!(one.dial(PRIVATE[0], DNS).unwrap(), HOST);
    assert!(one.is_refused(PRIVATE[0], WEB));
    assert!(one.ask_by_udp(PRIVATE[1], DNS).is_err());
    assert!(two.ask_by_udp(PRIVATE[0], DNS).is_err());
}

pub fn nobody_speaks_for_another() {
    let world = World::new();
    let (router, _uplink, [one, two]) = world.two_slots(&Policy::default());
    let listener = router.listener().unwrap();
    listener.set_nonblocking(true).unwrap();
    ip(&format!("-n one addr add {}/32 dev eth0", two.at.address));
    let from_two = |to: SocketAddrV4, patience: Duration| {
        let from = SocketAddrV4::new(two.at.address, 0);
        inside(&one.namespace, || {
            let socket = UdpSocket::bind(from)?;
            socket.set_read_timeout(Some(patience))?;
            socket.send_to(b"?", to)?;
            socket.recv(&mut [0; 64])
        })
    };
    let public = SocketAddrV4::new(PUBLIC.parse().unwrap(), DNS);
    assert!(from_two(public, SILENCE).is_err());
    assert!(two.ask_by_udp(PUBLIC, DNS).is_ok());
    let by_source = inside(&one.namespace, || {
        let kind = rustix::net::SocketType::STREAM;
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, kind, None)?;
        rustix::net::bind(&socket, &SocketAddrV4::new(two.at.address, 0))?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Send,
            Some(SILENCE),
        )?;
        Ok(rustix::net::connect(&socket, &SocketAddrV4::new(GATEWAY, GATEWAY_PORT))?)
    });
    assert!(by_source.is_err());
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

pub fn a_published_port_is_no_way_in() {
    let mut world = World::new();
    // As container engines do it: a port of the host leads to an address behind it.
    ip("netns add container");
    ip("link add bridge type veth peer name eth0 netns container");
    ip("addr add 172.30.0.1/24 dev bridge");
    ip("link set bridge up");
    ip("-n container addr add 172.30.0.2/24 dev eth0");
    ip("-n container link set eth0 up");
    ip("-n container route add default via 172.30.0.1");
    world.serve(Some("container"), "tcp", WEB);
    run("nft", "add table ip published");
    run("nft", "add chain ip published in { type nat hook prerouting priority -100 ; }");
    run(
        "nft",
        "add rule ip published in ip daddr 203.0.113.2 tcp dport 8000 dnat to 172.30.0.2:80",
    );
    let (_router, _uplink, [one, _]) = world.two_slots(&Policy::default());
    // Who comes from outside gets there.
    let outside = dial(&namespace("internet"), HOST.parse().unwrap(), 8000, PATIENCE);
    assert_eq!(outside.unwrap(), "203.0.113.1");
    assert!(one.is_refused(HOST, 8000));
}

pub fn nobody_outside_reaches_a_function() {
    let world = World::new();
    let (_router, _uplink, [one, _]) = world.two_slots(&Policy::default());
    let served = inside(&one.namespace, || std::net::TcpListener::bind("0.0.0.0:8080")).unwrap();
    served.set_nonblocking(true).unwrap();
    let uplink = run("ip", "-4 -o route show dev pn-0123456789ab");
    let first: Ipv4Addr = uplink.split('/').next().unwrap().parse().unwrap();
    let router = Ipv4Addr::from_bits(first.to_bits() | 1);
    for route in [one.at.address, GATEWAY, router] {
        ip(&format!("-n internet route add {route}/32 via {HOST}"));
        let reached = dial(&namespace("internet"), route, 8080, SILENCE);
        assert!(reached.is_err(), "{route}");
    }
    // Not even from the host.
    ip(&format!("route add {}/32 via {router}", one.at.address));
    let host = std::fs::File::open("/proc/self/ns/net").unwrap();
    for address in [one.at.address, router] {
        assert!(dial(&host, address, 8080, SILENCE).is_err());
    }
    assert_eq!(served.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

pub fn connections_are_bounded() {
    /// As `world::serve` knows one that keeps its callers.
    const KEEPS: u16 = 81;
    let mut world = World::new();
    world.serve(Some("internet"), "hold", KEEPS);
    let (_router, _uplink, [one, two]) = world.two_slots(&Policy::default());
    let to = SocketAddrV4::new(PUBLIC.parse().unwrap(), KEEPS);
    let most = usize::try_from(limits::OUTSIDE_CONNECTIONS_PER_REPLICA_MAX).unwrap();
    // Datagrams of as many sockets are as many connections to the kernel, and need no server's descriptors.
    let sockets = inside(&one.namespace, || {
        (0..most)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(to)?;
                socket.send(b"?")?;
                Ok(socket)
            })
            .collect::<io::Result<Vec<_>>>()
    });
    assert_eq!(sockets.unwrap().len(), most);
    assert!(one.is_refused(PUBLIC, WEB));
    assert_eq!(two.dial(PUBLIC, WEB).unwrap(), HOST);
}
