//! Slots made ahead: what takes one, and what becomes of those that nobody takes.

use std::{fs, os::fd::AsFd as _, path::Path, process::Stdio};

use pinnace_core::Exit;
use pinnace_sandbox::{
    client::SpawnerLink,
    protocol::{FromSpawner, SlotSpec, ToSpawner},
};
use rustix::process::PidfdFlags;

use crate::host::{Host, bounds, eventually, has_ended};

/// Processes that the spawner has cloned and that still live, in the order of their numbers.
fn children(host: &Host) -> Vec<i32> {
    let spawner = host.spawner.as_ref().unwrap().id();
    let path = format!("/proc/{spawner}/task/{spawner}/children");
    let text = fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn prepared(host: &mut Host) -> SlotSpec {
    let slot = host.slot();
    let answer = host.prepare(&slot);
    assert!(matches!(answer, FromSpawner::Prepared { .. }), "{answer:?}");
    slot
}

#[test]
fn a_start_takes_the_slot_that_was_made_for_it() {
    let mut host = Host::new();
    let slot = prepared(&mut host);
    let parked = children(&host);
    assert_eq!(parked.len(), 1);
    let script = "cat /proc/1/comm; ls / /dev /proc/self/fd; cat /etc/hostname; id -u";
    let root = host.busybox_image("taken", |_| {});
    let in_new = host.spec(root.clone(), &["sh", "-c", script]);
    let mut in_slot = host.spec(root.clone(), &["sh", "-c", script]);
    in_slot.slot = slot;
    let mut replica = host.start(&in_slot);
    assert_eq!(replica.pid, parked[0]);
    replica.attach().unwrap();
    let (out, err) = replica.output();
    assert_eq!(replica.exit(), Exit::Code { code: 0 }, "{err}");
    host.clean_up(&replica);
    assert_eq!((out, err), {
        let (out, err, _) = host.run(&in_new);
        (out, err)
    });
}

#[test]
fn bounds_are_those_of_the_function_and_not_of_the_slot() {
    let mut host = Host::new();
    if !host.cgroups.controllers().memory {
        assert!(!crate::host::is_root(), "root can limit memory on every host this runs on");
        return;
    }
    for (times, ends) in
        [(4, Exit::Code { code: 0 }), (1, Exit::OutOfMemory { limit_bytes: 32 << 20 })]
    {
        let slot = prepared(&mut host);
        let root = host.busybox_image(&format!("bounds-{times}"), |_| {});
        let mut spec =
            host.spec(root, &["dd", "if=/dev/zero", "of=/dev/null", "bs=80M", "count=1"]);
        spec.slot = slot;
        spec.bounds.memory_bytes = bounds().memory_bytes / 2 * times;
        let (_, err, exit) = host.run(&spec);
        assert_eq!(exit, ends, "{err}");
    }
}

#[test]
fn a_slot_that_died_is_told_and_a_start_does_without_it() {
    let mut host = Host::new();
    let lost = prepared(&mut host);
    let root = host.busybox_image("lost", |_| {});
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(children(&host)[0]);
    match host.server.recv::<FromSpawner>().unwrap() {
        Some((FromSpawner::Lost { slot }, _)) => assert_eq!(slot, lost.name),
        other => panic!("unexpected {other:?}"),
    }
    let mut spec = host.spec(root, &["sh", "-c", "echo still"]);
    spec.slot = lost;
    assert_eq!(host.run(&spec).0, "still\n");
}

#[test]
fn slots_that_nobody_takes_leave_nothing() {
    let mut host = Host::new();
    let retired = prepared(&mut host);
    host.server.send(&ToSpawner::Retire { slot: retired.name.clone() }, &[]).unwrap();
    eventually("its init ends", || children(&host).is_empty().then_some(()));
    host.cgroups.remove(&retired.name).unwrap();
    // Another server does not know of the slots of the one before.
    let forgotten = prepared(&mut host);
    let program = Path::new(env!("CARGO_BIN_EXE_pinnace-spawner"));
    host.server = SpawnerLink::open(program, &host.config, Stdio::inherit()).unwrap().channel;
    eventually("its init ends", || children(&host).is_empty().then_some(()));
    host.cgroups.remove(&forgotten.name).unwrap();
    // A spawner that dies takes its slots with it, and no replica.
    let root = host.busybox_image("stays", |_| {});
    let stays = host.start(&host.spec(root, &["sleep", "1000"]));
    let orphan = prepared(&mut host);
    let parked = children(&host).into_iter().find(|pid| *pid != stays.pid).unwrap();
    let pid = rustix::process::Pid::from_raw(parked).unwrap();
    let parked = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    host.replace_spawner();
    eventually("the parked init ends", || has_ended(parked.as_fd()).then_some(()));
    host.cgroups.remove(&orphan.name).unwrap();
    assert!(!has_ended(stays.pidfd.as_fd()));
}

#[test]
fn a_slot_that_cannot_be_made_is_refused_and_leaves_nothing() {
    let mut host = Host::new();
    let first = prepared(&mut host);
    let answer = host.prepare(&first);
    assert!(
        matches!(&answer, FromSpawner::Refused { reason, .. } if reason.contains(&first.name)),
        "{answer:?}"
    );
    assert_eq!(children(&host).len(), 1);
    assert_eq!(host.cgroups.list().len(), usize::from(host.cgroups.version().is_some()));
}
