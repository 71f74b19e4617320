//! A sandbox from its start to its end.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixListener},
    time::Duration,
};

use pinnace_core::Exit;
use pinnace_sandbox::protocol::{FromInit, ToInit};

use crate::host::Host;

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_function_runs_speaks_and_ends() {
    let mut host = Host::new();
    let (out, err, exit) = host.sh("echo out; echo err >&2; exit 3");
    assert_eq!((out.as_str(), err.as_str(), exit), ("out\n", "err\n", Exit::Code { code: 3 }));
    let (_, _, exit) = host.sh("exit 0");
    assert_eq!(exit, Exit::Code { code: 0 });
    let (_, _, exit) = host.sh("kill -11 $$");
    assert_eq!(exit, Exit::Signal { signal: 11 });
}

#[test]
fn the_spec_is_honoured() {
    let mut host = Host::new();
    let root = host.busybox_image("spec", |_| {});
    let script = "pwd; id; echo $GREETING; hostname; cat /etc/hostname; ulimit -n; ulimit -c";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.working_dir = "/made/here".into();
    (spec.user.uid, spec.user.gid, spec.user.groups) = (1000, 1001, vec![1002, 1003]);
    let (out, err, exit) = host.run(&spec);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(exit, Exit::Code { code: 0 }, "{err}");
    assert_eq!(lines[0], "/made/here");
    if crate::host::is_root() {
        assert_eq!(lines[1], "uid=1000 gid=1001 groups=1002,1003");
    } else {
        assert!(lines[1].starts_with("uid=0 gid=0"), "{}", lines[1]);
    }
    assert_eq!(lines[2..], ["hello", "inside", "inside", "256", "0"]);
}

#[test]
fn a_function_that_is_asked_to_stop_stops() {
    let mut host = Host::new();
    let root = host.busybox_image("stop", |_| {});
    let script = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done";
    let spec = host.spec(root, &["sh", "-c", script]);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    replica.stop(LONG);
    let (out, _) = replica.output();
    assert_eq!((out.as_str(), replica.exit()), ("\nbye\n", Exit::Stopped));
    host.clean_up(&replica);
}

#[test]
fn its_own_stop_signal_is_used() {
    let mut host = Host::new();
    let root = host.busybox_image("signal", |_| {});
    let script = "trap 'echo got it; exit' USR1; echo up; while :; do sleep 0.1; done";
    let mut spec = host.spec(root, &["sh", "-c", script]);
    spec.stop_signal = libc::SIGUSR1;
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    replica.stop(LONG);
    assert!(replica.output().0.contains("got it"));
    assert_eq!(replica.exit(), Exit::Stopped);
}

#[test]
fn a_function_that_will_not_stop_is_ended_with_all_it_started() {
    let mut host = Host::new();
    let root = host.busybox_image("stubborn", |_| {});
    let script = "trap '' TERM; sleep 1000 & echo up; while :; do sleep 0.1; done";
    let spec = host.spec(root, &["sh", "-c", script]);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    replica.stop(Duration::from_millis(50));
    assert_eq!(replica.exit(), Exit::Stopped);
    host.clean_up(&replica);
}

#[test]
fn what_it_leaves_behind_ends_with_it() {
    let mut host = Host::new();
    let (out, _, exit) = host.sh("sleep 1000 & (sleep 1000 &) ; echo done");
    assert_eq!((out.as_str(), exit), ("done\n", Exit::Code { code: 0 }));
}

#[test]
fn its_last_words_wait_for_a_server_that_comes_late() {
    let mut host = Host::new();
    let root = host.busybox_image("late", |_| {});
    let spec = host.spec(root, &["sh", "-c", "echo I cannot go on >&2; exit 9"]);
    let mut replica = host.start(&spec);
    crate::host::eventually("the exit is recorded", || replica.exit_on_disk());
    replica.attach().unwrap();
    let (_, err) = replica.output();
    assert_eq!((err.as_str(), replica.exit()), ("I cannot go on\n", Exit::Code { code: 9 }));
    host.clean_up(&replica);
}

