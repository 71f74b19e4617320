//! What goes on, and what is found again, when a spawner, a server or an init dies.

use std::{
    collections::BTreeSet,
    fs, io,
    net::TcpListener,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use pinnace_core::Exit;
use pinnace_sandbox::{
    adoption::Adopted,
    channel::Channel,
    client::SpawnerLink,
    protocol::{FromInit, ToInit, ToSpawner},
    sweep::sweep,
};

use crate::host::{Host, PATIENCE, Replica, eventually, has_ended};

/// Attaches to the init of the replica in `dir`, as a new server does; answers whether the function serves.
fn attach(dir: &Path) -> io::Result<(Channel, bool)> {
    let channel = Channel::connect(&dir.join("init.sock"))?;
    channel.set_recv_time_max(PATIENCE)?;
    channel.send(&ToInit::Attach, &[])?;
    match channel.recv::<FromInit>()? {
        Some((FromInit::Attached { ready }, pipes)) if pipes.len() == 2 => Ok((channel, ready)),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// How the replica in `dir` ended, as its init recorded it, or that it vanished.
fn exit_of(dir: &Path) -> Exit {
    let read = fs::read(dir.join("exit.json"));
    read.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or(Exit::Lost)
}

const TALKER: &str = "n=0; while :; do n=$((n + 1)); echo line $n; sleep 0.02; done";

fn talker(host: &mut Host, image: &str) -> Replica {
    let root = host.busybox_image(image, |_| {});
    let spec = host.spec(root, &["sh", "-c", TALKER]);
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("line 1\n");
    replica
}

#[test]
fn a_spawner_that_is_killed_takes_no_replica_along() {
    let mut host = Host::new();
    let mut replica = talker(&mut host, "spawner");
    host.replace_spawner();
    replica.hears_line("line 8\n");
    replica.attach().unwrap();
    replica.hears_line("line ");
    let (out, _, _) = host.sh("echo the new spawner works");
    assert_eq!(out, "the new spawner works\n");
    replica.stop(Duration::from_secs(10));
    assert_eq!(replica.exit(), Exit::Stopped);
    host.clean_up(&replica);
}

#[test]
fn a_new_server_takes_a_replica_over() {
    let mut host = Host::new();
    let mut replica = talker(&mut host, "server");
    let dir = replica.spec.slot.dir.clone();
    // The old server is gone without a word; its pipes with it, which must not end the function.
    replica.init = None;
    let adopted = Adopted::find(&dir).unwrap().unwrap();
    assert_eq!(adopted.pid, replica.pid);
    let (channel, ready) = attach(&dir).unwrap();
    assert!(!ready);
    // A second server replaces the first.
    replica.attach().unwrap();
    channel.set_recv_time_max(PATIENCE).unwrap();
    assert!(channel.recv::<FromInit>().unwrap().is_none());
    replica.hears_line("line ");
    assert!(!has_ended(adopted.pidfd.as_fd()));
    adopted.kill().unwrap();
    replica.wait_for_end();
}

#[test]
fn a_function_that_was_ready_is_so_for_the_next_server() {
    let mut host = Host::new();
    let script = "import os, time\nos.write(4, b'1')\ntime.sleep(1000)";
    let mut spec = host.spec(host.host_image(), &["/usr/bin/python3", "-c", script]);
    spec.listens = true;
    let path = spec.slot.dir.join("fn.sock");
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let mut replica = host.ask(&spec, &[listener.as_fd()]).unwrap();
    replica.attach().unwrap();
    if !replica.ready_at_attach {
        assert!(matches!(replica.hear(), Some((FromInit::Ready, _))));
    }
    assert!(attach(&spec.slot.dir).unwrap().1);
}

#[test]
fn an_init_that_is_killed_takes_everything_along() {
    let mut host = Host::new();
    let replica = talker(&mut host, "init");
    let function = eventually("the function is there", || {
        let children = format!("/proc/{0}/task/{0}/children", replica.pid);
        fs::read_to_string(children).unwrap().split_whitespace().next().map(str::to_owned)
    });
    let init = Adopted::find(&replica.spec.slot.dir).unwrap().unwrap();
    init.kill().unwrap();
    replica.wait_for_end();
    eventually("the function ends", || {
        (!Path::new("/proc").join(&function).exists()).then_some(())
    });
    assert!(replica.hear().is_none());
    assert_eq!(exit_of(&replica.spec.slot.dir), Exit::Lost);
    assert!(Adopted::find(&replica.spec.slot.dir).unwrap().is_none());
    host.clean_up(&replica);
    assert!(host.cgroups.list().is_empty());
}

#[test]
fn a_sweep_ends_what_nobody_wants_and_spares_the_rest() {
    let mut host = Host::new();
    let wanted = talker(&mut host, "wanted");
    let unwanted = talker(&mut host, "unwanted");
    let dead = talker(&mut host, "dead");
    Adopted::find(&dead.spec.slot.dir).unwrap().unwrap().kill().unwrap();
    dead.wait_for_end();
    let run_dir = host.dir.path().join("run");
    let name = |replica: &Replica| replica.spec.slot.name.clone();
    let keep = BTreeSet::from([name(&wanted)]);
    let swept = sweep(&run_dir, &host.cgroups, &keep).unwrap();
    assert_eq!(swept.ended, [name(&unwanted)]);
    assert_eq!(swept.removed, [name(&dead)]);
    assert!(swept.left.is_empty(), "{:?}", swept.left);
    assert!(has_ended(unwanted.pidfd.as_fd()) && !has_ended(wanted.pidfd.as_fd()));
    assert_eq!(fs::read_dir(&run_dir).unwrap().count(), 1);
    if host.cgroups.version().is_some() {
        assert_eq!(host.cgroups.list(), keep);
    }
}

#[test]
fn kept_sockets_reach_the_next_server() {
    let mut host = Host::new();
    let program = Path::new(env!("CARGO_BIN_EXE_pinnace-spawner"));
    let link = SpawnerLink::open(program, &host.config, std::process::Stdio::inherit()).unwrap();
    assert!(link.process.is_none(), "there is one already");
    assert!(link.lend().unwrap().is_empty());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    link.keep(&[("http".to_owned(), OwnedFd::from(listener))]).unwrap();
    drop(link);
    // Nobody accepts, but nobody is refused.
    let _caller = std::net::TcpStream::connect(address).unwrap();
    let next = SpawnerLink::open(program, &host.config, std::process::Stdio::inherit()).unwrap();
    let mut lent = next.lend().unwrap();
    assert_eq!((lent.len(), lent[0].0.as_str()), (1, "http"));
    TcpListener::from(lent.remove(0).1).accept().unwrap();
    next.channel.send(&ToSpawner::Quit, &[]).unwrap();
    let mut spawner = host.spawner.take().unwrap();
    assert!(spawner.wait().unwrap().success());
    assert!(std::net::TcpStream::connect(address).is_err(), "closed with the spawner");
}

#[test]
fn a_second_spawner_does_not_replace_the_first() {
    let mut host = Host::new();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_pinnace-spawner"))
        .args(host.config.to_args())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another spawner serves"), "{said}");
    host.server =
        SpawnerLink::open(Path::new("/nowhere"), &host.config, std::process::Stdio::inherit())
            .unwrap()
            .channel;
    assert_eq!(host.sh("echo still").0, "still\n");
}

#[test]
fn foreign_words_end_a_connection_and_not_the_spawner() {
    let mut host = Host::new();
    host.server.send(&"hello", &[]).unwrap();
    assert!(host.server.recv::<String>().unwrap().is_none());
    host.server =
        SpawnerLink::open(Path::new("/nowhere"), &host.config, std::process::Stdio::inherit())
            .unwrap()
            .channel;
    assert_eq!(host.sh("echo still").0, "still\n");
}
