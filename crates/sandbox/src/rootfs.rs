//! Root filesystems and other mounts, made by the spawner and handed to an init as detached mounts.
//!
//! All mounting happens in the spawner's own mount namespace, below one tmpfs (the [`Scaffold`]), in
//! the forms that kernels since 5.15 have: layers are idmapped and attached there, the overlay is
//! mounted over them by short relative paths (the kernel takes one page of options), a detached copy of
//! it is taken, and the scaffolding comes off. Nothing of it ever shows on the host.

use std::{
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, Uid, chownat, makedev, mkdirat},
    mount::{
        MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags, mount, mount_bind, mount_change, move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir},
};

use crate::{
    failed::{Doing as _, Failed},
    filesystem::filesystem,
    protocol::Root,
    sys,
};

/// The spawner's private place to mount on.
#[derive(Debug)]
pub struct Scaffold {
    /// An empty directory; an init's working directory until it has its root, and the spawner's too.
    empty: OwnedFd,
    /// Where a root is put together.
    work: PathBuf,
    /// The tree that becomes /dev.
    devices: PathBuf,
    /// Whether this is an ordinary user's: overlays then keep their marks in `user.` attributes.
    ordinary_user: bool,
}

/// A root filesystem, of which the next is not made before this is dropped.
#[derive(Debug)]
pub struct Assembly<'s> {
    /// It, as a detached mount.
    pub root: OwnedFd,
    _scaffolding: Scaffolding<'s>,
}

/// What a function writes to its root filesystem into, mounted nowhere yet.
#[derive(Debug)]
pub struct Upper {
    mount: OwnedFd,
    bytes: u64,
}

impl Upper {
    /// Whether it is what [`Scaffold::upper`] makes of this number.
    #[must_use]
    pub fn is_of(&self, bytes: u64) -> bool {
        self.bytes == bytes.max(UPPER_BYTES_MIN)
    }
}

/// What stands while a root is put together. Taken down when the start that needs the root is under way,
/// since that waits for the kernel a little.
#[derive(Debug)]
struct Scaffolding<'s>(&'s Scaffold);

impl Drop for Scaffolding<'_> {
    fn drop(&mut self) {
        // Neither can fail on a descriptor and a mount that are there.
        let _ = self.0.go_home();
        let _ = unmount(&self.0.work, UnmountFlags::DETACH);
    }
}

/// Device nodes that every sandbox has, with the numbers by which every Linux knows them
/// (admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in /dev.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Least room for what is written to the root filesystem, in bytes: mount points and names are.
const UPPER_BYTES_MIN: u64 = 1 << 20;

/// Bytes of a tmpfs for each file, directory or link that it may hold: about what an empty one costs the
/// kernel, so that a flood of them costs no more than full files do.
const BYTES_PER_FILE: u64 = 1024;

/// Least number of files, so that small sandboxes can be used like others.
const FILES_MIN: u64 = 1024;

/// How many files a tmpfs of so many bytes may hold.
pub(crate) fn files_for(bytes: u64) -> u64 {
    (bytes / BYTES_PER_FILE).max(FILES_MIN)
}

const NOSUID_NODEV: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

impl Scaffold {
    /// Puts the scaffold on an empty directory. The caller has a mount namespace of its own, which this
    /// cuts off from the host's: nothing mounted here is seen there.
    ///
    /// # Errors
    /// With what failed.
    pub fn new(directory: &Path, ordinary_user: bool) -> Result<Self, Failed> {
        let inward = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", inward).doing(|| "keep mounts from showing on the host")?;
        let doing = || format!("prepare {} for mounts", directory.display());
        mount("tmpfs", directory, "tmpfs", NOSUID_NODEV, Some(c"size=1m,mode=0755"))
            .doing(doing)?;
        let (empty, work) = (directory.join("empty"), directory.join("work"));
        let devices = directory.join("devices");
        for made in [&empty, &work, &devices] {
            fs::DirBuilder::new().mode(0o755).create(made).doing(doing)?;
        }
        device_tree(&devices)?;
        let empty = OwnedFd::from(fs::File::open(&empty).doing(doing)?);
        let scaffold = Self { empty, work, devices, ordinary_user };
        scaffold.go_home()?;
        Ok(scaffold)
    }

    /// Back to the empty directory, which an init inherits as its working directory.
    fn go_home(&self) -> Result<(), Failed> {
        fchdir(&self.empty).doing(|| "go to the scaffold's empty directory")
    }

