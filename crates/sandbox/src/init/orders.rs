//! What an init is told when it wakes, and the descriptors that come with it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{channel::Channel, protocol::SandboxSpec};

/// Descriptor at which an init finds the channel with its orders.
pub const ORDERS_FD: i32 = 3;

/// The orders, as they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// What the sandbox is to be.
    pub spec: SandboxSpec,
    /// Whether the sandbox has but one user and group id, 0.
    pub single_id: bool,
    /// What the descriptors beside the message are, in their order.
    pub gifts: Vec<Gift>,
}

/// What one descriptor is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Gift {
    /// Detached mount: the root filesystem.
    Root,
    /// Detached mount tree for /dev.
    Devices,
    /// File of seccomp programs.
    Seccomp,
    /// Listening socket where servers connect.
    Control,
    /// exit.json, open for writing.
    ExitFile,
    /// The cgroup's count of processes ended for want of memory.
    OomEvents,
    /// The function's listener.
    Listener,
    /// Detached mount to be attached there.
    Mount(PathBuf),
}

/// The descriptors, sorted.
#[derive(Debug, Default)]
pub struct Gifts {
    /// See [`Gift::Root`].
    pub root: Option<OwnedFd>,
    /// See [`Gift::Devices`].
    pub devices: Option<OwnedFd>,
    /// See [`Gift::Seccomp`].
    pub seccomp: Option<OwnedFd>,
    /// See [`Gift::Control`].
    pub control: Option<OwnedFd>,
    /// See [`Gift::ExitFile`].
    pub exit_file: Option<OwnedFd>,
    /// See [`Gift::OomEvents`].
    pub oom_events: Option<OwnedFd>,
    /// See [`Gift::Listener`].
    pub listener: Option<OwnedFd>,
    /// See [`Gift::Mount`].
    pub mounts: Vec<(PathBuf, OwnedFd)>,
}

impl Orders {
    /// Sends orders with their descriptors.
    ///
    /// # Errors
    /// Those of [`Channel::send`].
    pub fn send(
        spec: SandboxSpec,
        single_id: bool,
        gifts: &[(Gift, BorrowedFd<'_>)],
        to: &Channel,
    ) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = gifts.iter().map(|(_, fd)| *fd).collect();
        let gifts = gifts.iter().map(|(gift, _)| gift.clone()).collect();
        to.send(&Self { spec, single_id, gifts }, &fds)
    }

    /// Waits for orders; `None` if the spawner has gone without giving any.
    ///
    /// # Errors
    /// Those of [`Channel::recv`], or if descriptors are missing.
    pub fn receive(from: &Channel) -> io::Result<Option<(Self, Gifts)>> {
        let Some((orders, fds)) = from.recv::<Self>()? else { return Ok(None) };
        if fds.len() != orders.gifts.len() {
            return Err(io::Error::other("the orders came without their descriptors"));
        }
        let mut gifts = Gifts::default();
        for (gift, fd) in orders.gifts.iter().zip(fds) {
            gifts.put(gift, fd);
        }
        Ok(Some((orders, gifts)))
    }
}

impl Gifts {
    fn put(&mut self, gift: &Gift, fd: OwnedFd) {
        match gift {
            Gift::Root => self.root = Some(fd),
            Gift::Devices => self.devices = Some(fd),
            Gift::Seccomp => self.seccomp = Some(fd),
            Gift::Control => self.control = Some(fd),
            Gift::ExitFile => self.exit_file = Some(fd),
            Gift::OomEvents => self.oom_events = Some(fd),
            Gift::Listener => self.listener = Some(fd),
            Gift::Mount(target) => self.mounts.push((target.clone(), fd)),
        }
    }
}
