//! The main job: one command, functions deployed, answering over HTTP.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{path::Path, time::Instant};

use pinnace_tests::{Function, Gateway, http, images::Image};
use serde_json::{Value, json};

fn example(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(file)).unwrap()
}

/// Calls the three examples as README does, with their real input.
fn examples_answer(gateway: &Gateway) {
    for name in ["thumbnail", "word-frequencies", "csv-statistics"] {
        gateway.until(name, "it serves", |status| status["availableReplicas"].as_u64() >= Some(1));
    }
    let photograph = example("thumbnail/astronaut.jpg");
    let thumbnail = gateway.call("thumbnail?width=100&format=png", &photograph).expect(200);
    assert_eq!(thumbnail.header("content-type"), Some("image/png"));
    assert_eq!(&thumbnail.body[..4], b"\x89PNG");
    // Width and height stand at bytes 16 to 23 of a PNG, big-endian.
    assert_eq!(thumbnail.body[16..24], [0, 0, 0, 100, 0, 0, 0, 100]);

    let text = example("word-frequencies/gettysburg.txt");
    let words = gateway.call("word-frequencies", &text).expect(200).text();
    assert!(words.trim_start().starts_with("13 that\n"), "{words}");

    let table = example("csv-statistics/planets.csv");
    let statistics = gateway.call("csv-statistics", &table).expect(200).json();
    assert_eq!(statistics["columns"]["moons"], Value::Null);
    assert_eq!(statistics["columns"]["kind"]["distinct"], 3);
    assert_eq!(statistics["columns"]["diameter_km"]["max"], 142_984.0);
}

#[test]
fn the_examples_answer() {
    examples_answer(&Gateway::start_with(&["--examples"]));
}

#[test]
fn an_ordinary_user_runs_the_examples_too() {
    let gateway = Gateway::start_as(65_534, &["--examples"]);
    examples_answer(&gateway);
    let info = gateway.api("GET", "/system/info", b"").expect(200).json();
    assert!(!info["missing"].as_array().unwrap().is_empty(), "what is missing is listed: {info}");
}

#[test]
fn a_function_lives_from_deploy_to_remove() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n");
    assert_eq!(gateway.call("a.openfaas-fn/", b"").expect(200).text(), "hello\n");
    let status = gateway.call("a/read/proc/self/status", b"").expect(200).text();
    assert!(
        status.contains("THP_enabled:\t1"),
        "the server's choice is not the functions': {status}"
    );

    let listed = gateway.api("GET", "/system/functions", b"").expect(200).json();
    assert_eq!(listed[0]["name"], "a");
    assert_eq!(listed[0]["image"], "hello:test");
    assert_eq!(listed[0]["labels"]["faas_function"], "a");

    gateway.scale("a", 3);
    gateway.until("a", "three replicas serve", |status| status["availableReplicas"] == 3);
    gateway.scale("a", 0);
    assert_eq!(gateway.status("a").unwrap().get("replicas"), None, "the next GET shows it");
    gateway.until("a", "none is left", |status| status["availableReplicas"].as_u64().is_none());
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n", "a call starts it again");

    gateway.remove("a");
    assert!(gateway.status("a").is_none());
    let gone = gateway.call("a", b"").expect(404);
    assert!(gone.text().contains("a.openfaas-fn"), "{}", gone.text());
}

#[test]
fn an_update_serves_before_the_old_one_goes_and_a_bad_one_changes_nothing() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let put = |version: &str, image: &str| {
        let deployment = json!({
            "service": "a", "image": image, "envVars": { "VERSION": version },
        });
        gateway.api("PUT", "/system/functions", deployment.to_string().as_bytes()).expect(202);
    };
    put("two", "hello:test");
    let mut calls = 0;
    let begin = Instant::now();
    loop {
        // Not one call fails while the new revision takes over.
        let environment = gateway.call("a/env", b"").expect(200).text();
        calls += 1;
        if environment.contains("VERSION=two") {
            break;
        }
        assert!(begin.elapsed().as_secs() < 30, "after {calls} calls: {environment}");
    }
    let deployment = json!({
        "service": "a", "image": "hello:test", "envVars": { "HELLO_AT_START": "exit 3" },
    });
    gateway.api("PUT", "/system/functions", deployment.to_string().as_bytes()).expect(202);
    gateway.until("a", "it has failed", |status| status["rollout"]["phase"] == "failed");
    assert!(gateway.call("a/env", b"").expect(200).text().contains("VERSION=two"));
}

