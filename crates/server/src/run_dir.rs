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
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::{fs::statfs, process::geteuid};

/// What `statfs` calls a file system in memory (statfs(2): `TMPFS_MAGIC`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where a Pinnace's directory is made in memory unless the operator names a place: below `/run` if that is in
/// memory and this is root. An ordinary user's (`XDG_RUNTIME_DIR`) vanishes when he logs out, while his
/// functions run on.
#[must_use]
pub(crate) fn default_parent() -> Option<PathBuf> {
    let in_memory = statfs("/run").is_ok_and(|found| found.f_type as u64 == TMPFS_MAGIC);
    (geteuid().is_root() && in_memory).then(|| PathBuf::from("/run/pinnace"))
}

/// Makes sure that `run` is a directory, made below `parent` under this name if it is new and a parent is given.
///
/// # Errors
/// It cannot be made, or is somebody else's.
pub(crate) fn make(run: &Path, parent: Option<&Path>, name: &str) -> io::Result<()> {
    match (fs::read_link(run), parent) {
        // After a restart of the machine the link leads nowhere.
        (Ok(target), _) => make_elsewhere(&target),
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            let target = parent.join(name);
            make_elsewhere(&target)?;
            symlink(&target, run)
        }
        (Err(_), _) => make_private(run),
    }
}

/// Makes it outside of the state directory, where nobody else may be able to exchange it.
fn make_elsewhere(dir: &Path) -> io::Result<()> {
    make_private(dir)?;
    if let Some(above) = fs::canonicalize(dir)?.ancestors().skip(1).find(|above| !is_ours(above)) {
        let text = "another user may exchange what is in it; name another with --run-dir";
        return Err(io::Error::other(format!("{}: {text}", above.display())));
    }
    Ok(())
}

fn make_private(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
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

/// Whether `run` leads to a directory right below `parent`.
#[must_use]
pub(crate) fn lies_below(run: &Path, parent: &Path) -> bool {
    let at = fs::canonicalize(run).ok();
    let at = at.as_deref().and_then(Path::parent);
    at.is_some() && at == fs::canonicalize(parent).ok().as_deref()
}

/// Removes `run` and where it leads to, with everything in it.
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
    target.parent().map(fs::remove_dir);
    fs::remove_file(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_where_it_was_asked_for_and_goes_with_all_that_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let (run, parent) = (dir.path().join("run"), dir.path().join("memory/pinnace"));
        make(&run, Some(&parent), "a").unwrap();
        assert_eq!(fs::read_link(&run).unwrap(), parent.join("a"));
        assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
        // As after a restart of the machine; another parent is for the next new one.
        fs::remove_dir_all(&parent).unwrap();
        make(&run, Some(Path::new("/nowhere")), "a").unwrap();
        assert!(lies_below(&run, &parent) && !lies_below(&run, Path::new("/nowhere")));
        assert!(!lies_below(&run, dir.path()));
        fs::write(run.join("file"), "").unwrap();
        make(&dir.path().join("other"), Some(&parent), "b").unwrap();
        remove(&run).unwrap();
        assert!(!parent.join("a").exists() && fs::symlink_metadata(&run).is_err());
        remove(&dir.path().join("other")).unwrap();
        assert!(!parent.exists());
        remove(&run).unwrap();
    }

    #[test]
    fn one_on_disk_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        make(&run, None, "a").unwrap();
        fs::write(run.join("file"), "").unwrap();
        make(&run, Some(dir.path()), "a").unwrap();
        assert!(run.join("file").exists() && fs::read_link(&run).is_err());
        remove(&run).unwrap();
        assert!(!run.exists());
    }

    #[test]
    fn what_is_no_directory_of_ours_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        symlink(dir.path(), dir.path().join("a")).unwrap();
        let refused = make(&run, Some(dir.path()), "a").unwrap_err();
        assert!(refused.to_string().contains("remove it"), "{refused}");
        fs::write(dir.path().join("b"), "").unwrap();
        make(&run, Some(dir.path()), "b").unwrap_err();
    }

    #[test]
    fn what_others_may_exchange_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (run, parent) = (dir.path().join("run"), dir.path().join("shared/pinnace"));
        fs::create_dir_all(&parent).unwrap();
        let mode =
            |mode| fs::set_permissions(parent.parent().unwrap(), PermissionsExt::from_mode(mode));
        mode(0o777).unwrap();
        let refused = make(&run, Some(&parent), "a").unwrap_err().to_string();
        assert!(refused.contains("shared: another user"), "{refused}");
        // Where the state directory lies is its owner's affair.
        make(&parent.join("run"), None, "a").unwrap();
        mode(0o1777).unwrap();
        make(&run, Some(&parent), "a").unwrap();
    }
}
