//! Connections into a sandbox, without a bridge: over a unix socket, or over a TCP socket that was made
//! inside the sandbox's network namespace.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use pinnace_proxy::Stream;
use rustix::{fs::OFlags, net};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    sync::{Notify, mpsc},
};

use crate::replica::Connector;

/// Connections that a function has not accepted yet.
const BACKLOG: i32 = 4096;

/// Name of the function's socket in its replica's directory.
const SOCKET: &str = "fn.sock";

/// Wait before a full backlog is tried again, and how often.
const BACKLOG_WAIT: Duration = Duration::from_millis(2);
const BACKLOG_TRIES: u32 = 500;

/// Reaches a function over the unix socket in its replica's directory.
pub struct UnixConnector {
    path: PathBuf,
    /// Keeps `path` short: it leads through this descriptor (socket paths end at 108 bytes).
    _dir: OwnedFd,
}

impl UnixConnector {
    /// A connector to the socket in this directory.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (path, dir) = through_descriptor(dir)?;
        Ok(Self { path, _dir: dir })
    }

    /// Makes the socket, listening: what connects before the function runs waits for it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(dir: &Path) -> io::Result<OwnedFd> {
        let (path, _dir) = through_descriptor(dir)?;
        let flags = net::SocketFlags::CLOEXEC;
        let socket =
            net::socket_with(net::AddressFamily::UNIX, net::SocketType::STREAM, flags, None)?;
        net::bind(&socket, &net::SocketAddrUnix::new(&path)?)?;
        net::listen(&socket, BACKLOG)?;
        Ok(socket)
    }
}

fn through_descriptor(dir: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, rustix::fs::Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
    Ok((path, dir))
}

impl Connector for UnixConnector {
    fn connect(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            for _ in 0..BACKLOG_TRIES {
                match UnixStream::connect(&self.path).await {
                    Ok(stream) => return Stream::unix(stream),
                    // A unix socket does not wait for room in the backlog as TCP does.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(BACKLOG_WAIT).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            let text = format!("{BACKLOG} connections wait to be accepted, the most that may");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }
}

/// Reaches a function over TCP sockets that its init made inside.
pub struct NamespaceConnector {
    address: SocketAddr,
    stock: Mutex<Vec<OwnedFd>>,
    low: usize,
    wants: mpsc::Sender<()>,
    arrived: Notify,
    /// That by which its init found out that it listens.
    first: Mutex<Option<OwnedFd>>,
}

impl NamespaceConnector {
    /// A connector to this port inside. A message on `wants` asks for more sockets; it is sent when fewer
    /// than `low` are left.
    #[must_use]
    pub fn new(port: u16, low: usize, wants: mpsc::Sender<()>) -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            stock: Mutex::default(),
            low,
            wants,
            arrived: Notify::new(),
            first: Mutex::default(),
        }
    }

    /// Puts sockets in that the init has made.
    pub fn stock(&self, sockets: Vec<OwnedFd>) {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
        self.arrived.notify_waiters();
    }

    /// Has a connection for the first call, which spares that making one.
    pub fn offer(&self, connection: OwnedFd) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
    }

    /// That connection, if no call has taken it.
    pub fn take_offer(&self) -> Option<OwnedFd> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn socket(&self) -> io::Result<OwnedFd> {
        loop {
            let arrived = self.arrived.notified();
            let (socket, left) = {
                let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
                (stock.pop(), stock.len())
            };
            if left < self.low
                && let Err(mpsc::error::TrySendError::Closed(())) = self.wants.try_send(())
            {
                return Err(io::Error::other("its sandbox is gone"));
            }
            match socket {
                Some(socket) => return Ok(socket),
                None => tokio::select! {
                    () = arrived => {}
                    () = self.wants.closed() => return Err(io::Error::other("its sandbox is gone")),
                },
            }
        }
    }
}

impl Connector for NamespaceConnector {
    fn connect(&self) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async {
            if let Some(first) = self.take_offer() {
                return Stream::tcp(TcpStream::from_std(first.into())?);
            }
            let socket = std::net::TcpStream::from(self.socket().await?);
            Stream::tcp(TcpSocket::from_std_stream(socket).connect(self.address).await?)
        })
    }
}
