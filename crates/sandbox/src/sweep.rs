//! Finding and removing what replicas have left: after a crash, or for `down`.
//!
//! Everything that a sandbox is made of ends with its init, but for its slot's directory and control group,
//! which have the slot's name.

use std::{collections::BTreeSet, fs, io, path::Path};

use pinnace_core::limits;

use crate::{
    adoption::{Adopted, wait_for_end},
    cgroup::Cgroups,
    failed::Doing as _,
    protocol::SlotSpec,
    start::is_label,
};

/// What a sweep has done.
#[derive(Debug, Default)]
pub struct Swept {
    /// Slots whose init still ran and was ended.
    pub ended: Vec<String>,
    /// Slots of which only remains were found.
    pub removed: Vec<String>,
    /// What could not be removed, with why.
    pub left: Vec<(String, io::Error)>,
}

/// Ends and removes every slot that has a directory in `run_dir` or a control group, but for those to be
/// kept. May wait up to `CGROUP_REMOVE_TIME_MAX` for each: not for a thread that serves.
///
/// # Errors
/// If `run_dir` cannot be read. What cannot be removed is in [`Swept::left`].
pub fn sweep(run_dir: &Path, cgroups: &Cgroups, keep: &BTreeSet<String>) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut slots = BTreeSet::new();
    match fs::read_dir(run_dir) {
        Ok(entries) => {
            for entry in entries {
                // What has another kind of name is not a slot's.
                slots.extend(entry?.file_name().into_string().ok().filter(|name| is_label(name)));
            }
        }
        // Somebody has removed it, but control groups may be left.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => Err(error).doing(|| format!("read {}", run_dir.display()))?,
    }
    for name in slots.difference(keep) {
        match end(&run_dir.join(name)) {
            Ok(true) => swept.ended.push(name.clone()),
            Ok(false) => swept.removed.push(name.clone()),
            Err(error) => swept.left.push((name.clone(), error)),
        }
    }
    for slot in cgroups.list().difference(keep) {
        // Processes without an init can only be there if it never got so far.
        let cleared = cgroups.kill_all(slot).and_then(|()| cgroups.remove(slot));
        swept.left.extend(cleared.err().map(|error| (slot.clone(), error)));
    }
    // Last of all, since a slot without a directory is not looked for again.
    let stays: BTreeSet<String> = swept.left.iter().map(|(name, _)| name.clone()).collect();
    for name in slots.difference(keep).filter(|name| !stays.contains(*name)) {
        if let Err(error) = remove_directory(&run_dir.join(name)) {
            swept.left.push((name.clone(), error));
        }
    }
    Ok(swept)
}

/// Ends and removes one slot, which need not be there. May wait as [`sweep`] does.
///
/// # Errors
/// With what stays.
pub fn clear(slot: &SlotSpec, cgroups: &Cgroups) -> io::Result<()> {
    end(&slot.dir)?;
    cgroups.kill_all(&slot.name)?;
    cgroups.remove(&slot.name)?;
    remove_directory(&slot.dir)
}

/// Ends a slot's init if it runs. Whether it ran.
fn end(dir: &Path) -> io::Result<bool> {
    let Some(init) = Adopted::find(dir)? else { return Ok(false) };
    init.kill()?;
    if !wait_for_end(&init.pidfd, limits::CGROUP_REMOVE_TIME_MAX) {
        let text = format!("the init of {} was killed and does not end", dir.display());
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    Ok(true)
}

fn remove_directory(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Ok(other.doing(|| format!("remove {}", dir.display()))?),
    }
}
