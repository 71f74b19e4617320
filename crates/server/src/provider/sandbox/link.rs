//! A [`Channel`] that tasks can wait on.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use pinnace_sandbox::channel::Channel;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

use crate::watched::watched;

/// One end of a conversation with the spawner or an init.
#[derive(Debug)]
pub struct Link {
    channel: AsyncFd<Channel>,
}

/// A message and the descriptors that came with it.
pub type Received<T> = (T, Vec<OwnedFd>);

impl Link {
    /// A link over a connected channel.
    ///
    /// # Errors
    /// The runtime cannot wait on it.
    pub fn new(channel: Channel) -> io::Result<Self> {
        Ok(Self { channel: watched(channel)? })
    }

    /// Sends a message, with descriptors if it carries some.
    ///
    /// # Errors
    /// The other side is gone, or the message is too large.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            let mut ready = self.channel.writable().await?;
            match ready.try_io(|channel| channel.get_ref().try_send(message, &fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// Those of [`Self::send`]; `WouldBlock` if there is none.
    pub fn try_send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.channel.get_ref().try_send(message, fds)
    }

    /// The next message; `None` when the other side is gone.
    ///
    /// # Errors
    /// What came is no such message.
    pub async fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<Received<T>>> {
        loop {
            let mut ready = self.channel.readable().await?;
            match ready.try_io(|channel| channel.get_ref().try_recv()) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }
}
