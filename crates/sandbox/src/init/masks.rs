//! What of /proc and /sys concerns the host is hidden or write-protected.
//!
//! The lists are those of runc and Docker, and a few files that a root without capabilities could read
//! where sandboxes share the host's ids. Nothing of the function runs yet, and every path is resolved from
//! the new filesystem's own root, so that nothing can be exchanged between finding a place and covering it;
//! all the same what covers is checked to be what it should (CVE-2025-31133).

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Dir, FileType, OFlags, fstat, makedev},
    io::Errno,
    mount::MountAttrFlags,
};

use super::targets::{self, Targets, clone_of};
use crate::{
    failed::{Doing as _, Failed},
    filesystem::filesystem,
    sys,
};

/// Paths of /proc that tell about or act on the whole host: hidden. Some of them only the host's root may read,
/// which a function is where sandboxes share the host's ids.
const PROC_HIDDEN: [&str; 16] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "pagetypeinfo",
    "sched_debug",
    "scsi",
    "slabinfo",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
];

/// Paths of /proc that act on the whole host when they are written to.
const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Paths of /sys that tell about the whole host's firmware and power, from which secrets were read.
const SYS_HIDDEN: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Where in /sys each processor has a directory.
const PROCESSORS: &str = "devices/system/cpu";

const BARE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// What covers.
pub(super) struct Masks {
    null: OwnedFd,
    empty: OwnedFd,
}

impl Masks {
    /// Takes the null device of a sandbox's own devices, and makes an empty directory on the wall: kernels before
    /// 6.15 copy no mount that is attached nowhere.
    pub(super) fn new(devices: &OwnedFd, wall: &Targets) -> Result<Self, Failed> {
        let null = targets::resolve(devices.as_fd(), Path::new("null"), OFlags::PATH)
            .doing(|| "find /dev/null")?;
        let found = fstat(&null).doing(|| "look at /dev/null")?;
        let is_device = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
        if !is_device || found.st_rdev != makedev(1, 3) {
            return Err(Errno::NODEV).doing(|| "hide files: /dev/null is not the null device");
        }
        let empty = filesystem("tmpfs", &[("size", "1"), ("nr_inodes", "1")], BARE)
            .doing(|| "make an empty directory to hide others")?;
        wall.attach(&empty, Path::new("/empty"))?;
        Ok(Self { null, empty })
    }

    /// Hides and write-protects what of /proc concerns the host.
    pub(super) fn over_proc(&self, proc: &OwnedFd) -> Result<(), Failed> {
        for name in PROC_HIDDEN {
            self.hide(proc, Path::new(name)).doing(|| format!("hide /proc/{name}"))?;
        }
        for name in PROC_READ_ONLY {
            protect(proc, Path::new(name)).doing(|| format!("write-protect /proc/{name}"))?;
        }
        Ok(())
    }

    /// Hides what of /sys concerns the host.
    pub(super) fn over_sys(&self, sys: &OwnedFd) -> Result<(), Failed> {
        for name in SYS_HIDDEN {
            self.hide(sys, Path::new(name)).doing(|| format!("hide /sys/{name}"))?;
        }
        for processor in processors(sys).doing(|| format!("read /sys/{PROCESSORS}"))? {
            // Some have none, as those of virtual machines and those that are switched off.
            let name = format!("{PROCESSORS}/{processor}/thermal_throttle");
            self.hide(sys, Path::new(&name)).doing(|| format!("hide /sys/{name}"))?;
        }
        Ok(())
    }

    /// Covers a directory with an empty one, anything else with the null device, if it is there.
    fn hide(&self, root: &OwnedFd, path: &Path) -> rustix::io::Result<()> {
        let Some(found) = find(root, path)? else { return Ok(()) };
        let is_dir = FileType::from_raw_mode(fstat(&found)?.st_mode).is_dir();
        let cover = clone_of(if is_dir { &self.empty } else { &self.null })?;
        targets::attach(&cover, found.as_fd())
    }
}

fn find(root: &OwnedFd, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match targets::resolve(root.as_fd(), path, OFlags::PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the directories that processors have.
fn processors(sys: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = targets::resolve(sys.as_fd(), Path::new(PROCESSORS), flags)?;
    let mut names = Vec::new();
    for entry in Dir::new(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("cpu").unwrap_or_default();
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Lays a read-only copy of what is there over it, if it is there.
fn protect(root: &OwnedFd, path: &Path) -> std::io::Result<()> {
    let Some(found) = find(root, path)? else { return Ok(()) };
    let copy = clone_of(&found)?;
    sys::mount_setattr(copy.as_fd(), false, BARE.bits().into(), None)?;
    Ok(targets::attach(&copy, found.as_fd())?)
}
