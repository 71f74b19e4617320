//! What a platform may leave behind on a host: counted before, counted after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::wait::eventually;

/// How long an ended platform's last traces may take to vanish.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// By how many the descriptors in stock may differ.
const SOCKETS_IN_STOCK: usize = 16;

/// Everything on this host that a sandbox is made of. It counts the whole host: tests that take a census
/// run alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Processes that are Pinnace's, or in another pid namespace than this one: `PID NAME` each.
    pub processes: BTreeSet<String>,
    /// Mount points in this mount namespace.
    pub mounts: BTreeSet<String>,
    /// Cgroups with Pinnace's name in their path.
    pub cgroups: BTreeSet<PathBuf>,
    /// Network namespaces that a process is in or that are mounted.
    pub networks: BTreeSet<String>,
    /// Lines of this network namespace's rules for packets, as root sees them.
    pub rules: BTreeSet<String>,
    /// Files of replicas: below `run` in the state directory.
    pub files: BTreeSet<PathBuf>,
    /// Open descriptors of Pinnace's processes, by process name.
    pub descriptors: BTreeMap<String, usize>,
}

impl Census {
    /// Counts now.
    #[must_use]
    pub fn take(state_dir: &Path) -> Self {
        let mut census = Self { mounts: mounts(), rules: rules(), ..Self::default() };
        census.networks.extend(census.mounts.iter().filter(|m| m.contains("net:[")).cloned());
        count_processes(&mut census);
        below(Path::new("/sys/fs/cgroup"), &mut |path| {
            if path.to_string_lossy().contains("pinnace") && path.is_dir() {
                census.cgroups.insert(path.to_owned());
            }
        });
        below(&state_dir.join("run"), &mut |path| {
            census.files.insert(path.to_owned());
        });
        census
    }

    /// Waits until nothing is there that was not there before.
    ///
    /// # Panics
    /// Something stays; the message lists it.
    pub fn settle(before: &Self, state_dir: &Path) {
        let mut left = Vec::new();
        let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("nothing is left behind", SETTLE_MAX, || {
                left = Self::take(state_dir).beyond(before);
                left.is_empty().then_some(())
            });
        }));
        assert!(settled.is_ok(), "left behind:\n{}", left.join("\n"));
    }

    /// What is here and was not there, a line each.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.processes.difference(&before.processes).map(|p| format!("process {p}")));
        lines.extend(self.mounts.difference(&before.mounts).map(|m| format!("mount {m}")));
        lines.extend(
            self.cgroups.difference(&before.cgroups).map(|c| format!("cgroup {}", c.display())),
        );
        lines.extend(self.networks.difference(&before.networks).map(|n| format!("network {n}")));
        lines.extend(self.rules.difference(&before.rules).map(|r| format!("rule {r}")));
        lines.extend(self.files.difference(&before.files).map(|f| format!("file {}", f.display())));
        lines
    }

    /// What there is more of than before, whichever it is: slots and replicas come and go. The server has
    /// some sockets in stock for each replica, now more, now fewer.
    #[must_use]
    pub fn grown(&self, before: &Self) -> Vec<String> {
        let counts = [
            ("processes", self.processes.len(), before.processes.len()),
            ("mounts", self.mounts.len(), before.mounts.len()),
            ("cgroups", self.cgroups.len(), before.cgroups.len()),
            ("networks", self.networks.len(), before.networks.len()),
            ("rules", self.rules.len(), before.rules.len()),
            ("files", self.files.len(), before.files.len()),
        ];
        let of_before = |name: &String| before.descriptors.get(name).copied().unwrap_or(0);
        let descriptors = self
            .descriptors
            .iter()
            .map(|(name, now)| (name.as_str(), *now, of_before(name) + SOCKETS_IN_STOCK));
        let all = counts.into_iter().chain(descriptors);
        all.filter(|(_, now, before)| now > before)
            .map(|(what, now, before)| format!("{what}: {now}, {before} before"))
            .collect()
    }
}

/// What `nft` lists, each line with its table's name before it.
fn rules() -> BTreeSet<String> {
    let listed = Command::new("nft").args(["--stateless", "list", "ruleset"]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut table = String::new();
    let mut rules = BTreeSet::new();
    for line in text.unwrap_or_default().lines() {
        if line.starts_with("table ") {
            line.clone_into(&mut table);
        }
        rules.insert(format!("{table} {}", line.trim()));
    }
    rules
}

fn count_processes(census: &mut Census) {
    let own_pids = fs::read_link("/proc/self/ns/pid").ok();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process may end while it is looked at; then it does not count.
        let path = process.path();
        if let Ok(network) = fs::read_link(path.join("ns/net")) {
            census.networks.insert(network.to_string_lossy().into_owned());
        }
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        if is_left_to_pid_1(&path) {
            continue;
        }
        let elsewhere = fs::read_link(path.join("ns/pid"))
            .ok()
            .is_some_and(|pids| own_pids.as_ref().is_some_and(|own| *own != pids));
        if name.starts_with("pinnace") {
            let open = fs::read_dir(path.join("fd")).map_or(0, Iterator::count);
            *census.descriptors.entry(format!("descriptors of {}", name.trim())).or_default() +=
                open;
        }
        if elsewhere || name.starts_with("pinnace") {
            census.processes.insert(format!("{pid} {}", name.trim()));
        }
    }
}

/// Whether a process has ended and pid 1, whose child it has become, has not noticed: in a namespace whose pid
/// 1 reaps nothing it stays so. One that has another parent counts: who made it must notice.
fn is_left_to_pid_1(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.starts_with("Z 1 ")
}

fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Fields 4 and 5 are the root within the filesystem and the mount point (proc(5)).
    let mounts = text.lines().map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        fields.get(3..5).map(|fields| fields.join(" on ")).unwrap_or_default()
    });
    mounts.collect()
}

fn below(folder: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        see(&entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), see);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_listed_and_what_was_there_is_not() {
        let state = tempfile::tempdir().unwrap();
        let before = Census::take(state.path());
        assert!(!before.mounts.is_empty() && !before.networks.is_empty());
        fs::create_dir_all(state.path().join("run/a")).unwrap();
        let after = Census::take(state.path());
        let new: BTreeSet<_> = after.files.difference(&before.files).collect();
        assert_eq!(new.len(), 1);
        assert!(after.beyond(&before).iter().any(|line| line.ends_with("run/a")));
    }
}
