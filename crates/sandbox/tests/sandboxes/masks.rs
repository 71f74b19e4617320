//! What of the host shows in /proc, /sys and /dev.

use std::{fs, path::Path};

use pinnace_core::Exit;

use crate::{
    fences::told,
    host::{Host, is_root},
};

#[test]
fn what_of_proc_concerns_the_host_is_hidden() {
    let mut host = Host::new();
    for name in ["interrupts", "kcore", "keys", "timer_list", "sched_debug", "latency_stats"] {
        if Path::new("/proc").join(name).exists() {
            assert_eq!(told(&mut host, &format!("cat /proc/{name} | wc -c")).trim(), "0");
        }
    }
    for name in ["acpi", "asound", "scsi"] {
        if Path::new("/proc").join(name).exists() {
            assert_eq!(told(&mut host, &format!("ls -A /proc/{name} | wc -l")).trim(), "0");
        }
    }
    for name in ["firmware", "devices/virtual/powercap", "devices/system/cpu/cpu0/thermal_throttle"]
    {
        let listed = told(&mut host, &format!("ls -A /sys/{name} 2>/dev/null | wc -l"));
        assert_eq!(listed.trim(), "0", "{name}");
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/x",
        "/proc/fs/x",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
    ] {
        if !Path::new(path).parent().is_some_and(Path::exists) {
            continue;
        }
        let (_, err, exit) = host.sh(&format!("echo 1 > {path}"));
        assert_ne!(exit, Exit::Code { code: 0 }, "{path}");
        assert!(err.contains("ead-only") || err.contains("nonexistent"), "{path}: {err}");
    }
    let (_, err, _) = host.sh("touch /sys/kernel/x /dev/x");
    assert_eq!(err.matches("ead-only").count(), 2, "{err}");
}

#[test]
fn its_control_group_shows_and_no_other() {
    let mut host = Host::new();
    let names = told(&mut host, "cat /proc/self/cgroup");
    assert!(names.lines().all(|line| line.ends_with(":/")), "{names}");
    if host.cgroups.version() == Some(2) {
        shows_its_control_group(&mut host);
    } else {
        assert_eq!(told(&mut host, "ls -A /sys/fs/cgroup | wc -l").trim(), "0");
    }
}

/// A function reads what it is limited to, and changes nothing of it.
pub fn shows_its_control_group(host: &mut Host) {
    let has = host.cgroups.controllers();
    for (there, file, expected) in [
        (has.memory, "memory.max", "67108864\n"),
        (has.cpu, "cpu.max", "max 100000\n"),
        // The init is one of them.
        (has.pids, "pids.max", "65\n"),
    ] {
        if there {
            assert_eq!(told(host, &format!("cat /sys/fs/cgroup/{file}")), expected, "{file}");
        }
    }
    let there = told(
        host,
        "cd /sys/fs/cgroup; for one in *; do [ -d $one ] && echo $one; done; cat cgroup.procs",
    );
    assert_eq!(there.lines().next(), Some("1"), "its own init, and no group below: {there}");
    let script = "cd /sys/fs/cgroup; set -- *; echo $#; for one; do echo 1 > $one; done; mkdir x";
    let (out, err, _) = host.sh(script);
    let files: usize = out.trim().parse().unwrap();
    assert!(files > 10 && err.matches("ead-only").count() == files + 1, "{files}: {err}");
}

#[test]
fn devices_work_and_no_others_are_there() {
    let mut host = Host::new();
    let listed = told(&mut host, "ls /dev");
    let expected = [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let works = "head -c 5 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; \
                 echo x > /dev/null; echo y > /dev/shm/y; cat /dev/shm/y; echo z > /dev/stdout";
    assert_eq!(told(&mut host, works), "5\n5\ny\nz\n");
}

#[test]
fn device_nodes_are_the_hosts_and_cannot_be_exchanged() {
    let mut host = Host::new();
    let numbers = "cd /dev; stat -c '%F %t:%T' null zero full random urandom tty; rm -f null; mv zero z; \
                   ln -sf /etc/passwd null; ls /dev/pts";
    let (out, err, _) =
        host.sh(&numbers.replace("stat", "busybox stat").replace("; rm", "; busybox rm"));
    let nodes: Vec<&str> = out.lines().collect();
    let expected = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    for (line, number) in nodes.iter().zip(expected) {
        assert_eq!(*line, format!("character special file {number}"));
    }
    assert_eq!(nodes[6..], ["ptmx"], "{out}{err}");
    assert!(err.matches("ead-only").count() >= 1, "{err}");
}

#[test]
fn an_images_own_devices_do_not_take_the_place_of_the_real_ones() {
    let mut host = Host::new();
    // As if it were to be laid over what is hidden, and be read there (CVE-2025-31133).
    let root = host.busybox_image("false-null", |layer| {
        fs::create_dir_all(layer.join("dev/pts")).unwrap();
        fs::create_dir_all(layer.join("elsewhere")).unwrap();
        for name in ["dev/null", "dev/ptmx", "dev/console", "elsewhere/null"] {
            fs::write(layer.join(name), "from the image").unwrap();
        }
    });
    let script = "cat /dev/null /proc/keys /proc/timer_list | wc -c; ls /dev";
    let spec = host.spec(root, &["sh", "-c", script]);
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{err}");
    assert!(out.starts_with("0\n"), "{out}");
    assert!(!out.contains("console"), "{out}");
}

#[test]
fn what_only_the_hosts_root_may_read_stays_hidden_where_ids_are_shared() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    let root = host.busybox_image("shared-ids", |_| {});
    let script = "cat /proc/slabinfo /proc/vmallocinfo /proc/kpageflags /proc/pagetypeinfo | wc -c";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    for id_base in [None, spec.slot.id_base] {
        spec.slot.id_base = id_base;
        let (out, _, _) = host.run(&spec);
        assert_eq!(out, "0\n");
        fs::create_dir(&spec.slot.dir).unwrap();
    }
}
