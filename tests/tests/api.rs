//! The API as clients of all ages use it: what they may leave out, repeat or send as null, and how they are refused.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use pinnace_tests::{Answer, Function, Gateway, http};
use serde_json::{Value, json};

/// A gateway with a namespace `second`.
fn gateway() -> Gateway {
    let gateway = Gateway::start();
    gateway.api("POST", "/system/namespace/", &marked("second")).expect(201);
    gateway
}

fn marked(name: &str) -> Vec<u8> {
    bytes(&json!({ "name": name, "annotations": { "openfaas": "1" } }))
}

fn bytes(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

#[test]
fn every_refusal_is_a_line_of_text() {
    let gateway = gateway();
    gateway.deploy(&Function::host("here", "cat"));
    let refusals: &[(&str, &str, &str, u16)] = &[
        ("GET", "/system/nothing", "", 404),
        ("GET", "/nothing", "", 404),
        ("GET", "/system/functions/", "", 404),
        ("PATCH", "/system/functions", "{}", 405),
        ("POST", "/system/function/here", "{}", 405),
        ("GET", "/system/scale-function/here", "", 405),
        ("DELETE", "/system/namespaces", "", 405),
        ("POST", "/healthz", "", 405),
        ("POST", "/system/functions", "", 400),
        ("POST", "/system/functions", "[]", 400),
        ("POST", "/system/functions", "{}", 400),
        (
            "POST",
            "/system/functions",
            r#"{"service":"here","image":"host","envProcess":"cat"}"#,
            409,
        ),
        (
            "PUT",
            "/system/functions",
            r#"{"service":"gone","image":"host","envProcess":"cat"}"#,
            404,
        ),
        ("DELETE", "/system/functions", r#"{"functionName":"gone"}"#, 404),
        ("GET", "/system/function/gone", "", 404),
        ("POST", "/system/scale-function/gone", r#"{"replicas":1}"#, 404),
        ("POST", "/system/scale-function/here", r#"{"replicas":-1}"#, 400),
        ("GET", "/system/logs?name=gone", "", 404),
        ("GET", "/system/secrets?namespace=nowhere", "", 404),
        ("POST", "/system/secrets", r#"{"name":"a","rawValue":"%"}"#, 422),
        ("PUT", "/system/secrets", r#"{"name":"gone","value":"a"}"#, 404),
        ("DELETE", "/system/secrets", r#"{"name":"gone"}"#, 404),
        ("POST", "/system/namespace/", r#"{"name":"bare"}"#, 400),
        ("POST", "/system/namespace/", r#"{"name":"second","labels":{"openfaas":"1"}}"#, 409),
        ("PUT", "/system/namespace/second", r#"{"name":"third","labels":{"openfaas":"1"}}"#, 400),
        ("GET", "/system/namespace/gone", "", 404),
        ("DELETE", "/system/namespace/gone", "{}", 404),
    ];
    for (method, path, body, status) in refusals {
        let answer = gateway.api(method, path, body.as_bytes());
        assert_eq!(answer.status, *status, "{method} {path} {body}: {}", answer.text());
        let told = (answer.header("content-type"), answer.header("x-content-type-options"));
        assert_eq!(told, (Some("text/plain; charset=utf-8"), Some("nosniff")), "{method} {path}");
        let text = answer.text();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{method} {path}: {text:?}");
    }
}

#[test]
fn a_verb_that_a_path_does_not_know_is_told_those_it_does() {
    let gateway = Gateway::start();
    let answer = gateway.api("PATCH", "/system/functions", b"").expect(405);
    let allowed = answer.header("allow").unwrap_or_default();
    assert!(
        ["GET", "POST", "PUT", "DELETE"].iter().all(|verb| allowed.contains(verb)),
        "{allowed}"
    );
    assert!(answer.text().contains("PATCH") && answer.text().contains("/system/functions"));
    let stranger = http::send("PATCH", &format!("{}/system/functions", gateway.url()), &[], b"");
    stranger.unwrap().expect(401);
}

#[test]
fn strangers_get_the_words_that_clients_know() {
    let gateway = Gateway::start();
    for authorization in [None, Some("Bearer"), Some("Bearer x"), Some("Basic YTpi")] {
        let headers: Vec<_> =
            authorization.map(|value| ("Authorization", value)).into_iter().collect();
        let url = format!("{}/system/functions", gateway.url());
        let answer = http::send("GET", &url, &headers, b"").unwrap().expect(401);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"Restricted\""));
        assert_eq!(answer.text(), "invalid credentials");
    }
    http::send("GET", &format!("{}/healthz", gateway.url()), &[], b"").unwrap().expect(200);
}

#[test]
fn null_is_as_good_as_nothing() {
    let gateway = gateway();
    let old = json!({
        "service": "old", "image": "host", "envProcess": "cat", "network": "func_functions",
        "registryAuth": null, "namespace": null, "envVars": null, "constraints": null, "secrets": null,
        "labels": null, "annotations": null, "limits": null, "requests": null,
        "readOnlyRootFilesystem": null,
    });
    gateway.api("POST", "/system/functions", &bytes(&old)).expect(202);
    let mut empty = old.clone();
    empty["service"] = "empty".into();
    for field in ["envVars", "labels", "annotations", "limits", "requests"] {
        empty[field] = json!({});
    }
    gateway.api("POST", "/system/functions", &bytes(&empty)).expect(202);
    for name in ["old", "empty"] {
        let status = gateway.status(name).unwrap();
        assert_eq!(status["labels"], json!({ "faas_function": name }));
        assert_eq!(status["annotations"], json!({}));
        for absent in ["envVars", "limits", "requests", "secrets", "constraints"] {
            assert!(status.get(absent).is_none(), "{absent} in {status}");
        }
    }
    let nothing = json!({ "service": null, "image": null });
    let said = gateway.api("POST", "/system/functions", &bytes(&nothing)).expect(400).text();
    assert!(said.contains("service: is required"), "{said}");
    let zero = json!({ "serviceName": null, "replicas": 0, "namespace": null });
    gateway.api("POST", "/system/scale-function/old", &bytes(&zero)).expect(202);
    assert!(gateway.status("old").unwrap().get("replicas").is_none());
    let secret = json!({ "name": "s", "namespace": null, "value": "v", "rawValue": null });
    gateway.api("POST", "/system/secrets", &bytes(&secret)).expect(202);
    let namespace = json!({ "name": null, "labels": null, "annotations": { "openfaas": "1" } });
    gateway.api("PUT", "/system/namespace/second", &bytes(&namespace)).expect(202);
}

#[test]
fn a_repeated_key_of_a_query_counts_as_last_given() {
    let gateway = gateway();
    gateway.deploy(&Function::host("here", "cat"));
    let names = |answer: Answer| {
        let list = answer.expect(200).json();
        let names = list.as_array().unwrap().iter().map(|one| one["name"].clone());
        names.collect::<Vec<_>>()
    };
    let ask = |query: &str| gateway.api("GET", &format!("/system/functions?{query}"), b"");
    assert_eq!(names(ask("namespace=second&namespace=openfaas-fn")), ["here"]);
    assert_eq!(names(ask("namespace=openfaas-fn&namespace=second")), [""; 0]);
    assert_eq!(names(ask("namespace=openfaas%2Dfn&unknown&=&&x=%zz")), ["here"]);
    let status = gateway.api("GET", "/system/function/here?usage=0&usage=1", b"").expect(200);
    assert!(status.json().get("usage").is_some());
}

#[test]
fn a_mutation_takes_its_namespace_from_the_body_then_from_the_query() {
    let gateway = gateway();
    let function = |namespace: &str| {
        let function =
            json!({ "service": "f", "image": "host", "envProcess": "cat", "namespace": namespace });
        bytes(&function)
    };
    let there = |name: &str, namespace: &str| {
        let path = format!("/system/function/{name}?namespace={namespace}");
        gateway.api("GET", &path, b"").status == 200
    };
    gateway.api("POST", "/system/functions?namespace=nowhere", &function("second")).expect(202);
    gateway.api("PUT", "/system/functions?namespace=second", &function("")).expect(202);
    assert!(there("f", "second") && !there("f", "openfaas-fn"));
    let zero = br#"{"serviceName":"f","replicas":0}"#;
    gateway.api("POST", "/system/scale-function/f?namespace=second", zero).expect(202);
    gateway.api("POST", "/system/scale-function/f", zero).expect(404);
    let gone = br#"{"functionName":"f"}"#;
    gateway.api("DELETE", "/system/functions", gone).expect(404);
    gateway.api("DELETE", "/system/functions?namespace=second", gone).expect(202);

    let secret = br#"{"name":"s","value":"v"}"#;
    gateway.api("POST", "/system/secrets?namespace=second", secret).expect(202);
    gateway.api("PUT", "/system/secrets?namespace=second", secret).expect(202);
    let listed = gateway.api("GET", "/system/secrets?namespace=second", b"").expect(200).json();
    assert_eq!(listed, json!([{ "name": "s", "namespace": "second" }]));
    gateway.api("DELETE", "/system/secrets", br#"{"name":"s"}"#).expect(404);
    let named = br#"{"name":"s","namespace":"second"}"#;
    gateway.api("DELETE", "/system/secrets?namespace=nowhere", named).expect(202);
}

#[test]
fn a_namespace_may_be_named_by_the_body_alone() {
    let gateway = gateway();
    let default = gateway.api("GET", "/system/namespace/", b"").expect(200).json();
    assert_eq!(default["name"], "openfaas-fn");
    let changed = json!({ "name": "second", "labels": { "openfaas": "1", "team": "a" } });
    gateway.api("PUT", "/system/namespace/", &bytes(&changed)).expect(202);
    let read = gateway.api("GET", "/system/namespaces/second", b"").expect(200).json();
    assert_eq!(read, changed);
    gateway.api("DELETE", "/system/namespace/", b"{}").expect(404);
    gateway.api("DELETE", "/system/namespace/", &marked("second")).expect(202);
    gateway.api("GET", "/system/namespace/second", b"").expect(404);
}

#[test]
fn a_removal_may_come_without_a_body_or_with_more_than_it_needs() {
    let gateway = gateway();
    let function = json!({
        "service": "f", "image": "host", "envProcess": "cat", "namespace": "second",
    });
    gateway.api("POST", "/system/functions", &bytes(&function)).expect(202);
    let remove = |path: &str| gateway.api("DELETE", path, b"");
    assert!(remove("/system/functions").expect(400).text().contains("name"));
    remove("/system/functions?functionName=f").expect(404);
    remove("/system/functions?functionName=f&namespace=second").expect(202);
    let secret = json!({ "name": "s", "namespace": "second", "value": "v" });
    gateway.api("POST", "/system/secrets", &bytes(&secret)).expect(202);
    remove("/system/secrets?name=s").expect(404);
    remove("/system/secrets?name=s&namespace=second").expect(202);
    let large = bytes(&json!({ "name": "large", "value": "v".repeat(1 << 20) }));
    for method in ["POST", "DELETE"] {
        // Some clients send the value again.
        gateway.api(method, "/system/secrets", &large).expect(202);
    }
    remove("/system/namespace/second").expect(202);
    remove("/system/namespace/second").expect(404);
    gateway.api("POST", "/system/functions", b"").expect(400);
}

#[test]
fn a_log_is_asked_for_leniently_where_that_is_harmless() {
    let gateway = gateway();
    gateway.deploy(&Function::host("here", "cat"));
    let ask = |query: &str| gateway.api("GET", &format!("/system/logs?name=here&{query}"), b"");
    // Each of these ends, though nothing was said of the end of the log.
    for query in
        ["", "follow=junk", "follow=", "follow", "follow=1&follow=0", "tail=x&tail=1", "tail="]
    {
        let answer = ask(query).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-ndjson"), "{query}");
    }
    for query in ["tail=x", "tail=1&tail=1.5", "since=yesterday", "since=2026-01-01"] {
        assert_eq!(ask(query).expect(422).text(), "could not parse the log request\n", "{query}");
    }
    gateway.api("GET", "/system/logs?follow=0", b"").expect(422);
}

/// The head of the next answer on a connection, in small letters; its body is read past.
fn next_head(reader: &mut BufReader<TcpStream>) -> String {
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the connection has ended: {head}");
        head += &line.to_ascii_lowercase();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    reader.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
    head
}

#[test]
fn a_refused_request_whose_body_comes_late_leaves_the_connection_good_or_says_that_it_ends() {
    let gateway = Gateway::start();
    let connect = || {
        let stream = TcpStream::connect(gateway.url().strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        (stream.try_clone().unwrap(), BufReader::new(stream))
    };
    let head = "POST /system/functions HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n";
    let (mut writer, mut reader) = connect();
    writer.write_all(head.as_bytes()).unwrap();
    writer.write_all(b"late").unwrap();
    writer.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let refused = next_head(&mut reader);
    assert!(refused.contains(" 401 ") && !refused.contains("connection: close"), "{refused}");
    assert!(next_head(&mut reader).contains(" 200 "));
    // One whose body never comes.
    let (mut writer, mut reader) = connect();
    writer.write_all(head.as_bytes()).unwrap();
    let refused = next_head(&mut reader);
    assert!(refused.contains(" 401 ") && refused.contains("connection: close"), "{refused}");
}
