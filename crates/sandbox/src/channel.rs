//! Messages with descriptors beside them, over `SOCK_SEQPACKET` unix sockets.
//!
//! A packet is one JSON message of at most `CONTROL_MESSAGE_BYTES_MAX` bytes. What comes in is foreign:
//! a packet that is too long, cut, or no message of the expected kind is an error of `InvalidData`, and
//! its descriptors are closed. Received descriptors are close-on-exec.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use pinnace_core::limits;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    sockopt,
};
use serde::{Serialize, de::DeserializeOwned};

/// One end of a connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Where connections arrive.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Whether a call waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

impl Channel {
    /// Two ends of one connection.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> io::Result<(Self, Self)> {
        let kind = SocketType::SEQPACKET;
        let (a, b) = net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self::sized(a)?, Self::sized(b)?))
    }

    /// Connects to a socket by its path, which may be longer than the 108 bytes of a socket's address.
    ///
    /// # Errors
    /// Those of connect(2); `ConnectionRefused` or `NotFound` if nobody listens.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        let (_directory, address) = short_address(path)?;
        net::connect(&socket, &address)?;
        Self::sized(socket)
    }

    /// Listens at a path, which must not exist yet.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub fn listen(path: &Path) -> io::Result<Listener> {
        /// Connections that wait to be accepted. Only this user can reach the socket.
        const BACKLOG: i32 = 16;
        let socket = new_socket()?;
        let (_directory, address) = short_address(path)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, BACKLOG)?;
        Ok(Listener(socket))
    }

    /// Room for one message of the greatest length, whatever the system's default is.
    fn sized(socket: OwnedFd) -> io::Result<Self> {
        const ROOM: usize = limits::CONTROL_MESSAGE_BYTES_MAX + (16 << 10);
        if sockopt::socket_send_buffer_size(&socket)? < ROOM {
            sockopt::set_socket_send_buffer_size(&socket, ROOM)?;
        }
        Ok(Self(socket))
    }

    /// Bounds the time that [`Self::send`] may wait for a peer that does not read.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_send_time_max(&self, time: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, Some(time))?;
        Ok(())
    }

    /// Bounds the time that [`Self::recv`] may wait. Reached: `WouldBlock`.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn set_recv_time_max(&self, time: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(time))?;
        Ok(())
    }

    /// The user id of the process that made the other end, as this user namespace counts.
    ///
    /// # Errors
    /// Those of getsockopt(2).
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Sends a message and copies of descriptors, waiting while the peer's buffer is full.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` if the peer is gone, `InvalidInput` if the message is too long
    /// or carries too many descriptors, `WouldBlock` after [`Self::set_send_time_max`].
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_packet(message, fds, Wait::Yes)
    }

    /// As [`Self::send`], but never waits.
    ///
    /// # Errors
    /// As [`Self::send`]; `WouldBlock` if it would have to wait.
    pub fn try_send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_packet(message, fds, Wait::No)
    }

    /// Receives the next message and its descriptors; `None` if the peer has closed.
    ///
    /// # Errors
    /// `InvalidData` for a packet that is no such message, else those of recvmsg(2).
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.recv_packet(Wait::Yes)
    }

    /// As [`Self::recv`], but never waits.
    ///
    /// # Errors
    /// As [`Self::recv`]; `WouldBlock` if nothing has come.
    pub fn try_recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.recv_packet(Wait::No)
    }

    fn send_packet<T: Serialize>(
        &self,
        message: &T,
        fds: &[BorrowedFd<'_>],
        wait: Wait,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > limits::CONTROL_MESSAGE_BYTES_MAX {
            let (is, most) = (bytes.len(), limits::CONTROL_MESSAGE_BYTES_MAX);
            return Err(invalid_input(format!("a message of {is} bytes is over {most}")));
        }
        if fds.len() > limits::CONTROL_MESSAGE_FDS_MAX {
            let (are, most) = (fds.len(), limits::CONTROL_MESSAGE_FDS_MAX);
            return Err(invalid_input(format!("a message with {are} descriptors is over {most}")));
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, wait == Wait::No);
        let mut space = vec![MaybeUninit::uninit(); ancillary_bytes()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(invalid_input("no room for the descriptors".into()));
        }
        let slices = [IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| net::sendmsg(&self.0, &slices, &mut ancillary, flags))?;
        Ok(())
    }

    fn recv_packet<T: DeserializeOwned>(
        &self,
        wait: Wait,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, wait == Wait::No);
        let Some(len) = self.next_packet_bytes(flags)? else { return Ok(None) };
        let mut bytes = vec![0; len.min(limits::CONTROL_MESSAGE_BYTES_MAX)];
        let mut space = vec![MaybeUninit::uninit(); ancillary_bytes()];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let got =
            rustix::io::retry_on_intr(|| net::recvmsg(&self.0, slices, &mut ancillary, flags))?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(invalid_data("a message came cut".into()));
        }
        let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())
            .map_err(|error| invalid_data(format!("a message cannot be read: {error}")))?;
        Ok(Some((message, fds)))
    }

    /// The length of the packet that is next, which stays there; `None` at the end.
    fn next_packet_bytes(&self, flags: RecvFlags) -> io::Result<Option<usize>> {
        let mut nothing = [0; 0];
        let peek = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
        let mut none = RecvAncillaryBuffer::default();
        let slices = &mut [IoSliceMut::new(&mut nothing)];
        let got = rustix::io::retry_on_intr(|| net::recvmsg(&self.0, slices, &mut none, peek))?;
        // An empty packet is no message either: who sends one is treated as one who has closed.
        Ok((got.bytes > 0).then_some(got.bytes))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listener {
    /// The next connection, waiting for it.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<Channel> {
        let accepted =
            rustix::io::retry_on_intr(|| net::accept_with(&self.0, SocketFlags::CLOEXEC))?;
        Channel::sized(accepted)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        listener.0
    }
}

