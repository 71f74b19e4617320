//! What functions write is kept, followed live, and outlives them.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use pinnace_tests::{Gateway, eventually, http};
use serde_json::Value;

#[test]
fn both_outputs_are_kept_and_outlive_the_replica() {
    let mut gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.call("a/say/first", b"").expect(200);
    let both = |gateway: &Gateway, word: &str| {
        let logs = gateway.logs("a");
        (logs.contains(&format!("\n{word}\n")) && logs.contains(&format!("error: {word}\n")))
            .then_some(())
    };
    eventually("both lines are in the log", Duration::from_secs(10), || both(&gateway, "first"));
    gateway.scale("a", 0);
    gateway.until("a", "none is left", |status| status["availableReplicas"].as_u64().is_none());
    assert!(both(&gateway, "first").is_some(), "{}", gateway.logs("a"));
    gateway.call("a/say/second", b"").expect(200);
    eventually("the second replica's lines follow", Duration::from_secs(10), || {
        both(&gateway, "second")
    });
    gateway.stop();
    gateway.up();
    assert!(both(&gateway, "first").is_some() && both(&gateway, "second").is_some());
}

#[test]
fn lines_have_the_shape_that_clients_read() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    for word in ["one", "two", "three"] {
        gateway.call(&format!("a/say/{word}"), b"").expect(200);
    }
    // It says each word on standard output and on standard error, which come by pipes of their own.
    eventually("all are in the log", Duration::from_secs(10), || {
        (gateway.logs("a").matches("three").count() == 2).then_some(())
    });
    let answer = gateway.api("GET", "/system/logs?name=a&follow=false&tail=2", b"").expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in &lines {
        assert_eq!(line["name"], "a");
        assert_eq!(line["namespace"], "openfaas-fn");
        assert!(!line["instance"].as_str().unwrap().is_empty());
        assert!(line["timestamp"].as_str().unwrap().contains('T'));
        assert!(line["text"].as_str().unwrap().contains("three"));
    }
    gateway.api("GET", "/system/logs?name=a&tail=many", b"").expect(422);
}

#[test]
fn a_follower_sees_a_line_as_it_is_written() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let password = BASE64_STANDARD.encode(format!("admin:{}", gateway.password()));
    let authorization = format!("Basic {password}");
    let address = gateway.address().to_string();
    let path = "/system/logs?name=a&follow=true";
    let mut lines = http::lines(&address, path, &[("Authorization", &authorization)]).unwrap();
    assert!(lines.next().unwrap().contains("200"));
    gateway.call("a/say/live", b"").expect(200);
    // The stream does not end: what ends this is the line itself, or the reader's deadline.
    assert!(lines.any(|line| line.contains("\"live\"")), "the stream ended without the line");
}

#[test]
fn a_flood_is_bounded_and_costs_no_other_function_anything() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let flood = pinnace_tests::Function::host("flood", "sh -c eval\t\"$SCRIPT\"").env(
        "SCRIPT",
        "head -c 50000000 /dev/zero | tr '\\0' x >&2; yes line | head -n 2000000 >&2",
    );
    gateway.deploy(&flood);
    gateway.call("flood", b"").expect(200);
    gateway.call("a", b"").expect(200);
    let mut bytes = 0;
    let mut folders = vec![gateway.state_dir().join("logs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                bytes += entry.metadata().unwrap().len();
            }
        }
    }
    assert!((1..64 << 20).contains(&bytes), "{bytes} bytes of log files");
}
