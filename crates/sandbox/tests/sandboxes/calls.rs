//! Which system calls reach the kernel, tried one by one from inside and, to show that they are tried at all,
//! from outside.

use std::{collections::BTreeMap, process::Command};

use pinnace_core::Exit;

use crate::host::{Host, is_root};

const ATTEMPTS: &str = include_str!("calls.py");

/// What [`ATTEMPTS`] says: group and answer by name.
fn parsed(said: &str) -> BTreeMap<String, (String, String)> {
    let line = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        let group = words.next().unwrap();
        (words.next().unwrap(), (group, words.next().unwrap()))
    };
    said.lines().map(line).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_that_it_may_not_make_are_refused() {
    let mut host = Host::new();
    let spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", ATTEMPTS]);
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{err}");
    let inside = parsed(&out);
    assert!(inside.len() > 100, "{out}{err}");
    for (name, (group, answer)) in &inside {
        let expected = match group.as_str() {
            "refused" => "EPERM",
            "unknown" | "rare" => "ENOSYS",
            "allowed" => "done",
            "fatal" => "SIGSYS",
            other => panic!("{other}"),
        };
        assert_eq!(answer, expected, "{name}");
    }
    if !is_root() {
        return;
    }
    // Of its own, so that nothing it may do shows here.
    let namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"];
    let mut command = Command::new("unshare");
    command.args(namespaces).args(["--mount-proc", "/usr/bin/python3", "-c", ATTEMPTS]);
    let outside = command.output().unwrap();
    assert!(outside.status.success(), "{}", String::from_utf8_lossy(&outside.stderr));
    let outside = parsed(&String::from_utf8(outside.stdout).unwrap());
    assert_eq!(outside.len(), inside.len());
    for (name, (group, answer)) in &outside {
        match group.as_str() {
            "allowed" => assert_eq!(answer, "done", "{name}"),
            "rare" => {}
            _ => assert_ne!(*answer, inside[name].1, "{name} is refused to root as well"),
        }
    }
}

#[test]
fn landlock_shuts_the_init_off_and_leaves_files_movable() {
    let mut host = Host::new();
    let script = "\
import ctypes, os, signal
libc = ctypes.CDLL(None)
print(libc.syscall(444, None, 0, 1))
try: os.kill(1, signal.SIGCONT); print('sent')
except PermissionError: print('refused')
pid = os.fork()
if pid == 0: signal.pause()
os.kill(pid, signal.SIGKILL); print(os.waitpid(pid, 0)[1])
for root in ('/', '/tmp/', '/dev/shm/'):
    os.makedirs(root + 'a/b'); os.makedirs(root + 'c')
    open(root + 'a/b/file', 'w').write('x')
    os.rename(root + 'a/b/file', root + 'c/file')
    os.link(root + 'c/file', root + 'a/file')
    os.rename(root + 'a/b', root + 'c/b')
    print(open(root + 'a/file').read())
";
    let spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    let (out, err, exit) = host.run(&spec);
    assert_eq!(exit, Exit::Code { code: 0 }, "{out}{err}");
    let abi: i32 = out.lines().next().unwrap().parse().unwrap();
    let signal = if abi >= 6 { "refused" } else { "sent" };
    assert_eq!(out, format!("{abi}\n{signal}\n9\nx\nx\nx\n"));
}
