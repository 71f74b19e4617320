//! What this host can and cannot do for sandboxes, found out by trying.
//!
//! Trying needs a process with one thread, so that the server asks its spawner's program: started as
//! `pinnace-spawner --probe DIRECTORY` it prints a [`Host`] and ends. Nothing stays of the attempts.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::CWD,
    mount::{FsOpenFlags, OpenTreeFlags, fsopen, open_tree},
    process::{WaitId, WaitIdOptions, geteuid},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    adoption,
    cgroup::{Cgroups, Controllers},
    channel::Channel,
    ids,
    sys::{self, Cloned, SingleThreaded},
};

pub mod network;

/// First word of the command line that asks for a probe.
pub(crate) const PROBE: &str = "--probe";

/// First version of Landlock's interface that also fences abstract unix sockets and signals.
pub const LANDLOCK_SCOPES: u32 = 6;

/// What a host can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Whether this is root.
    pub root: bool,
    /// User id.
    pub uid: u32,
    /// The kernel's release.
    pub kernel: String,
    /// Version of the control groups in use: 1, 2 or none.
    pub cgroup_version: Option<u8>,
    /// Why there are none, or why they limit less than the host could.
    pub cgroups_missing: Option<String>,
    /// What they can limit.
    pub controllers: Controllers,
    /// Whether an ordinary user may make user namespaces, and why not.
    pub user_namespaces: Result<(), String>,
    /// Whether sandboxes can have id ranges of their own, with the owners of files on disk mapped into
    /// them, and why not. Without, root's sandboxes share the host's ids.
    pub id_ranges: Result<(), String>,
    /// Whether an ordinary user's sandboxes have more ids than one, and why not.
    pub subordinate_ids: Result<(), String>,
    /// Whether overlays can be mounted, and why not.
    pub overlay: Result<(), String>,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Version of Landlock's interface; 0 if there is none.
    pub landlock_abi: u32,
}

impl Host {
    /// Asks the spawner's program what is possible for a state directory.
    ///
    /// # Errors
    /// If the program cannot be run or says something else.
    pub fn probe(program: &Path, directory: &Path, cgroups: &Cgroups) -> io::Result<Self> {
        let mut host: Self = ask(Command::new(program).arg(PROBE).arg(directory))?;
        host.cgroup_version = cgroups.version();
        host.cgroups_missing = cgroups.why_less();
        host.controllers = cgroups.controllers();
        Ok(host)
    }

    /// What this host cannot enforce or do, a sentence each, for `/system/info` and the log.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut said = Vec::new();
        self.missing_limits(&mut said);
        if let Err(why) = &self.id_ranges
            && self.root
        {
            said.push(format!(
                "sandboxes share the host's user ids, because {why}; keep the state directory on ext4, xfs or btrfs"
            ));
        }
        if let Err(why) = &self.subordinate_ids
            && !self.root
        {
            said.push(format!(
                "functions run as one user inside, whatever USER their image names: {why}; or run Pinnace as root"
            ));
        }
        if let Err(why) = &self.user_namespaces {
            said.push(format!(
                "user {} cannot make sandboxes: {why}; run Pinnace as root, or allow user namespaces",
                self.uid
            ));
        }
        if let Err(why) = &self.overlay {
            said.push(format!("no image can be run: {why}; load the kernel's overlay module"));
        }
        if !self.seccomp {
            said.push("system calls are not filtered: the kernel has no seccomp".to_owned());
        }
        said
    }

    fn missing_limits(&self, said: &mut Vec<String>) {
        let Controllers { memory, cpu, pids } = self.controllers;
        // In a user namespace of its own a sandbox's processes are bounded by a resource limit too.
        let pids = pids || !self.root || self.id_ranges.is_ok();
        let lacking: Vec<&str> = [(memory, "memory"), (cpu, "processor time"), (pids, "processes")]
            .into_iter()
            .filter_map(|(there, what)| (!there).then_some(what))
            .collect();
        if lacking.is_empty() {
            return;
        }
        let why = match &self.cgroups_missing {
            Some(why) => why.clone(),
            None => "their control group controllers are not available".to_owned(),
        };
        said.push(format!("cannot limit {}: {why}; {}", lacking.join(", "), self.limits_advice()));
    }

    /// What to do where control groups are missing or limit less than they could.
    #[must_use]
    pub fn limits_advice(&self) -> &'static str {
        match (self.root, self.cgroup_version, &self.cgroups_missing) {
            (true, Some(2), Some(_)) => {
                "run Pinnace as the container's first process, or move what else is there to a control \
                 group below (mkdir /sys/fs/cgroup/others, and its number into cgroup.procs there)"
            }
            (true, ..) => "mount or enable the controllers",
            (false, ..) => {
                "run Pinnace as root, or on a host with version 2 in a control group of its own: \
                 systemd-run --user --scope -p Delegate=yes pinnace up"
            }
        }
    }
}

