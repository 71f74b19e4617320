//! Finding out when a function that listens on a TCP port accepts connections, by connecting.
//!
//! Nothing tells that a port is listened on but trying. On the loopback device an attempt is decided at
//! once, so that many can be made: each after a small part of the time waited so far, so that what the
//! trying adds to a start is small beside it. The connection that was made is the first call's, if one waits.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{Ipv4Addr, SocketAddrV4, connect, sockopt::socket_error},
};

use super::watch;

/// Least wait between two attempts.
const WAIT_MIN: Duration = Duration::from_micros(50);

/// Wait between two attempts, as a part of the time since the first.
const WAIT_PART: u32 = 16;

/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_millis(5);

/// Tries a port until it accepts.
#[derive(Debug)]
pub(super) struct Knock {
    port: u16,
    begun: Instant,
    /// When to try next.
    pub(super) at: Instant,
}

impl Knock {
    pub(super) fn new(port: u16, now: Instant) -> Self {
        Self { port, begun: now, at: now }
    }

    /// Tries if it is time to. A connection, if the port accepts.
    pub(super) fn try_at(&mut self, now: Instant) -> Option<OwnedFd> {
        if now < self.at {
            return None;
        }
        if let Ok(Some(connection)) = connection(self.port) {
            return Some(connection);
        }
        let now = Instant::now();
        let part = now.saturating_duration_since(self.begun) / WAIT_PART;
        self.at = now + part.clamp(WAIT_MIN, WAIT_MAX);
        None
    }
}

/// `None` if nobody listens.
fn connection(port: u16) -> rustix::io::Result<Option<OwnedFd>> {
    let socket = watch::socket()?;
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) => return Ok(Some(socket)),
        Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let mut polled = [PollFd::new(&socket, PollFlags::OUT)];
    let decided = poll(&mut polled, Some(&Timespec::default()))? > 0;
    Ok((decided && socket_error(&socket)?.is_ok()).then_some(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_once_it_is_listened_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let now = Instant::now();
        let connection = Knock::new(port, now).try_at(now).unwrap();
        assert_eq!(std::net::TcpStream::from(connection).peer_addr().unwrap().port(), port);
        drop(listener);
        let mut knock = Knock::new(port, now);
        assert!(knock.try_at(now).is_none());
        assert!(knock.at > now, "the next attempt comes later");
        assert!(knock.try_at(now).is_none());
    }
}
