//! Version 2: one hierarchy for all controllers. A group may limit its children only where its parents
//! hand the controllers down, which [`Subtree::prepare`] does.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    Controllers, Group, Usage, delegated, make_directory, open, read_number, value_of, write,
};
use crate::{failed::Doing as _, protocol::Bounds};

/// A group under which this process may make others.
#[derive(Debug)]
pub(super) struct Subtree {
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// The group, below the mount.
    path: PathBuf,
    /// Whether processes that this one makes may come in.
    may_enter: bool,
}

/// Weight of an ordinary process, and the most that the kernel takes.
const ORDINARY_WEIGHT: u64 = 100;
const WEIGHT_MAX: u64 = 10_000;

/// The controllers that are asked for, as the kernel names them.
const WANTED: [&str; 3] = ["memory", "cpu", "pids"];

impl Subtree {
    /// The whole hierarchy, as far as it is mounted here.
    pub(super) fn new(mount: PathBuf) -> Self {
        Self { mount, path: PathBuf::new(), may_enter: true }
    }

    /// The group of this process, if it is delegated to this user: one that he may write to. From the leaf of
    /// this Pinnace it is the one that has the leaf.
    pub(super) fn delegated(mount: &Path, own: &str, name: Option<&str>) -> Option<Self> {
        let own = delegated::path_in(own)?;
        let above = own
            .parent()
            .filter(|above| name.is_some_and(|name| delegated::leaf(above, name) == own));
        let path = above.unwrap_or(&own).to_owned();
        let ours = delegated::is_ours(&mount.join(&path));
        ours.then(|| Self { mount: mount.to_owned(), path, may_enter: true })
    }

    /// The group that this Pinnace has noted, if something of it is there.
    pub(super) fn noted(mount: &Path, own: &str, name: &str, run: &Path) -> Option<Self> {
        let path = delegated::noted(run, mount, name)?;
        let own = delegated::path_in(own);
        let may_enter = own.is_some_and(|own| delegated::may_move(mount, &own, &path));
        Some(Self { mount: mount.to_owned(), path, may_enter })
    }

    pub(super) fn root(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    pub(super) fn base(&self, name: &str) -> PathBuf {
        self.root().join("pinnace").join(name)
    }

    pub(super) fn controllers(&self, name: &str) -> Controllers {
        let (base, root) = (self.base(name), self.root());
        let handed_down = if !self.may_enter {
            String::new()
        } else if let Ok(prepared) = fs::read_to_string(base.join("cgroup.subtree_control")) {
            prepared
        } else if delegated::is_crowded(&root) {
            fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default()
        } else {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        };
        let has = |controller: &str| handed_down.split_whitespace().any(|c| c == controller);
        Controllers { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    /// Why not everything can be limited, as far as it is not the hierarchy that lacks it.
    pub(super) fn why_less(&self) -> Option<String> {
        let root = self.root();
        if !self.may_enter {
            return Some(format!(
                "the control groups of this Pinnace are in {}, where this session may bring no process \
                 (`pinnace down` removes them)",
                root.display()
            ));
        }
        delegated::is_crowded(&root).then(|| {
            format!("control group {} has other processes than Pinnace's in it", root.display())
        })
    }

    pub(super) fn prepare(&self, name: &str, run: &Path) -> io::Result<()> {
        let root = self.root();
        let middle = root.join("pinnace");
        let base = self.base(name);
        make_directory(&middle)?;
        make_directory(&base)?;
        if !self.path.as_os_str().is_empty() {
            delegated::note(run, &self.path)?;
        }
        delegated::step_aside(&root, name)?;
        // With processes in it a group could still hand down `cpu` and `pids`, but then no process may come into
        // a group below (cgroups(7), threaded domains).
        let handing_down =
            [&root, &middle, &base].into_iter().filter(|_| !delegated::is_crowded(&root));
        for group in handing_down {
            for controller in WANTED {
                // Refused where it is missing; `controllers` tells.
                let _ = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let sandboxes = (ORDINARY_WEIGHT * super::weight_in_processes()).min(WEIGHT_MAX);
        // As much as the threads of a server would weigh one by one.
        let server = sandboxes / 2;
        let leaf = delegated::leaf(&root, name);
        for (group, weight) in [(&middle, sandboxes), (&base, sandboxes), (&leaf, server)] {
            let file = group.join("cpu.weight");
            if file.exists() {
                write(&file, &weight.to_string())?;
            }
        }
        Ok(())
    }

    /// Removes what [`Self::prepare`] made, as far as it is empty.
    pub(super) fn remove(&self, name: &str) {
        let base = self.base(name);
        // Busy means that somebody still needs it.
        let _ = fs::remove_dir(&base);
        let _ = base.parent().map(fs::remove_dir);
        if !base.exists() {
            delegated::step_back(&self.mount, &self.path, name);
        }
    }

    pub(super) fn create(&self, name: &str, id: &str, bounds: &Bounds) -> io::Result<Group> {
        if !self.may_enter {
            return Ok(Group { directory: None, procs: Vec::new(), oom_events: None });
        }
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
