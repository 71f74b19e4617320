//! Where functions on the host's network reach the platform: each replica at a listener of its own on the
//! loopback device, by which it is known.
//!
//! The port is the gateway's, so that the address differs, and `/etc/hosts` leads there. Its init keeps the
//! listener, for as long as the replica lives and whichever server runs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

use pinnace_core::limits;
use pinnace_sandbox::network::plan::GATEWAY_PORT;
use socket2::{Domain, Protocol, Socket, Type};
use uuid::Uuid;

/// Addresses that are tried. Nearly all are free: it takes a listener on all addresses at once to be in the
/// way of each.
const TRIES_MAX: u32 = 8;

/// A listener at an address that nobody else has.
///
/// # Errors
/// The port is taken on all addresses, or those of bind(2) and listen(2).
pub fn listen() -> io::Result<(Ipv4Addr, OwnedFd)> {
    for _ in 0..TRIES_MAX {
        let address = any_address();
        // Shared it stands beside a socket of ours on all addresses (`--listen 0.0.0.0:8080`), before which
        // the kernel prefers it; else not, so that the address is surely nobody else's.
        for shared in [false, true] {
            match bind(SocketAddrV4::new(address, GATEWAY_PORT), shared) {
                Ok(listener) => return Ok((address, listener.into())),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!(
            "functions with network host reach the platform at port {GATEWAY_PORT} of the loopback device, \
             and another program listens at that port of all addresses: stop it, or choose network nat"
        ),
    ))
}

/// One of 127.64.0.0/10: the first addresses are used by resolvers and others.
fn any_address() -> Ipv4Addr {
    let [second, third, last, ..] = *Uuid::new_v4().as_bytes();
    Ipv4Addr::new(127, 64 | second & 63, third, last)
}

fn bind(address: SocketAddrV4, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Connections that have ended may hold the address yet.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    let backlog = limits::GATEWAY_CONNECTIONS_PER_REPLICA_MAX;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_the_loopback_device_and_differ() {
        let (one, two) = (any_address(), any_address());
        assert!(one.is_loopback() && one.octets()[1] & 0xc0 == 64, "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn it_stands_beside_a_socket_of_ours_on_all_addresses() {
        let all = bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), true).unwrap();
        let port = all.local_addr().unwrap().as_socket_ipv4().unwrap().port();
        let address = SocketAddrV4::new(any_address(), port);
        assert_eq!(bind(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let own = bind(address, true).unwrap();
        let _caller = std::net::TcpStream::connect(address).unwrap();
        own.set_nonblocking(false).unwrap();
        own.accept().unwrap();
        assert_eq!(all.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn one_listener_keeps_others_from_its_address() {
        let address = |listener: &Socket| listener.local_addr().unwrap().as_socket_ipv4().unwrap();
        let first = bind(SocketAddrV4::new(any_address(), 0), false).unwrap();
        for shared in [false, true] {
            let second = bind(address(&first), shared).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
