//! Slots: empty sandboxes whose init is parked.
//!
//! [`Slot::make`] makes the control group, clones a process into its namespaces, gives it its ids, and
//! lets it go on to become an init, which prepares what needs no function and waits. [`Slot::start`] gives
//! that init its orders. What stands between the two is what a start costs once slots are made ahead.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use pinnace_core::Exit;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{
    adoption,
    cgroup::{Cgroups, Group},
    channel::Channel,
    directory::{self, Files},
    failed::{Doing as _, Failed},
    ids::{self, Ids},
    init::orders::{GO, Gift, Mounts, ORDERS_FD, Orders, Outfit, OutfitNumbers, Parked},
    network::{Attachment, Wiring},
    patience,
    protocol::{Bounds, Expected, Root, SandboxSpec, SlotSpec},
    rootfs::{Assembly, Scaffold, Upper},
    sys::{self, Cloned, SingleThreaded},
};

/// An empty sandbox.
#[derive(Debug)]
pub struct Slot {
    /// What it was made by.
    pub spec: SlotSpec,
    /// Its init's process id, as the spawner counts.
    pub pid: i32,
    /// Its init.
    pub pidfd: OwnedFd,
    /// Its user namespace, if it has one of its own with a range of ids.
    pub namespace: Option<OwnedFd>,
    /// Where the kernel counts its processes that were ended for want of memory.
    oom_events: Option<OwnedFd>,
    /// The bounds that its control group has.
    bounds: Bounds,
    /// Its place in the network, if there is one.
    pub at: Option<Attachment>,
    files: Files,
    /// What its function writes to, unless another size of it is wanted.
    upper: Upper,
    channel: Channel,
}

/// What the making of every slot needs.
#[derive(Debug)]
pub struct Workshop<'s> {
    /// This process has one thread.
    pub proof: &'s SingleThreaded,
    /// The control groups.
    pub cgroups: &'s Cgroups,
    /// The init's program.
    pub init: BorrowedFd<'s>,
    /// /dev/null, open.
    pub null: BorrowedFd<'s>,
    /// Where mounts are made.
    pub scaffold: &'s Scaffold,
    /// Detached mount tree for /dev.
    pub devices: OwnedFd,
    /// File with the seccomp program.
    pub seccomp: BorrowedFd<'s>,
    /// What ids sandboxes have.
    pub ids: Ids,
}

/// How long the spawner waits for the processes of a slot that it gives up to end; a killed one takes
/// milliseconds.
const ABANDON_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the spawner waits for an init that hears it no more to end.
const REFUSAL_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(100);

/// The namespaces that every slot has of its own.
const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

impl Slot {
    /// Makes a slot. Its init may not have come to be parked yet: see [`Self::parked`].
    ///
    /// # Errors
    /// With what failed; nothing of it is left.
    pub(crate) fn make(
        shop: &Workshop<'_>,
        wiring: &mut Wiring,
        spec: &SlotSpec,
        expected: &Expected,
    ) -> io::Result<Self> {
        let files = Files::make(&spec.dir)?;
        let made = shop.cgroups.create(&spec.name, &expected.bounds).and_then(|group| {
            let made = Self::populate(shop, wiring, spec, expected, files, group);
            if made.is_err() {
                // A process that was made by then ends by itself, since its channel closes; what cannot be
                // removed now is found by the server's next sweep.
                let _ = shop.cgroups.remove(&spec.name);
            }
            made
        });
        if made.is_err() {
            directory::clear(&spec.dir);
        }
        made
    }

