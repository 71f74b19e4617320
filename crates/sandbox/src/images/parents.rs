//! The directories of a layer that entries are made in.
//!
//! Entries come mostly directory by directory, so the last one stays open. Making an entry changes its
//! directory's time; the time that the layer gave it is put back when the next directory is opened, which
//! needs no memory of all directories.

use std::{collections::VecDeque, os::fd::OwnedFd};

use pinnace_core::limits::{LAYER_DEPTH_MAX, LAYER_LINKS_FOLLOWED_MAX};
use rustix::{
    fs::{self, AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{
    error::EntryFault,
    store::Ownership,
    tree::{self, DIRECTORY},
};

/// Mode of directories that a layer implies but does not describe.
const IMPLIED_MODE: u32 = 0o755;

/// Opens directories below a layer's root.
pub(super) struct Parents {
    root: OwnedFd,
    ownership: Ownership,
    current: Option<Parent>,
    /// Directories made because an entry lay below them.
    pub implied: u64,
}

/// An open directory.
pub(super) struct Parent {
    /// The path it was asked for by.
    asked: Vec<u8>,
    /// The path it has, without links.
    pub real: Vec<u8>,
    /// The directory.
    pub fd: OwnedFd,
    times: Timestamps,
}

impl Parents {
    pub(super) fn new(root: OwnedFd, ownership: Ownership) -> Self {
        Self { root, ownership, current: None, implied: 0 }
    }

    /// The layer's own directory.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The directory at `path`; it and those above it are made if they are missing. Symbolic links that
    /// the layer has in the path are followed within the layer.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<&Parent, EntryFault> {
        if self.current.as_ref().is_none_or(|current| current.asked != path) {
            self.close()?;
            let (fd, real) = match tree::open_beneath(&self.root, path, DIRECTORY) {
                Ok(fd) => (fd, path.to_vec()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.walk(path)?,
                Err(errno) => return Err(errno.into()),
            };
            let times = times_of(&fs::fstat(&fd)?);
            self.current = Some(Parent { asked: path.to_vec(), real, fd, times });
        }
        self.current.as_ref().ok_or(EntryFault::System(Errno::NOENT))
    }

    /// Puts the open directory's time back and closes it. Needed before a directory's own time is set.
    pub(super) fn close(&mut self) -> Result<(), Errno> {
        match self.current.take() {
            Some(parent) => fs::futimens(&parent.fd, &parent.times),
            None => Ok(()),
        }
    }

    /// Goes down name by name, making what is missing and resolving links by hand.
    fn walk(&mut self, path: &[u8]) -> Result<(OwnedFd, Vec<u8>), EntryFault> {
        let mut todo: VecDeque<Vec<u8>> = names(path).collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        let mut current = tree::open_beneath(&self.root, b"", DIRECTORY)?;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                done.pop().ok_or(EntryFault::LeadsOut)?;
                current = tree::open_beneath(&self.root, &done.join(&b'/'), DIRECTORY)?;
                continue;
            }
            let found = tree::look(&current, &name)?;
            match found.as_ref().map(tree::file_type) {
                Some(FileType::Directory) => {}
                Some(FileType::Symlink) => {
                    links += 1;
                    if links > LAYER_LINKS_FOLLOWED_MAX {
                        return Err(EntryFault::TooManyLinks);
                    }
                    let target = fs::readlinkat(&current, &name[..], Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        done.clear();
                        current = tree::open_beneath(&self.root, b"", DIRECTORY)?;
                    }
                    for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(name);
                    }
                    continue;
                }
                None => self.make_implied(&current, &name, false)?,
                Some(_) if found.as_ref().is_some_and(tree::is_whiteout) => {
                    fs::unlinkat(&current, &name[..], AtFlags::empty())?;
                    self.make_implied(&current, &name, true)?;
                }
                Some(_) => return Err(EntryFault::ParentNotDirectory),
            }
            current = tree::open_beneath(&current, &name, DIRECTORY)?;
            done.push(name);
            if done.len() > LAYER_DEPTH_MAX {
                return Err(EntryFault::TooDeep(LAYER_DEPTH_MAX));
            }
        }
        Ok((current, done.join(&b'/')))
    }

    fn make_implied(&mut self, dir: &OwnedFd, name: &[u8], opaque: bool) -> Result<(), EntryFault> {
        let times = times_of(&fs::fstat(dir)?);
        fs::mkdirat(dir, name, Mode::RWXU)?;
        let made = tree::open_beneath(dir, name, DIRECTORY)?;
        if self.ownership == Ownership::Real {
            fs::fchown(&made, Some(fs::Uid::ROOT), Some(fs::Gid::ROOT))?;
        }
        fs::fchmod(&made, Mode::from_raw_mode(IMPLIED_MODE))?;
        if opaque {
            set_opaque(&made, self.ownership)?;
        }
        fs::futimens(dir, &times)?;
        self.implied += 1;
        Ok(())
    }
}

/// Marks a directory so that overlayfs shows nothing of those below it.
pub(super) fn set_opaque(dir: &OwnedFd, ownership: Ownership) -> Result<(), Errno> {
    fs::fsetxattr(dir, ownership.opaque_xattr(), b"y", XattrFlags::empty())
}

fn names(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}

fn times_of(stat: &fs::Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec.cast_signed() },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.cast_signed(),
        },
    }
}
