//! Secrets: where a value comes from, and what is said when it does not arrive.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    server::{Reply, Server},
};

fn sent(server: &Server, at: usize) -> Value {
    serde_json::from_slice(&server.seen()[at].body).unwrap()
}

#[test]
fn a_file_is_sent_as_text_and_as_bytes() {
    let server = Server::start(|_| Reply::new(202, ""));
    let bench = Bench::new(&server.url).file("key", b" \xff\n");
    bench.run(&["secret", "create", "k", "--from-file", "key", "-n", "dev"]).ok();
    let body = sent(&server, 0);
    assert_eq!((&body["rawValue"], &body["namespace"]), (&json!("IP8K"), &json!("dev")));
    let said = "is no UTF-8 text; `pinnace secret create k --replace --from-file FILE`";
    bench.run(&["secret", "update", "k", "--from-file", "key"]).failed(1, said);
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn wrong_command_lines_send_nothing() {
    let server = Server::start(|_| Reply::new(202, ""));
    let bench = Bench::new(&server.url).file("empty", "\n");
    for (words, said) in [
        (&["create", "Bad_Name", "--from-literal", "x"][..], "secret name \"Bad_Name\""),
        (&["create", "a"], "secret a is empty"),
        (&["create", "a", "--from-file", "empty"], "secret a is empty"),
        (&["create", "a", "--from-literal", "x", "--from-file", "y"], "cannot be used with"),
        (&["update"], "<NAME>"),
        (&["remove", "a", "-n", "A B"], "namespace name \"A B\""),
        (&["generate", "--length", "0"], "--length must be from 1"),
        (&["frobnicate"], "frobnicate"),
    ] {
        bench.run(&[&["secret"], words].concat()).failed(2, said);
    }
    bench.run(&["secret", "create", "a", "--from-file", "none"]).failed(1, "none: ");
    assert!(server.lines().is_empty());
}

#[test]
fn values_are_never_repeated() {
    let server = Server::start(|_| Reply::new(500, "out of order"));
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["secret", "create", "k"], b"hunter2");
    let ran = ran.failed(1, "creating secret k: ");
    assert!(!ran.stderr.contains("hunter2") && !ran.out().contains("hunter2"), "{ran:?}");
}

#[test]
fn applying_goes_on_after_a_failure_and_fails_at_its_end() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.text()) {
        ("GET", _) => Reply::new(200, r#"[{"name":"b","namespace":"dev"}]"#),
        (_, text) if text.contains("\"a\"") => Reply::new(422, "is odd"),
        _ => Reply::new(202, ""),
    });
    let bench = Bench::new(&server.url).file(".secrets/a", "1").file(".secrets/b", "2");
    let ran = bench.run(&["secret", "apply", "-n", "dev"]).failed(1, "is odd");
    assert!(ran.stderr.contains("1 of 2 secrets were not applied"), "{}", ran.stderr);
    let expected = "Creating secret: a.dev\nSecret b exists, updating...\nUpdated: 202 Accepted\n";
    assert_eq!(ran.out(), expected);
    // A secret that is replaced is never away.
    let lines =
        ["GET /system/secrets?namespace=dev", "POST /system/secrets", "PUT /system/secrets"];
    assert_eq!(server.lines(), lines);
    let none = Bench::new(&server.url).run(&["secret", "apply"]);
    none.failed(1, "there is no directory .secrets here");
}

#[test]
fn a_random_value_is_piped_on_without_a_line_feed() {
    let bench = Bench::new("http://127.0.0.1:1");
    let ran = bench.run(&["secret", "generate"]).ok();
    assert_eq!(ran.out().len(), 44, "{}", ran.out());
    assert!(!ran.out().ends_with('\n'));
    let ran = bench.run(&["secret", "gen", "-o", "new/key.txt", "--length", "64"]).ok();
    assert_eq!(ran.out(), "Wrote 64-byte secret to new/key.txt\n");
    let mode = fs::metadata(bench.path("new/key.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn lists_for_scripts() {
    let listed = r#"[{"name":"a","namespace":"openfaas-fn"},{"name":"b"}]"#;
    let server = Server::start(move |_| Reply::new(200, listed));
    let ran = Bench::new(&server.url).run(&["secret", "list", "-j"]).ok();
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(found, serde_json::from_str::<Value>(listed).unwrap());
}
