//! A function that uses up all it can get does not make another one wait, and ends none of the platform.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pinnace_tests::{Function, Gateway};
use serde_json::json;

const HOG: &str = include_str!("neighbours/hog.py");

/// How long one thing is used up.
const HOG_TIME: Duration = Duration::from_secs(3);

/// Calls whose median is one sample.
const CALLS: usize = 100;

/// How much longer a call may take beside a hog, in the best of its samples. Two processors that are never idle cost a call
/// twice its time in switches and cold caches, and whatever else this machine does costs some samples more; a hog that is
/// not contained costs each a hundred times that.
const SLOWER_MAX: u32 = 4;

/// The middle one.
fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The middle one of so many calls' times.
fn median(gateway: &Gateway) -> Duration {
    let call = |_| {
        let start = Instant::now();
        gateway.call("neighbour", b"").expect(200);
        start.elapsed()
    };
    middle((0..CALLS).map(call).collect())
}

/// What a hog said, and the least of the medians of calls to its neighbour meanwhile.
fn beside(gateway: &Gateway, hog: &str) -> (u16, String, Duration) {
    let program = format!("HOG = {hog:?}; TIME = {}\n{HOG}", HOG_TIME.as_secs());
    let runs = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let answer = gateway.call("hog", program.as_bytes());
            runs.store(false, Ordering::Relaxed);
            (answer.status, answer.text())
        });
        let mut samples = Vec::new();
        while runs.load(Ordering::Relaxed) {
            samples.push(median(gateway));
        }
        let (status, said) = answer.join().unwrap();
        // The last one may have been taken when the hog was done.
        samples.pop();
        let best = samples.iter().min().copied();
        let best = best.unwrap_or_else(|| panic!("{hog}: no sample, {status} {said}"));
        (status, said, best)
    })
}

#[test]
fn a_hog_is_contained() {
    let gateway = Gateway::start();
    let hog = Function::host("hog", "/usr/bin/python3 -");
    gateway.deploy(&hog.with("limits", json!({ "memory": "320Mi" })));
    gateway.deploy_hello("neighbour");
    let alone = middle((0..10).map(|_| median(&gateway)).collect());
    let ends: [(&str, &[(u16, &str)]); 8] = [
        ("processor", &[(200, "")]),
        // A fork copies its tables before the kernel refuses it one process more, so memory may be what ends first.
        ("fork_without_end", &[(200, "EAGAIN"), (500, "killed")]),
        ("threads", &[(200, "refused")]),
        ("memory", &[(200, "")]),
        ("disk", &[(200, "ENOSPC")]),
        ("files", &[(200, "ENOSPC")]),
        // The kernel's buffers count as memory.
        ("sockets", &[(500, "killed")]),
        ("renames", &[(200, "")]),
    ];
    for (hog, ends) in ends {
        let (status, said, meanwhile) = beside(&gateway, hog);
        println!("{hog}: {status} {} {meanwhile:?}, alone {alone:?}", said.trim());
        let bounded = ends.iter().any(|&(end, bound)| status == end && said.contains(bound));
        assert!(bounded, "{hog} ended by none of {ends:?}: {status} {said}");
        assert!(meanwhile <= alone * SLOWER_MAX, "{hog}: {meanwhile:?}, alone {alone:?}");
        assert_eq!(gateway.api("GET", "/healthz", b"").status, 200);
    }
    // Another replica starts beside one, whose links have the kernel look twice.
    std::thread::scope(|scope| {
        let renames = scope.spawn(|| beside(&gateway, "renames"));
        gateway.scale("neighbour", 3);
        gateway.until("neighbour", "others serve", |status| status["availableReplicas"] == 3);
        renames.join().unwrap();
    });
}
