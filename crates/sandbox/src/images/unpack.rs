//! Unpacks one layer into a directory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
};

use pinnace_core::limits::{
    LAYER_ENTRIES_MAX, LAYER_LOCKED_PATH_BYTES_MAX, LAYER_PATH_BYTES_MAX, SANDBOX_IDS,
};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    entries::{Entries, Entry, Kind},
    error::{EntryFault, LoadError, printable},
    parents::{Parents, set_opaque},
    path::{EntryPath, Meaning},
    store::Ownership,
    stream::Budget,
    tree::{self, DIRECTORY},
};

const COPY_BYTES: usize = 128 << 10;
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A layer while it is unpacked.
pub(super) struct Unpacker<'a> {
    parents: Parents,
    ownership: Ownership,
    budget: &'a Budget,
    what: &'a str,
    entries: u64,
    bytes: u64,
    /// Directories whose mode keeps an ordinary user out, by path, and the mode they get in the end.
    locked: BTreeMap<Vec<u8>, u32>,
    locked_bytes: usize,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks below `root`, an empty directory. Errors call the layer `what`.
    pub(super) fn new(
        root: OwnedFd,
        ownership: Ownership,
        budget: &'a Budget,
        what: &'a str,
    ) -> Self {
        Self {
            parents: Parents::new(root, ownership),
            ownership,
            budget,
            what,
            entries: 0,
            bytes: 0,
            locked: BTreeMap::new(),
            locked_bytes: 0,
            buffer: vec![0; COPY_BYTES],
        }
    }

    /// Unpacks all entries. Answers with the bytes of the files.
    pub(super) fn run<R: Read>(mut self, entries: &mut Entries<R>) -> Result<u64, LoadError> {
        while let Some(entry) = entries.next()? {
            self.entries += 1;
            if self.entries + self.parents.implied > LAYER_ENTRIES_MAX {
                return Err(LoadError::Limit {
                    what: self.what.to_owned(),
                    max: LAYER_ENTRIES_MAX,
                    unit: "entries",
                    limit: "LAYER_ENTRIES_MAX",
                });
            }
            self.unpack(entry, entries)?;
        }
        self.finish().map_err(|fault| LoadError::entry(self.what, b"/", fault))?;
        Ok(self.bytes)
    }

    fn unpack<R: Read>(
        &mut self,
        mut entry: Entry,
        body: &mut Entries<R>,
    ) -> Result<(), LoadError> {
        let named = std::mem::take(&mut entry.path);
        let fail = |fault| LoadError::entry(self.what, &named, fault);
        if let Some(fault) = entry.fault.take() {
            return Err(fail(fault));
        }
        let path = EntryPath::parse(&named).map_err(fail)?;
        if entry.kind != Kind::File {
            return self
                .make(&path, &entry)
                .map_err(|fault| LoadError::entry(self.what, &named, fault));
        }
        let made = self.make_file(&path, &entry);
        let fail = |fault| LoadError::entry(self.what, &named, fault);
        let Some(mut file) = made.map_err(fail)? else { return Ok(()) };
        self.fill(&mut file, &entry, &named, body)?;
        self.bytes += entry.size;
        dress(&file.into(), &entry, self.ownership, entry.mode)
            .map_err(|fault| LoadError::entry(self.what, &named, fault))
    }

    /// Makes anything but a regular file.
    fn make(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), EntryFault> {
        if self.mark(path)? {
            return Ok(());
        }
        if path.is_root() {
            if entry.kind != Kind::Directory {
                return Err(EntryFault::RootNotDirectory);
            }
            self.parents.close()?;
            let root = tree::open_beneath(self.parents.root(), b"", DIRECTORY)?;
            return self.dress_directory(&root, Vec::new(), entry);
        }
        match entry.kind {
            Kind::Directory => self.make_directory(path, entry),
            Kind::Symlink => self.make_symlink(path, entry),
            Kind::HardLink => self.make_hard_link(path, entry),
            Kind::Fifo => self.make_fifo(path, entry),
            // Images made from a running system carry device nodes; a sandbox has its own /dev.
            Kind::Device if path.is_below(b"dev") => Ok(()),
            Kind::Device => Err(EntryFault::Device),
            Kind::File | Kind::Unknown => {
                Err(EntryFault::Unsupported("an entry of an unknown kind"))
            }
        }
    }

    /// Does what an entry's name says if it is a whiteout, and says whether it was one.
    fn mark(&mut self, path: &EntryPath) -> Result<bool, EntryFault> {
        let meaning = path.meaning()?;
        let (parent, _) = path.split();
        match meaning {
            Meaning::Plain => return Ok(false),
            Meaning::Nothing => {}
            Meaning::Opaque => set_opaque(&self.parents.open(parent)?.fd, self.ownership)?,
            Meaning::Whiteout(gone) => {
                let parent = self.parents.open(parent)?;
                let made =
                    fs::mknodat(&parent.fd, gone, FileType::CharacterDevice, Mode::empty(), 0);
                match made {
                    Ok(()) => {}
                    Err(Errno::EXIST) => self.hide_below(path, gone)?,
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(true)
    }

    /// A whiteout of something that this layer has anew: only what lies below is hidden, which a file does
    /// by itself and a directory when it is opaque.
    fn hide_below(&mut self, path: &EntryPath, name: &[u8]) -> Result<(), EntryFault> {
        let parent = self.parents.open(path.split().0)?;
        let is_directory = tree::look(&parent.fd, name)?
            .is_some_and(|stat| tree::file_type(&stat) == FileType::Directory);
        if is_directory {
            set_opaque(&tree::open_beneath(&parent.fd, name, DIRECTORY)?, self.ownership)?;
        }
        Ok(())
    }

    fn make_file(&mut self, path: &EntryPath, entry: &Entry) -> Result<Option<File>, EntryFault> {
        if self.mark(path)? {
            return Ok(None);
        }
        check_ids(entry, self.ownership)?;
        let file =
            self.place(path, |dir, name| fs::openat(dir, name, NEW_FILE, Mode::RUSR | Mode::WUSR))?;
        Ok(Some(File::from(file)))
    }

    /// Copies the content of a regular file.
    fn fill<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        named: &[u8],
        body: &mut Entries<R>,
    ) -> Result<(), LoadError> {
        self.budget.check(entry.size)?;
        let write =
            |source| LoadError::Write { what: self.what.into(), path: printable(named), source };
        let Some(pieces) = &entry.sparse else {
            loop {
                match body.read(&mut self.buffer)? {
                    0 => return Ok(()),
                    read => file.write_all(&self.buffer[..read]).map_err(write)?,
                }
            }
        };
        let stored: u64 = pieces.iter().map(|(_, length)| length).sum();
        self.budget.take(entry.size.saturating_sub(stored))?;
        file.set_len(entry.size).map_err(write)?;
        for &(offset, length) in pieces {
            file.seek(SeekFrom::Start(offset)).map_err(write)?;
            let mut left = length;
            while left > 0 {
                let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = body.read(&mut self.buffer[..wanted])?;
                if read == 0 {
                    return Err(LoadError::Truncated(self.what.to_owned()));
                }
                file.write_all(&self.buffer[..read]).map_err(write)?;
                left -= read as u64;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), EntryFault> {
        check_ids(entry, self.ownership)?;
        let (above, name) = path.split();
        let parent = self.parents.open(above)?;
        let real = joined(&parent.real, name);
        let existing = tree::look(&parent.fd, name)?;
        let is_directory =
            existing.as_ref().is_some_and(|stat| tree::file_type(stat) == FileType::Directory);
        if !is_directory {
            if existing.is_some() {
                fs::unlinkat(&parent.fd, name, AtFlags::empty())?;
            }
            fs::mkdirat(&parent.fd, name, Mode::RWXU)?;
        }
        let directory = tree::open_beneath(&parent.fd, name, DIRECTORY)?;
        if existing.as_ref().is_some_and(tree::is_whiteout) {
            set_opaque(&directory, self.ownership)?;
        }
        self.dress_directory(&directory, real, entry)
    }

    /// Gives a directory what its entry says. An ordinary user keeps it open until the layer is complete.
    fn dress_directory(
        &mut self,
        directory: &OwnedFd,
        real: Vec<u8>,
        entry: &Entry,
    ) -> Result<(), EntryFault> {
        check_ids(entry, self.ownership)?;
        let mut mode = entry.mode;
        self.unlock(&real);
        if self.ownership == Ownership::Squashed && mode & 0o700 != 0o700 {
            self.locked_bytes += real.len();
            if self.locked_bytes > LAYER_LOCKED_PATH_BYTES_MAX {
                return Err(EntryFault::TooManyLocked);
            }
            self.locked.insert(real, mode);
            mode |= 0o700;
        }
        dress(directory, entry, self.ownership, mode)
    }

    fn make_symlink(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), EntryFault> {
        check_ids(entry, self.ownership)?;
        let target = entry.link.as_slice();
        if target.is_empty() || target.len() > LAYER_PATH_BYTES_MAX {
            return Err(EntryFault::Length);
        }
        if target.contains(&0) {
            return Err(EntryFault::NulByte);
        }
        self.place(path, |dir, name| fs::symlinkat(target, dir, name))?;
        self.dress_by_name(path, entry, false)
    }

    fn make_fifo(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), EntryFault> {
        check_ids(entry, self.ownership)?;
        self.place(path, |dir, name| fs::mknodat(dir, name, FileType::Fifo, Mode::empty(), 0))?;
        self.dress_by_name(path, entry, true)
    }

    /// Another name for a file that this layer already has. No link is followed on the way to it.
    fn make_hard_link(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), EntryFault> {
        let fault = |reason| EntryFault::HardLink { target: printable(&entry.link), reason };
        let target = EntryPath::parse(&entry.link).map_err(|error| match error {
            EntryFault::Upwards => fault("which goes upwards with `..`"),
            other => other,
        })?;
        let (above, target_name) = target.split();
        // Opens the new name's directory first: that closes the other one, and makes what is missing.
        self.parents.open(path.split().0)?;
        let target_dir = tree::open_beneath(self.parents.root(), above, DIRECTORY).map_err(
            |errno| match errno {
                Errno::NOENT => fault("which this layer does not have"),
                Errno::NOTDIR | Errno::LOOP | Errno::XDEV => {
                    fault("whose path goes through a symbolic link or a file")
                }
                other => EntryFault::System(other),
            },
        )?;
        if target.is_root() {
            return Err(fault("which is a directory"));
        }
        let Some(old) = tree::look(&target_dir, target_name)? else {
            return Err(fault("which this layer does not have"));
        };
        match tree::file_type(&old) {
            FileType::RegularFile | FileType::Symlink | FileType::Fifo => {}
            FileType::Directory => return Err(fault("which is a directory")),
            _ => return Err(fault("which is no file")),
        }
        let (above, name) = path.split();
        let parent = self.parents.open(above)?;
        let same = tree::look(&parent.fd, name)?
            .is_some_and(|new| (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino));
        if same {
            return Ok(());
        }
        self.place(path, |dir, name| {
            fs::linkat(&target_dir, target_name, dir, name, AtFlags::empty())
        })
        .map_err(|error| match error {
            EntryFault::System(Errno::NOENT) => fault("which it would replace"),
            other => other,
        })
    }

    /// Makes something at `path`; what this layer had there before goes.
    fn place<T>(
        &mut self,
        path: &EntryPath,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, EntryFault> {
        if path.is_root() {
            return Err(EntryFault::RootNotDirectory);
        }
        let (above, name) = path.split();
        let parent = self.parents.open(above)?;
        match make(&parent.fd, name) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let real = joined(&parent.real, name);
        tree::remove(&parent.fd, name)?;
        let made = make(&parent.fd, name);
        self.unlock_tree(&real);
        Ok(made?)
    }

    /// Gives something that cannot be opened (a link, a pipe), made a moment ago, what its entry says.
    fn dress_by_name(
        &mut self,
        path: &EntryPath,
        entry: &Entry,
        has_mode: bool,
    ) -> Result<(), EntryFault> {
        let (above, name) = path.split();
        let dir = &self.parents.open(above)?.fd;
        if self.ownership == Ownership::Real {
            let (uid, gid) = ids(entry);
            fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if has_mode {
            fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        fs::utimensat(dir, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Forgets the mode that waits for a directory.
    fn unlock(&mut self, real: &[u8]) {
        if self.locked.remove(real).is_some() {
            self.locked_bytes -= real.len();
        }
    }

    /// Forgets the modes that wait for a directory that is gone, and for those that were below it.
    fn unlock_tree(&mut self, real: &[u8]) {
        self.unlock(real);
        let below = joined(real, b"");
        loop {
            let next = self.locked.range(below.clone()..).next().map(|(path, _)| path.clone());
            match next {
                Some(path) if path.starts_with(&below) => self.unlock(&path),
                _ => return,
            }
        }
    }

    /// Puts the last times back and locks the directories that are to be locked, the deepest first.
    fn finish(&mut self) -> Result<(), EntryFault> {
        self.parents.close()?;
        while let Some((path, mode)) = self.locked.pop_last() {
            match tree::open_beneath(self.parents.root(), &path, DIRECTORY) {
                Ok(directory) => fs::fchmod(&directory, Mode::from_raw_mode(mode))?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

/// Refuses owners that no sandbox can have.
fn check_ids(entry: &Entry, ownership: Ownership) -> Result<(), EntryFault> {
    let worst = entry.uid.max(entry.gid);
    if ownership == Ownership::Real && worst >= u64::from(SANDBOX_IDS) {
        return Err(EntryFault::Id(worst));
    }
    Ok(())
}

fn ids(entry: &Entry) -> (Uid, Gid) {
    // `check_ids` has seen them: they fit.
    let id = |id: u64| u32::try_from(id).unwrap_or(SANDBOX_IDS - 1);
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

fn times(entry: &Entry) -> Timestamps {
    let (seconds, nanoseconds) = entry.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives an open file or directory its owner, mode, attributes and time, in the order in which none undoes
/// another: a change of owner clears setuid and capabilities.
fn dress(fd: &OwnedFd, entry: &Entry, ownership: Ownership, mode: u32) -> Result<(), EntryFault> {
    if ownership == Ownership::Real {
        let (uid, gid) = ids(entry);
        fs::fchown(fd, Some(uid), Some(gid))?;
    }
    fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    for (name, value) in &entry.xattrs {
        if keeps_xattr(name, ownership) {
            match fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
                // A file system without user attributes: nothing can be kept there.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    fs::futimens(fd, &times(entry))?;
    Ok(())
}

/// Capabilities and users' own attributes are kept. Everything by which overlayfs steers is not: an image
/// must not redirect lookups.
fn keeps_xattr(name: &[u8], ownership: Ownership) -> bool {
    let is_overlay = name.windows(7).any(|part| part == b"overlay");
    let is_capability = name == b"security.capability" && ownership == Ownership::Real;
    !is_overlay && !name.contains(&0) && (is_capability || name.starts_with(b"user."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_steer_overlayfs_are_dropped() {
        for (name, real, squashed) in [
            ("user.mime_type", true, true),
            ("security.capability", true, false),
            ("user.overlay.redirect", false, false),
            ("trusted.overlay.opaque", false, false),
            ("trusted.x", false, false),
            ("security.selinux", false, false),
            ("system.posix_acl_access", false, false),
        ] {
            assert_eq!(keeps_xattr(name.as_bytes(), Ownership::Real), real, "{name}");
            assert_eq!(keeps_xattr(name.as_bytes(), Ownership::Squashed), squashed, "{name}");
        }
    }
}
