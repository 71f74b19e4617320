//! Texts and exit codes: what is said of what is not there, of wrong command lines, of other answers.

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    server::{Reply, Server},
};

#[test]
fn what_is_not_there() {
    let server = Server::start(|_| Reply::new(404, ""));
    let bench = Bench::new(&server.url);
    for words in
        [&["describe", "nope"][..], &["logs", "nope"], &["scale", "nope", "2"], &["remove", "nope"]]
    {
        let said = format!("there is no function nope at {}", server.url);
        bench.run(words).failed(1, &said);
    }
    let said = "there is no function nope in namespace dev";
    bench.run(&["describe", "nope.dev"]).failed(1, said);
}

#[test]
fn errors_are_shown_with_their_text_and_nothing_is_on_standard_output() {
    let server = Server::start(|_| Reply::new(500, "unable to reach the provider\n"));
    let ran = Bench::new(&server.url).run(&["list"]);
    let said = format!(
        "listing functions: {} answers 500 Internal Server Error: unable to reach the provider",
        server.url
    );
    let ran = ran.failed(1, &said);
    assert_eq!(ran.out(), "");
}

#[test]
fn answers_that_are_no_answers() {
    let server = Server::start(|_| Reply::new(200, "<html>"));
    let bench = Bench::new(&server.url);
    bench.run(&["list"]).failed(1, "is not understood");
    bench.run(&["logs", "f"]).failed(1, "a line that is not understood");
    let server = Server::raw(drop);
    Bench::new(&server.url).run(&["list"]).failed(1, "closed the connection without an answer");
}

#[test]
fn an_empty_list_may_be_null() {
    let server = Server::start(|_| Reply::new(200, "null"));
    let bench = Bench::new(&server.url);
    assert_eq!(bench.run(&["list", "-j"]).ok().out(), "[]\n");
    assert_eq!(bench.run(&["secret", "list"]).ok().out(), "No secrets found.\n");
}

#[test]
fn hostile_text_does_not_reach_the_terminal() {
    let server = Server::start(|_| Reply::new(500, "\x1b[2Jbad"));
    let ran = Bench::new(&server.url).run(&["list"]).failed(1, "\\u{1b}[2Jbad");
    assert!(!ran.stderr.contains('\x1b'));
}

#[test]
fn scaling() {
    let server = Server::start(|_| Reply::new(202, ""));
    let bench = Bench::new(&server.url);
    assert_eq!(bench.run(&["scale", "f", "3", "-n", "dev"]).ok().out(), "Scaling f to 3.\n");
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "POST /system/scale-function/f");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body, json!({ "serviceName": "f", "replicas": 3, "namespace": "dev" }));
    bench.run(&["scale", "f", "-1"]).failed(2, "-1");
    bench.run(&["scale", "f", "many"]).failed(2, "many");
}

#[test]
fn what_is_wrong_with_a_function_is_shown_first() {
    let status = json!({
        "name": "f", "image": "i", "labels": {}, "annotations": {}, "invocationCount": 1,
        "conditions": ["the image is no longer in the store"],
        "rollout": { "revision": 2, "phase": "failed", "message": "exit status 127" },
    });
    let server = Server::start(move |_| Reply::new(200, status.to_string()));
    let bench = Bench::new(&server.url);
    let described = bench.run(&["describe", "f"]).ok().out();
    let expected = "Deploy 2 failed: exit status 127\nAttention: the image is no longer in the store\n\
                    `pinnace logs f` shows what it printed.\n\n\
                    Name:               f\nStatus:             Not Ready\n";
    assert!(described.starts_with(expected), "{described}");
    let elsewhere = bench.run(&["describe", "f.dev", "-g", &server.url]).ok().out();
    let expected = format!("`pinnace logs f -n dev --gateway {}` shows", server.url);
    assert!(elsewhere.contains(&expected), "{elsewhere}");
}

#[test]
fn versions() {
    let info = json!({
        "provider": { "provider": "pinnace-sandbox", "orchestration": "linux",
                      "version": { "release": "0.1.0", "sha": "00" } },
        "version": { "release": "0.1.0", "sha": "11" }, "arch": "x86_64", "missing": [],
    });
    let server = Server::start(move |_| Reply::new(200, info.to_string()));
    let bench = Bench::new(&server.url);
    let ran = bench.run(&["version", "--json"]).ok();
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["cli"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["gateway"], json!({ "uri": server.url, "version": "0.1.0", "sha": "11" }));
    assert_eq!(json["provider"]["name"], "pinnace-sandbox");
    assert!(bench.run(&["version"]).ok().out().contains(" name:          pinnace-sandbox\n"));
}

#[test]
fn a_stack_file_names_the_gateway_unless_it_is_another_tools() {
    let server = Server::start(|_| Reply::new(200, "[]"));
    let stack =
        format!("provider: {{name: openfaas, gateway: \"{}\"}}\nfunctions: {{}}\n", server.url);
    let nobody = "http://127.0.0.1:1";
    Bench::new(nobody).file("stack.yaml", &stack).run(&["list"]).ok();
    Bench::new(nobody).file("app.yml", &stack).run(&["list", "-f", "app.yml"]).ok();
    assert_eq!(server.lines().len(), 2);
    let haskell = "resolver: lts-22.0\npackages: [.]\nfoo: ${\n";
    Bench::new(&server.url).file("stack.yaml", haskell).run(&["list"]).ok();
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn wrong_command_lines_exit_with_2() {
    let bench = Bench::new("http://127.0.0.1:1");
    bench.run(&[]).failed(2, "Usage: pinnace");
    bench.run(&["frobnicate"]).failed(2, "frobnicate");
    bench.run(&["describe"]).failed(2, "<NAME>");
    bench.run(&["list", "-g", "ftp://x"]).failed(2, "neither http nor https");
    bench.run(&["logs", "f", "--since", "soon"]).failed(2, "--since");
    bench.run(&["remove"]).failed(2, "name the functions to remove");
    bench.run(&["up", "--no-auth", "--listen", "0.0.0.0:8080"]).failed(2, "--insecure");
    bench.run(&["up", "--provider", "docker"]).failed(2, "not in this version");
    let formed = ["logs", "f", "-j", "--time-format", "kitchen"];
    bench.run(&formed).failed(2, "means nothing with JSON");
    bench.run(&["list", "-n", "A B"]).failed(2, "namespace name \"A B\"");
    bench.run(&["scale", "f", "many"]).failed(2, "a whole number");
    let typed = ["invoke", "f", "--content-type", "a/b", "-H", "Content-Type: c/d"];
    bench.run(&typed).failed(2, "exclude each other");
    bench.run(&["invoke", "f", "-j"]).failed(2, "--async");
    bench.run(&["down", "--state-dir", "nowhere"]).failed(2, "there is no directory nowhere");
    assert!(!bench.path("state").exists(), "nothing was made");
}

#[test]
fn help_names_every_command() {
    let bench = Bench::new("http://127.0.0.1:1");
    let help = bench.run(&["--help"]).ok().out();
    for command in [
        "up",
        "down",
        "doctor",
        "image",
        "deploy",
        "invoke",
        "list",
        "describe",
        "logs",
        "scale",
        "remove",
        "ready",
        "diff",
        "secret",
        "namespace",
        "store",
        "generate",
        "login",
        "logout",
        "version",
        "completion",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(&["completion", shell]).ok().out().contains("pinnace"), "{shell}");
    }
}
