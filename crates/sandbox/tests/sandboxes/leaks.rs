//! Nothing is left when sandboxes end, and nothing of them shows on the host while they run.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use pinnace_core::Exit;

use crate::host::{Host, Replica, eventually};

const SANDBOXES: usize = 50;

fn entries(path: &str) -> usize {
    fs::read_dir(path).unwrap().count()
}

fn host_mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Network namespaces that some process is in.
fn networks() -> BTreeSet<u64> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let namespace = |path: PathBuf| fs::metadata(path.join("ns/net")).ok().map(|ns| ns.ino());
    processes.filter_map(|process| namespace(process.path())).collect()
}

#[test]
fn nothing_is_left_of_many_sandboxes() {
    let mut host = Host::new();
    let root = host.busybox_image("many", |_| {});
    let spawner = host.spawner.as_ref().unwrap().id();
    let mounts = host_mounts();
    let fds = || entries(&format!("/proc/{spawner}/fd"));
    let mounted = || fs::read_to_string(format!("/proc/{spawner}/mountinfo")).unwrap();
    // It listens before it has a mount namespace of its own; with its first sandbox it has.
    let mut first = host.start(&host.spec(root.clone(), &["sleep", "1000"]));
    first.attach().unwrap();
    first.stop(std::time::Duration::from_millis(1));
    first.exit();
    host.clean_up(&first);
    let (fds_before, mounted_before) = (fds(), mounted());
    let mut replicas: Vec<Replica> = Vec::new();
    for number in 0..SANDBOXES {
        // Some end by themselves, some are stopped, some cannot start.
        let command: &[&str] = match number % 3 {
            0 => &["true"],
            1 => &["sleep", "1000"],
            _ => &["no-such-command"],
        };
        let spec = host.spec(root.clone(), command);
        replicas.push(host.start(&spec));
    }
    assert_eq!(host_mounts(), mounts, "sandboxes' mounts show on the host");
    let mut inside = BTreeSet::new();
    for replica in &mut replicas {
        if let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", replica.pid)) {
            inside.insert(namespace.ino());
        }
        if replica.spec.command[0] == "sleep" {
            replica.attach().unwrap();
            replica.stop(std::time::Duration::from_millis(1));
            assert_eq!(replica.exit(), Exit::Stopped);
        }
    }
    for replica in &replicas {
        host.clean_up(replica);
    }
    assert_eq!(host_mounts(), mounts);
    assert_eq!(mounted(), mounted_before, "mounts are left in the spawner");
    assert_eq!(fds(), fds_before, "descriptors are left in the spawner");
    assert!(host.cgroups.list().is_empty());
    assert!(inside.len() > 10, "{}", inside.len());
    eventually("their namespaces are gone", || networks().is_disjoint(&inside).then_some(()));
    let children = fs::read_to_string(format!("/proc/{spawner}/task/{spawner}/children")).unwrap();
    assert_eq!(children, "", "the spawner has children left");
    assert_eq!(entries(host.dir.path().join("run").to_str().unwrap()), 0);
}
