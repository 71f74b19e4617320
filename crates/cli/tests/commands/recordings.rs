//! What the real `faas-cli` (MIT) sends and prints, replayed with `pinnace` in its place: the same flags
//! must lead to the same requests and, where the text is the same by design, to the same text.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    bench::{Bench, Ran},
    server::{Reply, Seen, Server},
};

/// Flags that only `pinnace` has, so that it asks no more than the recorded client did.
fn extra(command: &str) -> &'static [&'static str] {
    if command == "deploy" { &["--no-wait"] } else { &[] }
}

struct Recording {
    value: Value,
    run: Ran,
    bench: Bench,
    server: Server,
}

fn replay(name: &str) -> Recording {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.json"));
    let text = fs::read_to_string(path).unwrap();
    let answers: Arc<Mutex<Vec<Value>>> = Arc::default();
    let left = answers.clone();
    let server = Server::start(move |_| answer(&left.lock().unwrap().remove(0)));
    let text = text
        .replace("{gateway}", &server.url)
        .replace("{image}", "docker.io/example/hello:1")
        .replace("{user}", "admin")
        .replace("{password}", "secret-pass")
        .replace("{basic}", &STANDARD.encode("admin:secret-pass"));
    let value: Value = serde_json::from_str(&text).unwrap();
    let exchanges = value["exchanges"].as_array().unwrap();
    *answers.lock().unwrap() = exchanges.iter().map(|one| one["response"].clone()).collect();
    let mut bench = Bench::new(&server.url).without_env("OPENFAAS_URL");
    for (name, value) in value["env"].as_object().unwrap() {
        bench = bench.env(name, value.as_str().unwrap());
    }
    for (name, text) in value["files"].as_object().unwrap() {
        bench = bench.file(name, text.as_str().unwrap());
    }
    let words: Vec<&str> =
        value["argv"].as_array().unwrap().iter().skip(1).map(|w| w.as_str().unwrap()).collect();
    let words = [&words[..], extra(words[0])].concat();
    let run = bench.run_with(&words, &bytes(&value, "stdin"));
    Recording { value, run, bench, server }
}

fn answer(response: &Value) -> Reply {
    let status = response["status"].as_u64().unwrap();
    let mut reply = Reply::new(u16::try_from(status).unwrap(), bytes(response, "body"));
    for (name, value) in response["headers"].as_object().unwrap() {
        if !["Content-Length", "Transfer-Encoding", "Connection"].contains(&name.as_str()) {
            reply = reply.header(name, value.as_str().unwrap());
        }
    }
    reply
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    match (value[name].as_str(), value[format!("{name}_base64")].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).unwrap(),
        (None, None) => Vec::new(),
    }
}

impl Recording {
    /// The requests are the recorded ones, and so is the exit code.
    fn same_requests(&self) -> &Self {
        let name = &self.value["name"];
        let seen = self.server.seen();
        let exchanges = self.value["exchanges"].as_array().unwrap();
        let recorded: Vec<&Value> = exchanges.iter().map(|one| &one["request"]).collect();
        assert_eq!(
            seen.len(),
            recorded.len(),
            "{name}: {:?}\n{}",
            self.server.lines(),
            self.run.stderr
        );
        for (seen, recorded) in seen.iter().zip(recorded) {
            same_request(seen, recorded);
        }
        assert_eq!(self.run.code, self.value["exit"], "{name}: {}", self.run.stderr);
        self
    }

    fn same_text(&self) {
        let expected = bytes(&self.value, "stdout");
        assert_eq!(self.run.out(), String::from_utf8_lossy(&expected), "{}", self.value["name"]);
    }

    fn same_words(&self) {
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            text.lines().map(line).collect()
        };
        let expected = self.value["stdout"].as_str().unwrap();
        assert_eq!(words(&self.run.out()), words(expected), "{}", self.value["name"]);
    }
}

fn same_request(seen: &Seen, recorded: &Value) {
    assert_eq!(seen.method, recorded["method"]);
    assert_eq!(sorted(&seen.target), sorted(recorded["target"].as_str().unwrap()));
    for (name, value) in recorded["headers"].as_object().unwrap() {
        let ours_alone = ["User-Agent", "Accept-Encoding", "Content-Length", "Referer"];
        // A GET has no body that a type could describe; after a redirect neither client has one.
        if !ours_alone.contains(&name.as_str()) {
            assert_eq!(seen.header(name), value.as_str(), "{name} of {}", seen.line());
        }
    }
    let body = bytes(recorded, "body");
    match serde_json::from_slice::<Value>(&body) {
        Ok(json) => assert_eq!(serde_json::from_slice::<Value>(&seen.body).unwrap(), json),
        Err(_) => assert_eq!(seen.body, body, "{}", seen.line()),
    }
}

fn sorted(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    format!("{path}?{}", pairs.join("&"))
}

#[test]
fn deploys() {
    for name in [
        "deploy-new",
        "deploy-existing",
        "deploy-flags",
        "deploy-replace",
        "deploy-gateway-precedence",
        "deploy-stack",
        "deploy-stack-filter",
        "deploy-stack-overrides",
        "deploy-stack-template",
    ] {
        replay(name).same_requests().same_text();
    }
    let refused = replay("deploy-no-update-existing");
    refused.same_requests();
    assert!(refused.run.stderr.contains("function echo already exists"), "{}", refused.run.stderr);
}

#[test]
fn descriptions() {
    for name in ["describe", "describe-namespace", "describe-scaled-to-zero", "describe-usage"] {
        replay(name).same_requests().same_text();
    }
    let json = replay("describe-json");
    json.same_requests();
    let expected: Value = serde_json::from_str(json.value["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&json.run.stdout).unwrap(), expected);
}

#[test]
fn calls() {
    for name in [
        "invoke",
        "invoke-binary",
        "invoke-get",
        "invoke-headers",
        "invoke-namespace",
        "invoke-redirect",
    ] {
        replay(name).same_requests().same_text();
    }
    let queued = replay("invoke-async");
    queued.same_requests();
    assert_eq!(queued.run.stderr, queued.value["stderr"].as_str().unwrap());
}

#[test]
fn lists() {
    for name in ["list", "list-namespace", "list-oauth2"] {
        replay(name).same_requests().same_words();
    }
    for name in ["list-quiet", "list-sort-creation"] {
        replay(name).same_requests().same_text();
    }
}

#[test]
fn logs() {
    for name in ["logs", "logs-json", "logs-keyvalue", "logs-lines"] {
        replay(name).same_requests().same_text();
    }
}

#[test]
fn logins_are_stored_alike() {
    for name in ["login-ci-config", "login-password-stdin", "login-second-gateway"] {
        let recording = replay(name);
        recording.same_requests();
        for (file, expected) in recording.value["files_after"].as_object().unwrap() {
            let found = fs::read_to_string(recording.bench.path(file)).ok();
            // A token that begins with a digit is quoted, which is the same YAML.
            let found = found.map(|text| text.replace('"', ""));
            assert_eq!(found.as_deref(), expected.as_str(), "{name} {file}");
        }
    }
}

#[test]
fn removals() {
    for name in ["remove", "remove-namespace", "remove-stack", "remove-stack-not-found"] {
        replay(name).same_requests().same_text();
    }
}
