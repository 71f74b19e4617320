//! Making a sandbox from inside: first what every sandbox has ([`Shell::make`]), then its root and what
//! is particular to it ([`Shell::furnish`]).
//!
//! What is mounted ahead hangs on a tmpfs, the wall, until it is moved into the function's root. The wall is
//! already the root of the mount namespace by then, so that nothing of the host is left in it: what is
//! mounted over the wall is entered by chroot, and who came out of that would find an empty directory.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountAttrFlags, UnmountFlags, unmount},
    process::{Resource, Rlimit, chdir, chroot, fchdir, getrlimit, pivot_root, setrlimit, umask},
};

use super::{
    launch::{self, Ahead},
    masks::Masks,
    names::Names,
    orders::{Outfit, OutfitNumbers},
    targets::{self, Targets},
    watch,
};
use crate::{
    failed::{Doing as _, Failed},
    filesystem::filesystem,
    ids::Ids,
    protocol::SandboxSpec,
    rootfs::files_for,
    sys::{self, SingleThreaded},
};

/// Memory that a process may lock, in bytes: the kernel's own default. It counts as memory in any case.
const LOCKED_BYTES: u64 = 8 << 20;

/// Room for POSIX message queues, in bytes: the kernel's own default.
const MESSAGE_QUEUE_BYTES: u64 = 819_200;

/// Signals that may wait to be taken, and timers.
const SIGNALS_PENDING: u64 = 16_384;

/// Group of terminals, in every distribution.
const TTY_GROUP: &str = "5";

const HARDENED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const READ_ONLY: MountAttrFlags = HARDENED.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// What every sandbox has, before there is a function.
#[derive(Debug)]
pub(super) struct Shell {
    proc: OwnedFd,
    sys: Option<OwnedFd>,
    devices: OwnedFd,
    /// For /tmp and /dev/shm, with the number of bytes that each may hold.
    temporary: ([OwnedFd; 2], u64),
    names: Names,
    /// What ids the sandbox has.
    ids: Ids,
    /// Sockets in the sandbox's network namespace, for connections to the function.
    sockets: Vec<OwnedFd>,
}

/// Sockets that are made ahead: as many as a function's first calls may need at once.
const SOCKETS_AHEAD: u32 = 8;

impl Shell {
    /// Makes what needs no function.
    pub(super) fn make(outfit: Outfit) -> Result<(Self, Ahead), Failed> {
        // A group of its own, so that signals to the spawner's do not come here. Fails only for one who
        // has it already.
        let _ = rustix::process::setsid();
        umask(Mode::from_raw_mode(0o022));
        let Outfit { numbers, devices, seccomp } = outfit;
        let OutfitNumbers { ids, tmp_bytes, shows_group, own_network } = numbers;
        let sockets = if own_network { network()? } else { Vec::new() };
        let temporary = (temporary(tmp_bytes)?, tmp_bytes);
        limits()?;
        // What its control group is called is the host's business. A kernel that has none has no names either.
        let _ = sys::unshare(
            &SingleThreaded::prove().doing(|| "count threads")?,
            libc::CLONE_NEWCGROUP,
        );
        launch::give_up_privileges().doing(|| "drop privileges")?;

        // These two need the host's own still in sight: the kernel shows no more than was visible before.
        let proc = filesystem("proc", &[], HARDENED).doing(|| "mount a /proc")?;
        // It shows the devices of a network, so that only who owns the network may mount it.
        let sys = filesystem("sysfs", &[], READ_ONLY).ok();

        let null = targets::resolve(devices.as_fd(), Path::new("null"), OFlags::RDONLY);
        let ahead = Ahead::make(ids, &seccomp, &null.doing(|| "open the null device")?)?;

        let wall = filesystem("tmpfs", &[("size", "64k"), ("mode", "0755")], HARDENED)
            .doing(|| "make a tmpfs for what is mounted ahead")?;
        targets::attach_here(&wall).doing(|| "attach what is mounted ahead")?;
        let wall = Targets::new(wall);
        wall.attach(&devices, Path::new("/dev"))?;
        wall.attach(&proc, Path::new("/proc"))?;
        terminals(&devices, ids)?;
        let masks = Masks::new(&devices, &wall)?;
        masks.over_proc(&proc)?;
        if let Some(sys) = &sys {
            wall.attach(sys, Path::new("/sys"))?;
            masks.over_sys(sys)?;
            if shows_group {
                show_group(sys)?;
            }
        }
        let names = Names::make(&wall)?;
        leave_host(&wall)?;
        Ok((Self { proc, sys, devices, temporary, names, ids, sockets }, ahead))
    }

    /// Makes what the function's own sandbox has, and enters it. The sockets that were made ahead.
    pub(super) fn furnish(
        self,
        spec: &SandboxSpec,
        root: OwnedFd,
        mounts: Vec<(PathBuf, OwnedFd)>,
    ) -> Result<Vec<OwnedFd>, Failed> {
        targets::attach_here(&root).doing(|| "attach the root filesystem")?;
        let targets = Targets::new(root);
        targets.attach(&self.proc, Path::new("/proc"))?;
        targets.attach(&self.devices, Path::new("/dev"))?;
        if let Some(sys) = &self.sys {
            targets.attach(sys, Path::new("/sys"))?;
        }
        self.attach_temporary(spec, &targets)?;
        for (target, mount) in mounts {
            targets.attach(&mount, &target)?;
        }
        self.names.attach(spec.root.read_only, &targets)?;
        if !spec.working_dir.is_empty() {
            targets.ensure_directory(Path::new(&spec.working_dir))?;
        }
        if spec.root.read_only {
            sys::mount_setattr(targets.root(), false, libc::MOUNT_ATTR_RDONLY, None)
                .doing(|| "make the root filesystem read-only")?;
        }
        fchdir(targets.root()).and_then(|()| chroot(".")).doing(|| "enter the root filesystem")?;
        Ok(self.sockets)
    }