#[test]
fn requests_reach_the_function_as_they_were_sent() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let seen = gateway.request(method, "a/request", &[("X-Own", "1")], b"").expect(200).text();
        assert!(seen.starts_with(&format!("{method} /request\n")), "{seen}");
        assert!(seen.contains("x-own: 1\n"), "{seen}");
    }
    let address = gateway.address().to_string();
    let raw = format!(
        "GET /function/a/request/%2F/..//x%3Fy?q=%20&r HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\n\r\n"
    );
    let seen = http::send_raw(&address, raw.as_bytes()).unwrap();
    assert!(seen.contains("GET /request/%2F/..//x%3Fy?q=%20&r\n"), "{seen}");
}

#[test]
fn bodies_stream_both_ways() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let body: Vec<u8> =
        (0..8 << 20).map(|n: u32| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    assert!(gateway.call("a/echo", &body).expect(200).body == body, "the body came back changed");

    // The first line arrives while the function still writes the last ones.
    let address = gateway.address().to_string();
    let begin = Instant::now();
    let lines = http::lines(&address, "/function/a/ticks/50", &[]).unwrap();
    let mut times = lines.filter(|line| line.starts_with("tick")).map(|_| begin.elapsed());
    let first = times.next().unwrap();
    let last = times.last().unwrap();
    assert!(last - first > std::time::Duration::from_millis(500), "{first:?} {last:?}");
}

#[test]
fn the_api_asks_for_the_password_and_functions_do_not() {
    let gateway = Gateway::start();
    let answer = http::send("GET", &format!("{}/system/functions", gateway.url()), &[], b"");
    let answer = answer.unwrap().expect(401);
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Restricted\""));
    assert_eq!(answer.text(), "invalid credentials");
    gateway.deploy_hello("open");
    gateway.call("open", b"").expect(200);
    let mode = std::fs::metadata(gateway.state_dir().join("basic-auth-password")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
}

#[test]
fn the_command_line_does_the_main_job() {
    let gateway = Gateway::start();
    gateway.login();
    let run = |arguments: &[&str]| {
        let output = gateway.cli(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text}{errors}");
        text
    };
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("hello.tar");
    std::fs::write(&archive, Image::hello("hello:cli").docker_save()).unwrap();
    run(&["image", "load", archive.to_str().unwrap()]);
    assert!(run(&["image", "ls"]).contains("hello:cli"));
    run(&["deploy", "a", "--image", "hello:cli", "--env", "GREETING=hi", "--label", "team=x"]);
    assert_eq!(run(&["invoke", "a"]), "hello\n");
    assert!(run(&["list", "--verbose"]).contains("hello:cli"));
    let described: Value =
        serde_json::from_str(&run(&["describe", "a", "--output", "json"])).unwrap();
    assert_eq!(described["envVars"]["GREETING"], "hi");
    assert_eq!(described["labels"]["team"], "x");
    run(&["scale", "a", "2"]);
    gateway.until("a", "two replicas serve", |status| status["availableReplicas"] == 2);
    assert!(run(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    run(&["remove", "a"]);
    let output = gateway.cli(&["invoke", "a"]);
    assert_eq!(output.status.code(), Some(1));
    let output = gateway.cli(&["no-such-command"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_is_deployed_outlives_the_server() {
    let mut gateway = Gateway::start();
    gateway.deploy(&Function::host("cat", "cat").label("kept", "yes"));
    gateway.stop();
    gateway.up();
    let status = gateway
        .until("cat", "it serves again", |status| status["availableReplicas"].as_u64() >= Some(1));
    assert_eq!(status["labels"]["kept"], "yes");
    assert_eq!(gateway.call("cat", b"words").expect(200).text(), "words");
}
