//! What spawner and init say to each other over the channel that the init inherits, and the descriptors
//! that go with it.
//!
//! The spawner says [`GO`], then sends the [`Outfit`]; the init prepares itself and says [`Parked`]. The
//! [`Orders`] come when there is a function: at once, or long after. The [`Mounts`] follow, while the orders
//! are read.

use std::{
    io, iter,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use pinnace_core::image::User;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    channel::Channel,
    ids::Ids,
    protocol::{Bounds, Root, SandboxSpec, SlotSpec},
};

/// Descriptor at which an init finds the channel with its orders.
pub const ORDERS_FD: i32 = 3;

/// Word that lets a new process go on.
pub const GO: &str = "go";

/// An init says that it waits for orders, or why it cannot.
pub type Parked = Result<(), String>;

/// What an init needs whatever its function will be.
#[derive(Debug)]
pub struct Outfit {
    /// What is told of it.
    pub numbers: OutfitNumbers,
    /// Detached mount tree for /dev.
    pub devices: OwnedFd,
    /// File with the seccomp program.
    pub seccomp: OwnedFd,
}

/// The part of an [`Outfit`] that is no descriptor.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OutfitNumbers {
    /// What ids the sandbox has.
    pub ids: Ids,
    /// Bytes that may be written to /tmp, unless the orders say otherwise.
    pub tmp_bytes: u64,
    /// Whether it has a control group of its own in version 2, which it can see.
    pub shows_group: bool,
    /// Whether its network is its own, not the host's.
    pub own_network: bool,
}

impl Outfit {
    /// Sends an outfit.
    ///
    /// # Errors
    /// Those of [`Channel::send`].
    pub fn send(
        numbers: &OutfitNumbers,
        devices: BorrowedFd<'_>,
        seccomp: BorrowedFd<'_>,
        to: &Channel,
    ) -> io::Result<()> {
        to.send(numbers, &[devices, seccomp])
    }

    /// Waits for an outfit; `None` if the spawner has gone without sending one.
    ///
    /// # Errors
    /// Those of [`Channel::recv`], or if descriptors are missing.
    pub fn receive(from: &Channel) -> io::Result<Option<Self>> {
        let Some((numbers, fds)) = from.recv::<OutfitNumbers>()? else { return Ok(None) };
        let [devices, seccomp] = <[OwnedFd; 2]>::try_from(fds)
            .map_err(|_| io::Error::other("the outfit came without its descriptors"))?;
        Ok(Some(Self { numbers, devices, seccomp }))
    }
}

/// The orders, as they are sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// What the sandbox is to be.
    pub spec: SandboxSpec,
    /// What the descriptors beside the message are, in their order.
    pub gifts: Vec<Gift>,
}

/// Detached mounts, as they are sent: where each but the first is to be attached. The first is the root.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mounts {
    targets: Vec<PathBuf>,
}

/// What one descriptor is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Gift {
    /// Listening socket where servers connect.
    Control,
    /// exit.json, open for writing.
    ExitFile,
    /// The cgroup's count of processes ended for want of memory.
    OomEvents,
    /// The function's listener.
    Listener,
    /// The listener at the slot's `host_gateway`.
    Gateway,
}

/// The descriptors, sorted.
#[derive(Debug, Default)]
pub struct Gifts {
    /// See [`Gift::Control`].
    pub control: Option<OwnedFd>,
    /// See [`Gift::ExitFile`].
    pub exit_file: Option<OwnedFd>,
    /// See [`Gift::OomEvents`].
    pub oom_events: Option<OwnedFd>,
    /// See [`Gift::Listener`].
    pub listener: Option<OwnedFd>,
    /// See [`Gift::Gateway`].
    pub gateway: Option<OwnedFd>,
}

