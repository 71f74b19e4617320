//! Delegated groups of version 2: parts of the hierarchy that are an ordinary user's or a container's.
//!
//! ```text
//! GROUP                      delegated: hands controllers down, so that no process may be in it
//! GROUP/pinnace-NAME         the leaf: the server, its spawner, its router
//! GROUP/pinnace/NAME/SLOT    a sandbox
//! ```
//!
//! A server that finds itself alone in such a group moves to the leaf. What is not ours is never moved: with
//! a shell in the group, as in a plain session, nothing can be limited. The group is noted in the directory of
//! what runs, since whoever comes later may be in another one.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use pinnace_core::limits;
use rustix::fs::{Access, OFlags};

use super::{make_directory, subdirectories, write};
use crate::{failed::Doing as _, patience};

/// The file that says where the groups are, in the directory of what runs.
const NOTE: &str = "cgroup";

/// The group of a process, as a path below the mount of the hierarchy, from what /proc/PID/cgroup says.
pub(super) fn path_in(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    is_below(Path::new(path)).then(|| PathBuf::from(path))
}

/// Where a Pinnace's leaf lies.
pub(super) fn leaf(group: &Path, name: &str) -> PathBuf {
    group.join(format!("pinnace-{name}"))
}

/// Whether this user may make groups in one and move processes there.
pub(super) fn is_ours(group: &Path) -> bool {
    is_writable(group) && is_writable(&group.join("cgroup.procs"))
}

/// Whether a process in one group may come into another: into the smallest that has both, it must be allowed.
pub(super) fn may_move(mount: &Path, from: &Path, to: &Path) -> bool {
    let both = from.components().zip(to.components()).take_while(|(one, other)| one == other);
    let common: PathBuf = both.map(|(one, _)| one).collect();
    is_writable(&mount.join(common).join("cgroup.procs"))
}

/// Whether processes other than this one keep a group from handing controllers down. The hierarchy's own root
/// may have some.
pub(super) fn is_crowded(group: &Path) -> bool {
    let own = std::process::id().to_string();
    // One that this process cannot see is listed as 0.
    let there = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    !is_hierarchys_root(group) && there.lines().any(|process| process != own)
}

/// Moves this process from a group, if it is alone there, to the leaf.
pub(super) fn step_aside(group: &Path, name: &str) -> io::Result<()> {
    let there = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    if there.is_empty() || is_hierarchys_root(group) || is_crowded(group) {
        return Ok(());
    }
    let leaf = leaf(group, name);
    make_directory(&leaf)?;
    let moved = write(&leaf.join("cgroup.procs"), "0");
    if moved.is_err() {
        // The error that made this necessary is the one to tell.
        let _ = fs::remove_dir(&leaf);
    }
    moved
}

/// Removes the leaf, and leaves the group as it was if nobody else has groups there: this process returns to
/// it from the leaf. What stays goes with the group.
pub(super) fn step_back(mount: &Path, path: &Path, name: &str) {
    let (group, leaf) = (mount.join(path), mount.join(leaf(path, name)));
    if !leaf.exists() {
        return;
    }
    if subdirectories(&group).len() == 1 {
        let file = group.join("cgroup.subtree_control");
        for controller in fs::read_to_string(&file).unwrap_or_default().split_whitespace() {
            // If it stays, no process can return, which the next step says.
            let _ = fs::write(&file, format!("-{controller}"));
        }
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_inside = path_in(&own).is_some_and(|own| mount.join(own) == leaf);
    if is_inside && fs::write(group.join("cgroup.procs"), "0").is_err() {
        return;
    }
    // A process that has just ended keeps it for a moment.
    let _ = patience::until(limits::CGROUP_REMOVE_TIME_MAX, || match fs::remove_dir(&leaf) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => None,
        _ => Some(()),
    });
}

/// Notes the group, a path below the mount.
pub(super) fn note(run: &Path, group: &Path) -> io::Result<()> {
    let (file, making) = (run.join(NOTE), run.join("cgroup.new"));
    let noted = fs::write(&making, group.as_os_str().as_encoded_bytes())
        .and_then(|()| fs::rename(&making, &file));
    Ok(noted.doing(|| format!("note the control group in {}", file.display()))?)
}

/// The group that was noted, if it still has what is below it. Whoever owns the directory may have written
/// what he likes: it never leads out of the hierarchy, where all that root would write to is the kernel's.
pub(super) fn noted(run: &Path, mount: &Path, name: &str) -> Option<PathBuf> {
    /// Longest path that the kernel takes.
    const PATH_BYTES_MAX: u64 = 4096;
    // A pipe in its place would be waited for.
    let flags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(run.join(NOTE)).ok()?;
    let mut path = String::new();
    file.take(PATH_BYTES_MAX).read_to_string(&mut path).ok()?;
    let path = PathBuf::from(path);
    let base = mount.join(&path).join("pinnace").join(name);
    (is_below(&path) && base.is_dir()).then_some(path)
}

fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_hierarchys_root(group: &Path) -> bool {
    !group.join("cgroup.type").exists()
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_leads_to_a_group_that_is_there_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let (run, mount) = (dir.path().join("run"), dir.path().join("mount"));
        for path in [&run, &mount.join("a/b/pinnace/x"), &dir.path().join("pinnace/x")] {
            fs::create_dir_all(path).unwrap();
        }
        assert_eq!(noted(&run, &mount, "x"), None);
        note(&run, Path::new("a/b")).unwrap();
        assert_eq!(noted(&run, &mount, "x"), Some("a/b".into()));
        assert_eq!(noted(&run, &mount, "y"), None, "nothing of it is left");
        for away in [Path::new("../"), dir.path()] {
            note(&run, away).unwrap();
            assert_eq!(noted(&run, &mount, "x"), None, "{}", away.display());
        }
    }

    #[test]
    fn the_own_group_is_read_from_the_line_of_version_2() {
        let own = path_in("4:memory:/x\n0::/user.slice/a.scope\n");
        assert_eq!(own, Some("user.slice/a.scope".into()));
        assert_eq!(path_in("0::/\n"), Some("".into()));
        assert_eq!(path_in("0::/../elsewhere\n"), None, "outside of the cgroup namespace");
        assert_eq!(path_in("4:memory:/x\n"), None);
    }
}