    fn populate(
        shop: &Workshop<'_>,
        wiring: &mut Wiring,
        spec: &SlotSpec,
        Expected { bounds, leaves }: &Expected,
        files: Files,
        group: Group,
    ) -> io::Result<Self> {
        let (channel, far) = Channel::pair()?;
        let own_ids = shop.ids != Ids::Roots || spec.id_base.is_some();
        let own_network = spec.host_gateway.is_none();
        let namespaces = NAMESPACES
            | if own_ids { libc::CLONE_NEWUSER } else { 0 }
            | if own_network { libc::CLONE_NEWNET } else { 0 };
        let into = group.directory.as_ref().map(|directory| directory.as_fd());
        let cloned = sys::clone_process(shop.proof, namespaces, into)
            .doing(|| "clone a process into new namespaces")?;
        let (pid, pidfd) = match cloned {
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
            Cloned::Child => {
                // The far end's only other holder must be the parent, whose end tells this process to go.
                drop(channel);
                Newborn { shop, channel: far, group: &group, own_ids }.live()
            }
        };
        drop(far);
        if own_ids {
            ids::map(pid, shop.ids, spec.id_base).doing(|| "map user ids")?;
        }
        let namespace = match spec.id_base {
            Some(_) => Some(fs::File::open(format!("/proc/{pid}/ns/user"))?.into()),
            None => None,
        };
        let network =
            own_network.then(|| fs::File::open(format!("/proc/{pid}/ns/net"))).transpose()?;
        let start_time = adoption::start_time(pid)?;
        directory::write_pid(&spec.dir, pid, start_time)?;
        channel.send(&GO, &[])?;
        let numbers = OutfitNumbers {
            ids: shop.ids,
            tmp_bytes: bounds.tmp_bytes,
            shows_group: shop.cgroups.version() == Some(2) && group.directory.is_some(),
            own_network,
        };
        Outfit::send(&numbers, shop.devices.as_fd(), shop.seccomp, &channel)?;
        // While the init prepares itself.
        let at = match &network {
            Some(network) => wiring.attach(network.as_fd(), *leaves),
            None => Ok(None),
        };
        let at = at.doing(|| "attach it to the network")?;
        if let Some(at) = at {
            directory::write_address(&spec.dir, at.address)?;
        }
        let owner = namespace.as_ref().and(spec.id_base);
        let upper = shop.scaffold.upper(bounds.upper_bytes, owner).map_err(io::Error::other)?;
        Ok(Self {
            spec: spec.clone(),
            pid,
            pidfd,
            namespace,
            oom_events: group.oom_events,
            bounds: bounds.clone(),
            at,
            files,
            upper,
            channel,
        })
    }

