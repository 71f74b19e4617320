//! Version 1: one hierarchy per controller, and perhaps a unified one beside them that controls nothing
//! but tracks and kills (a hybrid host).

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{Controllers, Group, Mount, Usage, make_directory, open, read_number, value_of, write};
use crate::{failed::Doing as _, protocol::Bounds};

/// The hierarchies that matter, by controller.
#[derive(Debug)]
pub(super) struct Hierarchies {
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    pids: Option<PathBuf>,
    freezer: Option<PathBuf>,
    unified: Option<PathBuf>,
}

impl Hierarchies {
    pub(super) fn new(mounts: &[Mount], unified: Option<PathBuf>) -> Self {
        let of = |controller: &str| {
            let has = |m: &&Mount| m.version == 1 && m.options.iter().any(|o| o == controller);
            mounts.iter().find(has).map(|m| m.path.clone())
        };
        Self {
            memory: of("memory"),
            cpu: of("cpu"),
            cpuacct: of("cpuacct"),
            pids: of("pids"),
            freezer: of("freezer"),
            unified,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.controllers() == Controllers::default()
    }

    pub(super) fn controllers(&self) -> Controllers {
        Controllers {
            memory: self.memory.is_some(),
            cpu: self.cpu.is_some(),
            pids: self.pids.is_some(),
        }
    }

    /// Every hierarchy once, those of version 1 first.
    fn roots(&self) -> Vec<&Path> {
        let all =
            [&self.memory, &self.cpu, &self.cpuacct, &self.pids, &self.freezer, &self.unified];
        let mut roots: Vec<&Path> = Vec::new();
        for root in all.into_iter().flatten() {
            if !roots.contains(&root.as_path()) {
                roots.push(root);
            }
        }
        roots
    }

    pub(super) fn bases(&self, name: &str) -> Vec<PathBuf> {
        self.roots().into_iter().map(|root| base(root, name)).collect()
    }

    pub(super) fn prepare(&self, name: &str) -> io::Result<()> {
        for root in self.roots() {
            make_directory(&root.join("pinnace"))?;
            make_directory(&base(root, name))?;
        }
        if let Some(root) = &self.cpu {
            // The kernel cuts off what is too much.
            let shares = (ORDINARY_SHARES * super::weight_in_processes()).to_string();
            write(&root.join("pinnace/cpu.shares"), &shares)?;
            write(&base(root, name).join("cpu.shares"), &shares)?;
        }
        Ok(())
    }

    /// Removes what [`Self::prepare`] made, as far as it is empty.
    pub(super) fn remove(&self, name: &str) {
        for base in self.bases(name) {
            // Busy means that somebody still needs it.
            let _ = fs::remove_dir(&base);
            let _ = base.parent().map(fs::remove_dir);
        }
    }

    pub(super) fn create(&self, name: &str, id: &str, bounds: &Bounds) -> io::Result<Group> {
        let mut group = Group { directory: None, procs: Vec::new(), oom_events: None };
        for root in self.roots() {
            let leaf = base(root, name).join(id);
            fs::create_dir(&leaf).doing(|| format!("make cgroup {}", leaf.display()))?;
            if self.memory.as_deref() == Some(root) {
                group.oom_events = Some(open(&leaf.join("memory.oom_control"), false)?);
            }
            if self.unified.as_deref() == Some(root) {
                group.directory = Some(OwnedFd::from(
                    fs::File::open(&leaf).doing(|| format!("open {}", leaf.display()))?,
                ));
            } else {
                group.procs.push(open(&leaf.join("cgroup.procs"), true)?);
            }
        }
        self.limit(name, id, None, bounds)?;
        Ok(group)
    }

    /// Sets what differs from the bounds before; all where there were none.
    pub(super) fn limit(
        &self,
        name: &str,
        id: &str,
        before: Option<&Bounds>,
        to: &Bounds,
    ) -> io::Result<()> {
        let leaf = |root: &Option<PathBuf>| root.as_ref().map(|root| base(root, name).join(id));
        let memory_before = before.map(|before| before.memory_bytes);
        if let Some(leaf) = leaf(&self.memory).filter(|_| memory_before != Some(to.memory_bytes)) {
            limit_memory(&leaf, memory_before, to.memory_bytes)?;
        }
        let cpu_before = before.and_then(|before| before.cpu_millicores);
        if let Some(leaf) = leaf(&self.cpu).filter(|_| cpu_before != to.cpu_millicores) {
            limit_cpu(&leaf, to.cpu_millicores)?;
        }
        if let Some(leaf) =
            leaf(&self.pids).filter(|_| before.map(|before| before.pids) != Some(to.pids))
        {
            // The init is one of them.
            write(&leaf.join("pids.max"), &to.pids.saturating_add(1).to_string())?;
        }
        Ok(())
    }

    pub(super) fn usage(&self, name: &str, id: &str) -> Option<Usage> {
        let leaf = |root: &Option<PathBuf>| root.as_ref().map(|root| base(root, name).join(id));
        let cpu = leaf(&self.cpuacct).and_then(|leaf| read_number(&leaf.join("cpuacct.usage")));
        let memory = leaf(&self.memory).and_then(|leaf| {
            let used = read_number(&leaf.join("memory.usage_in_bytes"))?;
            let stat = fs::read_to_string(leaf.join("memory.stat")).unwrap_or_default();
            Some(used.saturating_sub(value_of(&stat, "total_inactive_file").unwrap_or(0)))
        });
        if cpu.is_none() && memory.is_none() {
            return None;
        }
        Some(Usage { cpu_ns: cpu.unwrap_or(0), memory_bytes: memory.unwrap_or(0) })
    }
}

/// Weight of an ordinary process.
const ORDINARY_SHARES: u64 = 1024;

fn base(root: &Path, name: &str) -> PathBuf {
    root.join("pinnace").join(name)
}

fn limit_memory(leaf: &Path, before: Option<u64>, bytes: u64) -> io::Result<()> {
    let memory = leaf.join("memory.limit_in_bytes");
    // Memory and swap together: as much as memory alone, so that nothing swaps. The file is there only
    // where the kernel accounts for swap.
    let with_swap = leaf.join("memory.memsw.limit_in_bytes");
    let mut files = vec![memory];
    if with_swap.exists() {
        files.push(with_swap);
    }
    // The kernel never lets the first be above the second.
    if before.is_some_and(|before| before < bytes) {
        files.reverse();
    }
    files.iter().try_for_each(|file| write(file, &bytes.to_string()))
}

fn limit_cpu(leaf: &Path, millicores: Option<u32>) -> io::Result<()> {
    let quota = match millicores {
        Some(millicores) => {
            write(&leaf.join("cpu.cfs_period_us"), &super::CPU_PERIOD_US.to_string())?;
            super::cpu_quota_us(millicores).to_string()
        }
        None => "-1".to_owned(),
    };
    write(&leaf.join("cpu.cfs_quota_us"), &quota)
}
