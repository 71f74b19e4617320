//! The Pinnaces of this host: those that run, and what those that do not have left.
//!
//! Each is known by the name of its state directory ([`StateDir::name`]), which its control groups, devices
//! and rules bear. The directory itself is told by its spawner's command line and noted on its groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use pinnace_sandbox::{cgroup::survey, host::network};

use super::Check;
use crate::{
    provider::sandbox::replicas_in,
    spawners::{self, Found},
    state_dir::{RUN, SLOTS, StateDir},
};

/// Prefix of the host's device of a Pinnace whose functions may leave, before its name.
const DEVICE: &str = "pn-";

/// Prefix of the host's table of rules of such a Pinnace.
const TABLE: &str = "pinnace-";

/// What there is of a Pinnace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    state_dir: Option<PathBuf>,
    server: Server,
    /// Processes of spawner, inits and functions.
    processes: BTreeSet<i32>,
    /// Whether its control groups hold processes, seen or not.
    populated: bool,
    groups: BTreeSet<PathBuf>,
    replicas: usize,
    /// Sandboxes that have directories.
    slots: usize,
    mounts: Vec<String>,
    devices: Vec<String>,
    tables: Vec<String>,
}

/// Who holds the state directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Server {
    /// Nobody, or the directory is not known.
    #[default]
    Gone,
    Runs(i32),
    /// The directory is another user's.
    Hidden,
}

/// A line for each Pinnace, or one that says there is none.
pub fn checks(own: &Path) -> Vec<Check> {
    let seen = look(own);
    let checks: Vec<_> = seen.iter().filter_map(|(name, seen)| check(name, seen)).collect();
    if checks.is_empty() {
        return vec![Check::ok("none", "nothing runs, and nothing is left of any")];
    }
    checks
}

fn look(own: &Path) -> BTreeMap<String, Seen> {
    let mut all: BTreeMap<String, Seen> = BTreeMap::new();
    all.entry(StateDir::name(own)).or_default().state_dir = Some(own.to_owned());
    for Found { pid, name, state_dir } in spawners::all() {
        let seen = all.entry(name).or_default();
        seen.processes.insert(pid);
        seen.state_dir = Some(state_dir);
    }
    let run =
        |(name, seen): (&String, &Seen)| Some((name.clone(), seen.state_dir.as_ref()?.join(RUN)));
    let noted: Vec<_> = all.iter().filter_map(run).collect();
    for (name, groups) in survey::pinnaces(&noted) {
        let seen = all.entry(name).or_default();
        seen.state_dir = seen.state_dir.take().or(groups.state_dir);
        seen.groups = groups.directories;
        seen.populated = groups.populated;
        seen.processes.extend(groups.processes);
    }
    let devices = names_in("/sys/class/net");
    // Only root may ask for rules, and only root makes some.
    let tables = network::tables().unwrap_or_default();
    for (names, prefix, of) in [
        (devices, DEVICE, (|seen| &mut seen.devices) as fn(&mut Seen) -> &mut Vec<String>),
        (tables, TABLE, |seen| &mut seen.tables),
    ] {
        for name in names {
            if let Some(pinnace) = name.strip_prefix(prefix) {
                of(all.entry(pinnace.to_owned()).or_default()).push(name.clone());
            }
        }
    }
    let mounts = mount_points();
    for seen in all.values_mut() {
        look_into_directory(seen, &mounts);
    }
    all
}

fn look_into_directory(seen: &mut Seen, mounts: &[String]) {
    let Some(directory) = &seen.state_dir else { return };
    seen.server = match StateDir::server(directory) {
        Ok(Some(pid)) => Server::Runs(pid),
        Ok(None) => Server::Gone,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Server::Hidden,
        Err(_) => Server::Gone,
    };
    let run = directory.join(RUN);
    seen.replicas = replicas_in(&run.join(SLOTS));
    seen.slots = names_in(run.join(SLOTS)).len();
    let place = fs::canonicalize(&run).unwrap_or(run);
    seen.mounts = mounts.iter().filter(|at| Path::new(at).starts_with(&place)).cloned().collect();
}

fn mount_points() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split(' ').nth(4).map(str::to_owned)).collect()
}

fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// In words; nothing for a Pinnace of which there is nothing.
fn check(name: &str, seen: &Seen) -> Option<Check> {
    let title =
        seen.state_dir.as_ref().map_or_else(|| name.to_owned(), |dir| dir.display().to_string());
    let remains = remains(seen);
    if let Server::Runs(pid) = seen.server {
        return Some(Check::ok(
            &title,
            format!("runs: process {pid}, {}", counted(seen.replicas, "replica")),
        ));
    }
    if remains.is_empty() {
        return None;
    }
    if seen.server == Server::Hidden {
        return Some(Check::ok(&title, "belongs to another user; ask as that user, or as root"));
    }
    if seen.populated && seen.processes.is_empty() {
        return Some(Check::ok(
            &title,
            "has processes that cannot be seen from here (another container)",
        ));
    }
    let remains = remains.join(", ");
    Some(match &seen.state_dir {
        // Also where the directory is gone: all goes by its path.
        Some(dir) => Check::less(
            &title,
            format!("no server runs, but there are: {remains}"),
            format!(
                "pinnace down --state-dir {} ends all that; `pinnace up` goes on with it",
                dir.display()
            ),
        ),
        None => Check::less(
            &title,
            format!("its state directory is not known, and there are: {remains}"),
            by_hand(name, seen),
        ),
    })
}

fn remains(seen: &Seen) -> Vec<String> {
    let counts = [
        (seen.processes.len(), "process"),
        (seen.slots, "sandbox's directory"),
        (seen.groups.len(), "control group"),
        (seen.mounts.len(), "mount"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counted = counts.map(|(count, what)| counted(count, what));
    let devices = seen.devices.iter().map(|name| format!("network device {name}"));
    let tables = seen.tables.iter().map(|name| format!("nftables table {name}"));
    counted.chain(devices).chain(tables).collect()
}

/// What removes it where `pinnace down` has nothing to go by.
fn by_hand(name: &str, seen: &Seen) -> String {
    let mut commands = Vec::new();
    if !seen.processes.is_empty() {
        let pids: Vec<_> = seen.processes.iter().map(i32::to_string).collect();
        commands.push(format!("kill -9 {}", pids.join(" ")));
    }
    if !seen.groups.is_empty() {
        commands.push(format!(
            "find /sys/fs/cgroup -depth -type d -path '*/pinnace[-/]{name}*' -exec rmdir {{}} +"
        ));
    }
    commands.extend(seen.devices.iter().map(|device| format!("ip link delete {device}")));
    commands.extend(seen.tables.iter().map(|table| format!("nft delete table ip {table}")));
    format!("as root: {}", commands.join("; "))
}

fn counted(count: usize, what: &str) -> String {
    let plural = match (count, what) {
        (1, _) => what.to_owned(),
        (_, "process") => "processes".to_owned(),
        (_, "sandbox's directory") => "sandboxes' directories".to_owned(),
        (_, other) => format!("{other}s"),
    };
    format!("{count} {plural}")
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    fn left() -> Seen {
        Seen {
            processes: [7, 9].into(),
            groups: ["/sys/fs/cgroup/pinnace/x/slot-1".into()].into(),
            populated: true,
            ..Seen::default()
        }
    }

    #[test]
    fn a_dead_pinnace_is_told_with_what_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Seen { state_dir: Some(dir.path().into()), slots: 1, ..left() };
        let check = check("x", &seen).unwrap();
        assert_eq!(check.verdict, Verdict::Less);
        assert_eq!(
            check.found,
            "no server runs, but there are: 2 processes, 1 sandbox's directory, 1 control group"
        );
        let command = format!("pinnace down --state-dir {} ", dir.path().display());
        assert!(check.mend.unwrap().starts_with(&command));
    }

    #[test]
    fn one_whose_directory_is_not_known_is_removed_by_hand() {
        let device =
            Seen { devices: vec!["pn-x".into()], tables: vec!["pinnace-x".into()], ..left() };
        let mend = check("x", &device).unwrap().mend.unwrap();
        for command in
            ["kill -9 7 9;", "'*/pinnace[-/]x*'", "ip link delete pn-x", "table ip pinnace-x"]
        {
            assert!(mend.contains(command), "{mend}");
        }
        let gone = Seen { state_dir: Some("/no/such/directory".into()), ..device };
        let mend = check("x", &gone).unwrap().mend.unwrap();
        assert!(mend.starts_with("pinnace down --state-dir /no/such/directory "), "{mend}");
    }

    #[test]
    fn what_runs_or_is_not_ours_to_judge_is_left_alone() {
        let with = |server, processes: BTreeSet<i32>| {
            check("x", &Seen { server, processes, ..left() }).unwrap()
        };
        let runs = with(Server::Runs(5), [7].into());
        assert_eq!(
            (runs.verdict, runs.found.as_str()),
            (Verdict::Ok, "runs: process 5, 0 replicas")
        );
        assert_eq!(with(Server::Hidden, [7].into()).verdict, Verdict::Ok);
        assert_eq!(with(Server::Gone, [].into()).verdict, Verdict::Ok);
        assert_eq!(check("x", &Seen::default()), None);
    }
}
