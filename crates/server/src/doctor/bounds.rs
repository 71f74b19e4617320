//! What can be limited, and what the host limits, in words.

use pinnace_core::limits;
use pinnace_sandbox::{cgroup::survey::Survey, host::Host};
use rustix::process::{Resource, geteuid, getrlimit};

use super::{Check, number_in};
use crate::descriptors::Shares;

/// Descriptors below which a server can hold few callers and replicas.
const DESCRIPTORS_FEW: u64 = 4096;

/// Descriptors of the server that one replica takes: pipes, sockets, handles.
const DESCRIPTORS_PER_REPLICA: u64 = 16;

/// Processes of the machine below which few functions of the usual bound fit.
const PROCESSES_FEW: u64 = 64 * limits::PIDS_DEFAULT as u64;

/// Numbers that the host sets.
#[derive(Debug)]
pub struct Numbers {
    shares: Shares,
    /// Processes and threads that there may be, by the narrowest bound that counts for this user.
    processes: u64,
    /// Whether the host has swap.
    swaps: bool,
}

impl Numbers {
    pub fn read(shares: Shares) -> Self {
        let of_kernel = ["kernel/pid_max", "kernel/threads-max"];
        let of_kernel =
            of_kernel.into_iter().filter_map(|file| number_in(format!("/proc/sys/{file}")));
        // The kernel does not count root's.
        let of_user = getrlimit(Resource::Nproc).current.filter(|_| !geteuid().is_root());
        let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
        Self {
            shares,
            processes: of_kernel.chain(of_user).min().unwrap_or(u64::MAX),
            // One line is the heading.
            swaps: swaps.lines().nth(1).is_some(),
        }
    }
}

/// Control groups first, then what the host itself limits.
pub fn checks(host: &Host, survey: &Survey, numbers: &Numbers) -> Vec<Check> {
    let mut checks = vec![control_groups(host, survey)];
    if host.cgroup_version.is_some() {
        let has = host.controllers;
        let controllers = [
            ("memory", has.memory, "memory", "functions can take all memory of this host"),
            ("processor", has.cpu, "cpu", "functions take as much processor time as they find"),
            ("processes", has.pids, "pids", "functions can make processes without end"),
        ];
        checks.extend(controllers.map(|of| controller(host, of)));
        checks.push(disk(survey.io));
        checks.push(swap(survey.swap, numbers.swaps));
        checks.extend((host.cgroup_version == Some(1)).then(|| moves(survey)));
    }
    checks.push(descriptors(&numbers.shares));
    checks.push(processes(numbers.processes));
    checks
}

fn control_groups(host: &Host, survey: &Survey) -> Check {
    const NAME: &str = "control groups";
    if let Some(version) = host.cgroup_version {
        if host.root
            && let Some(at) = survey.read_only.first()
        {
            return Check::no(
                NAME,
                format!("version {version}, but {} is mounted read-only", at.display()),
                format!(
                    "mount -o remount,rw {}; in a container, run it with more rights",
                    at.display()
                ),
            );
        }
        let whose = if host.root { "" } else { ", delegated to this user" };
        return Check::ok(NAME, format!("version {version}{whose}"));
    }
    let why = host.cgroups_missing.as_deref().unwrap_or("there are none");
    let mend =
        if host.root { "mount -t cgroup2 none /sys/fs/cgroup" } else { host.limits_advice() };
    Check::less(NAME, format!("{why}; functions have no limits of memory and processor time"), mend)
}

fn controller(
    host: &Host,
    (name, there, kernel_name, otherwise): (&str, bool, &str, &str),
) -> Check {
    if there {
        return Check::ok(name, format!("limited (controller {kernel_name})"));
    }
    if let Some(why) = &host.cgroups_missing {
        return Check::less(name, format!("{why}: {otherwise}"), host.limits_advice());
    }
    let mend = if host.cgroup_version == Some(2) {
        format!(
            "echo +{kernel_name} > /sys/fs/cgroup/cgroup.subtree_control, or delegate the controller"
        )
    } else {
        format!("mount -t cgroup -o {kernel_name} none /sys/fs/cgroup/{kernel_name} (after mkdir)")
    };
    Check::less(name, format!("no controller {kernel_name}: {otherwise}"), mend)
}

fn disk(io: bool) -> Check {
    if io {
        return Check::ok("disk", "traffic is counted for each function (controller io)");
    }
    Check::less(
        "disk",
        "traffic is counted for none",
        "enable the controller io (blkio in version 1)",
    )
}

fn swap(counted: bool, swaps: bool) -> Check {
    match (swaps, counted) {
        (false, _) => Check::ok("swap", "this host has none"),
        (true, true) => Check::ok("swap", "counted; functions are not swapped out"),
        (true, false) => Check::less(
            "swap",
            "not counted: a function over its limit of memory is swapped out before it is ended",
            "boot with swapaccount=1, or turn swap off (swapoff -a)",
        ),
    }
}

fn moves(survey: &Survey) -> Check {
    const NAME: &str = "start of processes";
    let Some(first) = survey.slow.first() else {
        return Check::ok(NAME, "quick: control groups favour changes (favordynmods)");
    };
    let all: Vec<_> = survey.slow.iter().map(|path| path.display().to_string()).collect();
    Check::less(
        NAME,
        "moving a process into control groups of version 1 takes about 10 ms; sandboxes made ahead \
         (`up --slots`) hide it from callers",
        format!(
            "on kernels from 6.0: mount -o remount,favordynmods {}, and so for {} in all; Pinnace does \
             not change it, since forks get a little slower for everybody",
            first.display(),
            all.len()
        ),
    )
}