/// Runs a probing process and reads what it found.
fn ask<T: DeserializeOwned>(command: &mut Command) -> io::Result<T> {
    let said = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok(serde_json::from_slice(&said.stdout)?)
}

/// Leaves the host's mounts, as a spawner does: whether there are more ids than one, if that is asked of an
/// ordinary user.
fn enter(proof: &SingleThreaded) -> io::Result<Result<(), String>> {
    if geteuid().is_root() {
        return sys::unshare(proof, libc::CLONE_NEWNS).map(Ok);
    }
    ids::enter(proof)
}

/// Tries everything and prints what it found: the whole of a probing process.
pub(crate) fn print_probe(directory: Option<&OsString>) -> io::Result<()> {
    let directory = directory.ok_or_else(|| io::Error::other("--probe needs a directory"))?;
    let proof = SingleThreaded::prove()?;
    let uid = geteuid();
    let root = uid.is_root();
    let (user_namespaces, subordinate_ids) = match enter(&proof) {
        Ok(mapped) => (Ok(()), mapped),
        Err(error) => (Err(error.to_string()), Err("there is no user namespace".to_owned())),
    };
    let id_ranges = if root {
        id_ranges(&proof, Path::new(directory)).map_err(|error| error.to_string())
    } else {
        Err("an ordinary user has one id".to_owned())
    };
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map(drop)
        .map_err(|error| format!("overlays cannot be mounted ({error})"));
    let release = rustix::system::uname().release().to_bytes().to_vec();
    let host = Host {
        root,
        uid: uid.as_raw(),
        kernel: OsString::from_vec(release).to_string_lossy().into_owned(),
        cgroup_version: None,
        cgroups_missing: None,
        controllers: Controllers::default(),
        user_namespaces,
        id_ranges,
        subordinate_ids,
        overlay,
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        landlock_abi: sys::landlock_abi(),
    };
    println!("{}", serde_json::to_string(&host)?);
    Ok(())
}

/// Makes a user namespace with a range and maps the owners of a directory into it.
fn id_ranges(proof: &SingleThreaded, directory: &Path) -> io::Result<()> {
    /// Any range will do: nothing is written.
    const MAP: &str = "0 1000000000 65536";
    let (near, far) = Channel::pair()?;
    let cloned = sys::clone_process(proof, libc::CLONE_NEWUSER, None)
        .map_err(|error| io::Error::other(format!("root may make no user namespace ({error})")))?;
    let Cloned::Parent { pid, pidfd } = cloned else {
        drop(near);
        // Holds the namespace until the parent has what it wants, or is gone.
        let _ = far.recv::<String>();
        sys::exit_now(0)
    };
    let tried = (|| -> io::Result<()> {
        fs::write(format!("/proc/{pid}/uid_map"), MAP)?;
        fs::write(format!("/proc/{pid}/gid_map"), MAP)?;
        let namespace = OwnedFd::from(fs::File::open(format!("/proc/{pid}/ns/user"))?);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(CWD, directory, flags)?;
        sys::mount_setattr(mount.as_fd(), false, 0, Some(namespace.as_fd())).map_err(|error| {
            let text =
                format!("the filesystem of {} cannot map ids ({error})", directory.display());
            io::Error::other(text)
        })
    })();
    adoption::kill(&pidfd)?;
    // Left to the host's pid 1 it may stay in the list of processes for a while.
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> Host {
        Host {
            root: true,
            uid: 0,
            kernel: "6.1".into(),
            cgroup_version: Some(2),
            cgroups_missing: None,
            controllers: Controllers { memory: true, cpu: true, pids: true },
            user_namespaces: Ok(()),
            id_ranges: Ok(()),
            subordinate_ids: Ok(()),
            overlay: Ok(()),
            seccomp: true,
            landlock_abi: 6,
        }
    }

    #[test]
    fn a_host_that_can_do_everything_lacks_nothing() {
        assert_eq!(able().missing(), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let user = Host {
            root: false,
            uid: 1000,
            cgroup_version: None,
            cgroups_missing: Some("no control group is delegated to this user".into()),
            controllers: Controllers::default(),
            id_ranges: Err(String::new()),
            subordinate_ids: Err("/etc/subuid gives user 1000 none".into()),
            ..able()
        };
        let said = user.missing();
        assert_eq!(
            said[0],
            "cannot limit memory, processor time: no control group is delegated to this user; run \
             Pinnace as root, or on a host with version 2 in a control group of its own: systemd-run \
             --user --scope -p Delegate=yes pinnace up"
        );
        assert!(said[1].starts_with("functions run as one user inside"), "{}", said[1]);
        assert_eq!(said.len(), 2);
        let tmpfs = Host { id_ranges: Err("the filesystem cannot".into()), ..able() };
        assert!(tmpfs.missing()[0].contains("share the host's user ids"));
    }
}