    /// What its init has said of itself: `None` if nothing yet.
    #[must_use]
    pub fn parked(&self) -> Option<Parked> {
        match self.channel.try_recv::<Parked>() {
            Ok(Some((parked, _))) => Some(parked),
            Ok(None) => Some(Err("its init has ended".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(format!("its init cannot be heard: {error}"))),
        }
    }

    /// Makes the root filesystem of its function, with so much room for what that writes.
    ///
    /// # Errors
    /// With the layer it is about.
    pub(crate) fn assemble<'s>(
        &self,
        scaffold: &'s Scaffold,
        root: &Root,
        upper_bytes: u64,
    ) -> Result<Assembly<'s>, Failed> {
        let ids = self.namespace.as_ref().map(AsFd::as_fd);
        let bytes = if root.read_only { 0 } else { upper_bytes };
        if self.upper.is_of(bytes) {
            return scaffold.root(root, &self.upper, ids);
        }
        scaffold.root(root, &scaffold.upper(bytes, ids.and(self.spec.id_base))?, ids)
    }

    /// Gives the slot's init its orders, with these descriptors beside its own, within these bounds. It reads
    /// them while its root is put together.
    ///
    /// # Errors
    /// If the init is gone, the orders are too long for a message, or a bound cannot be set.
    pub fn order(
        &self,
        cgroups: &Cgroups,
        spec: SandboxSpec,
        gifts: &[(Gift, BorrowedFd<'_>)],
    ) -> io::Result<()> {
        cgroups.change(&self.spec.name, &self.bounds, &spec.bounds)?;
        let mut all = gifts.to_vec();
        all.push((Gift::Control, self.files.control.as_fd()));
        all.push((Gift::ExitFile, self.files.exit_file.as_fd()));
        all.extend(self.oom_events.iter().map(|events| (Gift::OomEvents, events.as_fd())));
        Orders::send(spec, &all, &self.channel)
    }

    /// Gives the slot's init its root and what is to be attached in it: it then starts the function.
    ///
    /// # Errors
    /// If the init is gone, or the targets are too long for a message.
    pub fn start(&self, root: BorrowedFd<'_>, within: &[(PathBuf, OwnedFd)]) -> io::Result<()> {
        Mounts::send(root, within, &self.channel)
    }

    /// Why its init has given up its orders, if it has.
    pub(crate) fn refusal(&self) -> Option<String> {
        adoption::wait_for_end(&self.pidfd, REFUSAL_TIME_MAX);
        let written = directory::exit(&self.spec.dir).and_then(|exit| match exit {
            Exit::CannotStart { reason } => Some(reason),
            _ => None,
        });
        let said = || std::iter::from_fn(|| self.parked()).take(2).find_map(Parked::err);
        written.or_else(said)
    }

    /// Leaves nothing of it but its directory.
    pub fn abandon(self, cgroups: &Cgroups) {
        // The signal can only miss a process that is gone, and then the wait is over at once.
        let _ = adoption::kill(&self.pidfd);
        adoption::wait_for_end(&self.pidfd, ABANDON_TIME_MAX);
        // What cannot be removed now is found by the server's next sweep.
        let _ = patience::until(ABANDON_TIME_MAX, || {
            cgroups.try_remove(&self.spec.name).is_ok_and(|gone| gone).then_some(())
        });
        directory::clear(&self.spec.dir);
    }
}

impl AsFd for Slot {
    /// Readable when its init has said something, or has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The new process, from clone to exec.
struct Newborn<'s> {
    shop: &'s Workshop<'s>,
    channel: Channel,
    group: &'s Group,
    own_ids: bool,
}

impl Newborn<'_> {
    fn live(self) -> ! {
        // Without the word the spawner has died or given up, and nobody knows of this process.
        let may_go = matches!(self.channel.recv::<String>(), Ok(Some((word, _))) if word == GO);
        if may_go {
            let reason = match self.become_init() {
                Ok(never) => match never {},
                Err(error) => error.to_string(),
            };
            // The outfit lies before orders that may come.
            if let Ok(Some(_)) = Outfit::receive(&self.channel) {
                cannot_start(&self.channel, reason);
            }
        }
        sys::exit_now(1)
    }

    fn become_init(&self) -> io::Result<std::convert::Infallible> {
        for procs in &self.group.procs {
            rustix::io::write(procs, b"0").doing(|| "enter its cgroups")?;
        }
        if self.own_ids {
            self.become_root().doing(|| "become root of the sandbox")?;
        }
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let channel = sys::raise_fd(self.channel.as_fd())?;
        let null = sys::raise_fd(self.shop.null)?;
        let init = sys::raise_fd(self.shop.init)?;
        for number in 0..ORDERS_FD {
            sys::place_fd(null.as_fd(), number)?;
        }
        sys::place_fd(channel.as_fd(), ORDERS_FD)?;
        let failed = Err(sys::execute(init.as_fd(), c"pinnace-init"));
        Ok(failed.doing(|| "execute the init program")?)
    }

    fn become_root(&self) -> rustix::io::Result<()> {
        use rustix::{
            process::{Gid, Uid},
            thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
        };
        if self.shop.ids != Ids::One {
            set_thread_groups(&[])?;
        }
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
    }
}

/// Tells the spawner that this slot is of no use and, should its orders be under way already, the server.
pub(crate) fn cannot_start(channel: &Channel, reason: String) {
    // A spawner that is gone takes the slot with it.
    let _ = channel.send(&Parked::Err(reason.clone()), &[]);
    if let Ok(Some((_, gifts))) = Orders::receive(channel)
        && let Some(file) = gifts.exit_file
    {
        crate::init::record(&file, &Exit::CannotStart { reason });
    }
}
