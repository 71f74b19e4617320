//! Whose ids sandboxes have.
//!
//! Root's sandboxes have ranges that the server gives out. An ordinary user's spawner is root of a user
//! namespace of its own, in which his own id is 0. More ids are there if the host has given him some
//! (/etc/subuid and /etc/subgid) and Debian's package uidmap maps them for him; the functions of one user
//! then share them. Without, functions have one id, whatever user their image names.

use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::{
    channel::Channel,
    failed::Doing as _,
    sys::{self, Cloned, Disposition, SingleThreaded},
};

/// Ids of a sandbox that has a range.
pub const IDS: u32 = 65_536;

/// Bytes of /etc/subuid or /etc/passwd that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What ids sandboxes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// The host's, or a range that the server gives: root's sandboxes.
    Roots,
    /// 0 to [`IDS`], in the namespace of an ordinary user's spawner.
    Range,
    /// 0 alone, in such a namespace.
    One,
}

/// What an ordinary user's spawner has apart from the host: its mounts, and a network, since it could not
/// come back to the host's from its router's.
pub(crate) const APART: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWNET;

/// Why an ordinary user has one id.
pub type OneId = String;

/// Enters a user namespace as an ordinary user: root there from now on, so that all that follows is the
/// same as for root. Whether there are more ids than one, and if not, why.
///
/// # Errors
/// The host lets ordinary users make none.
pub(crate) fn enter(proof: &SingleThreaded) -> io::Result<Result<(), OneId>> {
    let mapper = ranges().map(|ranges| Mapper::start(proof, &ranges));
    sys::unshare(proof, libc::CLONE_NEWUSER | APART).map_err(|error| {
        let text = format!(
            "an ordinary user may make no user namespace here ({error}); run as root, or allow it \
             (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns)"
        );
        io::Error::new(error.kind(), text)
    })?;
    let mapped = match mapper {
        Ok(Ok(mapper)) => mapper.map(),
        Ok(Err(error)) => Err(format!("no process can be made that maps ids: {error}")),
        Err(reason) => Err(reason),
    };
    if mapped.is_err() {
        map_own()?;
    }
    Ok(mapped)
}

/// Whether the user namespace of this process has more ids than one, users and groups.
///
/// # Errors
/// /proc cannot be read.
pub(crate) fn has_range() -> io::Result<bool> {
    let lines = |file: &str| fs::read_to_string(file).map(|text| text.lines().count());
    Ok(lines("/proc/self/uid_map")? > 1 && lines("/proc/self/gid_map")? > 1)
}

/// Maps what newuidmap and newgidmap have not: the user's own ids.
fn map_own() -> io::Result<()> {
    let is_mapped = |file: &str| fs::read_to_string(file).is_ok_and(|text| !text.is_empty());
    for (file, id) in [("uid_map", own_ids().0), ("gid_map", own_ids().1)] {
        let path = format!("/proc/self/{file}");
        if !is_mapped(&path) {
            if file == "gid_map" {
                fs::write("/proc/self/setgroups", "deny")?;
            }
            fs::write(path, format!("0 {id} 1"))?;
        }
    }
    Ok(())
}

/// A process outside the namespace, which has the ids mapped: nobody inside may.
struct Mapper {
    channel: Channel,
}

/// First host id and number of the further ids of a user, then of his group.
type Ranges = [(u32, u32); 2];

impl Mapper {
    fn start(proof: &SingleThreaded, ranges: &Ranges) -> io::Result<Self> {
        let target = std::process::id();
        let own = own_ids();
        let (channel, far) = Channel::pair()?;
        match sys::clone_process(proof, 0, None)? {
            Cloned::Parent { .. } => Ok(Self { channel }),
            Cloned::Child => {
                drop(channel);
                // Ignored, it would have the kernel reap whom this waits for.
                sys::set_disposition(libc::SIGCHLD, Disposition::Default);
                if matches!(far.recv::<()>(), Ok(Some(_))) {
                    let mapped = run("newuidmap", target, own.0, ranges[0])
                        .and_then(|()| run("newgidmap", target, own.1, ranges[1]));
                    // A spawner that is gone needs no ids.
                    let _ = far.send(&mapped, &[]);
                }
                sys::exit_now(0)
            }
        }
    }

    fn map(self) -> Result<(), OneId> {
        let said = self.channel.send(&(), &[]).and_then(|()| self.channel.recv());
        match said {
            Ok(Some((mapped, _))) => mapped,
            Ok(None) => Err("the process that maps ids has ended".to_owned()),
            Err(error) => Err(format!("the process that maps ids cannot be heard: {error}")),
        }
    }
}

/// Has the user's own id mapped to 0 and the first of his range to 1, and so on.
fn run(program: &str, target: u32, own: u32, (first, _): (u32, u32)) -> Result<(), OneId> {
    let numbers = [target, 0, own, 1, 1, first, IDS - 1].map(|number| number.to_string());
    let ran = Command::new(program).args(numbers).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("{program} cannot be run ({error}); {ADVICE}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(format!("{program} refuses ({}); {ADVICE}", said.trim()))
}

/// What gives an ordinary user ids.
const ADVICE: &str = "install Debian's package uidmap, and give the user ids of his own \
                      (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)";

/// The further ids that the host has given this user.
fn ranges() -> Result<Ranges, OneId> {
    let own = own_ids().0;
    let passwd = read(Path::new("/etc/passwd"));
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(own)).then_some(name)
    });
    let range = |file: &str| {
        let text = read(Path::new(file));
        find(&text, name, own).ok_or_else(|| format!("{file} gives user {own} none; {ADVICE}"))
    };
    Ok([range("/etc/subuid")?, range("/etc/subgid")?])
}

/// A user's first range that is large enough, in the form of subuid(5): by name or by number.
fn find(text: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        if Some(whose) != name && whose.parse() != Ok(uid) {
            return None;
        }
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (range.1 >= IDS - 1).then_some(range)
    })
}

fn read(path: &Path) -> String {
    let small = fs::metadata(path).is_ok_and(|file| file.len() <= FILE_BYTES_MAX);
    if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

fn own_ids() -> (u32, u32) {
    (geteuid().as_raw(), getegid().as_raw())
}

/// Gives a new process in a user namespace its ids. `base` is the first of the range that the server has
/// given a sandbox of root's.
pub(crate) fn map(pid: i32, ids: Ids, base: Option<u32>) -> io::Result<()> {
    let map = match (ids, base) {
        (Ids::Roots, Some(base)) => format!("0 {base} {IDS}"),
        (Ids::Roots, None) => return Ok(()),
        // Two lines, since a line may lie in one of the parent's only.
        (Ids::Range, _) => format!("0 0 1\n1 1 {}", IDS - 1),
        (Ids::One, _) => {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
            "0 0 1".to_owned()
        }
    };
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{file}"), &map).doing(|| format!("write {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_range_is_found_by_name_or_number() {
        let text = "# none\nroot:1:70000\nann:100000:65536\n1001:200000:65536\nbob:300000:1000\nbob:400000:65535\n";
        assert_eq!(find(text, Some("ann"), 1000), Some((100_000, 65_536)));
        assert_eq!(find(text, None, 1001), Some((200_000, 65_536)));
        assert_eq!(
            find(text, Some("bob"), 1002),
            Some((400_000, 65_535)),
            "the first is too small"
        );
        assert_eq!(find(text, Some("eve"), 1003), None);
        assert_eq!(find("ann:x:y\nann\n", Some("ann"), 1000), None);
    }
}
