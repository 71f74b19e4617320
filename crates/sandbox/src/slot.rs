//! Slots: empty sandboxes whose init is parked.
//!
//! [`Slot::make`] clones a process into its namespaces, gives it its ids and its cgroup, and lets it go
//! on to become an init, which waits. [`Slot::start`] gives that init its orders. What stands between
//! the two is what a start costs once slots are made ahead.

use std::{
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use pinnace_core::Exit;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{
    adoption,
    cgroup::Group,
    channel::Channel,
    failed::Doing as _,
    init::orders::{Gift, ORDERS_FD, Orders},
    protocol::SandboxSpec,
    sys::{self, Cloned, SingleThreaded},
};

/// An empty sandbox.
#[derive(Debug)]
pub struct Slot {
    /// Its init's process id, as the spawner counts.
    pub pid: i32,
    /// Its init.
    pub pidfd: OwnedFd,
    /// Its user namespace, if it has one of its own with a range of ids.
    pub namespace: Option<OwnedFd>,
    single_id: bool,
    orders: Channel,
    exit_file: OwnedFd,
}

/// What the making of every slot needs.
#[derive(Debug)]
pub struct Workshop<'s> {
    /// This process has one thread.
    pub proof: &'s SingleThreaded,
    /// The init's program.
    pub init: BorrowedFd<'s>,
    /// /dev/null, open.
    pub null: BorrowedFd<'s>,
    /// Whether the spawner is an ordinary user's, in a user namespace that has one id.
    pub ordinary_user: bool,
}

/// Ids that a range has.
const IDS: u32 = 65_536;

/// Word that lets a new process go on.
const GO: &str = "go";

const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET;

impl Slot {
    /// Makes a slot in a replica's directory, in which it writes `pid` and `exit.json`.
    ///
    /// # Errors
    /// With what failed. A process that may have been made by then ends by itself.
    pub fn make(
        shop: &Workshop<'_>,
        dir: &Path,
        id_base: Option<u32>,
        group: &Group,
    ) -> io::Result<Self> {
        let (orders, far_orders) = Channel::pair()?;
        let exit_file = new_file(&dir.join("exit.json"))?;
        let own_ids = shop.ordinary_user || id_base.is_some();
        let user = if own_ids { libc::CLONE_NEWUSER } else { 0 };
        let into = group.directory.as_ref().map(AsFd::as_fd);
        let cloned = sys::clone_process(shop.proof, NAMESPACES | user, into)
            .doing(|| "clone a process into new namespaces")?;
        let (pid, pidfd) = match cloned {
            Cloned::Parent { pid, pidfd } => (pid, pidfd),
            Cloned::Child => {
                // The far end's only other holder must be the parent, whose end tells this process to go.
                drop(orders);
                Newborn { shop, orders: far_orders, exit_file, group, own_ids }.live()
            }
        };
        drop(far_orders);
        if own_ids {
            map_ids(pid, id_base).doing(|| "map user ids")?;
        }
        let namespace = match id_base {
            Some(_) => Some(fs::File::open(format!("/proc/{pid}/ns/user"))?.into()),
            None => None,
        };
        let start_time = adoption::start_time(pid)?;
        new_file(&dir.join("pid")).and_then(|file| {
            fs::File::from(file).write_all(format!("{pid} {start_time}\n").as_bytes())
        })?;
        orders.send(&GO, &[])?;
        Ok(Self { pid, pidfd, namespace, single_id: shop.ordinary_user, orders, exit_file })
    }

    /// Gives the slot's init its orders, with these descriptors beside its own.
    ///
    /// # Errors
    /// If the init is gone, or the orders are too long for a message.
    pub fn start(&self, spec: SandboxSpec, gifts: &[(Gift, BorrowedFd<'_>)]) -> io::Result<()> {
        let mut all = vec![(Gift::ExitFile, self.exit_file.as_fd())];
        all.extend(gifts.iter().cloned());
        Orders::send(spec, self.single_id, &all, &self.orders)
    }
}

/// The new process, from clone to exec.
struct Newborn<'s> {
    shop: &'s Workshop<'s>,
    orders: Channel,
    exit_file: OwnedFd,
    group: &'s Group,
    own_ids: bool,
}

impl Newborn<'_> {
    fn live(self) -> ! {
        // Without the word the spawner has died or given up, and nobody knows of this process.
        let may_go = matches!(self.orders.recv::<String>(), Ok(Some((word, _))) if word == GO);
        if may_go {
            let reason = match self.become_init() {
                Ok(never) => match never {},
                Err(error) => error.to_string(),
            };
            if let Ok(text) = serde_json::to_vec(&Exit::CannotStart { reason }) {
                let _ = fs::File::from(self.exit_file).write_all(&text);
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
        let orders = sys::raise_fd(self.orders.as_fd())?;
        let null = sys::raise_fd(self.shop.null)?;
        let init = sys::raise_fd(self.shop.init)?;
        for number in 0..ORDERS_FD {
            sys::place_fd(null.as_fd(), number)?;
        }
        sys::place_fd(orders.as_fd(), ORDERS_FD)?;
        let failed = Err(sys::execute(init.as_fd(), c"pinnace-init"));
        Ok(failed.doing(|| "execute the init program")?)
    }

    fn become_root(&self) -> rustix::io::Result<()> {
        use rustix::{
            process::{Gid, Uid},
            thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
        };
        if !self.shop.ordinary_user {
            set_thread_groups(&[])?;
        }
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
    }
}

/// Maps a range, or the one id that an ordinary user's spawner has.
fn map_ids(pid: i32, id_base: Option<u32>) -> io::Result<()> {
    let map = match id_base {
        Some(base) => format!("0 {base} {IDS}"),
        None => {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            "0 0 1".to_owned()
        }
    };
    fs::write(format!("/proc/{pid}/uid_map"), &map)?;
    fs::write(format!("/proc/{pid}/gid_map"), &map)
}

fn new_file(path: &Path) -> io::Result<OwnedFd> {
    let made = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let made = made.doing(|| format!("make {}", path.display()))?;
    Ok(made.into())
}
