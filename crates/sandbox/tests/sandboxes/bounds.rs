//! Memory, processes and processor time, where the host can limit them.

use pinnace_core::Exit;

use crate::host::{Host, eventually};

#[test]
fn too_much_memory_is_told_as_that() {
    let mut host = Host::new();
    if !host.cgroups.controllers().memory {
        assert!(!crate::host::is_root(), "root can limit memory on every host this runs on");
        return;
    }
    let root = host.busybox_image("memory", |_| {});
    let eat = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let spec = host.spec(root.clone(), &eat);
    let (_, _, exit) = host.run(&spec);
    assert_eq!(exit, Exit::OutOfMemory { limit_bytes: 64 << 20 });
    // What is written to /tmp and the root filesystem counts.
    let mut spec = host.spec(root, &["sh", "-c", "cat /dev/zero > /tmp/x"]);
    spec.bounds.tmp_bytes = 1 << 30;
    let (_, _, exit) = host.run(&spec);
    assert_eq!(exit, Exit::OutOfMemory { limit_bytes: 64 << 20 });
}

#[test]
fn the_number_of_processes_is_bounded() {
    let mut host = Host::new();
    // By the control group, or in a user namespace by a resource limit.
    if !host.cgroups.controllers().pids {
        assert!(!crate::host::is_root(), "root can limit processes on every host this runs on");
    }
    let root = host.busybox_image("processes", |_| {});
    let script = "n=0; while sleep 1000 & do n=$((n + 1)); echo $n; done";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.bounds.pids = 20;
    let (out, err, _) = host.run(&spec);
    // The shell itself is one of them.
    assert_eq!(out.lines().last(), Some("19"), "{out}{err}");
}

#[test]
fn processor_time_is_limited_and_counted() {
    let mut host = Host::new();
    if !host.cgroups.controllers().cpu {
        assert!(
            !crate::host::is_root(),
            "root can limit processor time on every host this runs on"
        );
        return;
    }
    let root = host.busybox_image("cpu", |_| {});
    let mut spec = host.spec(root, &["sh", "-c", "echo up; while :; do :; done"]);
    spec.bounds.cpu_millicores = Some(100);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    let used = |host: &Host| host.cgroups.usage(&spec.slot.name).unwrap();
    let before = std::time::Instant::now();
    let first = used(&host).cpu_ns;
    let wanted = 100_000_000;
    eventually("it uses processor time", || (used(&host).cpu_ns >= first + wanted).then_some(()));
    // 0.1 s of it at a tenth of a processor: about one second, never less than half of one.
    assert!(before.elapsed().as_millis() > 500, "{:?}", before.elapsed());
    assert!(used(&host).memory_bytes > 0 && used(&host).memory_bytes < 32 << 20);
    host.cgroups.kill_all(&spec.slot.name).unwrap();
    host.clean_up(&replica);
    assert_eq!(host.cgroups.usage(&spec.slot.name), None);
}
