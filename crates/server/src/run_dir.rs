//! Where sockets and records of what runs lie: `STATE/run`, or a directory in memory that `STATE/run` leads to.
//!
//! Each slot has seven of these files, made and removed again within seconds. On disk that is dear: ext4 looks
//! for an inode that was not freed within the last five seconds, one by one, which a hundred starts a second
//! turn into half of a spawner's time; and a full disk, or one that others keep busy, would hold up starts.
//! So where `/run` is in memory, as it is on most hosts, root's Pinnace has a directory of its own there.
//! Mounting a file system of our own in the state directory was rejected: a service with a mount namespace of
//! its own takes such a mount with it when it ends, and replicas would not be found again.
//!
//! Everything goes on to use `STATE/run`. What is there stays where it is until `down` removes it.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{fs::statfs, process::geteuid};

use crate::{
    provider::sandbox::ROUTER,
    state_dir::{MOUNTS, RUN, SECRETS, SLOTS},
};

/// What `statfs` calls a file system in memory (statfs(2): `TMPFS_MAGIC`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where a Pinnace's directory is made in memory unless the operator names a place: below `/run` if that is in
/// memory and this is root. An ordinary user's (`XDG_RUNTIME_DIR`) vanishes when he logs out, while his
/// functions run on.
#[must_use]
pub(crate) fn default_parent() -> Option<PathBuf> {
    (geteuid().is_root() && is_in_memory(Path::new("/run"))).then(|| PathBuf::from("/run/pinnace"))
}

/// Whether what lies in a directory is in memory alone.
pub(crate) fn is_in_memory(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC)
}

/// Link in it to its state directory: a link is made at once and whole, also on a disk that is nearly full.
const OF: &str = "of";

/// Whose records the `run` of a state directory has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// Its own, if any.
    Own,
    /// Those of the state directory that it is a copy of.
    Copied,
    /// Those of the path at which it was before, or is too, by another mount.
    Moved(PathBuf),
}

/// Whose records are in the `run` of `state_dir`, whose name this is.
pub(crate) fn records(state_dir: &Path, name: &str) -> Records {
    let run = state_dir.join(RUN);
    match fs::read_link(run.join(OF)) {
        Ok(of) if of == state_dir => Records::Own,
        Ok(of) if is_another(&of.join(RUN), &run) => Records::Copied,
        Ok(of) => Records::Moved(of),
        Err(_) => match fs::read_link(&run) {
            Ok(target) if target.file_name().is_none_or(|last| last != name) => Records::Copied,
            _ => Records::Own,
        },
    }
}

/// Whether both are there and not the same; of links, the links themselves.
fn is_another(one: &Path, other: &Path) -> bool {
    let inode = |path| fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((inode(one), inode(other)), (Ok(one), Ok(other)) if one != other)
}

/// Removes a `run` whose records are those of another state directory, and nothing of that.
///
/// # Errors
/// Something stays.
pub(crate) fn forget(run: &Path) -> io::Result<()> {
    match fs::read_link(run) {
        Ok(_) => fs::remove_file(run),
        Err(_) => fs::remove_dir_all(run),
    }
}

/// Makes sure that `state_dir` has its `run`, made below `parent` under the state directory's name if it is new
/// and a parent is given.
///
/// # Errors
/// It cannot be made, is somebody else's, or belongs to the path at which the state directory was before.
pub(crate) fn make(state_dir: &Path, parent: Option<&Path>, name: &str) -> io::Result<()> {
    let run = state_dir.join(RUN);
    match records(state_dir, name) {
        Records::Own => {}
        Records::Copied => forget(&run)?,
        Records::Moved(from) => {
            return Err(io::Error::other(format!(
                "the state directory was moved from {} while functions ran; end them with `pinnace down \
                 --state-dir {}`",
                from.display(),
                state_dir.display()
            )));
        }
    }
    match (fs::read_link(&run), parent) {
        // After a restart of the machine the link leads nowhere.
        (Ok(target), _) => make_elsewhere(&target)?,
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            let target = parent.join(name);
            make_elsewhere(&target)?;
            symlink(&target, &run)?;
        }
        (Err(_), _) => make_private(&run)?,
    }
    match symlink(state_dir, run.join(OF)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes it outside of the state directory, where nobody else may be able to exchange it.
fn make_elsewhere(dir: &Path) -> io::Result<()> {
    let (parent, advice) = (dir.parent().unwrap_or(dir), "name another place with --run-dir");
    DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}; {advice}", parent.display()))
    })?;
    if let Some(above) = fs::canonicalize(parent)?.ancestors().find(|above| !is_ours(above)) {
        let text = "another user may exchange what is in it";
        return Err(io::Error::other(format!("{}: {text}; {advice}", above.display())));
    }
    make_private(dir)
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // It may have been there, and others may write beside it.
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        let sentence = format!("{} is not a directory of this user; remove it", dir.display());
        return Err(io::Error::other(sentence));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Whether nobody but root and this user can put another thing in the place of what we have in a directory.
fn is_ours(dir: &Path) -> bool {
    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    fs::metadata(dir).is_ok_and(|found| {
        let mode = found.permissions().mode();
        (found.uid() == 0 || found.uid() == geteuid().as_raw())
            && (mode & OTHERS_WRITE == 0 || mode & STICKY != 0)
    })
}

/// Whether a directory holds nothing but what we put there, and something of it.
#[must_use]
pub(crate) fn is_one(run: &Path) -> bool {
    let mut names =
        fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let ours = |name: OsString| {
        [OF, SLOTS, SECRETS, MOUNTS, ROUTER].iter().any(|ours| name == *ours)
            || name.as_bytes().starts_with(b"spawner-")
    };
    names.next().is_some_and(ours) && names.all(ours)
}

