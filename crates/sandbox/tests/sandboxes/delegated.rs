//! Control groups of version 2 that are delegated: to an ordinary user as a systemd session does it, and to
//! root in a container.
//!
//! Each test runs this file's binary again in such a group, in a mount namespace that shows version 2 alone.
//! On a host whose controllers are in version 1 nothing is limited then, but all else is the same.

use std::{fs, path::Path, process::Command};

use pinnace_core::Exit;
use pinnace_sandbox::{cgroup::Cgroups, host::Host as Abilities};

use crate::{
    host::{Host, is_root},
    masks::shows_its_control_group,
    ordinary::NOBODY,
};

/// Tells the inner run what it is in.
const WHERE: &str = "PINNACE_TEST_DELEGATED";

/// As `systemd-run --user --scope -p Delegate=yes` leaves them, and no process in sight that is not meant.
const PREPARE: &str = "\
umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || exit 1
top=/sys/fs/cgroup/$GROUP
hand_down() { for one in memory cpu pids; do echo +$one > $1/cgroup.subtree_control; done 2>/dev/null; }
hand_down /sys/fs/cgroup
mkdir $top && hand_down $top
mkdir $top/scope $top/other || exit 1
for at in $top $top/scope $top/other; do
  chown $OWNER $at $at/cgroup.procs $at/cgroup.subtree_control $at/cgroup.threads || exit 1
done
sh -c \"echo 0 > $top/scope/cgroup.procs; $RUN\"
code=$?
rmdir $top/scope $top/other $top && exit $code
";

/// Runs one test of this file as this user in a new group, by these words of a shell before its own.
fn run_in_group(name: &str, owner: u32, words: &str) {
    let test = format!("delegated::{name}");
    let own = std::env::current_exe().unwrap();
    // For a name that no other run on this host has.
    let unique = tempfile::Builder::new().prefix("pinnace-test").tempdir().unwrap();
    let ran = Command::new("/usr/bin/unshare")
        .args(["--mount", "sh", "-c", PREPARE])
        .env("GROUP", unique.path().file_name().unwrap())
        .env("OWNER", owner.to_string())
        .env("RUN", format!("{words} {} --exact {test} --nocapture; exit $?", own.display()))
        .env(WHERE, name)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

fn is_inner() -> bool {
    std::env::var_os(WHERE).is_some()
}

fn as_user() -> String {
    format!("/usr/bin/setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups")
}

/// Where this process is, below the mount.
fn own_group() -> String {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned()
}

/// What there is to be limited, which a host with version 1 has not here.
fn controllers() -> String {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap()
}

/// Functions are limited as far as the host can do it.
fn limits_hold(host: &mut Host, image: &str) {
    let available = controllers();
    let has = host.cgroups.controllers();
    for (there, name) in [(has.memory, "memory"), (has.cpu, "cpu"), (has.pids, "pids")] {
        let is_available = available.split_whitespace().any(|one| one == name);
        assert_eq!(there, is_available, "{name} of {available}");
    }
    assert_eq!(host.cgroups.why_less(), None);
    shows_its_control_group(host);
    let root = host.busybox_image(image, |_| {});
    let eat = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let (_, err, exit) = host.run(&host.spec(root.clone(), &eat));
    let expected = match has.memory {
        true => Exit::OutOfMemory { limit_bytes: 64 << 20 },
        false => Exit::Code { code: 0 },
    };
    assert_eq!(exit, expected, "{err}");
    let script = "n=0; while sleep 1000 & do n=$((n + 1)); echo $n; done";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.bounds.pids = 20;
    if has.pids {
        let (out, err, _) = host.run(&spec);
        assert_eq!(out.lines().last(), Some("19"), "{out}{err}");
    }
}

#[test]
fn an_ordinary_user_limits_functions_in_a_group_of_his() {
    if !is_inner() {
        if is_root() {
            let words = format!("exec {}", as_user());
            run_in_group("an_ordinary_user_limits_functions_in_a_group_of_his", NOBODY, &words);
        }
        return;
    }
    let top = format!("/sys/fs/cgroup/{}", Path::new(&own_group()).parent().unwrap().display());
    let mut host = Host::new();
    let name = host.config.name.clone();
    assert!(own_group().ends_with(&format!("/scope/pinnace-{name}")), "{}", own_group());
    limits_hold(&mut host, "first");

    // From another group, as of another session, all is found again.
    let root = host.busybox_image("lives", |_| {});
    let replica = host.start(&host.spec(root.clone(), &["sleep", "1000"]));
    fs::write(format!("{top}/other/cgroup.procs"), "0").unwrap();
    assert!(own_group().ends_with("/other"));
    let elsewhere = Cgroups::detect(&name, host.dir.path());
    assert_eq!(elsewhere.controllers(), host.cgroups.controllers());
    assert_eq!(elsewhere.list(), host.cgroups.list());
    elsewhere.prepare().unwrap();
    assert!(own_group().ends_with("/other"), "nothing needs to move");
    host.replace_spawner();
    host.cgroups = elsewhere;
    limits_hold(&mut host, "second");
    host.cgroups.kill_all(&replica.spec.slot.name).unwrap();
    host.clean_up(&replica);

    let groups = format!("{top}/scope/pinnace");
    assert!(Path::new(&groups).exists());
    drop(host);
    assert!(!Path::new(&groups).exists());
    // Back in the first, which must be as it was.
    fs::write(format!("{top}/scope/cgroup.procs"), "0").unwrap();
    let host = Host::new();
    assert!(own_group().ends_with(&format!("/scope/pinnace-{}", host.config.name)));
    drop(host);
    assert!(own_group().ends_with("/scope"));
}

#[test]
fn root_limits_functions_in_a_containers_group() {
    if !is_inner() {
        if is_root() {
            let words = "exec /usr/bin/unshare --mount --cgroup sh -c 'umount -l /sys/fs/cgroup; \
                         mount -t cgroup2 cgroup /sys/fs/cgroup && exec $0 $@'";
            run_in_group("root_limits_functions_in_a_containers_group", 0, words);
        }
        return;
    }
    assert_eq!(own_group(), "", "a container's group is all that it sees");
    let mut host = Host::new();
    assert_eq!(own_group(), format!("pinnace-{}", host.config.name));
    limits_hold(&mut host, "second");
    drop(host);
    assert_eq!(own_group(), "");
}

#[test]
fn a_group_with_others_in_it_is_left_alone_and_told() {
    if !is_inner() {
        if is_root() {
            // The shell stays.
            let words = format!("true; {}", as_user());
            run_in_group("a_group_with_others_in_it_is_left_alone_and_told", NOBODY, &words);
        }
        return;
    }
    let before = own_group();
    let mut host = Host::new();
    assert_eq!(own_group(), before);
    let has = host.cgroups.controllers();
    assert!(!has.memory && !has.cpu && !has.pids, "{has:?}");
    let program = Path::new(env!("CARGO_BIN_EXE_pinnace-spawner"));
    let missing = Abilities::probe(program, host.dir.path(), &host.cgroups).unwrap().missing();
    let told = |word: &str| missing.iter().any(|said| said.contains(word));
    assert!(told("has other processes") && told("--scope -p Delegate=yes"), "{missing:?}");
    let (out, err, _) = host.sh("echo runs");
    assert_eq!(out, "runs\n", "{err}");
}
