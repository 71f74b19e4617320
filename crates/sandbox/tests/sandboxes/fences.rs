//! What a function cannot see, do or use up.

use std::{fs, os::unix::fs::symlink, path::Path};

use pinnace_core::Exit;
use pinnace_sandbox::protocol::Bind;

use rustix::process::{Resource, getrlimit};

use crate::host::{Host, is_root};

/// Runs a shell script that must succeed, and gives what it says.
pub fn told(host: &mut Host, script: &str) -> String {
    let (out, err, exit) = host.sh(script);
    assert_eq!(exit, Exit::Code { code: 0 }, "{script}: {out}{err}");
    out
}

#[test]
fn it_has_no_privileges() {
    let mut host = Host::new();
    let status = told(&mut host, "cat /proc/self/status");
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("NoNewPrivs").as_str(), value("Seccomp").as_str()), ("1", "2"));
    if is_root() {
        assert_eq!(value("Groups"), "");
    }
}

#[test]
fn its_ids_are_not_the_hosts() {
    let mut host = Host::new();
    let map = told(&mut host, "cat /proc/self/uid_map");
    let words: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
    if host.has_ranges {
        assert_eq!((words[0], words[2]), (0, 65_536));
        assert!(words[1] >= 1_000_000_000);
    } else if is_root() {
        assert_eq!(words, [0, 0, u32::MAX], "the host's own");
    } else {
        assert_eq!((words[0], words[2]), (0, 1));
    }
    let root = host.busybox_image("ids", |_| {});
    let spec = host.spec(root, &["sleep", "1000"]);
    let replica = host.start(&spec);
    let inits_user = || {
        let status = fs::read_to_string(format!("/proc/{}/status", replica.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    let own = rustix::process::getuid().as_raw();
    let expected = spec.slot.id_base.unwrap_or(own);
    crate::host::eventually("the init has its id", || (inits_user() == expected).then_some(()));
}

#[test]
fn it_sees_its_own_descriptors_only() {
    let mut host = Host::new();
    // The listing itself opens one more.
    let seen = told(&mut host, "ls /proc/self/fd");
    assert_eq!(seen, "0\n1\n2\n3\n");
    let links = told(&mut host, "ls -l /proc/self/fd");
    assert_eq!(links.matches("pipe:").count(), 2, "{links}");
    assert_eq!(links.matches("/dev/null").count(), 1, "{links}");
    for private in ["cat /proc/1/maps", "cat /proc/1/environ", "readlink /proc/1/fd/0"] {
        let (out, _, exit) = host.sh(private);
        assert_eq!(out, "", "{private}");
        assert_ne!(exit, Exit::Code { code: 0 }, "{private}");
    }
}

#[test]
fn it_sees_its_own_processes_and_its_own_network_only() {
    let mut host = Host::new();
    let processes = told(&mut host, "set -- /proc/[0-9]*; echo $#");
    assert_eq!(processes.trim(), "2", "init and shell");
    let devices = told(&mut host, "cat /proc/net/dev");
    assert_eq!(devices.lines().count(), 3, "two of heading, and lo: {devices}");
    assert!(devices.contains("lo:"));
}

#[test]
fn it_can_write_where_it_may_and_no_more_than_it_may() {
    let mut host = Host::new();
    told(&mut host, "echo a > /x; echo b > /tmp/b; mkdir /var/d; rm -r /var/d 2>/dev/null; cat /x");
    let (_, err, _) = host.sh("dd if=/dev/zero of=/tmp/big bs=1M count=5");
    assert!(err.contains("No space left"), "{err}");
    let (_, err, _) = host.sh("dd if=/dev/zero of=/big bs=1M count=9");
    assert!(err.contains("No space left"), "{err}");
    let mut root = host.busybox_image("read-only", |_| {});
    root.read_only = true;
    let script = "echo t > /tmp/t; cat /tmp/t; touch /x /etc/x; mkdir /d; cat /etc/hostname; pwd";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.working_dir = "/work/dir".into();
    let (out, err, _) = host.run(&spec);
    assert_eq!(out, "t\ninside\n/work/dir\n");
    assert_eq!(err.matches("ead-only").count(), 3, "{err}");
}

#[test]
fn an_image_cannot_lead_out_by_its_links() {
    let mut host = Host::new();
    // Not below /tmp, where a sandbox has its own.
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let outside = outside.path();
    let root = host.busybox_image("links", |layer| {
        // The same path is inside too, where these links must end.
        fs::create_dir_all(layer.join(outside.strip_prefix("/").unwrap()).join("d")).unwrap();
        symlink(outside, layer.join("etc")).unwrap();
        symlink(format!("../../../../../..{}/d", outside.display()), layer.join("dev")).unwrap();
        symlink("/var/../proc-is-here", layer.join("proc")).unwrap();
        symlink("../../../../../tmp/../bin", layer.join("data")).unwrap();
        symlink("/proc/self/root", layer.join("magic")).unwrap();
        fs::create_dir(layer.join("proc-is-here")).unwrap();
    });
    let bound = host.dir.path().join("bound");
    fs::write(&bound, "bound").unwrap();
    let script = "cat /data/hello/there /etc/d/null; ls /etc/ /proc-is-here/self/status";
    let mut spec = host.spec(root.clone(), &["/bin/busybox", "sh", "-c", script]);
    spec.binds = vec![Bind { source: bound.clone(), target: "/data/hello/there".into() }];
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{out}{err}");
    assert!(out.starts_with("bound"), "{out}{err}");
    // Through a link of /proc that the kernel would follow anywhere.
    let mut spec = host.spec(root, &["/bin/busybox", "true"]);
    spec.binds = vec![Bind { source: bound, target: "/magic/x".into() }];
    let (_, _, exit) = host.run(&spec);
    let Exit::CannotStart { reason } = exit else { panic!("{exit:?}") };
    assert!(reason.contains("/magic"), "{reason}");
    assert_eq!(host_files(outside), 0, "nothing was written outside");
    assert!(!Path::new("/bin/hello").exists());
}

#[test]
fn an_image_that_lays_its_tmp_over_its_dev_still_gets_the_null_device() {
    let mut host = Host::new();
    let root = host.busybox_image("one-place", |layer| {
        fs::create_dir(layer.join("place")).unwrap();
        symlink("/place", layer.join("dev")).unwrap();
        symlink("place", layer.join("tmp")).unwrap();
    });
    let spec = host.spec(root, &["/bin/busybox", "sh", "-c", "cat; ls /dev/; echo end"]);
    let (out, err, exit) = host.run(&spec);
    assert_eq!((out.as_str(), exit), ("end\n", Exit::Code { code: 0 }), "{err}");
}

#[test]
fn a_link_to_nowhere_in_the_image_is_told() {
    let mut host = Host::new();
    let outside = host.dir.path().join("nowhere");
    fs::create_dir(&outside).unwrap();
    let root = host.busybox_image("dangling", |layer| {
        symlink(&outside, layer.join("etc")).unwrap();
    });
    let spec = host.spec(root, &["/bin/busybox", "true"]);
    let (_, _, exit) = host.run(&spec);
    let Exit::CannotStart { reason } = exit else { panic!("{exit:?}") };
    assert!(reason.contains("/etc is a link to nowhere in the image"), "{reason}");
    assert_eq!(host_files(&outside), 0);
}

fn host_files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn binds_are_read_only_and_made_where_they_are_wanted() {
    let mut host = Host::new();
    let source = host.dir.path().join("secrets");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("key"), "s3cret").unwrap();
    let root = host.busybox_image("binds", |_| {});
    let script = "cat /var/openfaas/secrets/key /new/place/file; touch /var/openfaas/secrets/x";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.binds = vec![
        Bind { source: source.clone(), target: "/var/openfaas/secrets".into() },
        Bind { source: source.join("key"), target: "/new/place/file".into() },
    ];
    let (out, err, _) = host.run(&spec);
    assert_eq!(out, "s3crets3cret");
    assert!(err.contains("ead-only"), "{err}");
}

#[test]
fn files_of_layers_belong_to_the_sandboxes_own_users() {
    let mut host = Host::new();
    let root = host.busybox_image("owners", |layer| {
        fs::write(layer.join("bin/mine"), "x").unwrap();
        if is_root() {
            std::os::unix::fs::chown(layer.join("bin/mine"), Some(1000), Some(1001)).unwrap();
        }
    });
    let spec = host.spec(root, &["sh", "-c", "ls -ln /bin/mine /bin/busybox; touch /n; ls -ln /n"]);
    let (out, err, _) = host.run(&spec);
    let owners: Vec<(&str, &str)> = out
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[2], words[3])
        })
        .collect();
    let mine = if is_root() { ("1000", "1001") } else { ("0", "0") };
    assert_eq!(owners, [("0", "0"), mine, ("0", "0")], "{out}{err}");
}

