//! Making a sandbox from inside: first what every sandbox has ([`Shell::make`]), then its root and what
//! is particular to it ([`Shell::furnish`]).
//!
//! What is mounted ahead hangs on a tmpfs over the working directory, which nobody else sees, until it is
//! moved into the root.

use std::{
    ffi::CString,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, open_tree, unmount,
    },
    process::{Resource, Rlimit, chdir, fchdir, getrlimit, pivot_root, setrlimit, umask},
};

use super::{
    launch,
    orders::{Gifts, Outfit, OutfitNumbers},
    targets::{self, Targets},
    watch,
};
use crate::{
    failed::{Doing as _, Failed},
    ids::Ids,
    protocol::SandboxSpec,
    sys::{self, Instruction},
};

/// Paths of /proc that tell about or act on the whole host: hidden.
const HIDDEN: [&str; 8] =
    ["acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"];

/// Paths of /proc that act on the whole host when they are written to.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Group of terminals, in every distribution.
const TTY_GROUP: &str = "5";

/// What every sandbox has, before there is a function.
#[derive(Debug)]
pub(super) struct Shell {
    proc: OwnedFd,
    sys: Option<OwnedFd>,
    devices: OwnedFd,
    /// For /tmp and /dev/shm, with the number of bytes that each may hold.
    temporary: ([OwnedFd; 2], u64),
    /// The function's system call filter.
    pub(super) filter: Vec<Instruction>,
    /// What ids the sandbox has.
    pub(super) ids: Ids,
    /// What is written to the function's /proc/self/oom_score_adj.
    pub(super) oom_score_adj: CString,
    /// Sockets in the sandbox's network namespace, for connections to the function.
    pub(super) sockets: Vec<OwnedFd>,
}

/// Sockets that are made ahead: as many as a function's first calls may need at once.
const SOCKETS_AHEAD: u32 = 8;

impl Shell {
    /// Makes what needs no function.
    pub(super) fn make(outfit: Outfit) -> Result<Self, Failed> {
        // A group of its own, so that signals to the spawner's do not come here. Fails only for one who
        // has it already.
        let _ = rustix::process::setsid();
        umask(Mode::from_raw_mode(0o022));
        sys::loopback_up().doing(|| "take the loopback device up")?;
        let Outfit { numbers: OutfitNumbers { ids, tmp_bytes }, devices, seccomp } = outfit;
        let filter = launch::filter(seccomp).doing(|| "read the seccomp program")?;
        let sockets = watch::sockets(SOCKETS_AHEAD).doing(|| "make sockets")?;
        let temporary = (temporary(tmp_bytes)?, tmp_bytes);
        launch::give_up_privileges().doing(|| "drop privileges")?;

        // These two need the host's own still in sight: the kernel shows no more than was visible before.
        let hardened = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let proc = filesystem("proc", &[], hardened).doing(|| "mount a /proc")?;
        let read_only = hardened | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let sys = filesystem("sysfs", &[], read_only).ok();

        let wall = filesystem("tmpfs", &[("size", "64k"), ("mode", "0755")], hardened)
            .doing(|| "make a tmpfs for what is mounted ahead")?;
        targets::attach_here(&wall).doing(|| "attach what is mounted ahead")?;
        let wall = Targets::new(wall);
        wall.attach(&devices, Path::new("/dev"))?;
        wall.attach(&proc, Path::new("/proc"))?;
        terminals(&devices, ids)?;
        let null = place(&devices, "null").doing(|| "find /dev/null")?;
        hide(&proc, &null)?;
        if let Some(sys) = &sys {
            wall.attach(sys, Path::new("/sys"))?;
            if let Ok(firmware) = place(sys, "firmware") {
                cover(&firmware, &null).doing(|| "hide /sys/firmware")?;
            }
        }
        let oom_score_adj = launch::oom_score_adj();
        Ok(Self { proc, sys, devices, temporary, filter, ids, oom_score_adj, sockets })
    }

