//! One start, from the server's wish to an init that has its orders; and taking back what a failed one
//! has made.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use pinnace_core::limits;

use crate::{
    failed::Failed,
    host_root,
    init::orders::Gift,
    network::Wiring,
    protocol::{Expected, SandboxSpec},
    slot::Slot,
    slots::Slots,
    spawner::Tools,
};

/// Why a start was refused. Its sentence goes to the user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("its slot's name {0:?} is no DNS label")]
    Slot(String),
    #[error("it has {count} binds, and at most {max} are possible", max = limits::BINDS_PER_SANDBOX_MAX)]
    Binds { count: usize },
    #[error("it has {count} layers, and 1 to {max} are possible", max = LAYERS_MAX)]
    Layers { count: usize },
    #[error("{count} listeners came for it, and it needs {needed}")]
    Listeners { needed: usize, count: usize },
    #[error("cannot make its sandbox: {0}")]
    Make(io::Error),
    #[error("cannot make its root filesystem: {0}")]
    Mount(#[from] Failed),
    #[error("cannot give it its network: {0}")]
    Network(io::Error),
    #[error("its network is nat, and no function can leave this host: `GET /system/info` says why")]
    NoWayOut,
    #[error("cannot give its init orders: {0}")]
    Orders(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// An image's layers and the one with the mount points.
const LAYERS_MAX: usize = limits::LAYERS_MAX + 1;

/// Starts a sandbox, in a slot made ahead if there is one. The init's process id and descriptor, or a
/// sentence.
pub(crate) fn start(
    tools: &Tools,
    (slots, wiring): (&mut Slots, &mut Wiring),
    spec: &SandboxSpec,
    fds: &[OwnedFd],
) -> Result<(i32, OwnedFd), String> {
    try_start(tools, (slots, wiring), spec, fds).map_err(|error| error.to_string())
}

fn try_start(
    tools: &Tools,
    (slots, wiring): (&mut Slots, &mut Wiring),
    spec: &SandboxSpec,
    fds: &[OwnedFd],
) -> Result<(i32, OwnedFd), StartError> {
    check(spec, fds.len())?;
    let slot = take_slot(tools, wiring, slots, spec)?;
    match begin(tools, wiring, spec, &slot, fds) {
        Ok(()) => Ok((slot.pid, slot.pidfd)),
        Err(error) => {
            if let Some(at) = slot.at {
                // Its device goes with its namespace anyway.
                let _ = wiring.detach(at.place);
            }
            slot.abandon(&tools.cgroups);
            Err(error)
        }
    }
}

fn take_slot(
    tools: &Tools,
    wiring: &mut Wiring,
    slots: &mut Slots,
    spec: &SandboxSpec,
) -> Result<Slot, StartError> {
    if let Some(slot) = slots.take(&spec.slot.name, &tools.cgroups) {
        return Ok(slot);
    }
    let expected = Expected { bounds: spec.bounds.clone(), leaves: spec.leaves };
    tools
        .workshop()
        .map_err(io::Error::other)
        .and_then(|shop| Slot::make(&shop, wiring, &spec.slot, &expected))
        .map_err(StartError::Make)
}

fn begin(
    tools: &Tools,
    wiring: &mut Wiring,
    spec: &SandboxSpec,
    slot: &Slot,
    fds: &[OwnedFd],
) -> Result<(), StartError> {
    match slot.at {
        Some(at) => wiring.let_leave(at.place, spec.leaves).map_err(StartError::Network)?,
        None if spec.leaves => return Err(StartError::NoWayOut),
        None => {}
    }
    let gifts: Vec<(Gift, BorrowedFd<'_>)> =
        listeners(spec).zip(fds.iter().map(AsFd::as_fd)).collect();
    let unheard = |error| unheard(slot, error);
    slot.order(&tools.cgroups, spec.clone(), &gifts).map_err(unheard)?;
    let assembly = slot.assemble(&tools.scaffold, &spec.root, spec.bounds.upper_bytes)?;
    slot.start(assembly.root.as_fd(), &mounts(tools, spec)?).map_err(unheard)
}

/// An init that has closed its channel has a better reason than that.
fn unheard(slot: &Slot, error: io::Error) -> StartError {
    let closed = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    let refusal = if closed { slot.refusal() } else { None };
    refusal.map_or(StartError::Orders(error), StartError::Refused)
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
    if !is_label(&spec.slot.name) {
        return Err(StartError::Slot(spec.slot.name.clone()));
    }
    if spec.binds.len() > limits::BINDS_PER_SANDBOX_MAX {
        return Err(StartError::Binds { count: spec.binds.len() });
    }
    if !(1..=LAYERS_MAX).contains(&spec.root.layers.len()) {
        return Err(StartError::Layers { count: spec.root.layers.len() });
    }
    let needed = listeners(spec).count();
    if fds != needed {
        return Err(StartError::Listeners { needed, count: fds });
    }
    Ok(())
}

/// The listeners that come with a start, in their order.
fn listeners(spec: &SandboxSpec) -> impl Iterator<Item = Gift> {
    let own = spec.listens.then_some(Gift::Listener);
    own.into_iter().chain(spec.slot.host_gateway.map(|_| Gift::Gateway))
}

/// It becomes a directory's name among the control groups, so it must not climb.
pub(crate) fn is_label(id: &str) -> bool {
    const LABEL_BYTES_MAX: usize = 63;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LABEL_BYTES_MAX).contains(&id.len()) && id.chars().all(good) && !id.starts_with('-')
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