#[test]
fn its_limits_cannot_be_raised_and_do_not_depend_on_the_servers() {
    let mut host = Host::new();
    let script = "\
import resource as r
for name in ('NOFILE', 'CORE', 'MEMLOCK', 'MSGQUEUE', 'SIGPENDING', 'NICE', 'RTPRIO', 'NPROC'):
    limit = getattr(r, 'RLIMIT_' + name)
    soft, hard = r.getrlimit(limit)
    try: r.setrlimit(limit, (hard + 1, hard + 1)); raised = 'raised'
    except (ValueError, OSError): raised = 'kept'
    print(name, soft == hard, hard, raised)
";
    let mut spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    spec.bounds.pids = 40;
    let own_namespace = spec.slot.id_base.is_some() || !is_root();
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{err}");
    // A small machine's kernel allows for fewer signals from the start.
    let signals = getrlimit(Resource::Sigpending).maximum.unwrap_or(u64::MAX).min(16_384);
    let expected = [
        ("NOFILE", 256),
        ("CORE", 0),
        ("MEMLOCK", 8 << 20),
        ("MSGQUEUE", 819_200),
        ("SIGPENDING", signals),
        ("NICE", 0),
        ("RTPRIO", 0),
        ("NPROC", 41),
    ];
    for (line, (name, most)) in out.lines().zip(expected) {
        if name != "NPROC" || own_namespace {
            assert_eq!(line, format!("{name} True {most} kept"));
        }
    }
    assert_eq!(out.lines().count(), expected.len());
}

