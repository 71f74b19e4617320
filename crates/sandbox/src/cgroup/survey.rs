//! Looking at the control groups of a host without changing them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use super::{Mount, delegated, processes, subdirectories, v2};

/// What the hierarchies of this host are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Whether disk traffic can be limited.
    pub io: bool,
    /// Whether swap is counted, so that a limit of memory holds for it too.
    pub swap: bool,
    /// Hierarchies of version 1 that take about 10 ms to move a process, for want of `favordynmods`.
    pub slow: Vec<PathBuf>,
    /// Hierarchies that nobody may change.
    pub read_only: Vec<PathBuf>,
}

/// The attribute that says whose a group is.
pub(super) const OWNER: &str = "user.pinnace.state-dir";

/// Groups that a Pinnace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Its state directory, where that is noted.
    pub state_dir: Option<PathBuf>,
    /// Its own and those of slots, in each hierarchy.
    pub directories: BTreeSet<PathBuf>,
    /// Processes in them, as far as they can be seen.
    pub processes: BTreeSet<i32>,
    /// Whether there are processes, seen or not.
    pub populated: bool,
}

/// Looks at every hierarchy.
#[must_use]
pub fn survey() -> Survey {
    look(&mounts())
}

/// The groups of every Pinnace on this host, by the name of the Pinnace. Those that are delegated to other
/// sessions are found by the notes in the directories of what runs, which stand beside the Pinnaces' names.
#[must_use]
pub fn pinnaces(noted: &[(String, PathBuf)]) -> BTreeMap<String, Groups> {
    let mounts = mounts();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut roots = BTreeSet::new();
    for mount in &mounts {
        roots.insert(mount.path.clone());
        if mount.version == 2 {
            let delegated = v2::Subtree::delegated(&mount.path, &own, None);
            let noted = noted
                .iter()
                .filter_map(|(name, run)| v2::Subtree::noted(&mount.path, &own, name, run));
            roots.extend(noted.chain(delegated).map(|subtree| subtree.root()));
        }
    }
    let mut found = BTreeMap::new();
    for root in roots {
        below(&root, &mut found);
    }
    found
}

fn mounts() -> Vec<Mount> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter_map(Mount::parse).collect()
}

fn look(mounts: &[Mount]) -> Survey {
    let has = |mount: &Mount, option: &str| mount.options.iter().any(|known| known == option);
    let mut survey = Survey::default();
    for mount in mounts {
        if has(mount, "ro") {
            survey.read_only.push(mount.path.clone());
        }
        if mount.version == 2 {
            let there = fs::read_to_string(mount.path.join("cgroup.controllers"));
            survey.io |= there.is_ok_and(|there| there.split_whitespace().any(|one| one == "io"));
            // The root has no such file, every group below it does.
            let mut children = subdirectories(&mount.path).into_iter();
            survey.swap |=
                children.any(|child| mount.path.join(child).join("memory.swap.max").exists());
            continue;
        }
        survey.io |= has(mount, "blkio");
        survey.swap |= mount.path.join("memory.memsw.limit_in_bytes").exists();
        let moved_in = ["memory", "cpu", "cpuacct", "pids", "freezer"];
        if moved_in.iter().any(|controller| has(mount, controller)) && !has(mount, "favordynmods") {
            survey.slow.push(mount.path.clone());
        }
    }
    survey
}

fn below(root: &Path, found: &mut BTreeMap<String, Groups>) {
    let middle = root.join("pinnace");
    for name in subdirectories(&middle) {
        let base = middle.join(&name);
        let leaf = Some(delegated::leaf(root, &name)).filter(|leaf| leaf.exists());
        let slots = subdirectories(&base);
        let groups: &mut Groups = found.entry(name).or_default();
        groups.state_dir = groups.state_dir.take().or_else(|| owner(&base));
        for group in slots.iter().map(|slot| base.join(slot)).chain([base.clone()]).chain(leaf) {
            let there = processes(&group).into_iter().map(|pid| pid.as_raw_nonzero().get());
            groups.processes.extend(there);
            let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
            groups.populated |= super::value_of(&events, "populated") == Some(1);
            groups.directories.insert(group);
        }
        groups.populated |= !groups.processes.is_empty();
    }
}

fn owner(base: &Path) -> Option<PathBuf> {
    /// Longest path that the kernel takes.
    const PATH_BYTES_MAX: usize = 4096;
    let mut path = vec![0; PATH_BYTES_MAX];
    let length = rustix::fs::getxattr(base, OWNER, path.as_mut_slice()).ok()?;
    path.truncate(length);
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_version_1_are_slow_unless_they_favour_changes() {
        let mount = |path: &str, options: &str| {
            Mount::parse(&format!("cgroup /none/{path} cgroup {options} 0 0")).unwrap()
        };
        let seen = look(&[
            mount("memory", "rw,memory"),
            mount("cpu", "rw,cpu,favordynmods"),
            mount("systemd", "rw,name=systemd"),
            mount("blkio", "ro,blkio"),
        ]);
        assert_eq!(seen.slow, [PathBuf::from("/none/memory")]);
        assert_eq!(seen.read_only, [PathBuf::from("/none/blkio")]);
        assert!(seen.io && !seen.swap);
    }
}
