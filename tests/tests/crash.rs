//! Functions that fail say why, and a server that is killed loses nothing.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pinnace_tests::{Census, Function, Gateway, eventually, gateway::pinnace, http, images::Image};
use serde_json::Value;

/// A census counts the whole host, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything a status says in words.
fn words(status: &Value) -> String {
    format!("{} {}", status["rollout"]["message"], status["conditions"])
}

#[test]
fn failures_are_told_in_words_a_person_understands() {
    let _turn = turn();
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let deploy = |name: &str, at_start: &str| {
        let function = Function::new(name, "hello:test").env("HELLO_AT_START", at_start);
        let function = function.with("limits", serde_json::json!({ "memory": "32Mi" }));
        let _ = gateway.try_deploy(&function).expect(202);
    };
    deploy("exits", "exit 3");
    deploy("ends", "exit 0");
    deploy("aborts", "abort");
    deploy("eats", "eat");
    deploy("idles", "idle");
    let told = |name: &str, what: &str| {
        gateway.until_within(Duration::from_secs(90), name, what, |status| {
            words(status).contains(what)
        })
    };
    told("exits", "exit code 3");
    told("ends", "must keep serving");
    told("aborts", "SIGABRT");
    told("eats", "out of memory");
    told("idles", "did not listen on port 8080");
    assert!(gateway.logs("exits").contains("about to: exit 3"), "the last words are kept");
    let answer = gateway.call("exits", b"");
    assert!(matches!(answer.status, 502..=504) && !answer.body.is_empty(), "{answer:?}");
    assert!(answer.header("x-openfaas-internal").is_some(), "{answer:?}");
}

#[test]
fn a_replica_that_dies_is_replaced_and_the_call_is_answered() {
    let _turn = turn();
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    for path in ["a/exit/7", "a/abort"] {
        let answer = gateway.call(path, b"");
        assert!(matches!(answer.status, 502 | 503), "{answer:?}");
        assert!(!answer.body.is_empty());
        eventually("it answers again", Duration::from_secs(20), || {
            (gateway.call("a", b"").status == 200).then_some(())
        });
    }
}

#[test]
fn memory_is_limited_and_the_rest_of_the_host_is_not_touched() {
    let _turn = turn();
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let function = Function::new("a", "hello:test");
    gateway.deploy(&function.with("limits", serde_json::json!({ "memory": "64Mi" })));
    gateway.call("a/eat/16", b"").expect(200);
    let answer = gateway.call("a/eat/200", b"");
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
    gateway.until("a", "it says why", |status| words(status).contains("out of memory"));
}

/// Callers that call all the time, and what came of it.
struct Load {
    stop: AtomicBool,
    good: AtomicU32,
    bad: Mutex<Vec<String>>,
}

/// Ends the load also when an assertion fails, else its threads would call for ever.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Server,
    Spawner,
}

/// Kills something under load, and answers how long it took until all answered, a function at zero too.
fn kill_under_load(gateway: &mut Gateway, names: &[&str], victim: Victim) -> Duration {
    gateway.scale("cold", 0);
    gateway.until("cold", "it is at zero", |status| {
        status["availableReplicas"].as_u64().unwrap_or(0) == 0
    });
    let load = Load { stop: false.into(), good: 0.into(), bad: Mutex::default() };
    let url = gateway.url();
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| {
        let _stopper = Stopper(&load.stop);
        for name in names {
            let (load, url) = (&load, format!("{url}/function/{name}"));
            scope.spawn(move || {
                while !load.stop.load(Ordering::Relaxed) {
                    match http::send("GET", &url, &[], b"") {
                        Ok(answer) if answer.status == 200 => {
                            load.good.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => load.bad.lock().unwrap().push(answer.text()),
                        // The call that was in flight when the server died.
                        Err(_) => std::thread::yield_now(),
                    }
                }
            });
        }
        let some = |load: &Load, more: u32| {
            let from = load.good.load(Ordering::Relaxed);
            eventually("calls are answered", Duration::from_secs(20), || {
                (load.good.load(Ordering::Relaxed) > from + more).then_some(())
            });
        };
        some(&load, 50);
        let begin = match victim {
            Victim::Server => {
                gateway.kill();
                let begin = Instant::now();
                gateway.up();
                begin
            }
            Victim::Spawner => {
                gateway.kill_spawner();
                Instant::now()
            }
        };
        for name in names.iter().chain(["cold"].iter()) {
            eventually("it answers", Duration::from_secs(20), || {
                (gateway.call(name, b"").status == 200).then_some(())
            });
        }
        took = begin.elapsed();
        some(&load, 50);
    });
    let bad = load.bad.into_inner().unwrap();
    assert!(bad.is_empty(), "calls that were not in flight failed: {bad:?}");
    took
}

