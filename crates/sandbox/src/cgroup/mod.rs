//! Control groups: how much memory, processor time and how many processes a sandbox may use.
//!
//! [`Cgroups`] hides which version the host has. Every slot has one group of its own in each hierarchy,
//! `pinnace/NAME/SLOT`, where `NAME` tells apart the Pinnaces of one host, and keeps it when a replica
//! takes the slot. Version 2 places the new process by clone3; version 1 cannot, so there the process
//! moves itself, which takes the kernel about 10 ms.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use pinnace_core::limits;
use rustix::{
    fs::XattrFlags,
    process::{Pid, Signal},
};
use serde::{Deserialize, Serialize};

use crate::{failed::Doing as _, patience, protocol::Bounds};

mod delegated;
pub mod survey;
mod v1;
mod v2;

/// The control groups of this Pinnace.
#[derive(Debug)]
pub struct Cgroups {
    name: String,
    /// Directory in which delegated groups are noted.
    run: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1(v1::Hierarchies),
    V2(v2::Subtree),
    None { why: String },
}

/// What can be limited here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controllers {
    /// Memory.
    pub memory: bool,
    /// Processor time.
    pub cpu: bool,
    /// Number of processes.
    pub pids: bool,
}

/// The new, empty group of a slot.
#[derive(Debug)]
pub struct Group {
    /// For clone3, where there is a unified hierarchy.
    pub directory: Option<OwnedFd>,
    /// Files to which the process writes "0" to move itself in.
    pub procs: Vec<OwnedFd>,
    /// Where the kernel counts processes it ended for want of memory; see [`oom_kills`].
    pub oom_events: Option<OwnedFd>,
}

/// What the processes of a slot use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time used since it started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in use, in bytes, without file pages that the kernel can drop at once.
    pub memory_bytes: u64,
}

/// Length of the kernel's accounting period for processor time, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Processor time per period. The kernel takes no less than a millisecond.
fn cpu_quota_us(millicores: u32) -> u64 {
    (u64::from(millicores) * CPU_PERIOD_US / 1000).max(1000)
}

