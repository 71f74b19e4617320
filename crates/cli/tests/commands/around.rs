//! What stands around functions: namespaces, the store, readiness, resources for Kubernetes, tags.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    server::{Reply, Server},
};

const STORE: &str = r#"{"version":"0.2.1","functions":[{"title":"Words","name":"words","author":"me",
    "description":"Counts words.","fprocess":"wc","repo_url":"https://example.com/w",
    "images":{"x86_64":"w:1","arm64":"w:2"},"labels":{"team":"store"},"environment":{"a":"store"}}]}"#;

#[test]
fn namespaces() {
    let server = Server::start(|seen| match seen.line().as_str() {
        "GET /system/namespace/dev" => {
            Reply::new(200, r#"{"name":"dev","labels":{"a":"1"},"annotations":null}"#)
        }
        "GET /system/namespaces" => Reply::new(200, ""),
        "POST /system/namespace/" => Reply::new(409, "there"),
        _ => Reply::new(404, ""),
    });
    let bench = Bench::new(&server.url);
    assert_eq!(bench.run(&["ns", "get", "dev"]).ok().out(), "Name: dev\nLabels:\n a: 1\n");
    let ran = bench.run(&["namespace", "get", "dev", "-j"]).ok();
    let found: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(found, json!({ "name": "dev", "labels": { "a": "1" } }));
    assert_eq!(bench.run(&["ns", "ls"]).ok().out(), "Namespaces:\n");
    bench.run(&["ns", "create", "dev"]).failed(1, "`pinnace namespace update` changes it");
    bench.run(&["ns", "update", "nope"]).failed(1, "there is no namespace nope");
    bench.run(&["ns", "create", "A"]).failed(2, "namespace name \"A\"");
}

#[test]
fn a_store_is_a_file_or_what_a_variable_names() {
    let bench = Bench::new("http://127.0.0.1:1").file("store.json", STORE);
    let bench = bench.env("OPENFAAS_STORE", "store.json");
    let words = ["store", "list", "-p", "linux/arm64"];
    assert!(bench.run(&words).ok().out().contains("words    me     Words\n"));
    let ran = bench.run(&["store", "describe", "Words", "-j", "-p", "arm64"]).ok();
    let item: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&item["name"], &item["annotations"]), (&json!("words"), &Value::Null));
    let none = bench.run(&["store", "list", "--platform", "vax"]).ok().out();
    assert!(none.ends_with("try one of the following: arm64, x86_64\n"), "{none}");
    bench.run(&["store", "inspect", "nope"]).failed(1, "there is no function nope in the store");
    bench.run(&["store", "list", "-u", "none.json"]).failed(1, "none.json: there is no such file");
    let bench = bench.file("bad.json", "[1]");
    bench.run(&["store", "list", "-u", "bad.json"]).failed(1, "bad.json: is no store");
    let server = Server::start(|_| Reply::new(503, ""));
    let said = "its server answers 503 Service Unavailable";
    bench.run(&["store", "list", "-u", &server.url]).failed(1, said);
}

#[test]
fn a_function_of_the_store_is_waited_for_too() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::new(200, ""),
        _ => {
            let rollout = json!({ "revision": 1, "phase": "failed", "message": "no such file" });
            let status = json!({ "name": "words", "image": "w:1", "rollout": rollout });
            Reply::new(200, status.to_string())
        }
    });
    let bench = Bench::new(&server.url).file("store.json", STORE);
    let words = ["store", "deploy", "words", "-u", "store.json", "-p", "arm64", "-l", "team=flag"];
    let ran = bench.run(&[&words[..], &["-e", "a=flag"]].concat());
    let ran = ran.failed(1, "words was deployed but cannot serve: no such file");
    let first = "Function words already exists, attempting rolling-update.\n\nDeployed. 200 OK.\n";
    assert!(ran.out().starts_with(first), "{}", ran.out());
    let sent: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(sent["image"], "w:2");
    assert_eq!(sent["labels"], json!({ "team": "store" }));
    assert_eq!(sent["envVars"], json!({ "a": "flag" }));
}

#[test]
fn readiness_outlasts_errors() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, ""),
        _ => Reply::new(200, "OK"),
    });
    let bench = Bench::new(&server.url);
    let ran = bench.run(&["ready", "--interval", "1ms"]).ok();
    let said =
        "[1/60] Waiting for gateway\n[2/60] Waiting for gateway\nOpenFaaS gateway is ready\n";
    assert_eq!(ran.out(), said);
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
    bench.run(&["ready", "--attempts", "0"]).failed(2, "--attempts must be 1 or more");
    bench.run(&["ready", "--interval", "soon"]).failed(2, "give a time such as 1s");
    let nobody = Bench::new("http://127.0.0.1:1");
    let ran = nobody.run(&["ready", "f.dev", "--attempts", "2", "--interval", "1ms"]);
    let ran = ran.failed(1, "function f.dev is not ready after 2ms");
    assert_eq!(ran.stderr.matches("no gateway answers").count(), 2, "{}", ran.stderr);
}

