//! The sockets that clients connect to: bound once, kept by the spawner while no server runs.
//!
//! Each worker has a socket of its own on the one port (`SO_REUSEPORT`), which also would let a second
//! Pinnace bind it unnoticed. Two things keep it out: a bind without that option, which fails while anyone
//! listens there, and a guard, an abstract unix socket named after the address, for two that start at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
};

use pinnace_core::limits::KEPT_SOCKETS_MAX;
use socket2::{Domain, Protocol, Socket, Type};

use crate::provider::sandbox::Kept;

/// Connections that wait to be accepted, on each socket; the kernel's own limit (`somaxconn`) holds too.
const BACKLOG: i32 = 4096;

/// The sockets of one address.
#[derive(Debug)]
pub struct Listeners {
    /// One per worker.
    pub sockets: Vec<TcpListener>,
    address: SocketAddr,
    purpose: &'static str,
    guard: OwnedFd,
}

impl Listeners {
    /// Takes the sockets of this address that an earlier server had, or binds it. `kept` loses what is
    /// taken.
    ///
    /// # Errors
    /// The address is in use, or cannot be bound.
    pub fn take_or_bind(
        kept: &mut Kept,
        purpose: &'static str,
        address: SocketAddr,
        count: usize,
    ) -> io::Result<Self> {
        let mut sockets = take(kept, &name(purpose, address));
        let guard = take(kept, &guard_name(purpose, address)).pop();
        if let Some(guard) = guard
            && sockets.len() == count
        {
            let sockets = sockets.drain(..).map(TcpListener::from).collect();
            return Ok(Self { sockets, address, purpose, guard });
        }
        drop(sockets);
        let probe = bind(address, false)?;
        // Port 0 asks for any free port; all sockets must have the one that was found.
        let found = probe.local_addr()?.as_socket().unwrap_or(address);
        // Taken while the probe still keeps others out: from here on the guard does.
        let guard = guard_address(found)?;
        drop(probe);
        let sockets =
            (0..count).map(|_| listen(found)).collect::<io::Result<Vec<TcpListener>>>()?;
        Ok(Self { sockets, address: found, purpose, guard })
    }

    /// The same for several addresses.
    ///
    /// # Errors
    /// One of them is in use, or cannot be bound, or they are more than the spawner keeps.
    pub fn take_or_bind_all(
        kept: &mut Kept,
        purpose: &'static str,
        addresses: &[SocketAddr],
        count: usize,
    ) -> io::Result<Vec<Self>> {
        // A guard for each, and as much again for the other listeners.
        let wanted = (addresses.len() + 1) * (count + 1);
        if wanted > KEPT_SOCKETS_MAX {
            return Err(io::Error::other(format!(
                "{} addresses take {wanted} sockets on {count} processors, of which the spawner keeps \
                 {KEPT_SOCKETS_MAX} (KEPT_SOCKETS_MAX): give --listen fewer times",
                addresses.len()
            )));
        }
        addresses.iter().map(|address| Self::take_or_bind(kept, purpose, *address, count)).collect()
    }

    /// The address, with the port that was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Copies for the spawner to keep.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn copies(&self) -> io::Result<Kept> {
        let sockets = self.sockets.iter().map(|socket| {
            Ok((name(self.purpose, self.address), socket.as_fd().try_clone_to_owned()?))
        });
        let guard =
            self.guard.try_clone().map(|guard| (guard_name(self.purpose, self.address), guard));
        sockets.chain([guard]).collect()
    }
}

fn name(purpose: &str, address: SocketAddr) -> String {
    format!("{purpose} {address}")
}

fn guard_name(purpose: &str, address: SocketAddr) -> String {
    format!("guard of {purpose} {address}")
}

fn take(kept: &mut Kept, name: &str) -> Vec<OwnedFd> {
    let (taken, left): (Kept, Kept) = kept.drain(..).partition(|(kept, _)| kept == name);
    *kept = left;
    taken.into_iter().map(|(_, fd)| fd).collect()
}

fn guard_address(address: SocketAddr) -> io::Result<OwnedFd> {
    let guard = UnixAddr::from_abstract_name(format!("pinnace-listen-{address}"))?;
    match UnixListener::bind_addr(&guard) {
        Ok(guard) => Ok(guard.into()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(in_use(address)),
        Err(error) => Err(error),
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Ports that closed connections still hold may be bound; ports that someone listens on may not.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => in_use(address),
        kind => io::Error::new(kind, format!("{address} cannot be listened on: {error}")),
    })?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn in_use(address: SocketAddr) -> io::Error {
    io::Error::new(
        io::ErrorKind::AddrInUse,
        format!(
            "{address} is in use by another program: stop it, or choose another address (`--listen`, \
             `--metrics-listen`)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn a_second_one_is_kept_out_though_the_port_is_shared() {
        let first = Listeners::take_or_bind(&mut Vec::new(), "http", any(), 2).unwrap();
        let error = Listeners::take_or_bind(&mut Vec::new(), "http", first.address(), 2);
        assert!(error.unwrap_err().to_string().contains("in use by another program"));
    }

    #[test]
    fn an_earlier_servers_sockets_are_taken_over() {
        let first = Listeners::take_or_bind(&mut Vec::new(), "http", any(), 2).unwrap();
        let address = first.address();
        let mut kept = first.copies().unwrap();
        drop(first);
        let other: SocketAddr = "127.0.0.1:1".parse().unwrap();
        kept.push((name("metrics", other), kept[0].1.try_clone().unwrap()));
        let second = Listeners::take_or_bind(&mut kept, "http", address, 2).unwrap();
        assert_eq!((second.address(), second.sockets.len()), (address, 2));
        assert_eq!(kept.len(), 1, "what is not its own stays");
    }

    #[test]
    fn a_port_that_another_program_has_is_refused() {
        let other = TcpListener::bind(any()).unwrap();
        let address = other.local_addr().unwrap();
        let error = Listeners::take_or_bind(&mut Vec::new(), "http", address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
