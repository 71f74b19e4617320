//! Spawners found without their sockets: by their command lines, which anybody may read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pinnace_core::limits;
use pinnace_sandbox::adoption::{self, wait_for_end};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::state_dir::StateDir;

/// What a spawner's process is called.
const COMMAND: &str = "pinnace-spawner";

/// A spawner that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Process id.
    pub(crate) pid: i32,
    /// Name of its Pinnace ([`StateDir::name`]).
    pub(crate) name: String,
    /// Its state directory.
    pub(crate) state_dir: PathBuf,
}

/// All of this host that can be seen.
pub(crate) fn all() -> Vec<Found> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(found).collect()
}

fn found(pid: i32) -> Option<Found> {
    let called = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if called.trim() != COMMAND {
        return None;
    }
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let (name, state_dir) = parse(&line)?;
    Some(Found { pid, name, state_dir })
}

/// Reads a command line: the socket, `STATE/run/…`, comes first, the Pinnace's name last.
fn parse(command_line: &str) -> Option<(String, PathBuf)> {
    let mut words = command_line.trim_end_matches('\0').split('\0').skip(1);
    let state_dir = Path::new(words.next()?).parent()?.parent()?.to_owned();
    Some((words.last()?.to_owned(), state_dir))
}

/// Those of a Pinnace. A command line is anybody's to choose: only one that Pinnace itself would have is believed.
pub(crate) fn of(name: &str) -> Vec<Found> {
    let is_of = |found: &Found| found.name == name && StateDir::name(&found.state_dir) == name;
    all().into_iter().filter(is_of).collect()
}

/// Ends those of a Pinnace, with all that they have started: those whose sockets somebody has removed.
///
/// # Errors
/// One is there and cannot be ended.
pub(crate) fn end(name: &str) -> io::Result<()> {
    for spawner in of(name) {
        for child in children(spawner.pid) {
            kill(child, || children(spawner.pid).contains(&child))?;
        }
        kill(spawner.pid, || found(spawner.pid).as_ref() == Some(&spawner))?;
    }
    Ok(())
}

/// Inits and the router.
fn children(pid: i32) -> Vec<i32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Ends a process that `is_it` knows by its number; asked when the number cannot change hands any more.
fn kill(pid: i32, is_it: impl Fn() -> bool) -> io::Result<()> {
    let ended = || -> io::Result<bool> {
        let Some(number) = Pid::from_raw(pid) else { return Ok(true) };
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(true),
            pidfd => pidfd?,
        };
        if !is_it() {
            return Ok(true);
        }
        adoption::kill(&pidfd)?;
        Ok(wait_for_end(&pidfd, limits::CGROUP_REMOVE_TIME_MAX))
    };
    let why = match ended() {
        Ok(true) => return Ok(()),
        Ok(false) => "it was killed and does not end".to_owned(),
        Err(error) => error.to_string(),
    };
    let text = format!("process {pid}, a spawner or what it has started, cannot be ended: {why}");
    Err(io::Error::other(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_names_the_state_directory_and_the_pinnace() {
        let line = "/s/bin/x/pinnace-spawner\0/s/run/spawner-4.sock\0/init\0/s/run/mnt\0name\0";
        assert_eq!(parse(line), Some(("name".into(), "/s".into())));
        assert_eq!(parse("pinnace-spawner\0--probe\0"), None);
        assert_eq!(parse(""), None);
    }
}
