//! Paths inside the new root, whatever links the image has there.
//!
//! Nothing is named by a plain path: each is resolved with the root as its bound, so that an absolute
//! or climbing link ends inside, and links of /proc that lead anywhere are refused.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, unlinkat},
    io::Errno,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::failed::{Doing as _, Failed};

/// The root filesystem, as an init sees it.
#[derive(Debug)]
pub(super) struct Targets {
    root: OwnedFd,
}

impl Targets {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Attaches a detached mount at a path, which is made if it is missing.
    pub(super) fn attach(&self, mount: &OwnedFd, path: &Path) -> Result<(), Failed> {
        let target = self.ensure_like(mount, path)?;
        attach(mount, target.as_fd()).doing(|| format!("mount on {}", path.display()))
    }

    /// Opens a path as a place to mount on.
    pub(super) fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        resolve(self.root(), path, OFlags::PATH)
    }

    /// A directory that is made, with those above it, if it is missing.
    pub(super) fn ensure_directory(&self, path: &Path) -> Result<OwnedFd, Failed> {
        let doing = || format!("make directory {}", path.display());
        match self.open(path) {
            Ok(found) => return Ok(found),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(doing),
        }
        let mut so_far = PathBuf::from("/");
        let mut parent = self.open(&so_far).doing(doing)?;
        for part in path.components() {
            match part {
                Component::Normal(name) => so_far.push(name),
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Errno::INVAL).doing(doing);
                }
            }
            parent = match self.open(&so_far) {
                Err(Errno::NOENT) => {
                    let name = so_far.file_name().unwrap_or_default();
                    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                        Err(Errno::EXIST) => return Err(dangling(&so_far)).doing(doing),
                        other => other.doing(doing)?,
                    }
                    self.open(&so_far).doing(doing)?
                }
                other => other.doing(doing)?,
            };
        }
        Ok(parent)
    }

    /// A file of the root with just this content, in place of what is there.
    pub(super) fn write_file(&self, path: &Path, content: &str) -> Result<(), Failed> {
        let doing = || format!("write {}", path.display());
        let directory = self.ensure_directory(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error).doing(doing),
        }
        create(directory.as_fd(), Path::new(name))
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(content.as_bytes()))
            .doing(doing)
    }

    /// The path as a place for this mount: a directory for a directory, a file for anything else.
    fn ensure_like(&self, mount: &OwnedFd, path: &Path) -> Result<OwnedFd, Failed> {
        let doing = || format!("make a place to mount on at {}", path.display());
        let is = FileType::from_raw_mode(fstat(mount).doing(doing)?.st_mode);
        if is.is_dir() {
            return self.ensure_directory(path);
        }
        match self.open(path) {
            Err(Errno::NOENT) => {}
            other => return other.doing(doing),
        }
        let directory = self.ensure_directory(path.parent().unwrap_or(Path::new("/")))?;
        create(directory.as_fd(), Path::new(path.file_name().unwrap_or_default())).doing(doing)?;
        self.open(path).doing(doing)
    }
}

/// What is there, but cannot be opened as there is nothing at its end.
fn dangling(path: &Path) -> io::Error {
    io::Error::other(format!("{} is a link to nowhere in the image", path.display()))
}

/// Attaches a detached mount to an opened place.
pub(super) fn attach(mount: &OwnedFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let both_empty =
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", both_empty)
}

/// Attaches a detached mount to the working directory.
pub(super) fn attach_here(mount: &OwnedFd) -> rustix::io::Result<()> {
    move_mount(mount, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A detached copy of what is mounted at a place.
pub(super) fn clone_of(place: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(place, "", flags)
}

/// Opens a path that cannot leave `root`.
///
/// The kernel gives up (`EAGAIN`) at a `..` if anything was renamed or mounted meanwhile, anywhere on the
/// host: another sandbox can see to that without end, so that this one tries again, and often.
pub(super) fn resolve(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    /// Each takes a microsecond or two.
    const ATTEMPTS_MAX: usize = 100_000;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let attempt = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), within);
    let mut attempts = (0..ATTEMPTS_MAX).map(|_| attempt());
    attempts.find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap_or(Err(Errno::AGAIN))
}

fn create(directory: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(directory, name, flags, Mode::from_raw_mode(0o644), within)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn renames_elsewhere_do_not_keep_a_climbing_link_from_being_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("root"), dir.path().join("other"));
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir(&other).unwrap();
        symlink("../../../../a/b/../b/c", root.join("a/b/link")).unwrap();
        let bound = OwnedFd::from(File::open(&root).unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                fs::create_dir(other.join("x")).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(other.join("x"), other.join("y")).unwrap();
                    fs::rename(other.join("y"), other.join("x")).unwrap();
                }
            });
            let failed = (0..20_000)
                .find_map(|_| resolve(bound.as_fd(), Path::new("/a/b/link"), OFlags::PATH).err());
            stop.store(true, Ordering::Relaxed);
            assert_eq!(failed, None);
        });
    }
}