#[test]
fn floods_of_empty_files_end_where_the_room_does() {
    let mut host = Host::new();
    let script = "\
import errno, os
for root in ('/', '/tmp/', '/dev/shm/'):
    for kind in ('file', 'directory', 'link', 'fifo'):
        place = root + kind
        os.mkdir(place)
        made = 0
        try:
            while True:
                name = f'{place}/{made}'
                if kind == 'file': os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
                if kind == 'directory': os.mkdir(name)
                if kind == 'link': os.symlink('x', name)
                if kind == 'fifo': os.mkfifo(name)
                made += 1
        except OSError as error:
            answer = errno.errorcode[error.errno]
        for name in os.listdir(place):
            (os.rmdir if kind == 'directory' else os.unlink)(f'{place}/{name}')
        os.rmdir(place)
        print(root, kind, answer, made)
";
    let mut spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    spec.bounds.memory_bytes = 256 << 20;
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{out}{err}");
    for line in out.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let made: u64 = words[3].parse().unwrap();
        // 8 MiB of written files, 4 MiB each of /tmp and /dev/shm.
        let most = if words[0] == "/" { 8192 } else { 4096 };
        assert_eq!(words[2], "ENOSPC", "{line}");
        assert!(made > 1000 && made <= most, "{line}");
    }
    assert_eq!(out.lines().count(), 12);
}

#[test]
fn a_working_directory_does_not_lead_out() {
    let mut host = Host::new();
    // The number of a directory of the host that is left open by whoever starts it (CVE-2024-21626), by
    // itself, behind a link of the image, and by the links of /proc to other roots.
    let root = host.busybox_image("cwd", |layer| {
        symlink("/proc/self/fd", layer.join("fds")).unwrap();
        symlink("../../../../../../proc/1/cwd", layer.join("cwd")).unwrap();
    });
    let numbers = (0..=50).map(|number| format!("/proc/self/fd/{number}"));
    let others = ["/fds/7", "/cwd", "/proc/1/root", "/proc/self/cwd/..", "/proc/thread-self/root"];
    for place in numbers.chain(others.map(str::to_owned)) {
        let mut spec = host.spec(root.clone(), &["sh", "-c", "pwd; ls"]);
        spec.working_dir.clone_from(&place);
        let (out, err, exit) = host.run(&spec);
        let Exit::CannotStart { reason } = exit else { panic!("{place}: {exit:?}, {out}{err}") };
        assert!(reason.contains("/proc") || reason.contains(&place), "{reason}");
    }
}
