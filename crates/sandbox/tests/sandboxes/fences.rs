//! What a function cannot see, do or use up.

use std::{fs, os::unix::fs::symlink, path::Path};

use pinnace_core::Exit;
use pinnace_sandbox::protocol::Bind;

use crate::host::{Host, is_root};

/// Runs a shell script that must succeed, and gives what it says.
fn told(host: &mut Host, script: &str) -> String {
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
fn what_of_proc_concerns_the_host_is_hidden() {
    let mut host = Host::new();
    for name in ["kcore", "keys", "timer_list", "sched_debug", "latency_stats"] {
        if Path::new("/proc").join(name).exists() {
            assert_eq!(told(&mut host, &format!("cat /proc/{name} | wc -c")).trim(), "0");
        }
    }
    for name in ["acpi", "scsi"] {
        if Path::new("/proc").join(name).exists() {
            assert_eq!(told(&mut host, &format!("ls -A /proc/{name} | wc -l")).trim(), "0");
        }
    }
    assert_eq!(told(&mut host, "ls -A /sys/firmware 2>/dev/null | wc -l").trim(), "0");
    for path in ["/proc/sys/kernel/hostname", "/proc/sys/vm/x", "/proc/fs/x"] {
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
fn calls_that_it_may_not_make_are_refused() {
    let mut host = Host::new();
    let script = r"
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def error(number, *args):
    ctypes.set_errno(0)
    libc.syscall(number, *args)
    return errno.errorcode.get(ctypes.get_errno(), 'none')
print('unshare', error(272, 0x10000000))
print('mount', error(165, 0, 0, 0, 0, 0))
print('ptrace', error(101, 0, 0, 0, 0))
print('clone', error(56, 0x10000000 | 17, 0, 0, 0, 0))
print('clone3', error(435, 0, 0))
print('bpf', error(321, 0, 0, 0))
print('keyctl', error(250, 0, 0, 0, 0, 0))
print('io_uring', error(425, 1, 0))
print('personality', error(135, 0x0040000))
print('future', error(9999))
print('getpid', error(39))
try: socket.socket(38, socket.SOCK_SEQPACKET); print('af_alg none')
except OSError as e: print('af_alg', errno.errorcode[e.errno])
pid = os.fork()
if pid == 0: os._exit(5)
print('fork', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{err}");
    let expected = "unshare EPERM\nmount EPERM\nptrace EPERM\nclone EPERM\nclone3 ENOSYS\nbpf EPERM\n\
                    keyctl EPERM\nio_uring EPERM\npersonality ENOSYS\nfuture ENOSYS\ngetpid none\n\
                    af_alg ENOSYS\nfork 5\n";
    assert_eq!(out, expected);
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
