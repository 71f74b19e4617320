//! Finding and removing what replicas have left: after a crash, or for `down`.
//!
//! Everything that a sandbox is made of ends with its init, but for its directory and its control group.
//! Both are named after its id.

use std::{collections::BTreeSet, fs, io, path::Path};

use pinnace_core::limits;

use crate::{
    adoption::{Adopted, wait_for_end},
    cgroup::Cgroups,
    failed::Doing as _,
    start::is_label,
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

/// Ends and removes every replica that has a directory in `run_dir` or a control group, but for those to
/// be kept. May wait up to `CGROUP_REMOVE_TIME_MAX` for each: not for a thread that serves.
///
/// # Errors
/// If `run_dir` cannot be read. A replica that cannot be removed is in [`Swept::left`].
pub fn sweep(run_dir: &Path, cgroups: &Cgroups, keep: &BTreeSet<String>) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut ids = cgroups.list();
    for entry in fs::read_dir(run_dir).doing(|| format!("read {}", run_dir.display()))? {
        // What has another kind of name is not a replica's.
        ids.extend(entry?.file_name().into_string().ok().filter(|name| is_label(name)));
    }
    for id in ids.difference(keep) {
        match remove(&run_dir.join(id), cgroups, id) {
            Ok(true) => swept.ended.push(id.clone()),
            Ok(false) => swept.removed.push(id.clone()),
            Err(error) => swept.left.push((id.clone(), error)),
        }
    }
    Ok(swept)
}

/// Ends a replica if it runs, and removes its control group and directory. Whether it ran.
///
/// # Errors
/// With what could not be removed.
pub fn remove(dir: &Path, cgroups: &Cgroups, id: &str) -> io::Result<bool> {
    let init = Adopted::find(dir)?;
    if let Some(init) = &init {
        init.kill()?;
        wait_for_end(&init.pidfd, limits::CGROUP_REMOVE_TIME_MAX);
    }
    // Processes without an init can only be there if it never got so far.
    cgroups.kill_all(id)?;
    cgroups.remove(id)?;
    remove_directory(dir)?;
    Ok(init.is_some())
}

fn remove_directory(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => Ok(other.doing(|| format!("remove {}", dir.display()))?),
    }
}
