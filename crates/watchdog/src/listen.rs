//! Where calls come from: a socket that the watchdog was handed, or a TCP port.
//!
//! A socket is handed over as systemd does it: `LISTEN_FDS=2`, descriptor 3 is the listening unix socket
//! and descriptor 4 a pipe or socket that wants one byte once the function can serve (`LISTEN_FDS=1`
//! without it). The `listenfd` crate takes them over, so that no unsafe code is needed here, and marks
//! them close-on-exec, so that the function does not inherit them.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    net::TcpStream,
    os::unix::net::UnixStream as StdUnixStream,
    time::Duration,
};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::front::Peer;

const AF_UNIX: i32 = 1;
const SOCK_STREAM: i32 = 1;

/// The listening socket.
#[derive(Debug)]
pub enum Listener {
    /// One that was handed over.
    Handed(UnixListener),
    /// A port of our own.
    Port(TcpListener),
}

/// A connection that came in, which belongs to no runtime yet.
#[derive(Debug)]
pub enum Connection {
    /// Over a unix socket: the gateway's.
    Unix(StdUnixStream),
    /// Over TCP.
    Tcp(TcpStream, Peer),
}

/// What the environment handed over.
#[derive(Debug)]
pub struct Handed {
    listener: Option<std::os::unix::net::UnixListener>,
    ready: Option<Ready>,
}

/// Wants to know that the function can serve.
#[derive(Debug)]
pub enum Ready {
    /// A socket.
    Socket(StdUnixStream),
    /// A pipe, which is reached by its number.
    Pipe(std::fs::File),
}

impl Handed {
    /// Takes what was handed over. Must be called before any thread is started: it takes the variables
    /// out of the environment.
    ///
    /// # Errors
    /// What was handed over is not what was promised.
    pub fn take() -> io::Result<Self> {
        let mut handed = ListenFd::from_env();
        if handed.len() == 0 {
            return Ok(Self { listener: None, ready: None });
        }
        let listener = handed.take_unix_listener(0)?;
        let ready = match handed.len() {
            0 | 1 => None,
            _ => Some(take_ready(&mut handed)?),
        };
        Ok(Self { listener, ready })
    }

    /// The listener, or one of our own on `port`; and who wants to know when the function can serve.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub async fn listen(self, port: u16) -> io::Result<(Listener, Option<Ready>)> {
        let listener = match self.listener {
            Some(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Handed(UnixListener::from_std(listener)?)
            }
            None => Listener::Port(bind(port).await?),
        };
        Ok((listener, self.ready))
    }
}

/// All addresses of both kinds, or of IPv4 where the kernel has no IPv6.
///
/// # Errors
/// The port cannot be listened on.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(("::", port)).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(("0.0.0.0", port)).await
        }
        bound => bound,
    }
}

fn take_ready(handed: &mut ListenFd) -> io::Result<Ready> {
    let socket = handed.take_custom(1, AF_UNIX, SOCK_STREAM, "unix stream socket");
    if let Ok(Some(socket)) = socket {
        return Ok(Ready::Socket(socket));
    }
    let number = handed.take_raw_fd(1)?.unwrap_or(4);
    let path = format!("/proc/self/fd/{number}");
    OpenOptions::new().write(true).open(path).map(Ready::Pipe)
}

impl Ready {
    /// Says so.
    pub fn say(self) -> io::Result<()> {
        match self {
            Self::Socket(mut socket) => socket.write_all(b"1"),
            Self::Pipe(mut pipe) => pipe.write_all(b"1"),
        }
    }
}

impl Listener {
    /// The next connection. One by TCP whose peer takes nothing for `stuck_max` is ended by the kernel.
    pub async fn accept(&self, stuck_max: Duration) -> io::Result<Connection> {
        match self {
            Self::Handed(listener) => Ok(Connection::Unix(listener.accept().await?.0.into_std()?)),
            Self::Port(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                // The kernel takes no more than 24 days.
                let stuck_max = i32::try_from(stuck_max.as_millis()).unwrap_or(i32::MAX);
                rustix::net::sockopt::set_tcp_user_timeout(&stream, stuck_max.unsigned_abs())?;
                let remote = canonical(remote);
                let local = canonical(stream.local_addr()?);
                Ok(Connection::Tcp(stream.into_std()?, Peer { local, remote }))
            }
        }
    }

    /// Whether it was handed over.
    pub fn is_handed(&self) -> bool {
        matches!(self, Self::Handed(_))
    }
}

/// An IPv4 address as such, which an IPv6 socket shows as mapped.
fn canonical(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}
