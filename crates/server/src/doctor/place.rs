//! The state directory: whether it can be used, and what its file system can do.

use std::{
    io,
    path::{Path, PathBuf},
};

use pinnace_sandbox::host::Host;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::Check;
use crate::state_dir::StateDir;

/// Free bytes below which images hardly fit.
const ROOM_FEW: u64 = 1 << 30;

/// Free bytes below which a server cannot even unpack its programs.
const ROOM_LEAST: u64 = 32 << 20;

/// What is known of a state directory.
#[derive(Debug)]
pub struct Place {
    /// The directory, without symbolic links if it is there.
    pub path: PathBuf,
    /// The directory itself, or the nearest one above that is there: both lie on the same file system.
    pub nearest: PathBuf,
    /// Why it cannot be written to.
    writable: Result<(), String>,
    /// Free bytes, for this user.
    room: Option<u64>,
}

impl Place {
    /// Looks at a directory, which need not be there.
    pub fn look(state_dir: &Path) -> Self {
        let path = std::fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
        let nearest =
            path.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).to_owned();
        let stat = statvfs(&nearest).ok();
        let read_only =
            stat.as_ref().is_some_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY));
        let writable = match access(&nearest, Access::WRITE_OK | Access::EXEC_OK) {
            _ if read_only => Err("the file system is mounted read-only".to_owned()),
            Ok(()) => Ok(()),
            Err(error) => {
                let what =
                    if nearest == path { "it".into() } else { nearest.display().to_string() };
                Err(format!("{what} may not be written to: {}", io::Error::from(error)))
            }
        };
        let room = stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        Self { path, nearest, writable, room }
    }

    /// All that there is to say of it.
    pub fn checks(&self, host: &Host) -> Vec<Check> {
        let mut checks = vec![self.directory()];
        checks.extend(self.room.map(room));
        checks.push(if host.root { self.id_ranges(host) } else { subordinate_ids(host) });
        checks
    }

    fn directory(&self) -> Check {
        let path = self.path.display();
        match &self.writable {
            Ok(()) if let Err(why) = StateDir::refuse_others(&self.path) => Check::no(
                "directory",
                why,
                "name one of Pinnace's own, or a new one, with `--state-dir`",
            ),
            Ok(()) if self.path.exists() => Check::ok("directory", format!("{path}")),
            Ok(()) => Check::ok("directory", format!("{path}, not made yet")),
            Err(why) => Check::no(
                "directory",
                format!("{path}: {why}"),
                "choose another directory (`--state-dir`), or make this one writable for this user",
            ),
        }
    }

    fn id_ranges(&self, host: &Host) -> Check {
        match &host.id_ranges {
            Ok(()) => {
                Check::ok("id ranges", "each sandbox has its own; the file system maps owners")
            }
            Err(why) => Check::less(
                "id ranges",
                format!("sandboxes share the host's user ids: {why}"),
                "keep the state directory on ext4, xfs or btrfs",
            ),
        }
    }
}

fn subordinate_ids(host: &Host) -> Check {
    const NAME: &str = "user ids";
    let Err(why) = &host.subordinate_ids else {
        return Check::ok(NAME, "sandboxes have more than one (/etc/subuid, newuidmap)");
    };
    // The reason brings its advice with it.
    let (why, mend) = why.split_once("; ").unwrap_or((why, "mend the user namespaces first"));
    let found = format!("functions run as one user inside, whatever USER their image names: {why}");
    Check::less(NAME, found, mend)
}

fn room(bytes: u64) -> Check {
    let found = format!("{} MiB free", bytes >> 20);
    let mend = "make room, or keep the state elsewhere (`--state-dir`)";
    match bytes {
        ..ROOM_LEAST => Check::no("room", format!("{found}; nothing can be kept"), mend),
        ROOM_LEAST..ROOM_FEW => Check::less("room", format!("{found}; images hardly fit"), mend),
        _ => Check::ok("room", found),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Verdict, abilities::tests::able},
        *,
    };

    #[test]
    fn a_directory_to_be_made_lies_where_the_nearest_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::look(&dir.path().join("a/b"));
        assert_eq!(place.nearest, dir.path().canonicalize().unwrap());
        let check = place.directory();
        assert_eq!(check.verdict, Verdict::Ok);
        assert!(check.found.ends_with("a/b, not made yet"), "{check:?}");
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn a_place_that_takes_nothing_is_useless() {
        let sealed = Place::look(Path::new("/proc/no-such"));
        let closed =
            Place { writable: Err("the file system is mounted read-only".into()), ..sealed };
        let check = closed.directory();
        assert_eq!(check.verdict, Verdict::No);
        assert!(check.mend.unwrap().contains("--state-dir"));
    }

    #[test]
    fn room_runs_out_in_two_steps() {
        assert_eq!(room(0).verdict, Verdict::No);
        assert_eq!(room(ROOM_LEAST).verdict, Verdict::Less);
        assert_eq!(room(ROOM_FEW).verdict, Verdict::Ok);
        assert_eq!(room(5 << 30).found, "5120 MiB free");
    }

    #[test]
    fn ids_are_those_of_who_asks() {
        let place = Place::look(Path::new("/"));
        let tmpfs = Host { id_ranges: Err("tmpfs cannot".into()), ..able() };
        assert!(place.checks(&tmpfs).last().unwrap().mend.as_ref().unwrap().contains("ext4"));
        let lone = Host {
            root: false,
            uid: 1000,
            subordinate_ids: Err("none given; install uidmap".into()),
            ..able()
        };
        let said = place.checks(&lone).pop().unwrap();
        assert!(said.found.ends_with(": none given"), "{said:?}");
        assert_eq!(said.mend.as_deref(), Some("install uidmap"));
    }
}