/// How much all sandboxes together weigh when processor time is short, in processes of ordinary weight: two
/// for each processor. A group of default weight would make all functions of a host count as one process
/// beside the server's threads, one for each processor; without any bound they could starve it.
fn weight_in_processes() -> u64 {
    2 * std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

impl Cgroups {
    /// Finds out what this host has. `name` tells this Pinnace from others: a DNS label. `run` is the directory of
    /// what runs, in which it notes where its groups are: another process may be started elsewhere.
    #[must_use]
    pub fn detect(name: &str, run: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let root = rustix::process::geteuid().is_root();
        let kind = Kind::choose(&mounts, &own, root, (name, run));
        Self { name: name.to_owned(), run: run.to_owned(), kind }
    }

    /// The version in use: 1, 2, or none.
    #[must_use]
    pub fn version(&self) -> Option<u8> {
        match self.kind {
            Kind::V1(_) => Some(1),
            Kind::V2(_) => Some(2),
            Kind::None { .. } => None,
        }
    }

    /// Why there are none, or why they limit less than the host could.
    #[must_use]
    pub fn why_less(&self) -> Option<String> {
        match &self.kind {
            Kind::None { why } => Some(why.clone()),
            Kind::V2(subtree) => subtree.why_less(),
            Kind::V1(_) => None,
        }
    }

    /// What can be limited here. For version 2 this is known for certain after [`Self::prepare`].
    #[must_use]
    pub fn controllers(&self) -> Controllers {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.controllers(),
            Kind::V2(subtree) => subtree.controllers(&self.name),
            Kind::None { .. } => Controllers::default(),
        }
    }

    /// Makes the groups above those of the slots. Done before the first [`Self::create`], and by a server before it
    /// starts others: it may move this process to a group beside those.
    ///
    /// # Errors
    /// If the kernel refuses, with the group's path.
    pub fn prepare(&self) -> io::Result<()> {
        // Another Pinnace that ends removes the group that all share, if it finds it empty just then.
        const ATTEMPTS: usize = 100;
        let attempt = || match &self.kind {
            Kind::V1(hierarchies) => hierarchies.prepare(&self.name),
            Kind::V2(subtree) => subtree.prepare(&self.name, &self.run),
            Kind::None { .. } => Ok(()),
        };
        let vanished = |made: &io::Result<()>| {
            made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let mut attempts = (0..ATTEMPTS).map(|_| attempt());
        attempts.find(|made| !vanished(made)).unwrap_or_else(attempt)
    }

    /// Notes on the groups above those of the slots whose they are: the state directory, which a hash of it
    /// does not tell. For who finds them when nothing else is left.
    ///
    /// # Errors
    /// Those of setxattr(2): some kernels keep no such notes here.
    pub fn note_owner(&self, state_dir: &Path) -> io::Result<()> {
        let path = state_dir.as_os_str().as_encoded_bytes();
        for base in self.bases() {
            rustix::fs::setxattr(base, survey::OWNER, path, XattrFlags::empty())?;
        }
        Ok(())
    }

    /// Makes the group of a slot and sets its bounds. What the host cannot limit is left out.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, else what the kernel says; nothing of it is left then.
    pub fn create(&self, id: &str, bounds: &Bounds) -> io::Result<Group> {
        let created = match &self.kind {
            Kind::V1(hierarchies) => hierarchies.create(&self.name, id, bounds),
            Kind::V2(subtree) => subtree.create(&self.name, id, bounds),
            Kind::None { .. } => Ok(Group { directory: None, procs: Vec::new(), oom_events: None }),
        };
        if let Err(error) = &created
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            // The error that made this necessary is the one to tell.
            let _ = self.try_remove(id);
        }
        created
    }

    /// Changes the bounds of a slot from what they are, writing only what differs.
    ///
    /// # Errors
    /// What the kernel says, with the group's path.
    pub fn change(&self, id: &str, from: &Bounds, to: &Bounds) -> io::Result<()> {
        match &self.kind {
            _ if from == to => Ok(()),
            Kind::V1(hierarchies) => hierarchies.limit(&self.name, id, Some(from), to),
            Kind::V2(subtree) => subtree.limit(&self.name, id, Some(from), to),
            Kind::None { .. } => Ok(()),
        }
    }

    /// What the processes of a slot use; `None` if it has no group, or where this is not counted.
    #[must_use]
    pub fn usage(&self, id: &str) -> Option<Usage> {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.usage(&self.name, id),
            Kind::V2(subtree) => subtree.usage(&self.name, id),
            Kind::None { .. } => None,
        }
    }

    /// Ends every process of a slot with SIGKILL.
    ///
    /// # Errors
    /// `TimedOut` if some are left after `CGROUP_REMOVE_TIME_MAX`; else what the kernel says.
    pub fn kill_all(&self, id: &str) -> io::Result<()> {
        for directory in self.directories(id) {
            kill_group(&directory)?;
        }
        Ok(())
    }

    /// Removes a slot's empty group. `false` if the kernel has not let go of its processes yet.
    ///
    /// # Errors
    /// What the kernel says but for that; a missing group is none.
    pub fn try_remove(&self, id: &str) -> io::Result<bool> {
        let mut gone = true;
        for directory in self.directories(id) {
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => gone = false,
                Err(error) => {
                    let doing = || format!("remove cgroup {}", directory.display());
                    return Ok(Err(error).doing(doing)?);
                }
            }
        }
        Ok(gone)
    }

    /// As [`Self::try_remove`], but waits up to `CGROUP_REMOVE_TIME_MAX`: not for a thread that serves.
    ///
    /// # Errors
    /// `TimedOut`, or as [`Self::try_remove`].
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let removed =
            patience::until(limits::CGROUP_REMOVE_TIME_MAX, || match self.try_remove(id) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            });
        removed.unwrap_or_else(|| {
            let text = format!("cgroup {id} still has processes, though they were ended");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// The slots that have a group.
    #[must_use]
    pub fn list(&self) -> BTreeSet<String> {
        self.bases().iter().flat_map(|base| subdirectories(base)).collect()
    }

    /// Removes the groups above those of the slots, if no slot is left.
    pub fn remove_base(&self) {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.remove(&self.name),
            Kind::V2(subtree) => subtree.remove(&self.name),
            Kind::None { .. } => {}
        }
    }

    fn bases(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::V1(hierarchies) => hierarchies.bases(&self.name),
            Kind::V2(subtree) => vec![subtree.base(&self.name)],
            Kind::None { .. } => Vec::new(),
        }
    }

    fn directories(&self, id: &str) -> Vec<PathBuf> {
        self.bases().into_iter().map(|base| base.join(id)).collect()
    }
}

