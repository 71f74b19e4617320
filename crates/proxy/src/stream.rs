//! A connection: TCP, a unix socket, or what stands in for one.
//!
//! A unix socket tells its writer of room after every message that the other end takes, and a poller that
//! asked for that would be woken once a call for nothing. So a unix connection is registered for reading
//! only; room is asked for on a second descriptor, while a write waits.

use std::{
    fmt,
    future::poll_fn,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use pinnace_core::limits::FUNCTION_RECEIVE_BUFFER_BYTES;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_tcp_congestion, set_tcp_user_timeout};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::{TcpSocket, TcpStream, UnixStream},
    task::unconstrained,
};

/// A connected byte stream.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixConnection),
    /// By way of another protocol.
    Layered(Box<dyn Layer>),
}

/// A byte stream that another protocol carries: TLS over a connection, one call of many on a connection of
/// HTTP/2.
pub trait Layer: fmt::Debug + Send {
    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// The connection failed.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes what fits. It may stay inside until [`Layer::poll_flush`].
    ///
    /// # Errors
    /// The connection failed.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Sends what was taken and is still inside.
    ///
    /// # Errors
    /// The connection failed.
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Tells the other end that nothing more comes.
    ///
    /// # Errors
    /// The connection failed.
    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connected unix socket, registered for reading only.
#[derive(Debug)]
pub struct UnixConnection {
    socket: AsyncFd<StdUnixStream>,
    room: Option<AsyncFd<OwnedFd>>,
}

impl Stream {
    /// Over TCP. What is written goes out at once; within one machine nothing is paced, for there is no
    /// congestion.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        if stream.peer_addr()?.ip().is_loopback() {
            // The host's own choice, often one that sets a timer for every packet, stays where this one
            // cannot be had.
            let _ = set_tcp_congestion(&stream, "reno");
        }
        Ok(Self::Tcp(stream))
    }

    /// Connects over TCP to a function, at the first of these addresses that accepts.
    ///
    /// # Errors
    /// None accepts; what the last said.
    pub async fn connect(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        for address in addresses {
            match Self::connect_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    async fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if address.ip().is_loopback() {
            set_socket_recv_buffer_size(&socket, FUNCTION_RECEIVE_BUFFER_BYTES)?;
        }
        Self::tcp(socket.connect(address).await?)
    }

    /// Over a unix socket.
    ///
    /// # Errors
    /// The socket cannot be registered.
    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        let socket = registered(stream.into_std()?, Interest::READABLE)?;
        Ok(Self::Unix(UnixConnection { socket, room: None }))
    }

    /// Has the kernel end the connection when its other end takes nothing of what was sent for so long. It
    /// alone sees a reader that is slow but steady.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn end_when_stuck(&self, stuck_max: Duration) -> io::Result<()> {
        if let Self::Tcp(stream) = self {
            let stuck_max_ms = u32::try_from(stuck_max.as_millis()).unwrap_or(u32::MAX);
            set_tcp_user_timeout(stream, stuck_max_ms)?;
        }
        Ok(())
    }

    /// Has a connection over TCP end with a reset when it is dropped, which nobody takes for a whole answer's end.
    pub fn break_off(&self) {
        if let Self::Tcp(stream) = self {
            // One that cannot be told has ended already.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Self::Unix(connection) => connection.poll_receive(cx, buffer),
            Self::Layered(layer) => layer.poll_receive(cx, buffer),
        }
    }

    /// Writes what fits.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(connection) => connection.poll_send(cx, |socket| socket.write(bytes)),
            Self::Layered(layer) => layer.poll_send(cx, bytes),
        }
    }

    /// Sends what was written and is held back, which only layers do.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_pushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Layered(layer) => layer.poll_flush(cx),
        }
    }

    /// Tells the other end that nothing more comes.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(connection) => {
                Poll::Ready(connection.socket.get_ref().shutdown(Shutdown::Write))
            }
            Self::Layered(layer) => layer.poll_end(cx),
        }
    }

    /// Whether nothing was received, an end included, since the last read that emptied it. It asks the
    /// poller's last word, not the kernel. Of a layer nobody can say.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        // Asked of many connections in one turn, each answer must count.
        let heard = unconstrained(poll_fn(|cx| match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Unix(connection) => connection.socket.poll_read_ready(cx).map(drop),
            Self::Layered(_) => Poll::Ready(()),
        }));
        pin!(heard).poll(&mut cx).is_pending()
    }
}

/// Registers a descriptor that its owner gives away.
#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types that do not own their descriptor"
)]
fn registered<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

impl UnixConnection {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.get_ref().read(buffer) {
                Ok(read) => {
                    // Less than asked for: it is empty, and the poller will tell of more.
                    if read > 0 && read < buffer.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut &StdUnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&mut self.socket.get_ref()) {
                Ok(written) => {
                    self.room = None;
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.room.is_none() {
                let copy = OwnedFd::from(self.socket.get_ref().try_clone()?);
                self.room = Some(registered(copy, Interest::WRITABLE)?);
            }
            let Some(room) = &self.room else { continue };
            ready!(room.poll_write_ready(cx))?.clear_ready();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(connection) => {
                let read = ready!(connection.poll_receive(cx, buf.initialize_unfilled()))?;
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
            Self::Layered(layer) => {
                let read = ready!(layer.poll_receive(cx, buf.initialize_unfilled()))?;
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(connection) => connection.poll_send(cx, |to| to.write_vectored(bufs)),
            Self::Layered(layer) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                layer.poll_send(cx, first.map_or(&[], |buf| buf))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::Layered(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_pushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(cx)
    }
}
