//! An ordinary user's Pinnace in a control group that is delegated to him, as `systemd-run --user --scope -p
//! Delegate=yes pinnace up` has it, and the same user in another session.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{fs, process::Command};

use pinnace_tests::Gateway;

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

/// Shows version 2 of control groups alone, whatever the host has, and makes two sessions of a user.
const SHOW: &str = "umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || exit 1; \
                    cd /sys/fs/cgroup; ";

/// What follows [`SHOW`] in a shell, in a mount namespace of its own.
fn shell(then: &str) -> Vec<String> {
    let script = format!("{SHOW}{then}");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

fn run(then: &str) {
    let words = shell(then);
    let ran = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    assert!(ran.status.success(), "{then}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Where a process is, below the mount.
fn group_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned()
}

/// How many replicas are in groups of such a path.
fn replicas_in(gateway: &Gateway, path: &str) -> usize {
    let slots = fs::read_dir(gateway.state_dir().join("run/slots")).unwrap().flatten();
    let has_replica = |slot: &fs::DirEntry| {
        fs::metadata(slot.path().join("replica.json")).is_ok_and(|record| record.len() > 0)
    };
    let inits = slots.filter(has_replica).map(|slot| {
        let text = fs::read_to_string(slot.path().join("pid")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    });
    inits.filter(|init| group_of(*init).starts_with(path)).count()
}

#[test]
fn what_runs_in_one_session_is_found_from_another() {
    let mut gateway = Gateway::prepared_as(NOBODY, &[]);
    // Its directory has a name that no other test on this host has.
    let directory = gateway.state_dir();
    let user = directory.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let sessions = format!("{user} {user}/one {user}/two");
    run(&format!(
        "mkdir {sessions} && for at in {sessions}; do chown {NOBODY} $at $at/cgroup.procs \
         $at/cgroup.subtree_control || exit 1; done"
    ));
    let session = |which: &str| {
        shell(&format!("echo 0 > {user}/{which}/cgroup.procs && cd / && exec \"$@\""))
    };
    let enter = |gateway: &mut Gateway, which: &str| {
        let words = session(which);
        gateway.run_by(&words.iter().map(String::as_str).collect::<Vec<_>>());
    };
    enter(&mut gateway, "one");
    gateway.up();
    gateway.deploy_hello("a");
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n");
    let leaf = group_of(gateway.pid());
    assert!(leaf.starts_with(&format!("{user}/one/pinnace-")), "{leaf}");

    gateway.kill();
    enter(&mut gateway, "two");
    let said = gateway.doctor();
    let left = format!("{} no server runs, but there are: ", directory.display());
    let left = said.lines().find(|line| line.contains(&left));
    assert!(left.is_some_and(|left| left.contains("control groups")), "{said}");
    gateway.up();
    assert_eq!(group_of(gateway.pid()), format!("{user}/two"), "it needs no group of its own");
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n");
    // The next is made here, and its sandboxes are placed there.
    gateway.kill_spawner();
    gateway.scale("a", 2);
    gateway.until("a", "both serve", |status| status["availableReplicas"] == 2);
    assert_eq!(replicas_in(&gateway, &format!("{user}/one/pinnace/")), 2);

    // From here nothing may be brought to the user's groups.
    gateway.kill();
    gateway.run_by(&shell("cd / && exec \"$@\"").iter().map(String::as_str).collect::<Vec<_>>());
    gateway.up();
    gateway.kill_spawner();
    gateway.scale("a", 3);
    gateway.until("a", "all serve", |status| status["availableReplicas"] == 3);
    assert_eq!(replicas_in(&gateway, &format!("{user}/one/pinnace/")), 2);
    let missing = gateway.api("GET", "/system/info", b"").expect(200).json()["missing"].to_string();
    assert!(missing.contains("may bring no process"), "{missing}");

    gateway.kill();
    let down = gateway.down();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    // A group with one below it, or with a process, stays.
    run(&format!("rmdir {user}/two {user}/one {user}"));
}
