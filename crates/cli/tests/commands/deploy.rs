//! Deploying, and waiting until a function is ready.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    server::{Reply, Seen, Server},
};

const DEPLOY: [&str; 6] = ["deploy", "hello", "--image", "host", "--fprocess", "cat"];

/// A gateway where a deploy goes through these phases, one at each look.
fn rolling(phases: &'static [(&'static str, &'static str)]) -> Server {
    let looks = AtomicUsize::new(0);
    Server::start(move |seen: &Seen| match seen.method.as_str() {
        "PUT" => Reply::new(404, "no such function\n"),
        "POST" => Reply::new(202, ""),
        _ => {
            let look = looks.fetch_add(1, Ordering::SeqCst).min(phases.len() - 1);
            let (phase, message) = phases[look];
            let status = json!({
                "name": "hello", "image": "host", "labels": {}, "annotations": {}, "createdAt": "",
                "rollout": { "revision": 1, "phase": phase, "message": message },
            });
            Reply::new(200, status.to_string())
        }
    })
}

#[test]
fn puts_then_posts_then_waits_until_ready() {
    let server =
        rolling(&[("progressing", "starting 1 of 1"), ("progressing", "probing"), ("ready", "")]);
    let ran = Bench::new(&server.url).run(&DEPLOY).ok();
    let put_post = ["PUT /system/functions", "POST /system/functions"];
    let looks = ["GET /system/function/hello"; 3];
    assert_eq!(server.lines(), [&put_post[..], &looks[..]].concat());
    assert_eq!(server.seen()[0].body, server.seen()[1].body);
    assert_eq!(
        ran.out(),
        format!("\nDeployed. 202 Accepted.\nURL: {}/function/hello\n\n", server.url)
    );
    assert_eq!(ran.stderr, "hello: starting 1 of 1\nhello: probing\nhello is ready.\n");
}

#[test]
fn the_pull_policy_is_an_annotation_and_news_are_waited_for() {
    let server = rolling(&[
        ("progressing", "pulling a:1: 1 of 5 layers, 10 of 120 MB"),
        ("progressing", "pulling a:1: 1 of 5 layers, 20 of 120 MB"),
        ("progressing", "pulling a:1: 2 of 5 layers, 30 of 120 MB"),
        ("progressing", "unpacking"),
        ("ready", ""),
    ]);
    let words = ["deploy", "hello", "--image", "a:1", "--pull", "always", "--timeout", "250ms"];
    let ran = Bench::new(&server.url).run(&words).ok();
    let sent: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(sent["annotations"]["dev.pinnace.pull"], "always");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let first = "hello: pulling a:1: 1 of 5 layers, 10 of 120 MB";
    assert_eq!(lines, [first, "hello: unpacking", "hello is ready."], "not every megabyte is said");
    Bench::new(&server.url).run(&[&DEPLOY[..], &["--pull", "often"]].concat()).failed(2, "never");
}

#[test]
fn a_failed_rollout_is_a_failure_with_its_reason() {
    let server = rolling(&[("progressing", "starting"), ("failed", "exec: /bin/nope: not found")]);
    let ran = Bench::new(&server.url).run(&DEPLOY);
    ran.failed(1, "hello was deployed but cannot serve: exec: /bin/nope: not found");
}

#[test]
fn waiting_has_an_end() {
    let server = rolling(&[("progressing", "starting")]);
    let words = [&DEPLOY[..], &["--timeout", "300ms"]].concat();
    Bench::new(&server.url).run(&words).failed(1, "hello is not ready after 0 s (starting)");
}

#[test]
fn without_waiting_nothing_is_asked() {
    let server = rolling(&[("failed", "x")]);
    Bench::new(&server.url).run(&[&DEPLOY[..], &["--no-wait"]].concat()).ok();
    assert_eq!(server.lines().len(), 2);
}

#[test]
fn a_gateway_without_rollouts_is_not_waited_for() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "GET" => Reply::new(200, r#"{"name":"hello","image":"host","labels":{},"annotations":{}}"#),
        _ => Reply::new(202, ""),
    });
    let ran = Bench::new(&server.url).run(&DEPLOY).ok();
    assert_eq!(server.lines(), ["PUT /system/functions", "GET /system/function/hello"]);
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_deploy_that_cannot_be_looked_at_is_no_failure() {
    for answer in [Reply::new(404, ""), Reply::new(403, "not for you"), Reply::new(200, "?")] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "GET" => answer.clone(),
            _ => Reply::new(202, ""),
        });
        let ran = Bench::new(&server.url).run(&DEPLOY).ok();
        let said = "whether hello is ready is not known: ";
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert_eq!(server.lines().len(), 2);
    }
}

