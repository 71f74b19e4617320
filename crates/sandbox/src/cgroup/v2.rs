//! Version 2: one hierarchy for all controllers. A group may limit its children only where its parents
//! hand the controllers down, which [`Subtree::prepare`] does.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::Access;

use super::{Controllers, Group, Usage, make_directory, open, read_number, value_of, write};
use crate::{failed::Doing as _, protocol::Bounds};

/// A group under which this process may make others.
#[derive(Debug)]
pub(super) struct Subtree {
    root: PathBuf,
}

/// Weight of an ordinary process, and the most that the kernel takes.
const ORDINARY_WEIGHT: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// The controllers that are asked for, as the kernel names them.
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

impl Subtree {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The group of this process, if it is delegated to this user: one that he may write to.
    pub(super) fn delegated(mount: &Path, own: &str) -> Option<Self> {
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let root = mount.join(path);
        let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
        (writable(&root) && writable(&root.join("cgroup.procs"))).then_some(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn base(&self, name: &str) -> PathBuf {
        self.root.join("pinnace").join(name)
    }

    pub(super) fn controllers(&self, name: &str) -> Controllers {
        let base = self.base(name);
        let handed_down = fs::read_to_string(base.join("cgroup.subtree_control"))
            .or_else(|_| fs::read_to_string(self.root.join("cgroup.controllers")))
            .unwrap_or_default();
        let has = |controller: &str| handed_down.split_whitespace().any(|c| c == controller);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    pub(super) fn prepare(&self, name: &str) -> io::Result<()> {
        let middle = self.root.join("pinnace");
        let base = self.base(name);
        make_directory(&middle)?;
        make_directory(&base)?;
        for group in [&self.root, &middle, &base] {
            for controller in WANTED {
                // Refused where it is missing, or where processes are in the way; `controllers` tells.
                let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        for group in [&middle, &base] {
            let weight = (ORDINARY_WEIGHT * super::weight_in_processes()).min(WEIGHT_MAX);
            let file = group.join("cpu.weight");
            if file.exists() {
                write(&file, &weight.to_string())?;
            }
        }
        Ok(())
    }

    pub(super) fn create(&self, name: &str, id: &str, bounds: &Bounds) -> io::Result<Group> {
        let leaf = self.base(name).join(id);
        fs::create_dir(&leaf).doing(|| format!("make cgroup {}", leaf.display()))?;
        self.limit(name, id, None, bounds)?;
        let events = leaf.join("memory.events");
        let oom_events = events.exists().then(|| open(&events, false)).transpose()?;
        let directory = fs::File::open(&leaf).doing(|| format!("open {}", leaf.display()))?;
        Ok(Group { directory: Some(OwnedFd::from(directory)), procs: Vec::new(), oom_events })
    }

    /// Sets what differs from the bounds before; all where there were none.
    pub(super) fn limit(
        &self,
        name: &str,
        id: &str,
        before: Option<&Bounds>,
        to: &Bounds,
    ) -> io::Result<()> {
        let leaf = self.base(name).join(id);
        let controllers = self.controllers(name);
        if controllers.memory && before.map(|before| before.memory_bytes) != Some(to.memory_bytes) {
            write(&leaf.join("memory.max"), &to.memory_bytes.to_string())?;
            let swap = leaf.join("memory.swap.max");
            if before.is_none() && swap.exists() {
                write(&swap, "0")?;
            }
        }
        if controllers.cpu && before.and_then(|before| before.cpu_millicores) != to.cpu_millicores {
            let quota = to.cpu_millicores.map_or_else(
                || "max".to_owned(),
                |millicores| super::cpu_quota_us(millicores).to_string(),
            );
            write(&leaf.join("cpu.max"), &format!("{quota} {}", super::CPU_PERIOD_US))?;
        }
        if controllers.pids && before.map(|before| before.pids) != Some(to.pids) {
            // The init is one of them.
            write(&leaf.join("pids.max"), &to.pids.saturating_add(1).to_string())?;
        }
        Ok(())
    }

    pub(super) fn usage(&self, name: &str, id: &str) -> Option<Usage> {
        let leaf = self.base(name).join(id);
        let cpu = fs::read_to_string(leaf.join("cpu.stat")).ok()?;
        let memory = read_number(&leaf.join("memory.current"));
        let stat = fs::read_to_string(leaf.join("memory.stat")).unwrap_or_default();
        let droppable = value_of(&stat, "inactive_file").unwrap_or(0);
        Some(Usage {
            cpu_ns: value_of(&cpu, "usage_usec").unwrap_or(0).saturating_mul(1000),
            memory_bytes: memory.unwrap_or(0).saturating_sub(droppable),
        })
    }
}