    /// Sets what is known of the function's own sandbox before its root is there.
    pub(super) fn settle(&mut self, spec: &SandboxSpec) -> Result<(), Failed> {
        sys::set_hostname(&spec.hostname).doing(|| format!("set host name {}", spec.hostname))?;
        self.names.write(spec)?;
        limit(Resource::Nofile, spec.bounds.open_files).doing(|| "limit open files")?;
        if self.ids != Ids::Roots || spec.slot.id_base.is_some() {
            // No other user's processes count in a user namespace: a second fence behind the control group,
            // and the only one where there is none. The init is one of them.
            limit(Resource::Nproc, u64::from(spec.bounds.pids) + 1).doing(|| "limit processes")?;
        }
        Ok(())
    }

    /// What can be written to beside the root filesystem.
    fn attach_temporary(&self, spec: &SandboxSpec, targets: &Targets) -> Result<(), Failed> {
        let wanted = spec.bounds.tmp_bytes;
        let (ahead, bytes) = &self.temporary;
        let others = (*bytes != wanted).then(|| temporary(wanted)).transpose()?;
        let [tmp, shared] = others.as_ref().unwrap_or(ahead);
        targets.attach(tmp, Path::new("/tmp"))?;
        let shm = place(&self.devices, "shm").doing(|| "find /dev/shm")?;
        targets::attach(shared, shm.as_fd()).doing(|| "mount /dev/shm")
    }
}

/// Sets the sandbox's own network up, and makes sockets in it.
fn network() -> Result<Vec<OwnedFd>, Failed> {
    sys::loopback_up().doing(|| "take the loopback device up")?;
    watch::sockets(SOCKETS_AHEAD).doing(|| "make sockets")
}

/// Filesystems for /tmp and /dev/shm, mounted nowhere yet.
fn temporary(bytes: u64) -> Result<[OwnedFd; 2], Failed> {
    let (size, files) = (bytes.max(1).to_string(), files_for(bytes).to_string());
    let options = [("size", size.as_str()), ("nr_inodes", &files), ("mode", "1777")];
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok([
        filesystem("tmpfs", &options, flags).doing(|| "make a tmpfs for /tmp")?,
        filesystem("tmpfs", &options, flags | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            .doing(|| "make a tmpfs for /dev/shm")?,
    ])
}

/// Has /sys/fs/cgroup show the sandbox's own control group, from which runtimes learn how much memory and
/// processor time there is; where the kernel does not let this user mount it, it stays empty. Nothing can be
/// written there, by root neither: who may set his own bounds has none.
fn show_group(sys: &OwnedFd) -> Result<(), Failed> {
    let Ok(group) = filesystem("cgroup2", &[], READ_ONLY) else { return Ok(()) };
    let place = place(sys, "fs/cgroup").doing(|| "find /sys/fs/cgroup")?;
    targets::attach(&group, place.as_fd()).doing(|| "mount /sys/fs/cgroup")
}

/// Leaves the host's filesystem for the wall, on which nothing can be written from now on.
fn leave_host(wall: &Targets) -> Result<(), Failed> {
    fchdir(wall.root()).doing(|| "enter the wall")?;
    // With both the same, the old root comes to lie over the new one, from where it is taken off.
    pivot_root(".", ".").doing(|| "pivot to the wall")?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leave the host's filesystem")?;
    chdir("/").doing(|| "enter the wall")?;
    sys::mount_setattr(wall.root(), false, libc::MOUNT_ATTR_RDONLY, None)
        .doing(|| "make the wall read-only")
}

fn terminals(devices: &OwnedFd, ids: Ids) -> Result<(), Failed> {
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if ids != Ids::One {
        options.push(("gid", TTY_GROUP));
    }
    let terminals =
        filesystem("devpts", &options, flags).doing(|| "make terminals for /dev/pts")?;
    let pts = place(devices, "pts").doing(|| "find /dev/pts")?;
    targets::attach(&terminals, pts.as_fd()).doing(|| "mount /dev/pts")
}

/// What is at a name in a mount.
fn place(mount: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    targets::resolve(mount.as_fd(), Path::new(name), OFlags::PATH)
}

/// Resource limits that every function inherits and can only lower: the hard limits of this process, whatever
/// those of the server are.
fn limits() -> Result<(), Failed> {
    for (resource, most, doing) in [
        (Resource::Core, 0, "forbid core dumps"),
        (Resource::Memlock, LOCKED_BYTES, "limit locked memory"),
        (Resource::Msgqueue, MESSAGE_QUEUE_BYTES, "limit message queues"),
        (Resource::Sigpending, SIGNALS_PENDING, "limit pending signals"),
        (Resource::Nice, 0, "forbid higher priorities"),
        (Resource::Rtprio, 0, "forbid real-time priorities"),
    ] {
        limit(resource, most).doing(|| doing)?;
    }
    Ok(())
}

fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let most = Some(most.min(getrlimit(resource).maximum.unwrap_or(u64::MAX)));
    setrlimit(resource, Rlimit { current: most, maximum: most })
}