fn descriptors(shares: &Shares) -> Check {
    let replicas = shares.limit / 3 / DESCRIPTORS_PER_REPLICA;
    let found = format!(
        "{}: {} callers at once and about {replicas} replicas",
        shares.limit, shares.clients
    );
    if shares.limit >= DESCRIPTORS_FEW {
        return Check::ok("descriptors", found);
    }
    Check::less(
        "descriptors",
        found,
        "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE=65536",
    )
}

fn processes(most: u64) -> Check {
    const NAME: &str = "process ids";
    let usual = limits::PIDS_DEFAULT;
    if most >= PROCESSES_FEW {
        return Check::ok(
            NAME,
            format!("{most}; a function has {usual} unless `up --pids` says otherwise"),
        );
    }
    Check::less(
        NAME,
        format!("{most}, enough for {} functions that use their {usual}", most / u64::from(usual)),
        "sysctl -w kernel.pid_max=4194304, and ulimit -u for an ordinary user",
    )
}

#[cfg(test)]
mod tests {
    use pinnace_sandbox::cgroup::Controllers;

    use super::{
        super::{Verdict, abilities::tests::able},
        *,
    };

    fn numbers() -> Numbers {
        Numbers {
            shares: Shares { limit: 20_000, clients: 6496 },
            processes: 1 << 22,
            swaps: false,
        }
    }

    fn found<'a>(checks: &'a [Check], name: &str) -> &'a Check {
        checks.iter().find(|check| check.name == name).unwrap()
    }

    #[test]
    fn a_host_that_limits_everything_is_well() {
        let survey = Survey { io: true, ..Survey::default() };
        let checks = checks(&able(), &survey, &numbers());
        assert!(checks.iter().all(|check| check.verdict == Verdict::Ok), "{checks:?}");
        let descriptors = &found(&checks, "descriptors").found;
        assert_eq!(descriptors, "20000: 6496 callers at once and about 416 replicas");
    }

    #[test]
    fn a_user_without_groups_hears_how_to_get_them_and_no_more_of_them() {
        let why = Some("no control group is delegated to this user".to_owned());
        let user = Host { root: false, cgroup_version: None, cgroups_missing: why, ..able() };
        let checks = checks(&user, &Survey::default(), &numbers());
        let groups = found(&checks, "control groups");
        assert_eq!(groups.verdict, Verdict::Less);
        assert!(groups.mend.as_ref().unwrap().contains("Delegate=yes"));
        assert!(!checks.iter().any(|check| check.name == "memory"));
    }

    #[test]
    fn what_cannot_be_limited_is_told_with_the_controller() {
        let lacking = Host { controllers: Controllers::default(), ..able() };
        let seen = checks(&lacking, &Survey::default(), &numbers());
        for (name, controller) in
            [("memory", "memory"), ("processor", "cpu"), ("processes", "pids")]
        {
            let check = found(&seen, name);
            assert_eq!(check.verdict, Verdict::Less);
            assert!(check.mend.as_ref().unwrap().contains(&format!("+{controller} ")), "{check:?}");
        }
        let frozen = Survey { read_only: vec!["/sys/fs/cgroup".into()], ..Survey::default() };
        let seen = checks(&able(), &frozen, &numbers());
        assert_eq!(found(&seen, "control groups").verdict, Verdict::No);
    }

    #[test]
    fn a_crowded_group_is_told_with_how_to_get_one_of_its_own() {
        let why = Some("control group /g has other processes than Pinnace's in it".to_owned());
        let controllers = Controllers::default();
        let user = Host { root: false, cgroups_missing: why, controllers, ..able() };
        let seen = checks(&user, &Survey::default(), &numbers());
        let memory = found(&seen, "memory");
        assert!(memory.found.starts_with("control group /g has other processes"), "{memory:?}");
        assert!(memory.mend.as_ref().unwrap().contains("--scope -p Delegate=yes"), "{memory:?}");
        let root = Host { root: true, ..user };
        let mend = found(&checks(&root, &Survey::default(), &numbers()), "memory").mend.clone();
        assert!(mend.unwrap().contains("the container's first process"));
    }

    #[test]
    fn version_1_tells_what_a_start_costs() {
        let host = Host { cgroup_version: Some(1), ..able() };
        let slow = Survey { slow: vec!["/sys/fs/cgroup/cpu".into()], ..Survey::default() };
        let seen = checks(&host, &slow, &numbers());
        let mend = found(&seen, "start of processes").mend.clone().unwrap();
        assert!(mend.contains("remount,favordynmods /sys/fs/cgroup/cpu"), "{mend}");
        let seen = checks(&host, &Survey::default(), &numbers());
        assert_eq!(found(&seen, "start of processes").verdict, Verdict::Ok);
    }

    #[test]
    fn swap_counts_only_where_there_is_some() {
        assert_eq!(swap(false, false).verdict, Verdict::Ok);
        assert_eq!(swap(true, true).verdict, Verdict::Ok);
        assert_eq!(swap(false, true).verdict, Verdict::Less);
    }

    #[test]
    fn few_descriptors_and_processes_are_told() {
        assert_eq!(descriptors(&Shares { limit: 1024, clients: 170 }).verdict, Verdict::Less);
        let few = processes(1024);
        assert_eq!(few.verdict, Verdict::Less);
        assert_eq!(few.found, "1024, enough for 4 functions that use their 256");
    }
}
