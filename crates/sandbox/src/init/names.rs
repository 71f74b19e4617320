//! The files that tell a program who and where it is.
//!
//! They are files of a tmpfs, made ahead and bound over those of the image, as container engines do: to make a
//! file in the function's overlay takes the kernel four times as long. Where the image has no plain file, a
//! link to nowhere say, one is made there all the same.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, openat},
    mount::MountAttrFlags,
};

use super::targets::{self, Targets, clone_of};
use crate::{
    failed::{Doing as _, Failed},
    filesystem::filesystem,
    network::plan,
    protocol::SandboxSpec,
    sys,
};

/// Where they belong.
const PATHS: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// The files, in the order of [`PATHS`].
#[derive(Debug)]
pub(super) struct Names([Name; PATHS.len()]);

/// A file, what was written to it, and a mount of it that is attached nowhere.
#[derive(Debug)]
struct Name {
    file: File,
    text: String,
    mount: OwnedFd,
}

impl Names {
    /// Makes them, empty. What they lie in is attached to the wall: kernels before 6.15 copy no mount that is
    /// attached nowhere.
    pub(super) fn make(wall: &Targets) -> Result<Self, Failed> {
        let doing = || "make the files of names";
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let options = [("size", "64k"), ("nr_inodes", "8"), ("mode", "0755")];
        let within = filesystem("tmpfs", &options, flags).doing(doing)?;
        wall.attach(&within, Path::new("/names"))?;
        let make = |number: usize| -> io::Result<Name> {
            let name = number.to_string();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&within, &name, flags, Mode::from_raw_mode(0o644))?;
            let place = targets::resolve(within.as_fd(), Path::new(&name), OFlags::PATH)?;
            Ok(Name { file: file.into(), text: String::new(), mount: clone_of(&place)? })
        };
        Ok(Self([make(0).doing(doing)?, make(1).doing(doing)?, make(2).doing(doing)?]))
    }

    /// Writes them.
    pub(super) fn write(&mut self, spec: &SandboxSpec) -> Result<(), Failed> {
        for ((name, text), path) in self.0.iter_mut().zip(texts(spec)).zip(PATHS) {
            name.file.write_all(text.as_bytes()).doing(|| format!("write {path}"))?;
            name.text = text;
        }
        Ok(())
    }

    /// Puts them in their places.
    pub(super) fn attach(self, read_only: bool, targets: &Targets) -> Result<(), Failed> {
        for (name, path) in self.0.into_iter().zip(PATHS.map(Path::new)) {
            let Some(place) = targets.open(path).ok().filter(is_file) else {
                targets.write_file(path, &name.text)?;
                continue;
            };
            if read_only {
                sys::mount_setattr(name.mount.as_fd(), false, libc::MOUNT_ATTR_RDONLY, None)
                    .doing(|| format!("write-protect {}", path.display()))?;
            }
            targets::attach(&name.mount, place.as_fd())
                .doing(|| format!("bind {}", path.display()))?;
        }
        Ok(())
    }
}

fn is_file(place: &OwnedFd) -> bool {
    fstat(place).is_ok_and(|found| FileType::from_raw_mode(found.st_mode).is_file())
}

/// What they hold.
fn texts(spec: &SandboxSpec) -> [String; PATHS.len()] {
    let name = &spec.hostname;
    let gateway = spec.slot.host_gateway.unwrap_or(plan::GATEWAY);
    let names = plan::GATEWAY_NAMES.join(" ");
    let hosts = format!(
        "127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost {name}\n{gateway}\t{names}\n"
    );
    [hosts, format!("{name}\n"), spec.resolv_conf.clone()]
}