/// How often something is killed unless the environment says otherwise (`cargo xtask soak` sets it).
fn kills(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |kills| kills.parse().expect("it is a number"))
}

/// Functions that run all the time, one that is at zero, and what there is of all.
fn settled() -> (Gateway, Census) {
    // As few slots as there ever are: with more their number follows what was needed lately.
    let gateway = Gateway::start_with(&["--slots", "4"]);
    gateway.deploy_hello("image");
    gateway.deploy(&Function::host("host", "cat"));
    gateway.deploy(&Function::new("cold", "hello:test").label("com.openfaas.scale.zero", "true"));
    // Once through everything, so that what is counted is what stays.
    gateway.call("image", b"").expect(200);
    gateway.call("host", b"").expect(200);
    // Three replicas and four slots. An init that is still on its way has not all its descriptors yet: what is counted is
    // what was there a moment ago too.
    let mut before = Census::default();
    let census = eventually("all slots are made", Duration::from_secs(20), || {
        let census = Census::take(&gateway.state_dir());
        let inits = census.processes.iter().filter(|process| process.ends_with(" pinnace-init"));
        let is_whole = inits.count() >= 7 && census.descriptors == before.descriptors;
        before = census.clone();
        is_whole.then_some(census)
    });
    (gateway, census)
}

/// Waits until nothing has grown since; slots are made again meanwhile, and idle connections closed.
fn assert_nothing_grew(gateway: &Gateway, before: &Census) {
    let mut grown = Vec::new();
    let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("nothing has grown", Duration::from_secs(20), || {
            grown = Census::take(&gateway.state_dir()).grown(before);
            grown.is_empty().then_some(())
        });
    }));
    assert!(settled.is_ok(), "there is more than before: {grown:?}");
}

#[test]
fn a_killed_server_comes_back_and_its_functions_never_left() {
    let _turn = turn();
    let (mut gateway, census) = settled();
    let processes =
        |gateway: &Gateway| gateway.call("image/read/proc/self/stat", b"").expect(200).text();
    let started = |stat: &str| stat.split(' ').nth(21).map(str::to_owned);
    let before = processes(&gateway);
    for _ in 0..kills("PINNACE_SOAK_KILLS", 30) {
        let took = kill_under_load(&mut gateway, &["image", "host"], Victim::Server);
        assert!(took < Duration::from_secs(2), "it took {took:?}");
    }
    let after = processes(&gateway);
    assert_eq!(started(&before), started(&after), "the replica is the same process");
    let kept = |name: &str| gateway.status(name).unwrap()["availableReplicas"].clone();
    assert_eq!((kept("image"), kept("host")), (1.into(), 1.into()));
    assert_nothing_grew(&gateway, &census);
}

#[test]
fn a_killed_spawner_is_replaced_and_no_call_fails() {
    let _turn = turn();
    let (mut gateway, census) = settled();
    for _ in 0..kills("PINNACE_SOAK_SPAWNER_KILLS", 10) {
        let took = kill_under_load(&mut gateway, &["image", "host"], Victim::Spawner);
        assert!(took < Duration::from_secs(2), "it took {took:?}");
    }
    assert_nothing_grew(&gateway, &census);
}

#[test]
fn nothing_is_left_after_a_stop_nor_after_a_crash_and_down() {
    let _turn = turn();
    let mut gateway = Gateway::start();
    let state_dir = gateway.state_dir();
    gateway.stop();
    let before = Census::take(&state_dir);
    gateway.up();
    gateway.deploy_hello("a");
    gateway.deploy(&Function::host("b", "cat"));
    gateway.scale("a", 3);
    gateway.until("a", "three replicas serve", |status| status["availableReplicas"] == 3);
    gateway.stop();
    Census::settle(&before, &state_dir);

    gateway.up();
    gateway.until("a", "it serves", |status| status["availableReplicas"].as_u64() >= Some(1));
    gateway.kill();
    let output = gateway.down();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Census::settle(&before, &state_dir);
}

