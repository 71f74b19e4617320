//! Finding a replica's init again, by what its directory says.
//!
//! A process id alone may have been given to another process since. The file `pid` therefore also holds
//! the time at which the process started, which a later one of the same number cannot share.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// An init that lives.
#[derive(Debug)]
pub struct Adopted {
    /// Its process id on the host.
    pub pid: i32,
    /// A descriptor for it, readable once it has ended.
    pub pidfd: OwnedFd,
}

impl Adopted {
    /// The init of the replica in `dir`; `None` if it never started or has ended.
    ///
    /// # Errors
    /// If the file `pid` is there but cannot be read, or the kernel gives no descriptor.
    pub fn find(dir: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(dir.join("pid")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((pid, started)) = parse(&text) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let pid = pid.as_raw_nonzero().get();
        // Asked after the descriptor was opened: from here on the number cannot change hands.
        let same = start_time(pid).is_ok_and(|now| now == started);
        Ok(same.then_some(Self { pid, pidfd }).filter(|adopted| !has_ended(&adopted.pidfd)))
    }

    /// Ends the init, and with it everything in its sandbox.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2); a process that has ended is none.
    pub fn kill(&self) -> io::Result<()> {
        kill(&self.pidfd)
    }
}

/// Sends SIGKILL to a process, which may have ended already.
///
/// # Errors
/// Those of pidfd_send_signal(2).
pub fn kill(pidfd: &OwnedFd) -> io::Result<()> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the end of a process. `false` if it still lives after that time.
pub fn wait_for_end(pidfd: &OwnedFd, time: std::time::Duration) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    let timeout = Timespec::try_from(time).ok();
    matches!(poll(&mut polled, timeout.as_ref()), Ok(1..))
}

/// Whether a process has ended.
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    wait_for_end(pidfd, std::time::Duration::ZERO)
}

/// When a process started, in clock ticks since the machine did (proc(5), field 22 of `stat`).
///
/// # Errors
/// `NotFound` if there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    const FIELDS_FROM_STATE_TO_IT: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before may hold anything, parentheses too.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = after_name.split(' ').nth(FIELDS_FROM_STATE_TO_IT);
    field
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has no start time")))
}

fn parse(text: &str) -> Option<(Pid, u64)> {
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok().filter(|pid: &i32| *pid > 0)?;
    Some((Pid::from_raw(pid)?, started.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pid"), text).unwrap();
        dir
    }

    #[test]
    fn only_the_very_process_is_adopted() {
        let own = i32::try_from(std::process::id()).unwrap();
        let started = start_time(own).unwrap();
        let mine = dir_with(&format!("{own} {started}\n"));
        assert_eq!(Adopted::find(mine.path()).unwrap().unwrap().pid, own);
        let another = dir_with(&format!("{own} {}\n", started + 1));
        assert!(Adopted::find(another.path()).unwrap().is_none());
        for unfinished in ["", "12", "x y", "-1 5", "0 0"] {
            assert!(Adopted::find(dir_with(unfinished).path()).unwrap().is_none());
        }
        assert!(Adopted::find(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    }
}