impl Orders {
    /// Sends orders with their descriptors.
    ///
    /// # Errors
    /// Those of [`Channel::send`].
    pub fn send(
        spec: SandboxSpec,
        gifts: &[(Gift, BorrowedFd<'_>)],
        to: &Channel,
    ) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = gifts.iter().map(|(_, fd)| *fd).collect();
        let gifts = gifts.iter().map(|(gift, _)| *gift).collect();
        to.send(&Self { spec, gifts }, &fds)
    }

    /// Orders as long as most are, which have been written and read.
    ///
    /// # Errors
    /// Those of writing and reading.
    pub fn sample() -> io::Result<Self> {
        let word = || "x".repeat(64);
        let spec = SandboxSpec {
            slot: SlotSpec {
                name: word(),
                id_base: Some(0),
                dir: word().into(),
                host_gateway: None,
            },
            hostname: word(),
            root: Root {
                layers: vec![word().into(); 4],
                read_only: false,
                host_usr: false,
                kept_in: None,
            },
            binds: Vec::new(),
            command: vec![word(); 4],
            env: vec![word(); 8],
            working_dir: "/".to_owned(),
            user: User::default(),
            stop_signal: libc::SIGTERM,
            bounds: Bounds {
                memory_bytes: 0,
                cpu_millicores: None,
                pids: 0,
                open_files: 0,
                upper_bytes: 0,
                tmp_bytes: 0,
            },
            listens: false,
            port: None,
            leaves: false,
            resolv_conf: word(),
        };
        let gifts = vec![Gift::Control, Gift::ExitFile, Gift::OomEvents, Gift::Listener];
        Ok(serde_json::from_slice(&serde_json::to_vec(&Self { spec, gifts })?)?)
    }

    /// Waits for orders; `None` if the spawner has gone without giving any.
    ///
    /// # Errors
    /// Those of [`Channel::recv`], or if descriptors are missing.
    pub fn receive(from: &Channel) -> io::Result<Option<(Self, Gifts)>> {
        let Some((orders, fds)) = last_words::<Self>(from)? else { return Ok(None) };
        if fds.len() != orders.gifts.len() {
            return Err(io::Error::other("the orders came without their descriptors"));
        }
        let mut gifts = Gifts::default();
        for (gift, fd) in orders.gifts.iter().zip(fds) {
            gifts.put(*gift, fd);
        }
        Ok(Some((orders, gifts)))
    }
}

impl Mounts {
    /// Sends the root and what is attached in it.
    ///
    /// # Errors
    /// Those of [`Channel::send`].
    pub fn send(
        root: BorrowedFd<'_>,
        within: &[(PathBuf, OwnedFd)],
        to: &Channel,
    ) -> io::Result<()> {
        let targets = within.iter().map(|(target, _)| target.clone()).collect();
        let fds: Vec<BorrowedFd<'_>> =
            iter::once(root).chain(within.iter().map(|(_, mount)| mount.as_fd())).collect();
        to.send(&Self { targets }, &fds)
    }

    /// Waits for them: the root, and what is to be attached where; `None` if the spawner has gone or could
    /// not make them.
    ///
    /// # Errors
    /// Those of [`Channel::recv`], or if descriptors are missing.
    #[expect(clippy::type_complexity, reason = "a pair of what is used at once")]
    pub fn receive(from: &Channel) -> io::Result<Option<(OwnedFd, Vec<(PathBuf, OwnedFd)>)>> {
        let Some((Self { targets }, fds)) = last_words::<Self>(from)? else { return Ok(None) };
        let missing = || io::Error::other("the mounts came without their descriptors");
        if fds.len() != targets.len() + 1 {
            return Err(missing());
        }
        let mut fds = fds.into_iter();
        let root = fds.next().ok_or_else(missing)?;
        Ok(Some((root, targets.into_iter().zip(fds).collect())))
    }
}

/// The next message of a spawner that may have closed already. Where it has not read that this is parked, the
/// kernel tells that once, before what was sent is read.
fn last_words<T: DeserializeOwned>(from: &Channel) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    match from.recv() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => from.recv(),
        received => received,
    }
}

impl Gifts {
    fn put(&mut self, gift: Gift, fd: OwnedFd) {
        match gift {
            Gift::Control => self.control = Some(fd),
            Gift::ExitFile => self.exit_file = Some(fd),
            Gift::OomEvents => self.oom_events = Some(fd),
            Gift::Listener => self.listener = Some(fd),
            Gift::Gateway => self.gateway = Some(fd),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_spawner_that_leaves_without_listening_is_heard_to_its_end() {
        for reads_between in [false, true] {
            let (near, far) = Channel::pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            far.send(&Parked::Ok(()), &[]).unwrap();
            Orders::send(Orders::sample().unwrap().spec, &[], &near).unwrap();
            if reads_between {
                assert!(Orders::receive(&far).unwrap().is_some());
            }
            Mounts::send(null.as_fd(), &[], &near).unwrap();
            drop(near);
            if !reads_between {
                assert!(Orders::receive(&far).unwrap().is_some());
            }
            let (_, within) = Mounts::receive(&far).unwrap().unwrap();
            assert!(within.is_empty());
            assert!(Mounts::receive(&far).unwrap().is_none());
        }
    }
}
