//! One start, from the server's wish to an init that has its orders; and taking back what a failed one
//! has made.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use pinnace_core::limits;

use crate::{
    adoption,
    cgroup::Group,
    channel::Channel,
    failed::Failed,
    host_root,
    init::orders::Gift,
    protocol::SandboxSpec,
    slot::{Slot, Workshop},
    spawner::Tools,
};

/// Why a start was refused. Its sentence goes to the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the sandbox's id {0:?} is no DNS label")]
    Id(String),
    #[error("it has {count} binds, and at most {max} are possible", max = limits::BINDS_PER_SANDBOX_MAX)]
    Binds { count: usize },
    #[error("it has {count} layers, and 1 to {max} are possible", max = LAYERS_MAX)]
    Layers { count: usize },
    #[error("a function that listens needs one listener, and {count} came")]
    Listener { count: usize },
    #[error("its replica directory {0} is in use already")]
    InUse(PathBuf),
    #[error("cannot make its control socket: {0}")]
    Control(io::Error),
    #[error("cannot make its control group: {0}")]
    Cgroup(io::Error),
    #[error("cannot make its sandbox: {0}")]
    Slot(io::Error),
    #[error("cannot make its root filesystem: {0}")]
    Mount(#[from] Failed),
    #[error("cannot give its init orders: {0}")]
    Orders(io::Error),
}

/// An image's layers and the one with the mount points.
const LAYERS_MAX: usize = limits::LAYERS_MAX + 1;

/// How long the spawner waits for the processes of a failed start to end; a killed one takes
/// milliseconds.
const ABANDON_TIME_MAX: Duration = Duration::from_secs(1);

/// Files that a start makes in the replica's directory.
const MADE: [&str; 3] = ["pid", "exit.json", "init.sock"];

/// Starts a sandbox. The init's process id and descriptor, or a sentence.
pub(crate) fn start(
    tools: &Tools,
    spec: &SandboxSpec,
    fds: &[OwnedFd],
) -> Result<(i32, OwnedFd), String> {
    let start = || -> Result<(i32, OwnedFd), StartError> {
        check(spec, fds.len())?;
        let group = tools.cgroups.create(&spec.id, &spec.bounds).map_err(StartError::Cgroup)?;
        let mut slot = None;
        let given = begin(tools, spec, &group, fds, &mut slot);
        match (given, slot) {
            (Ok(()), Some(slot)) => Ok((slot.pid, slot.pidfd)),
            (given, slot) => {
                abandon(tools, spec, slot.as_ref());
                given.and(Err(StartError::Slot(io::ErrorKind::NotFound.into())))
            }
        }
    };
    start().map_err(|error| error.to_string())
}

fn begin(
    tools: &Tools,
    spec: &SandboxSpec,
    group: &Group,
    fds: &[OwnedFd],
    made: &mut Option<Slot>,
) -> Result<(), StartError> {
    let control = Channel::listen(&spec.dir.join("init.sock")).map_err(StartError::Control)?;
    let shop = Workshop {
        proof: &tools.proof,
        init: tools.init.as_fd(),
        null: tools.null.as_fd(),
        ordinary_user: tools.ordinary_user,
    };
    let slot = Slot::make(&shop, &spec.dir, spec.id_base, group).map_err(StartError::Slot)?;
    let slot = made.insert(slot);
    let ids = slot.namespace.as_ref().map(AsFd::as_fd).zip(spec.id_base);
    let root = tools.scaffold.root(&spec.root, spec.bounds.upper_bytes, ids)?;
    let devices = tools.scaffold.devices()?;
    let mounts = mounts(tools, spec)?;
    let mut gifts: Vec<(Gift, BorrowedFd<'_>)> = vec![
        (Gift::Root, root.as_fd()),
        (Gift::Devices, devices.as_fd()),
        (Gift::Seccomp, tools.seccomp.as_fd()),
        (Gift::Control, control.as_fd()),
    ];
    gifts.extend(group.oom_events.iter().map(|events| (Gift::OomEvents, events.as_fd())));
    gifts.extend(fds.iter().map(|listener| (Gift::Listener, listener.as_fd())));
    gifts.extend(mounts.iter().map(|(to, mount)| (Gift::Mount(to.clone()), mount.as_fd())));
    slot.start(spec.clone(), &gifts).map_err(StartError::Orders)
}

/// What is bound in: the host's programs for image `host`, then what the server asks for.
fn mounts(tools: &Tools, spec: &SandboxSpec) -> Result<Vec<(PathBuf, OwnedFd)>, StartError> {
    let mut mounts = Vec::new();
    if spec.root.host_usr {
        for directory in host_root::bound_directories() {
            let mount = tools.scaffold.bind(&directory)?;
            mounts.push((directory, mount));
        }
    }
    for bind in &spec.binds {
        mounts.push((bind.target.clone(), tools.scaffold.bind(&bind.source)?));
    }
    Ok(mounts)
}

fn check(spec: &SandboxSpec, fds: usize) -> Result<(), StartError> {
    if !is_label(&spec.id) {
        return Err(StartError::Id(spec.id.clone()));
    }
    if spec.binds.len() > limits::BINDS_PER_SANDBOX_MAX {
        return Err(StartError::Binds { count: spec.binds.len() });
    }
    if !(1..=LAYERS_MAX).contains(&spec.root.layers.len()) {
        return Err(StartError::Layers { count: spec.root.layers.len() });
    }
    if fds != usize::from(spec.listens) {
        return Err(StartError::Listener { count: fds });
    }
    if MADE.iter().any(|name| spec.dir.join(name).exists()) {
        return Err(StartError::InUse(spec.dir.clone()));
    }
    Ok(())
}

/// It becomes a directory's name among the control groups, so it must not climb.
pub(crate) fn is_label(id: &str) -> bool {
    const LABEL_BYTES_MAX: usize = 63;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LABEL_BYTES_MAX).contains(&id.len()) && id.chars().all(good) && !id.starts_with('-')
}

/// Leaves nothing of a start that failed.
fn abandon(tools: &Tools, spec: &SandboxSpec, slot: Option<&Slot>) {
    if let Some(slot) = slot {
        // The signal can only miss a process that is gone, and then the wait is over at once.
        let _ = adoption::kill(&slot.pidfd);
        adoption::wait_for_end(&slot.pidfd, ABANDON_TIME_MAX);
    }
    // What cannot be removed now is found by the server's next sweep.
    let _ = tools.cgroups.remove(&spec.id);
    remove_made(&spec.dir);
}

fn remove_made(dir: &Path) {
    for name in MADE {
        let _ = fs::remove_file(dir.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_climb() {
        assert!(is_label("env-7f3a"));
        for bad in ["", ".", "..", "a/b", "-a", "A", "a b", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad:?}");
        }
    }
}