#[test]
fn a_start_that_fails_says_what_to_change() {
    let mut host = Host::new();
    let mut reason = |name: &str, command: &str, content: Option<(&[u8], u32)>| {
        let root = host.busybox_image(name, |layer| {
            if let Some((content, mode)) = content {
                use std::os::unix::fs::PermissionsExt as _;
                let file = layer.join("bin/x");
                fs::write(&file, content).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            }
        });
        let spec = host.spec(root, &[command]);
        match host.run(&spec) {
            (_, _, Exit::CannotStart { reason }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        reason("missing", "nope", None),
        "its command nope was not found in PATH (/usr/bin:/bin)"
    );
    assert_eq!(reason("path", "/nope", None), "its command /nope was not found in the image");
    assert_eq!(
        reason("mode", "x", Some((b"#!/bin/sh\n", 0o644))),
        "its command x is not executable by user 0, group 0"
    );
    assert!(reason("other", "x", Some((b"no program", 0o755))).contains("no program for this"));
    assert!(reason("loader", "x", Some((b"#!/no/such\n", 0o755))).contains("interpreter"));
}

#[test]
fn a_start_that_is_refused_leaves_nothing() {
    let mut host = Host::new();
    let root = host.busybox_image("refused", |_| {});
    let mut spec = host.spec(root, &["true"]);
    spec.root.layers.push("/nowhere/layer".into());
    let reason = host.ask(&spec, &[]).err().unwrap();
    assert!(reason.contains("/nowhere/layer"), "{reason}");
    assert_eq!(fs::read_dir(&spec.slot.dir).unwrap().count(), 0);
    assert!(host.cgroups.list().is_empty());
    spec.slot.name = "../x".into();
    assert!(host.ask(&spec, &[]).err().unwrap().contains("DNS label"));
    spec.slot.name = "again".into();
    spec.root.layers.pop();
    spec.listens = true;
    assert!(host.ask(&spec, &[]).err().unwrap().contains("it needs 1"));
    spec.listens = false;
    let replica = host.ask(&spec, &[]).unwrap();
    assert!(host.ask(&spec, &[]).err().unwrap().contains("in use"));
    host.clean_up(&replica);
}

#[test]
fn an_init_that_refuses_says_why_however_fast_it_is() {
    let mut host = Host::new();
    let root = host.host_image();
    for _ in 0..30 {
        let mut spec = host.spec(root.clone(), &["true"]);
        spec.env.push("A=\0".into());
        host.prepare(&spec.slot);
        let reason = match host.ask(&spec, &[]) {
            Err(reason) => reason,
            Ok(mut replica) => {
                assert!(replica.attach().is_err());
                replica.wait_for_end();
                let exit = replica.exit_on_disk().unwrap();
                host.clean_up(&replica);
                let Exit::CannotStart { reason } = exit else { panic!("{exit:?}") };
                reason
            }
        };
        assert!(reason.contains("has a zero byte"), "{reason}");
    }
}

#[test]
fn a_function_that_listens_gets_its_listener_and_is_heard_when_ready() {
    let mut host = Host::new();
    let script = "import socket, os\n\
                  s = socket.socket(fileno=3)\n\
                  os.write(4, b'1')\n\
                  c, _ = s.accept()\n\
                  c.sendall(c.recv(100).upper())\n";
    let mut spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    spec.listens = true;
    let path = spec.slot.dir.join("fn.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut replica = host.ask(&spec, &[listener.as_fd()]).unwrap();
    drop(listener);
    replica.attach().unwrap();
    if !replica.ready_at_attach {
        assert!(matches!(replica.hear(), Some((FromInit::Ready, _))));
    }
    let mut caller = std::os::unix::net::UnixStream::connect(&path).unwrap();
    caller.write_all(b"ahoy").unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!((answer.as_str(), replica.exit()), ("AHOY", Exit::Code { code: 0 }));
}

#[test]
fn sockets_of_its_network_reach_a_function() {
    let mut host = Host::new();
    let script = "import socket\n\
                  s = socket.create_server(('127.0.0.1', 8080))\n\
                  print('up', flush=True)\n\
                  s.accept()[0].sendall(b'from inside')\n";
    let spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    replica.channel().send(&ToInit::Sockets { count: 3 }, &[]).unwrap();
    let Some((FromInit::Sockets, mut sockets)) = replica.hear() else { panic!("no sockets") };
    assert_eq!(sockets.len(), 3);
    let socket = sockets.remove(0);
    let flags = rustix::fs::fcntl_getfl(&socket).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
    rustix::fs::fcntl_setfl(&socket, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 8080));
    rustix::net::connect(&socket, &address).unwrap();
    let mut text = String::new();
    std::net::TcpStream::from(socket).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from inside");
    assert_eq!(replica.exit(), Exit::Code { code: 0 });
}

#[test]
fn too_many_sockets_end_the_connection_only() {
    let mut host = Host::new();
    let root = host.busybox_image("sockets", |_| {});
    let spec = host.spec(root, &["sleep", "1000"]);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    let count = pinnace_core::limits::SOCKETS_PER_REQUEST_MAX + 1;
    replica.channel().send(&ToInit::Sockets { count }, &[]).unwrap();
    assert!(replica.hear().is_none());
    replica.attach().unwrap();
    replica.stop(LONG);
    assert_eq!(replica.exit(), Exit::Stopped);
}

#[test]
fn the_host_image_runs_the_hosts_programs() {
    let mut host = Host::new();
    let run = |host: &mut Host, command: &[&str]| {
        let spec = host.spec(host.host_image(), command);
        let (out, err, exit) = host.run(&spec);
        assert_eq!(exit, Exit::Code { code: 0 }, "{command:?}: {err}");
        out
    };
    let python = "import ssl, json, multiprocessing, http.server, tempfile\n\
                  tempfile.TemporaryFile()\n\
                  with multiprocessing.Pool(2) as p: print(sum(p.map(abs, [-1, -2])))";
    assert_eq!(run(&mut host, &["/usr/bin/python3", "-c", python]), "3\n");
    let pipeline = "echo hello world | tr a-z A-Z | sed 's/WORLD/THERE/' | awk '{print $2}'";
    assert_eq!(run(&mut host, &["sh", "-c", pipeline]), "THERE\n");
    let listing = run(&mut host, &["ls", "-A", "/", "/root"]);
    for hosts in ["home", "work", "old_root", "boot", ".ssh", ".cargo"] {
        assert!(!listing.lines().any(|line| line == hosts), "{listing}");
    }
}
