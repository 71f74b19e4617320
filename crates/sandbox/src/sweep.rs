//! Finding and removing what replicas have left: after a crash, or for `down`.
//!
//! Everything that a sandbox is made of ends with its init, but for the replica's directory and the slot's
//! control group.

use std::{collections::BTreeSet, fs, io, path::Path};

use pinnace_core::limits;

use crate::{
    adoption::{Adopted, wait_for_end},
    cgroup::Cgroups,
    failed::Doing as _,
    start::{MADE, is_label},
};

/// What a sweep has done.
#[derive(Debug, Default)]
pub struct Swept {
    /// Replicas that still ran and were ended.
    pub ended: Vec<String>,
    /// Replicas of which only remains were found.
    pub removed: Vec<String>,
    /// What could not be removed, with why.
    pub left: Vec<(String, io::Error)>,
}

/// What a sweep leaves alone.
#[derive(Debug, Default)]
pub struct Keep {
    /// Replicas, by the names of their directories.
    pub replicas: BTreeSet<String>,
    /// Slots, by name.
    pub slots: BTreeSet<String>,
}

/// Ends and removes every replica that has a directory in `run_dir`, and every control group of a slot, but
/// for those to be kept. May wait up to `CGROUP_REMOVE_TIME_MAX` for each: not for a thread that serves.
///
/// # Errors
/// If `run_dir` cannot be read. What cannot be removed is in [`Swept::left`].
pub fn sweep(run_dir: &Path, cgroups: &Cgroups, keep: &Keep) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut replicas = BTreeSet::new();
    for entry in fs::read_dir(run_dir).doing(|| format!("read {}", run_dir.display()))? {
        // What has another kind of name is not a replica's.
        replicas.extend(entry?.file_name().into_string().ok().filter(|name| is_label(name)));
    }
    for id in replicas.difference(&keep.replicas) {
        match end(&run_dir.join(id)) {
            Ok(true) => swept.ended.push(id.clone()),
            Ok(false) => swept.removed.push(id.clone()),
            Err(error) => swept.left.push((id.clone(), error)),
        }
    }
    for slot in cgroups.list().difference(&keep.slots) {
        // Processes without an init can only be there if it never got so far.
        let cleared = cgroups.kill_all(slot).and_then(|()| cgroups.remove(slot));
        swept.left.extend(cleared.err().map(|error| (slot.clone(), error)));
    }
    // Last of all, since a replica without a directory is not looked for again.
    for id in replicas.difference(&keep.replicas) {
        if let Err(error) = remove_directory(&run_dir.join(id)) {
            swept.left.push((id.clone(), error));
        }
    }
    Ok(swept)
}

/// Takes a start back that a spawner has begun and may have finished, so that it can be made again in the
/// same directory. The slot's control group is left.
///
/// # Errors
/// With what stays.
pub fn undo_start(dir: &Path) -> io::Result<()> {
    end(dir)?;
    for name in MADE {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Ends a replica if it runs. Whether it ran.
fn end(dir: &Path) -> io::Result<bool> {
    let Some(init) = Adopted::find(dir)? else { return Ok(false) };
    init.kill()?;
    wait_for_end(&init.pidfd, limits::CGROUP_REMOVE_TIME_MAX);
    Ok(true)
}

fn remove_directory(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Ok(other.doing(|| format!("remove {}", dir.display()))?),
    }
}
