//! Directories by descriptor: opening without following links, and removing whole trees.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How a directory is opened that files are made in.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens what lies at `path` below `root`: never through a link, never out of it.
pub(super) fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// What lies at `name` in `dir`, links not followed; `None` if nothing does.
pub(super) fn look(dir: impl AsFd, name: &[u8]) -> Result<Option<fs::Stat>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The kind of a file.
pub(super) fn file_type(stat: &fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether it is overlayfs's mark that a lower file is gone.
pub(super) fn is_whiteout(stat: &fs::Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes `name` from `dir`, with all that it holds. Links are removed, not followed; directories whose
/// mode keeps an ordinary user out are opened up first. That it is gone already is no error.
pub(super) fn remove(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let dir = dir.as_fd();
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let inner = open_up(dir, name)?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child != b"." && child != b".." {
            remove(&inner, child)?;
        }
    }
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes a path of the store itself, whose parents are no strangers'.
pub(super) fn remove_path(path: &Path) -> Result<(), Errno> {
    remove(fs::CWD, std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

/// Opens a directory so that its entries can be removed.
fn open_up(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let dir = dir.as_fd();
    let inner = match fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // A descriptor that needs no permission, so that the mode is changed of this directory and of
            // nothing that a link could lead to.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = fs::openat(dir, name, flags, Mode::empty())?;
            fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU)?;
            fs::openat(dir, name, DIRECTORY, Mode::empty())?
        }
        other => other?,
    };
    let stat = fs::fstat(&inner)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    if !mode.contains(Mode::RWXU) {
        fs::fchmod(&inner, mode | Mode::RWXU)?;
    }
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn removal_does_not_follow_links() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let tree = temp.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        std::fs::set_permissions(tree.join("a/b"), PermissionsExt::from_mode(0o000)).unwrap();
        remove_path(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_path(&tree).unwrap();
    }

    #[test]
    fn opening_stays_beneath() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("root/a")).unwrap();
        symlink("a", temp.path().join("root/link")).unwrap();
        let root = fs::openat(fs::CWD, temp.path().join("root"), DIRECTORY, Mode::empty()).unwrap();
        assert!(open_beneath(&root, b"a", DIRECTORY).is_ok());
        assert!(open_beneath(&root, b"", DIRECTORY).is_ok());
        for bad in [&b".."[..], b"../root", b"/", b"link", b"link/.."] {
            assert!(open_beneath(&root, bad, DIRECTORY).is_err(), "{bad:?}");
        }
    }
}