fn ancillary_bytes() -> usize {
    rustix::cmsg_space!(ScmRights(limits::CONTROL_MESSAGE_FDS_MAX))
}

fn new_socket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// An address for a path of any length: its directory is opened and named by number. The directory must
/// stay open while the address is used.
fn short_address(path: &Path) -> io::Result<(File, SocketAddrUnix)> {
    let name = path
        .file_name()
        .ok_or_else(|| invalid_input(format!("{} names no file for a socket", path.display())))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let directory = File::open(parent.unwrap_or(Path::new(".")))?;
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    short.push::<&OsStr>(name);
    let address = SocketAddrUnix::new(&short)?;
    Ok((directory, address))
}

fn invalid_input(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn invalid_data(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStrExt as _};

    use super::*;
    use crate::protocol::ToInit;

    #[test]
    fn messages_carry_descriptors_that_close_on_exec() {
        let (a, b) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        a.send(&"words", &[file.as_fd(), a.as_fd()]).unwrap();
        let (words, fds) = b.recv::<String>().unwrap().unwrap();
        assert_eq!((words.as_str(), fds.len()), ("words", 2));
        for fd in &fds {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        drop(a);
        drop(fds);
        assert!(b.recv::<String>().unwrap().is_none());
    }

    #[test]
    fn the_greatest_message_passes_and_a_greater_one_does_not() {
        let (a, b) = Channel::pair().unwrap();
        let greatest = "x".repeat(limits::CONTROL_MESSAGE_BYTES_MAX - 2);
        a.try_send(&greatest, &[]).unwrap();
        assert_eq!(b.recv::<String>().unwrap().unwrap().0.len(), greatest.len());
        let error = a.send(&format!("{greatest}x"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn foreign_packets_are_errors_and_the_next_message_still_comes() {
        let (a, b) = Channel::pair().unwrap();
        let say = |bytes: &[u8]| net::send(&a.0, bytes, SendFlags::NOSIGNAL).unwrap();
        for foreign in [&b"{"[..], b"\"\xff\"", b"{\"say\":\"dance\"}", b"[1,2]", b"{\"say\":5}"] {
            say(foreign);
            let error = b.recv::<ToInit>().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{foreign:?}");
        }
        say(&vec![b' '; limits::CONTROL_MESSAGE_BYTES_MAX + 1]);
        assert_eq!(b.recv::<ToInit>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        a.send(&ToInit::Attach, &[]).unwrap();
        assert!(matches!(b.recv::<ToInit>().unwrap(), Some((ToInit::Attach, _))));
        assert_eq!(b.try_recv::<ToInit>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn paths_may_be_longer_than_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let path = deep.join("x.sock");
        assert!(path.as_os_str().as_bytes().len() > 108);
        let listener = Channel::listen(&path).unwrap();
        let near = Channel::connect(&path).unwrap();
        let far = listener.accept().unwrap();
        far.send(&7, &[]).unwrap();
        assert_eq!(near.recv::<i32>().unwrap().unwrap().0, 7);
        assert_eq!(far.peer_uid().unwrap(), rustix::process::getuid().as_raw());
        drop(listener);
        let refused = Channel::connect(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let missing = Channel::connect(&deep.join("y.sock")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_peer_that_does_not_read_stops_nobody_for_ever() {
        let (a, _b) = Channel::pair().unwrap();
        a.set_send_time_max(Duration::from_millis(20)).unwrap();
        let text = "x".repeat(100_000);
        let error = (0..100).find_map(|_| a.send(&text, &[]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
