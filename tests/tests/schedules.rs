//! Functions that are called by the clock.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pinnace_tests::{Function, Gateway, eventually};
use serde_json::Value;

/// How often the server is killed between two calls.
const KILLS: usize = 4;

/// A function that says at each call by which time it was due.
fn noting(name: &str, schedule: &str) -> Function {
    Function::host(name, "sh -c eval\t\"$NOTE\"")
        .env("NOTE", "echo due $Http_X_Scheduled_At $Http_X_Topic >&2")
        .annotation("topic", "cron-function")
        .annotation("schedule", schedule)
}

/// How often a function was called, by the time that it was due.
fn calls(gateway: &Gateway, name: &str) -> BTreeMap<String, usize> {
    let mut calls = BTreeMap::new();
    for line in gateway.logs(name).lines() {
        if let Some(("due", rest)) = line.split_once("due ").map(|(_, rest)| ("due", rest)) {
            let (time, topic) = rest.split_once(' ').unwrap();
            assert_eq!(topic, "cron-function");
            *calls.entry(time.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// The second of an hour that an RFC 3339 time is in.
fn second(time: &str) -> u32 {
    time[14..16].parse::<u32>().unwrap() * 60 + time[17..19].parse::<u32>().unwrap()
}

#[test]
fn each_due_time_is_called_for_once_though_the_server_is_killed() {
    let mut gateway = Gateway::start();
    gateway.deploy(&noting("tick", "* * * * * *"));
    for kill in 0..KILLS {
        let enough = (kill + 1) * 2;
        eventually("it is called", Duration::from_secs(20), || {
            (calls(&gateway, "tick").len() >= enough).then_some(())
        });
        gateway.kill();
        // Time must pass in which nobody serves.
        let down = Instant::now();
        eventually("a second has passed", Duration::from_secs(5), || {
            (down.elapsed() > Duration::from_millis(1100)).then_some(())
        });
        gateway.up();
    }
    let before = calls(&gateway, "tick").len();
    let seen = eventually("it goes on", Duration::from_secs(20), || {
        let seen = calls(&gateway, "tick");
        (seen.len() >= before + 2).then_some(seen)
    });
    let seconds: Vec<u32> = seen.keys().map(|time| second(time)).collect();
    for pair in seconds.windows(2) {
        assert_eq!((pair[0] + 1) % 3600, pair[1], "a due time is missing: {seen:?}");
    }
    // A call that was under way when the server was killed is delivered again.
    let repeated: usize = seen.values().map(|count| count - 1).sum();
    assert!(repeated <= KILLS, "{seen:?}");
}

#[test]
fn what_is_due_next_is_told_and_what_is_not_understood() {
    let gateway = Gateway::start();
    gateway.login();
    let two = "@every 1h; CRON_TZ=Europe/Berlin 0 6 1 1 *";
    gateway.deploy(&noting("two", two));
    gateway.deploy(&noting("bad", "every now and then"));
    gateway.deploy(&Function::host("none", "cat").annotation("schedule", "* * * * *"));
    let listed = eventually("all are listed", Duration::from_secs(10), || {
        let output = gateway.cli(&["schedule", "ls", "--json"]);
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        (listed.as_array().unwrap().len() == 3).then_some(listed)
    });
    assert_eq!(listed[0]["function"], "bad");
    assert!(listed[0]["error"].as_str().unwrap().contains("every now and then"), "{listed}");
    assert_eq!(
        (&listed[1]["schedule"], listed[1]["next"].is_string()),
        (&"@every 1h".into(), true)
    );
    assert!(listed[2]["next"].as_str().unwrap().contains("-01-01T05:00:00Z"), "{listed}");
    let conditions = gateway.status("bad").unwrap()["conditions"].to_string();
    assert!(conditions.contains("is not understood"), "{conditions}");
    let shown = gateway.cli(&["schedule", "ls"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("CRON_TZ=Europe/Berlin 0 6 1 1 *"));
    gateway.remove("two");
    eventually("it is forgotten", Duration::from_secs(10), || {
        let output = gateway.cli(&["schedule", "ls", "--json"]);
        (!String::from_utf8_lossy(&output.stdout).contains("two")).then_some(())
    });
}

#[test]
fn a_changed_schedule_counts_from_its_change() {
    let gateway = Gateway::start();
    gateway.deploy(&noting("tick", "* * * * * *"));
    eventually("it is called", Duration::from_secs(20), || {
        (!calls(&gateway, "tick").is_empty()).then_some(())
    });
    assert_eq!(gateway.try_update(&noting("tick", "0 0 1 1 *")).status, 202);
    let quiet = eventually("it is quiet", Duration::from_secs(20), || {
        let before = calls(&gateway, "tick").len();
        let since = Instant::now();
        eventually("two seconds pass", Duration::from_secs(5), || {
            (since.elapsed() > Duration::from_secs(2)).then_some(())
        });
        (calls(&gateway, "tick").len() == before).then_some(before)
    });
    assert!(quiet > 0);
}

#[test]
fn others_may_see_to_schedules() {
    let gateway = Gateway::start_with(&["--no-schedules"]);
    gateway.deploy(&noting("tick", "* * * * * *"));
    let since = Instant::now();
    eventually("two seconds pass", Duration::from_secs(5), || {
        (since.elapsed() > Duration::from_secs(2)).then_some(())
    });
    assert!(calls(&gateway, "tick").is_empty());
}