/// Whether `run` leads to a directory right below `parent`.
#[must_use]
pub(crate) fn lies_below(run: &Path, parent: &Path) -> bool {
    let at = fs::canonicalize(run).ok();
    let at = at.as_deref().and_then(Path::parent);
    at.is_some() && at == fs::canonicalize(parent).ok().as_deref()
}

/// Removes `run` and where it leads to, with everything in it, and the directory above that where it is empty then.
///
/// # Errors
/// Something stays.
pub(crate) fn remove(run: &Path) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let Ok(target) = fs::read_link(run) else {
        return gone(fs::remove_dir_all(run));
    };
    gone(fs::remove_dir_all(&target))?;
    // The directory of all Pinnaces on this host goes with the last.
    if let Some(parent) = target.parent() {
        let _ = fs::remove_dir(parent);
    }
    fs::remove_file(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &Path, name: &str) -> PathBuf {
        let state = dir.join(name);
        fs::create_dir_all(&state).unwrap();
        state
    }

    #[test]
    fn it_lies_where_it_was_asked_for_and_goes_with_all_that_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, parent) =
            (state(dir.path(), "a"), state(dir.path(), "b"), dir.path().join("memory/pinnace"));
        let run = a.join(RUN);
        make(&a, Some(&parent), "a").unwrap();
        assert_eq!(fs::read_link(&run).unwrap(), parent.join("a"));
        assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
        // As after a restart of the machine; another parent is for the next new one.
        fs::remove_dir_all(&parent).unwrap();
        make(&a, Some(Path::new("/nowhere")), "a").unwrap();
        assert!(lies_below(&run, &parent) && !lies_below(&run, Path::new("/nowhere")));
        assert!(!lies_below(&run, dir.path()));
        fs::write(run.join("file"), "").unwrap();
        make(&b, Some(&parent), "b").unwrap();
        remove(&run).unwrap();
        assert!(!parent.join("a").exists() && fs::symlink_metadata(&run).is_err());
        remove(&b.join(RUN)).unwrap();
        assert!(!parent.exists());
        remove(&run).unwrap();
    }

    #[test]
    fn one_on_disk_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        let a = state(dir.path(), "a");
        let run = a.join(RUN);
        make(&a, None, "a").unwrap();
        fs::write(run.join("file"), "").unwrap();
        make(&a, Some(dir.path()), "a").unwrap();
        assert!(run.join("file").exists() && fs::read_link(&run).is_err());
        remove(&run).unwrap();
        assert!(!run.exists());
    }

    #[test]
    fn a_copy_has_nothing_of_the_original_and_takes_nothing_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let (a, copy, memory) =
            (state(dir.path(), "a"), state(dir.path(), "copy"), dir.path().join("memory"));
        make(&a, Some(&memory), "a").unwrap();
        symlink(memory.join("a"), copy.join(RUN)).unwrap();
        assert_eq!((records(&a, "a"), records(&copy, "b")), (Records::Own, Records::Copied));
        make(&copy, Some(&memory), "b").unwrap();
        assert_eq!(fs::read_link(copy.join(RUN)).unwrap(), memory.join("b"));
        assert_eq!((records(&a, "a"), records(&copy, "b")), (Records::Own, Records::Own));
        // On disk, and by a link whose directory is gone.
        remove(&copy.join(RUN)).unwrap();
        state(&copy, RUN);
        symlink(&a, copy.join(RUN).join(OF)).unwrap();
        fs::write(copy.join(RUN).join("record"), "").unwrap();
        make(&copy, None, "b").unwrap();
        assert!(!copy.join(RUN).join("record").exists() && memory.join("a").exists());
        remove(&copy.join(RUN)).unwrap();
        symlink(memory.join("gone"), copy.join(RUN)).unwrap();
        assert_eq!(records(&copy, "b"), Records::Copied);
    }

    #[test]
    fn one_that_was_moved_while_functions_ran_says_how_to_end_them() {
        let dir = tempfile::tempdir().unwrap();
        let a = state(dir.path(), "a");
        make(&a, None, "a").unwrap();
        let moved = dir.path().join("moved");
        fs::rename(&a, &moved).unwrap();
        assert_eq!(records(&moved, "b"), Records::Moved(a));
        let refused = make(&moved, None, "b").unwrap_err().to_string();
        assert!(refused.contains("moved from") && refused.contains("pinnace down"), "{refused}");
    }

    #[test]
    fn what_is_no_directory_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let a = state(dir.path(), "state");
        symlink(dir.path(), dir.path().join("a")).unwrap();
        let refused = make(&a, Some(dir.path()), "a").unwrap_err();
        assert!(refused.to_string().contains("remove it"), "{refused}");
        fs::write(dir.path().join("b"), "").unwrap();
        make(&a, Some(dir.path()), "b").unwrap_err();
        let refused = make(&a, Some(&dir.path().join("b/c")), "b").unwrap_err().to_string();
        assert!(
            refused.contains("/b/c: Not a directory") && refused.contains("--run-dir"),
            "{refused}"
        );
    }

    #[test]
    fn what_others_may_exchange_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (a, parent) = (state(dir.path(), "a"), state(dir.path(), "shared/pinnace"));
        let mode =
            |mode| fs::set_permissions(parent.parent().unwrap(), PermissionsExt::from_mode(mode));
        mode(0o777).unwrap();
        let refused = make(&a, Some(&parent), "a").unwrap_err().to_string();
        assert!(refused.contains("shared: another user"), "{refused}");
        assert!(!parent.join("a").exists(), "nothing was made there");
        // Where the state directory lies is its owner's affair.
        make(&state(&parent, "of-its-own"), None, "a").unwrap();
        mode(0o1777).unwrap();
        make(&a, Some(&parent), "a").unwrap();
    }
}