impl Kind {
    fn choose(mounts: &str, own: &str, root: bool, (name, run): (&str, &Path)) -> Self {
        let found: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        if found.is_empty() {
            return Self::None { why: "no control groups are mounted under /sys/fs/cgroup".into() };
        }
        let unified = found.iter().find(|m| m.version == 2).map(|m| m.path.clone());
        let hierarchies = v1::Hierarchies::new(&found, unified.clone());
        if !hierarchies.is_empty() {
            return if root {
                Self::V1(hierarchies)
            } else {
                Self::None { why: "control groups of version 1 belong to root".into() }
            };
        }
        let Some(unified) = unified else {
            return Self::None { why: "no controller of memory, cpu or pids is mounted".into() };
        };
        if let Some(noted) = v2::Subtree::noted(&unified, own, name, run) {
            return Self::V2(noted);
        }
        if root {
            return Self::V2(v2::Subtree::new(unified));
        }
        match v2::Subtree::delegated(&unified, own, Some(name)) {
            Some(subtree) => Self::V2(subtree),
            None => Self::None { why: "no control group is delegated to this user".into() },
        }
    }
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    path: PathBuf,
    version: u8,
    options: Vec<String>,
}

impl Mount {
    /// Reads a line of /proc/mounts, if it is about control groups.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(1);
        let (path, kind, options) = (words.next()?, words.next()?, words.next()?);
        let version = match kind {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let options = options.split(',').map(str::to_owned).collect();
        Some(Self { path: PathBuf::from(path.replace("\\040", " ")), version, options })
    }
}

/// How many processes of a group the kernel has ended for want of memory. Reads `memory.events` of
/// version 2 or `memory.oom_control` of version 1.
#[must_use]
pub fn oom_kills(events: &OwnedFd) -> u64 {
    let read = || -> io::Result<String> {
        let mut file = File::from(events.try_clone()?);
        file.rewind()?;
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_or(0, |text| value_of(&text, "oom_kill").unwrap_or(0))
}

/// The number after a word, in files of `word number` lines.
fn value_of(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == word).then(|| value.trim().parse().ok())?
    })
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    Ok(fs::write(path, text).doing(|| format!("write {text} to {}", path.display()))?)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other.doing(|| format!("make cgroup {}", path.display()))?),
    }
}

fn open(path: &Path, for_writing: bool) -> io::Result<OwnedFd> {
    let opened = File::options().read(!for_writing).write(for_writing).open(path);
    Ok(opened.map(OwnedFd::from).doing(|| format!("open {}", path.display()))?)
}

fn subdirectories(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn kill_group(directory: &Path) -> io::Result<()> {
    if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let freezer = directory.join("freezer.state");
    let ended = patience::until(limits::CGROUP_REMOVE_TIME_MAX, || {
        let processes = processes(directory);
        if processes.is_empty() {
            return Some(());
        }
        // Frozen, none can be born meanwhile; and only thawed do they die.
        let _ = fs::write(&freezer, "FROZEN");
        for process in processes {
            // One that is gone already needs no signal.
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        let _ = fs::write(&freezer, "THAWED");
        None
    });
    ended.ok_or_else(|| {
        let text = format!("processes of cgroup {} do not end", directory.display());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })
}

fn processes(directory: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
";
    const UNIFIED: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    #[test]
    fn the_version_is_where_the_controllers_are() {
        let choose =
            |mounts, own, root| Kind::choose(mounts, own, root, ("x", Path::new("/nowhere")));
        let Kind::V1(hybrid) = choose(HYBRID, "", true) else { panic!("not version 1") };
        assert_eq!(hybrid.controllers(), Controllers { memory: true, cpu: true, pids: false });
        let bases = hybrid.bases("x");
        assert!(bases.contains(&PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/pinnace/x")));
        assert_eq!(bases.len(), 3, "cpu and cpuacct are one hierarchy: {bases:?}");
        assert!(matches!(choose(UNIFIED, "", true), Kind::V2(_)));
        assert!(matches!(choose("", "", true), Kind::None { .. }));
        assert!(matches!(choose(HYBRID, "", false), Kind::None { .. }));
        assert!(matches!(choose(UNIFIED, "0::/nowhere\n", false), Kind::None { .. }));
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(value_of(events, "oom_kill"), Some(2));
        assert_eq!(value_of("oom_kill_disable 0\nunder_oom 0\noom_kill 7", "oom_kill"), Some(7));
        assert_eq!(value_of("", "oom_kill"), None);
    }
}