#[test]
fn a_function_that_is_removed_during_its_rollout_is_a_failure() {
    let looks = AtomicUsize::new(0);
    let server = Server::start(move |seen| match seen.method.as_str() {
        "GET" if looks.fetch_add(1, Ordering::SeqCst) > 0 => Reply::new(404, ""),
        "GET" => {
            let rollout = json!({ "revision": 1, "phase": "progressing", "message": "x" });
            Reply::new(200, json!({ "name": "hello", "rollout": rollout }).to_string())
        }
        _ => Reply::new(202, ""),
    });
    Bench::new(&server.url).run(&DEPLOY).failed(1, "was removed while it was being rolled out");
}

#[test]
fn json_for_scripts() {
    let server = rolling(&[("ready", "serving")]);
    let ran =
        Bench::new(&server.url).run(&[&DEPLOY[..], &["-o", "json", "-n", "dev"]].concat()).ok();
    let expected = json!([{
        "name": "hello", "namespace": "dev", "status": 202,
        "url": format!("{}/function/hello.dev", server.url),
        "rollout": { "revision": 1, "phase": "ready", "message": "serving" },
    }]);
    assert_eq!(serde_json::from_slice::<Value>(&ran.stdout).unwrap(), expected);
}

#[test]
fn one_function_of_a_stack_file_by_name() {
    let server = rolling(&[("ready", "")]);
    let stack =
        "provider: {name: openfaas}\nfunctions:\n  hello: {image: host}\n  other: {image: a}\n";
    let bench = Bench::new(&server.url).file("stack.yml", stack);
    bench.run(&["deploy", "hello", "--no-wait"]).ok();
    assert_eq!(server.lines().len(), 2);
    let sent: Value = serde_json::from_slice(&server.seen()[1].body).unwrap();
    assert_eq!((&sent["service"], &sent["image"]), (&json!("hello"), &json!("host")));
    bench.run(&["deploy", "nope"]).failed(2, "has no function nope, only hello, other");
}

#[test]
fn every_fault_of_a_stack_file_is_reported_and_nothing_is_sent() {
    let server = rolling(&[("ready", "")]);
    let stack = "version: 3\nprovider: {name: faas}\nfunctions:\n  Bad_Name: {image: a}\n  b: {image: [x]}\n";
    let ran = Bench::new(&server.url).file("stack.yaml", stack).run(&["deploy"]);
    let ran = ran.failed(1, "stack.yaml has 5 faults:");
    for line in [
        "line 1: version",
        "line 2: provider.name",
        "line 4: functions.Bad_Name",
        "line 5: functions.b.image",
    ] {
        assert!(ran.stderr.contains(line), "{line} is not in: {}", ran.stderr);
    }
    assert!(server.lines().is_empty());
}

#[test]
fn one_failure_does_not_hide_the_others() {
    let server = Server::start(|seen| match seen.text() {
        text if text.contains("\"bad\"") => Reply::new(400, "validation failed: image: is odd\n"),
        _ => Reply::new(202, ""),
    });
    let stack = "provider: {name: openfaas}\nfunctions:\n  bad: {image: a}\n  good: {image: a}\n";
    let bench = Bench::new(&server.url).file("stack.yaml", stack);
    let ran = bench.run(&["deploy", "--no-wait"]).failed(1, "validation failed: image: is odd");
    assert!(ran.out().contains("/function/good"), "{}", ran.out());
    assert!(!ran.out().contains("/function/bad"), "{}", ran.out());
}

#[test]
fn wrong_command_lines() {
    let bench = Bench::new("http://127.0.0.1:1");
    bench.run(&["deploy"]).failed(2, "nothing to deploy");
    bench.run(&["deploy", "--image", "x"]).failed(2, "name the function");
    bench.run(&["deploy", "a", "--image", "x", "-f", "s.yaml"]).failed(2, "exclude each other");
    bench
        .run(&["deploy", "a", "--image", "x", "--replace", "--update"])
        .failed(2, "--replace and --update");
    bench.run(&["deploy", "a", "--image", "x", "-e", "NOVALUE"]).failed(2, "NAME=VALUE");
    let noen = bench.run(&["deploy", "a", "--image", "x", "--network", "noen"]);
    noen.failed(2, "[possible values: none, nat, host]");
    let filtered = ["deploy", "a", "--image", "x", "--filter", "b*"];
    bench.run(&filtered).failed(2, "--image is without one");
    let pulled = ["deploy", "a", "--image", "host", "--pull", "always"];
    bench.run(&pulled).failed(2, "no image to pull");
    let waited = ["deploy", "a", "--image", "x", "--no-wait", "--timeout", "5s"];
    bench.run(&waited).failed(2, "cannot be used with");
    let stack = "provider: {name: openfaas}\nfunctions:\n  a:\n    image: x\n    \
                 annotations: {dev.pinnace.network: noen}\n";
    let bench = bench.file("stack.yaml", stack);
    bench.run(&["deploy"]).failed(1, "is \"noen\", but must be none, nat or host");
    bench.run(&["deploy", "-f", "none.yaml"]).failed(1, "none.yaml: there is no such file");
}
