//! `pinnace doctor` tells what a host can do and what is left on it, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use pinnace_tests::{Gateway, eventually, gateway::pinnace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The user that owns nothing.
const NOBODY: &str = "65534";

fn run(mut command: Command, state_dir: &Path, arguments: &[&str]) -> Output {
    command.arg("doctor").arg("--state-dir").arg(state_dir).args(arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

fn doctor(state_dir: &Path, arguments: &[&str]) -> Output {
    run(Command::new(pinnace()), state_dir, arguments)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The check of a name.
fn check(state_dir: &Path, name: &str) -> Option<Value> {
    let output = doctor(state_dir, &["--output", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = found["groups"].as_array().unwrap().iter();
    let mut checks = groups.flat_map(|group| group["checks"].as_array().unwrap());
    checks.find(|check| check["name"] == name).cloned()
}

#[test]
fn root_hears_what_the_host_can_do() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let output = doctor(&state, &[]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for group in
        ["Kernel", "State directory", "Limits", "Network", "Clock", "Pinnaces on this host"]
    {
        assert!(said.lines().any(|line| line == group), "{group} is missing:\n{said}");
    }
    // Whatever is not well comes with what to do about it.
    let lines: Vec<_> = said.lines().collect();
    for (line, next) in lines.iter().zip(&lines[1..]) {
        let advised = next.trim_start().starts_with("to mend: ");
        assert_eq!(
            advised,
            line.starts_with("  less") || line.starts_with("  no"),
            "{line}\n{next}"
        );
    }
    assert_eq!(check(&state, "user").unwrap()["found"], "root");
    assert!(!state.exists(), "a look makes nothing");
}

#[test]
fn an_ordinary_user_hears_what_is_less_and_where_nothing_runs() {
    let folder = tempfile::Builder::new().prefix("pinnace-test-").tempdir().unwrap();
    // The build's own directory may be closed to others.
    let binary = folder.path().join("pinnace");
    fs::copy(pinnace(), &binary).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open).unwrap();
    let as_nobody = |state: &Path| {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
        ]);
        command.arg(&binary).env("TMPDIR", "/proc").current_dir("/");
        run(command, state, &[])
    };
    let closed = as_nobody(&folder.path().join("state"));
    let said = text(&closed);
    assert_eq!(closed.status.code(), Some(1), "{said}");
    assert!(said.contains("  no    directory") && said.contains("may not be written to"), "{said}");
    assert!(said.contains("--state-dir"), "{said}");

    let own = folder.path().join("own");
    fs::create_dir(&own).unwrap();
    let id = NOBODY.parse().ok();
    std::os::unix::fs::chown(&own, id, id).unwrap();
    let said = text(&as_nobody(&own));
    assert!(said.contains("less  user                65534, not root"), "{said}");
    assert!(said.contains("ok    directory"), "{said}");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0, "a look writes nothing");
}

/// Whether a slot has a replica, not only a parked init, which ends with its spawner.
fn has_replica(slot: &Path) -> bool {
    fs::metadata(slot.join("replica.json")).unwrap().len() > 0
}

/// Ends an init without a word.
fn kill_init(replica: &Path) {
    let pid = fs::read_to_string(replica.join("pid")).unwrap();
    let pid = pid.split(' ').next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    kill_process(pid.unwrap(), Signal::KILL).unwrap();
}

#[test]
fn what_dead_pinnaces_left_is_found_and_the_advice_removes_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start();
    gateway.deploy_hello("a");
    let name = gateway.state_dir().canonicalize().unwrap().display().to_string();
    let seen = || check(elsewhere.path(), &name);
    let running = seen().unwrap();
    let runs = format!("runs: process {}, 1 replica", gateway.pid());
    assert_eq!(running["found"], runs, "{running:#}");

    gateway.kill();
    gateway.kill_spawner();
    let left = eventually("the spawner is gone", Duration::from_secs(20), || {
        seen().filter(|left| left["verdict"] == "less")
    });
    let found = left["found"].as_str().unwrap();
    assert!(
        found.contains("no server runs") && found.contains("process"),
        "its replica lives: {found}"
    );

    let slots = fs::read_dir(gateway.state_dir().join("run/slots")).unwrap().flatten();
    for slot in slots.filter(|slot| has_replica(&slot.path())) {
        kill_init(&slot.path());
    }
    let own = || check(&gateway.state_dir(), &name);
    let left = eventually("nothing lives", Duration::from_secs(20), || {
        own().filter(|left| !left["found"].as_str().unwrap().contains("process"))
    });
    let found = left["found"].as_str().unwrap();
    assert!(found.contains("directories") && found.contains("control group"), "{found}");

    let advice = left["mend"].as_str().unwrap();
    let command = advice.strip_prefix("pinnace ").unwrap().split(" ends").next().unwrap();
    let mended = Command::new(pinnace()).args(command.split(' ')).output().unwrap();
    assert!(mended.status.success(), "{}", text(&mended));
    assert_eq!(own(), None, "nothing is left of it");
}