    /// Makes what the function's own sandbox has, and enters it.
    pub(super) fn furnish(self, spec: &SandboxSpec, gifts: &mut Gifts) -> Result<Self, Failed> {
        sys::set_hostname(&spec.hostname).doing(|| format!("set host name {}", spec.hostname))?;
        let root = gifts.root.take().ok_or(Errno::BADF).doing(|| "find the root filesystem")?;
        targets::attach_here(&root).doing(|| "attach the root filesystem")?;
        let targets = Targets::new(root);
        targets.attach(&self.proc, Path::new("/proc"))?;
        targets.attach(&self.devices, Path::new("/dev"))?;
        if let Some(sys) = &self.sys {
            targets.attach(sys, Path::new("/sys"))?;
        }
        self.attach_temporary(spec, &targets)?;
        for (target, mount) in gifts.mounts.drain(..) {
            targets.attach(&mount, &target)?;
        }
        names(spec, &targets)?;
        if !spec.working_dir.is_empty() {
            targets.ensure_directory(Path::new(&spec.working_dir))?;
        }
        if spec.root.read_only {
            sys::mount_setattr(targets.root(), false, libc::MOUNT_ATTR_RDONLY, None)
                .doing(|| "make the root filesystem read-only")?;
        }
        enter(&targets)?;
        limits(spec)?;
        Ok(self)
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

/// Filesystems for /tmp and /dev/shm, mounted nowhere yet.
fn temporary(bytes: u64) -> Result<[OwnedFd; 2], Failed> {
    let size = bytes.max(1).to_string();
    let options = [("size", size.as_str()), ("mode", "1777")];
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok([
        filesystem("tmpfs", &options, flags).doing(|| "make a tmpfs for /tmp")?,
        filesystem("tmpfs", &options, flags | MountAttrFlags::MOUNT_ATTR_NOEXEC)
            .doing(|| "make a tmpfs for /dev/shm")?,
    ])
}

/// Leaves the host's filesystem for the new root.
fn enter(targets: &Targets) -> Result<(), Failed> {
    fchdir(targets.root()).doing(|| "enter the root filesystem")?;
    // With both the same, the old root comes to lie over the new one, from where it is taken off.
    pivot_root(".", ".").doing(|| "pivot to the root filesystem")?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leave the host's filesystem")?;
    chdir("/").doing(|| "enter the new root")
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

/// Hides and write-protects what of /proc concerns the host.
fn hide(proc: &OwnedFd, null: &OwnedFd) -> Result<(), Failed> {
    for name in HIDDEN {
        match place(proc, name) {
            Ok(found) => cover(&found, null).doing(|| format!("hide /proc/{name}"))?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(|| format!("find /proc/{name}")),
        }
    }
    for name in READ_ONLY {
        let Ok(found) = place(proc, name) else { continue };
        let protect = || -> std::io::Result<()> {
            let copy = clone_of(&found)?;
            let flags = libc::MOUNT_ATTR_RDONLY
                | libc::MOUNT_ATTR_NOSUID
                | libc::MOUNT_ATTR_NODEV
                | libc::MOUNT_ATTR_NOEXEC;
            sys::mount_setattr(copy.as_fd(), false, flags, None)?;
            Ok(targets::attach(&copy, found.as_fd())?)
        };
        protect().doing(|| format!("write-protect /proc/{name}"))?;
    }
    Ok(())
}

/// Covers a directory with an empty one, anything else with /dev/null.
fn cover(found: &OwnedFd, null: &OwnedFd) -> rustix::io::Result<()> {
    let over = if FileType::from_raw_mode(fstat(found)?.st_mode).is_dir() {
        let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        filesystem("tmpfs", &[("size", "1"), ("nr_inodes", "1")], flags)?
    } else {
        clone_of(null)?
    };
    targets::attach(&over, found.as_fd())
}

/// The files that tell a program who and where it is.
fn names(spec: &SandboxSpec, targets: &Targets) -> Result<(), Failed> {
    let name = &spec.hostname;
    let hosts = format!("127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost {name}\n");
    targets.write_file(Path::new("/etc/hosts"), &hosts)?;
    targets.write_file(Path::new("/etc/hostname"), &format!("{name}\n"))?;
    targets.write_file(Path::new("/etc/resolv.conf"), "# This sandbox has no network.\n")
}

/// Resource limits, which the function inherits. The hard limit of this process cannot be raised.
fn limits(spec: &SandboxSpec) -> Result<(), Failed> {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let files = Some(spec.bounds.open_files.min(most));
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })
        .doing(|| "limit open files")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .doing(|| "forbid core dumps")
}

/// A new filesystem, mounted nowhere yet. Options with an empty value are flags.
fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    flags: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// A detached copy of what is mounted at a place.
fn clone_of(place: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, "", flags)
}