/// As on a host whose `/run` is in memory, which where tests run it need not be.
#[test]
fn records_of_what_runs_may_lie_elsewhere() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("memory/pinnace");
    let mut gateway = Gateway::start_with(&["--run-dir", place.to_str().unwrap()]);
    gateway.deploy_hello("a");
    gateway.until("a", "it serves", |status| status["availableReplicas"] == 1);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    assert_eq!(gateway.call("a/write/tmp/mark", b"the same replica").status, 200);
    gateway.kill();
    // Where they lie is settled until `down`.
    gateway.set_flags(&[]);
    gateway.up();
    assert_eq!(gateway.call("a/read/tmp/mark", b"").body, b"the same replica");
    gateway.kill();
    assert!(gateway.doctor().contains("pinnace down"), "{}", gateway.doctor());
    let output = gateway.down();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!place.exists() && std::fs::symlink_metadata(gateway.state_dir().join("run")).is_err());
}

/// Ends what runs for a state directory.
fn down(state_dir: &Path) {
    let mut command = Command::new(pinnace());
    let output = command.arg("down").arg("--state-dir").arg(state_dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_end_of_a_copy_is_not_that_of_the_original() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    for flags in [vec![], vec!["--run-dir", folder.path().to_str().unwrap()]] {
        let gateway = Gateway::start_with(&flags);
        gateway.deploy_hello("a");
        let copy = gateway.state_dir().with_file_name("copy");
        let copied = Command::new("cp").arg("-a").arg(gateway.state_dir()).arg(&copy).status();
        assert!(copied.unwrap().success());
        down(&copy);
        gateway.scale("a", 2);
        gateway.until("a", "another is started", |status| status["availableReplicas"] == 2);
        gateway.call("a", b"").expect(200);
    }
}

#[test]
fn all_is_ended_though_its_records_are_gone() {
    let _turn = turn();
    let mut gateway = Gateway::start();
    let state_dir = gateway.state_dir();
    gateway.stop();
    let before = Census::take(&state_dir);
    // Each answers what `down` is then told.
    let losses: [fn(&Path) -> PathBuf; 3] = [
        |state_dir| {
            std::fs::remove_dir_all(state_dir.join("run")).unwrap();
            state_dir.to_owned()
        },
        |state_dir| {
            std::fs::remove_dir_all(state_dir).unwrap();
            state_dir.to_owned()
        },
        |state_dir| {
            let moved = state_dir.with_file_name("moved");
            std::fs::rename(state_dir, &moved).unwrap();
            moved
        },
    ];
    for lose in losses {
        gateway.up();
        if gateway.status("a").is_none() {
            gateway.deploy_hello("a");
        }
        gateway.until("a", "it serves", |status| status["availableReplicas"] == 1);
        gateway.kill();
        down(&lose(&state_dir));
        Census::settle(&before, &state_dir);
    }
}

#[test]
fn what_was_wished_for_holds_after_a_crash() {
    let _turn = turn();
    let mut gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.scale("a", 3);
    gateway.until("a", "three serve", |status| status["availableReplicas"] == 3);
    gateway.scale("a", 1);
    gateway.kill();
    gateway.up();
    let status = gateway.until("a", "one serves", |status| status["availableReplicas"] == 1);
    assert_eq!(status["replicas"], 1);
}

#[test]
fn a_function_that_a_call_has_woken_goes_on_after_a_crash() {
    let _turn = turn();
    let mut gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.scale("a", 0);
    gateway.until("a", "none is left", |status| status["availableReplicas"].as_u64().is_none());
    assert_eq!(gateway.call("a/write/tmp/mark", b"woken").status, 200);
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.call("a/read/tmp/mark", b"").body, b"woken");
}

#[test]
fn a_call_that_waits_ends_when_its_function_is_removed() {
    let _turn = turn();
    let gateway = Gateway::start();
    let never = Function::host("never", "sleep 1000")
        .env("mode", "http")
        .env("upstream_url", "http://127.0.0.1:9");
    let _ = gateway.try_deploy(&never).expect(202);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| gateway.call("never", b""));
        gateway.remove("never");
        let begin = Instant::now();
        let answer = call.join().unwrap();
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert!(begin.elapsed() < Duration::from_secs(20));
    });
}