    /// Makes what a function writes to its root filesystem into, of at least so many bytes. `owner` is the
    /// host's id of its root, where that is not this process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn upper(&self, bytes: u64, owner: Option<u32>) -> Result<Upper, Failed> {
        let bytes = bytes.max(UPPER_BYTES_MIN);
        let (size, files) = (bytes.to_string(), files_for(bytes).to_string());
        let options = [("size", size.as_str()), ("nr_inodes", &files), ("mode", "0755")];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let doing = || "make a tmpfs for what is written to a root filesystem";
        let mount = filesystem("tmpfs", &options, flags).doing(doing)?;
        for directory in ["upper", "work", "merged"] {
            mkdirat(&mount, directory, Mode::from_raw_mode(0o755)).doing(doing)?;
        }
        if let Some(owner) = owner {
            let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
            chownat(&mount, "upper", Some(user), Some(group), AtFlags::empty()).doing(doing)?;
        }
        Ok(Upper { mount, bytes })
    }

    /// A detached root filesystem: the layers, lowest first, under `upper`, which is used up by it.
    ///
    /// With `ids` (a user namespace) the layers' owners are mapped into it.
    ///
    /// # Errors
    /// With the layer it is about.
    pub fn root(
        &self,
        root: &Root,
        upper: &Upper,
        ids: Option<BorrowedFd<'_>>,
    ) -> Result<Assembly<'_>, Failed> {
        let from = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&upper.mount, "", CWD, &self.work, from)
            .doing(|| "attach a tmpfs for what is written to a root filesystem")?;
        let scaffolding = Scaffolding(self);
        let root = self.overlay(root, ids)?;
        self.go_home()?;
        Ok(Assembly { root, _scaffolding: scaffolding })
    }

    fn overlay(&self, root: &Root, ids: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failed> {
        chdir(&self.work).doing(|| "enter the scaffold")?;
        for (number, layer) in root.layers.iter().enumerate() {
            let mount = bare_copy(layer)?;
            if let Some(namespace) = ids {
                sys::mount_setattr(mount.as_fd(), false, 0, Some(namespace))
                    .doing(|| format!("map the owners of {}", layer.display()))?;
            }
            let place = number.to_string();
            fs::create_dir(&place).doing(|| "prepare the overlay")?;
            move_mount(&mount, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .doing(|| format!("attach {}", layer.display()))?;
        }
        let lower: Vec<String> = (0..root.layers.len()).rev().map(|n| n.to_string()).collect();
        let lower = lower.join(":");
        let marks = if self.ordinary_user { ",userxattr" } else { "" };
        let options = match &root.kept_in {
            None => format!("lowerdir={lower},upperdir=upper,workdir=work{marks}"),
            Some(directory) => {
                attach_kept(directory)?;
                // What is written must stand by itself, since it is read without the overlay.
                let whole = "redirect_dir=nofollow,metacopy=off";
                format!("lowerdir={lower},upperdir={KEPT}/upper,workdir={KEPT}/work,{whole}{marks}")
            }
        };
        mount("overlay", "merged", "overlay", NOSUID_NODEV, Some(cstring(options).as_c_str()))
            .doing(|| mounting(root))?;
        bare_copy(Path::new("merged"))
    }

    /// A detached copy of the tree that becomes /dev.
    ///
    /// # Errors
    /// Those of open_tree(2).
    pub fn devices(&self) -> Result<OwnedFd, Failed> {
        copy(&self.devices, true)
    }

    /// A detached, read-only copy of what a path of the host shows, with all that is mounted below.
    ///
    /// # Errors
    /// With the path.
    pub fn bind(&self, source: &Path) -> Result<OwnedFd, Failed> {
        let mount = copy(source, true)?;
        let flags = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        sys::mount_setattr(mount.as_fd(), true, flags, None)
            .doing(|| format!("bind {} read-only", source.display()))?;
        Ok(mount)
    }
}

/// Name in the scaffold of the directory in which what is written is kept.
const KEPT: &str = "kept";

/// Attaches the directory in which what is written is kept, in the working directory.
fn attach_kept(directory: &Path) -> Result<(), Failed> {
    let mount = bare_copy(directory)?;
    fs::create_dir(KEPT).doing(|| "prepare the overlay")?;
    move_mount(&mount, "", CWD, KEPT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .doing(|| format!("attach {}", directory.display()))
}

fn mounting(root: &Root) -> String {
    let layers = root.layers.len();
    match &root.kept_in {
        None => format!("mount an overlay of {layers} layers"),
        Some(directory) => format!(
            "mount an overlay of {layers} layers that keeps what is written in {}, which must be on a file system such \
             as ext4, xfs or btrfs",
            directory.display()
        ),
    }
}

/// The tree that becomes /dev, read-only but for what an init mounts on `pts` and `shm`. Nodes are
/// bound, not made, since an ordinary user can make none.
fn device_tree(place: &Path) -> Result<(), Failed> {
    let doing = || "prepare devices";
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", place, "tmpfs", flags, Some(c"size=64k,mode=0755")).doing(doing)?;
    for (name, major, minor) in DEVICES {
        let node = place.join(name);
        fs::File::create(&node).and_then(|mut file| file.flush()).doing(doing)?;
        let host = Path::new("/dev").join(name);
        mount_bind(&host, &node).doing(|| format!("bind {}", host.display()))?;
        check_device(&node, makedev(major, minor))
            .doing(|| format!("give {} to sandboxes", host.display()))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, place.join(name)).doing(doing)?;
    }
    for name in ["pts", "shm"] {
        fs::DirBuilder::new().mode(0o755).create(place.join(name)).doing(doing)?;
    }
    let tree = open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLOEXEC).doing(doing)?;
    let flags = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(tree.as_fd(), true, flags, None).doing(doing)
}

/// Whether a path is this character device. On a host where a program has put a file in place of /dev/null,
/// all sandboxes would share that file.
fn check_device(path: &Path, number: u64) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.file_type().is_char_device() && found.rdev() == number {
        return Ok(());
    }
    Err(io::Error::other("it is not the device of that name; restore it on this host"))
}

fn bare_copy(source: &Path) -> Result<OwnedFd, Failed> {
    copy(source, false)
}

fn copy(source: &Path, with_all_below: bool) -> Result<OwnedFd, Failed> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, with_all_below);
    open_tree(CWD, source, flags).doing(|| format!("take a mount of {}", source.display()))
}

fn cstring(text: String) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_device_is_refused() {
        check_device(Path::new("/dev/null"), makedev(1, 3)).unwrap();
        check_device(Path::new("/dev/zero"), makedev(1, 3)).unwrap_err();
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = check_device(file.path(), makedev(1, 3)).unwrap_err();
        assert!(error.to_string().contains("restore it"), "{error}");
    }
}
