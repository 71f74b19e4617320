//! Ending everything that runs for a state directory, whether its server is there or not.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pinnace_sandbox::{
    cgroup::Cgroups,
    network::{Router, Uplink},
    sweep,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    provider::sandbox::{ROUTER, quit},
    run_dir::{Records, forget, records, remove},
    spawners,
    state_dir::{RUN, SLOTS, StateDir},
    watched::watched,
};

/// How long a server may take to end when it is asked to.
const SERVER_END_MAX: Duration = Duration::from_secs(120);

/// What was ended.
#[derive(Debug)]
pub struct Down {
    /// The server that ran, by process id.
    pub server: Option<i32>,
    /// Whether there was anything to end, or the state directory at least.
    pub found: bool,
    /// How long it took.
    pub took: Duration,
}

/// Ends the server of a state directory, or what a dead one left.
///
/// # Errors
/// The server does not end, or something of it stays.
pub fn down(state_dir: &Path) -> anyhow::Result<Down> {
    let started = Instant::now();
    let path = match state_dir.canonicalize() {
        Ok(path) => path,
        // What runs goes by the path, and may be left where the directory is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => match gone(state_dir) {
            Some(path) => path,
            None => return Ok(Down { server: None, found: false, took: started.elapsed() }),
        },
        Err(error) => return Err(unusable(state_dir, &error)),
    };
    // One that was emptied is let pass, for the same reason.
    StateDir::refuse_others(&path)
        .map_err(|why| anyhow::anyhow!("{why}; name the one that `pinnace up` was given"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = StateDir::server(&path).map_err(|error| unusable(&path, &error))?;
        if let Some(pid) = server {
            end_server(pid).await?;
        }
        let found = path.exists() || runs_or_is_left(&path);
        clear(&path).await?;
        Ok(Down { server, found, took: started.elapsed() })
    })
}

/// Whether something runs, or is left in control groups, for a state directory.
fn runs_or_is_left(state_dir: &Path) -> bool {
    let name = StateDir::name(state_dir);
    !spawners::of(&name).is_empty()
        || !Cgroups::detect(&name, &state_dir.join(RUN)).list().is_empty()
}

/// The path that a directory had which is not there, as its server knew it.
fn gone(state_dir: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(state_dir).ok()?;
    let parent = absolute.parent()?;
    // The directory above may be gone with it.
    let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    Some(parent.join(absolute.file_name()?))
}

fn unusable(state_dir: &Path, error: &io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run this as root, or as the user that the server runs as"
        }
        _ => "",
    };
    anyhow::anyhow!("the state directory {} cannot be read: {error}{advice}", state_dir.display())
}

/// Clears away everything that runs for a state directory without a server.
///
/// # Errors
/// Something stays.
pub(crate) async fn clear(state_dir: &Path) -> io::Result<()> {
    let run = state_dir.join(RUN);
    let mut name = StateDir::name(state_dir);
    match records(state_dir, &name) {
        Records::Own => {}
        Records::Copied => forget(&run)?,
        Records::Moved(from) => name = StateDir::name(&from),
    }
    quit(&run).await?;
    spawners::end(&name)?;
    let cgroups = Cgroups::detect(&name, &run);
    let slots = run.join(SLOTS);
    tokio::task::spawn_blocking(move || {
        // All that can go goes, whatever stays: files do where their disk takes no more changes.
        let swept = sweep_all(&slots, &cgroups);
        // An ordinary user has nothing on the host's network, and may not even look.
        let is_root = rustix::process::geteuid().is_root();
        let left = if is_root { Uplink::remove(&name) } else { Ok(()) };
        let ended = Router::end(&run.join(ROUTER)).map(drop);
        cgroups.remove_base();
        swept.and(left).and(ended).and_then(|()| remove(&run))
    })
    .await?
}

fn sweep_all(slots: &Path, cgroups: &Cgroups) -> io::Result<()> {
    match sweep::sweep(slots, cgroups, &Default::default())?.left.into_iter().next() {
        Some((slot, error)) => {
            Err(io::Error::other(format!("sandbox {slot} cannot be cleared away: {error}")))
        }
        None => Ok(()),
    }
}

async fn end_server(pid: i32) -> anyhow::Result<()> {
    let number = Pid::from_raw(pid).ok_or_else(|| anyhow::anyhow!("the lock names no process"))?;
    let pidfd = pidfd_open(number, PidfdFlags::NONBLOCK)?;
    pidfd_send_signal(&pidfd, Signal::TERM)?;
    let pidfd = watched(pidfd)?;
    if tokio::time::timeout(SERVER_END_MAX, pidfd.readable()).await.is_err() {
        anyhow::bail!(
            "the server, process {pid}, has not ended within {} s; its log says what it waits for",
            SERVER_END_MAX.as_secs()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn where_no_server_was_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(down(&dir.path().join("none")).unwrap().server, None);
        assert_eq!(down(dir.path()).unwrap().server, None);
        let of_another = dir.path().join("run/file");
        fs::create_dir(dir.path().join("run")).unwrap();
        fs::write(&of_another, "").unwrap();
        // As /var/lock is.
        fs::create_dir(dir.path().join("lock")).unwrap();
        let refused = down(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("is no state directory of Pinnace"), "{refused}");
        assert!(of_another.exists());
        let file = down(&of_another).unwrap_err().to_string();
        assert!(file.contains("run/file cannot be read: Not a directory"), "{file}");
    }
}