#[test]
fn resources_for_openfaas_on_kubernetes() {
    let stack = "provider: {name: openfaas}\nfunctions:\n  f:\n    image: i\n    fprocess: cat\n    \
                 environment: {on: 'yes', n: '1', two: \"a\\nb\\n\"}\n    limits: {memory: 64Mi}\n    secrets: [s]\n    \
                 readonly_root_filesystem: true\n";
    let bench = Bench::new("http://127.0.0.1:1").file("stack.yaml", stack);
    let expected = "---\napiVersion: openfaas.com/v1\nkind: Function\nmetadata:\n  name: f\n  \
                    namespace: openfaas-fn\nspec:\n  name: f\n  image: i:latest\n  handler: cat\n  \
                    environment:\n    \"n\": \"1\"\n    \"on\": \"yes\"\n    two: |\n      a\n      b\n  limits:\n    memory: 64Mi\n  \
                    secrets:\n    - s\n  readOnlyRootFilesystem: true\n\n";
    assert_eq!(bench.run(&["generate"]).ok().out(), expected);
    let bench = bench.file("store.json", STORE);
    let words = ["generate", "--from-store", "words", "--url", "store.json", "--arch", "arm64"];
    let ran =
        bench.run(&[&words[..], &["--name", "w", "--label", "team=mine", "-n", "x"]].concat());
    let text = ran.ok().out();
    for part in ["  name: w\n", "namespace: x\n", "image: w:2\n", "team: mine\n", "handler: wc\n"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    bench.run(&["generate", "--api", "v2"]).failed(2, "is neither openfaas.com/v1 nor");
    bench
        .run(&["generate", "--from-store", "w", "--tag", "sha"])
        .failed(2, "not about the store's");
    Bench::new("http://127.0.0.1:1").run(&["generate"]).failed(2, "there is no stack.yaml here");
}

#[test]
fn a_stack_file_elsewhere_has_its_other_files_beside_it_and_a_bound() {
    let elsewhere = Server::start(|seen| match seen.target.as_str() {
        "/dir/stack.yml" => Reply::new(
            200,
            "provider: {name: openfaas}\nfunctions:\n  f: {image: i, environment_file: [e.yml]}\n",
        ),
        "/dir/e.yml" => Reply::new(200, "environment: {a: '1'}\n"),
        "/dir/long.yml" => Reply::new(200, vec![b'#'; (1 << 20) + 1]),
        _ => Reply::new(404, ""),
    });
    let server = Server::start(|_| Reply::new(202, ""));
    let bench = Bench::new(&server.url).password("hunter2");
    let deploy = |file: &str| {
        bench.run(&["deploy", "--no-wait", "-f", &format!("{}/dir/{file}", elsewhere.url)])
    };
    deploy("stack.yml").ok();
    let sent: Value = serde_json::from_slice(&server.seen()[0].body).unwrap();
    assert_eq!(sent["envVars"], json!({ "a": "1" }));
    deploy("long.yml").failed(1, "/dir/long.yml: is more than 1048576 bytes");
    deploy("none.yml").failed(1, "/dir/none.yml: its server answers 404 Not Found");
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[test]
fn tags_of_a_git_repository() {
    let server = Server::start(|_| Reply::new(202, ""));
    let stack = "provider: {name: openfaas}\nfunctions:\n  f: {image: 'i:1', handler: ./f}\n";
    let path = std::env::var("PATH").unwrap();
    let bench = Bench::new(&server.url).file("stack.yaml", stack).env("PATH", &path);
    // What lies above is no repository of this test.
    let above = bench.path("..").display().to_string();
    let bench = bench.env("GIT_CEILING_DIRECTORIES", &above);
    bench.run(&["deploy", "--tag", "sha"]).failed(1, "--tag asks git for the source's version");
    assert!(server.lines().is_empty());
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["add", "stack.yaml"],
        &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x"],
        &["tag", "v1"],
    ] {
        let mut git = Command::new("git");
        assert!(git.args(words).current_dir(bench.path(".")).status().unwrap().success());
    }
    for (tag, begins) in [("sha", "i:1-"), ("branch", "i:1-main-"), ("describe", "i:1-v1")] {
        bench.run(&["deploy", "--tag", tag, "--no-wait"]).ok();
        let sent: Value = serde_json::from_slice(&server.seen().last().unwrap().body).unwrap();
        assert!(sent["image"].as_str().unwrap().starts_with(begins), "{sent}");
    }
    bench
        .run(&["deploy", "--tag", "date"])
        .failed(2, "use latest, sha, branch, describe or digest");
}

#[test]
fn differences_are_looked_for_in_each_namespace() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/system/functions" => Reply::new(200, r#"[{"name":"a","image":"i:1"}]"#),
        _ => Reply::new(200, "[]"),
    });
    let stack = "provider: {name: openfaas}\nfunctions:\n  a: {image: 'i:1'}\n  \
                 b: {image: 'i:1', namespace: dev}\n";
    let bench = Bench::new(&server.url).file("stack.yaml", stack);
    let ran = bench.run(&["diff"]).failed(1, "1 of 2 functions differ from the stack file");
    assert!(ran.out().starts_with("b.dev\n"), "{}", ran.out());
    assert!(ran.out().contains("- function: defined in stack.yaml"), "{}", ran.out());
    bench.run(&["diff", "--filter", "a"]).ok();
    bench.run(&["diff", "--env", "some"]).failed(2, "possible values: local, remote, all");
    Bench::new(&server.url).run(&["diff"]).failed(2, "there is no stack.yaml here");
}
