//! A harvest as a tree elsewhere: where the commands of a build find its source.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

use pinnace_core::build::SOURCE_DATE_EPOCH;
use rustix::{
    fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{Sink, is_program, size, split};
use crate::images::tree::{self, DIRECTORY};

/// Writes a tree below a directory.
pub(super) struct TreeSink {
    root: OwnedFd,
    /// Whose everything is, but the directories that are there.
    owner: Option<(Uid, Gid)>,
}

impl TreeSink {
    /// Writes below `root`, on behalf of this user and group of the host if it is another than this process's.
    pub(super) fn new(root: OwnedFd, owner: Option<(u32, u32)>) -> Self {
        let owner = owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group)));
        Self { root, owner }
    }

    fn within(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        tree::open_beneath(&self.root, split(path).0, DIRECTORY)
    }

    fn give(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        if let Some((user, group)) = self.owner {
            fs::chownat(dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let time = Timespec { tv_sec: SOURCE_DATE_EPOCH.cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

impl Sink for TreeSink {
    fn directory(&mut self, path: &[u8], _found: Option<&fs::Stat>) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (dir, name) = (self.within(path)?, split(path).1);
        match fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => return Ok(()),
            made => made?,
        }
        fs::chmodat(&dir, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
        Ok(self.give(&dir, name)?)
    }

    fn file(&mut self, path: &[u8], found: &fs::Stat, content: &File) -> io::Result<()> {
        let bytes = size(found);
        let (dir, name) = (self.within(path)?, split(path).1);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        fs::fchmod(&file, Mode::from_raw_mode(if is_program(found) { 0o755 } else { 0o644 }))?;
        let copied = io::copy(&mut content.take(bytes), &mut File::from(file))?;
        if copied < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.give(&dir, name)?)
    }

    fn link(&mut self, path: &[u8], target: &[u8], _found: &fs::Stat) -> io::Result<()> {
        let (dir, name) = (self.within(path)?, split(path).1);
        fs::symlinkat(target, &dir, name)?;
        Ok(self.give(&dir, name)?)
    }

    // A source stands on nothing.

    fn removed(&mut self, _path: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn opaque(&mut self, _path: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
