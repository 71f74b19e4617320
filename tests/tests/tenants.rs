//! Secrets and namespaces: what a function sees of the one, and what keeps it in the other.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pinnace_tests::{Function, Gateway, eventually};
use serde_json::{Value, json};

/// How long a changed secret may take to be seen everywhere.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

const CALLERS: usize = 4;

/// Changes while calls go on.
const CHANGES: u32 = 20;

/// A client of the API that says what it expects.
trait Tenants {
    fn secret(&self, method: &str, namespace: &str, name: &str, value: &str, expected: u16);
    fn namespace(&self, name: &str, annotations: Value);
    fn deploy_in(&self, namespace: &str, function: Function);
}

impl Tenants for Gateway {
    fn secret(&self, method: &str, namespace: &str, name: &str, value: &str, expected: u16) {
        let body = json!({ "name": name, "namespace": namespace, "value": value }).to_string();
        self.api(method, "/system/secrets", body.as_bytes()).expect(expected);
    }

    fn namespace(&self, name: &str, mut annotations: Value) {
        annotations["openfaas"] = "1".into();
        let body = json!({ "name": name, "annotations": annotations }).to_string();
        self.api("POST", "/system/namespace/", body.as_bytes()).expect(201);
    }

    fn deploy_in(&self, namespace: &str, function: Function) {
        let name = format!("{}.{namespace}", function.name());
        self.try_deploy(&function.with("namespace", namespace.into())).expect(202);
        eventually("it serves", Duration::from_secs(20), || {
            let status = self.status(&name)?;
            (status["availableReplicas"] == 1).then_some(())
        });
    }
}

/// A function that prints a secret at each call.
fn showing(name: &str, secret: &str) -> Function {
    Function::host(name, &format!("cat /var/openfaas/secrets/{secret}"))
        .with("secrets", json!([secret]))
}

#[test]
fn a_changed_secret_is_seen_by_every_call_within_a_second_and_none_fails() {
    let gateway = Gateway::start();
    gateway.secret("POST", "", "key", "0", 202);
    gateway.deploy(&showing("show", "key").label("com.openfaas.scale.min", "2"));
    let (bad, calls, over) = (Mutex::new(Vec::new()), AtomicU32::new(0), AtomicBool::new(false));
    // What every call that begins now must see at least.
    let settled = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let least = settled.load(Ordering::SeqCst);
                    let answer = gateway.call("show", b"");
                    let seen: Option<u32> = answer.text().parse().ok();
                    if answer.status != 200 || seen.is_none_or(|seen| seen < least) {
                        bad.lock().unwrap().push((answer.status, answer.text(), least));
                    }
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for change in 1..=CHANGES {
            let asked = Instant::now();
            gateway.secret("PUT", "", "key", &change.to_string(), 202);
            assert!(asked.elapsed() < SEEN_WITHIN, "{:?}", asked.elapsed());
            settled.store(change, Ordering::SeqCst);
            let before = calls.load(Ordering::SeqCst);
            eventually("calls go on", Duration::from_secs(10), || {
                (calls.load(Ordering::SeqCst) >= before + 20).then_some(())
            });
        }
        over.store(true, Ordering::SeqCst);
    });
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "{} of {calls:?} calls: {:?}", bad.len(), bad.first());
}

#[test]
fn secrets_are_files_that_their_function_alone_reads_and_nobody_changes() {
    let gateway = Gateway::start();
    gateway.secret("POST", "", "a", "first\n", 202);
    gateway.secret("POST", "", "b.c", "second", 202);
    let look = Function::host("look", "sh -c eval\t\"$LOOK\"")
        .env(
            "LOOK",
            "cd /var/openfaas/secrets; cat a b.c; echo; ls; stat -Lc %a a; echo x > a || echo kept; \
             rm -f a || echo stays; mount | grep -c ' /var/openfaas/secrets .*ro,'",
        )
        .with("secrets", json!(["a", "b.c", "a"]))
        .with("readOnlyRootFilesystem", true.into());
    gateway.deploy(&look);
    let seen = gateway.call("look", b"").expect(200).text();
    assert_eq!(seen, "first\nsecond\na\nb.c\n444\nkept\nstays\n1\n");
    assert_eq!(gateway.status("look").unwrap()["secrets"], json!(["a", "b.c", "a"]));
    gateway.deploy(&Function::host("other", "ls -A /var/openfaas/secrets"));
    assert_eq!(gateway.call("other", b"").expect(200).text(), "");
    let listed = gateway.api("GET", "/system/secrets", b"").expect(200);
    assert_eq!(
        listed.json(),
        json!([{ "name": "a", "namespace": "openfaas-fn" }, { "name": "b.c", "namespace": "openfaas-fn" }])
    );
    let database = gateway.state_dir().join("functions.db");
    for file in [database.clone(), database.with_extension("db-wal")] {
        let bytes = std::fs::read(file).unwrap_or_default();
        assert!(!bytes.windows(6).any(|six| six == b"second"), "the value is in the database");
    }
    gateway.remove("look");
    let shown = gateway.state_dir().join("run/secrets");
    eventually("its secrets are gone with it", Duration::from_secs(20), || {
        std::fs::read_dir(&shown).unwrap().next().is_none().then_some(())
    });
}

#[test]
fn a_removed_secret_stays_with_who_has_it_and_starts_nobody() {
    let gateway = Gateway::start();
    gateway.secret("POST", "", "key", "1", 202);
    gateway.deploy(&showing("show", "key"));
    gateway.secret("DELETE", "", "key", "", 202);
    gateway.secret("DELETE", "", "key", "", 404);
    assert_eq!(gateway.call("show", b"").expect(200).text(), "1");
    gateway.scale("show", 0);
    gateway.until("show", "it is at zero", |status| status.get("availableReplicas").is_none());
    let answer = gateway.call("show", b"");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains(r#"secret "key" not found"#), "{}", answer.text());
    gateway.secret("POST", "", "key", "2", 202);
    eventually("it serves again", Duration::from_secs(60), || {
        let answer = gateway.call("show", b"");
        (answer.status == 200 && answer.text() == "2").then_some(())
    });
}

#[test]
fn secrets_survive_the_server_and_reach_replicas_that_did_too() {
    let mut gateway = Gateway::start();
    gateway.secret("POST", "", "key", "1", 202);
    gateway.deploy(&showing("show", "key"));
    let replica = |gateway: &Gateway| {
        std::fs::read_dir(gateway.state_dir().join("run/secrets"))
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect::<Vec<_>>()
    };
    let before = replica(&gateway);
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.call("show", b"").expect(200).text(), "1");
    gateway.secret("PUT", "", "key", "2", 202);
    assert_eq!(gateway.call("show", b"").expect(200).text(), "2");
    assert_eq!(replica(&gateway), before, "the replica went on");
}

#[test]
fn namespaces_keep_names_and_secrets_apart() {
    let gateway = Gateway::start();
    gateway.try_deploy(&Function::host("a", "cat").with("namespace", "dev".into())).expect(400);
    gateway.namespace("dev", json!({}));
    gateway.secret("POST", "", "key", "default", 202);
    gateway.secret("POST", "dev", "key", "dev", 202);
    gateway.secret("POST", "dev", "own", "x", 202);
    gateway.secret("POST", "nowhere", "key", "x", 404);
    gateway.deploy(&showing("show", "key"));
    gateway.deploy_in("dev", showing("show", "key"));
    assert_eq!(gateway.call("show", b"").expect(200).text(), "default");
    assert_eq!(gateway.call("show.dev", b"").expect(200).text(), "dev");
    let foreign = gateway.try_deploy(&showing("thief", "own"));
    assert_eq!(foreign.text(), "unable to fetch secrets: secret \"own\" not found\n");
    let names = |query: &str| {
        let listed = gateway.api("GET", &format!("/system/functions?namespace={query}"), b"");
        let listed = listed.expect(200).json();
        let listed = listed.as_array().unwrap().iter();
        listed.map(|one| one["namespace"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((names(""), names("dev")), (vec!["openfaas-fn".to_owned()], vec!["dev".to_owned()]));

    let body = json!({ "name": "dev", "labels": { "openfaas": "1" } }).to_string();
    gateway.api("DELETE", "/system/namespace/dev", body.as_bytes()).expect(202);
    gateway.call("show.dev", b"").expect(404);
    gateway.api("GET", "/system/secrets?namespace=dev", b"").expect(404);
    assert_eq!(gateway.api("GET", "/system/namespaces", b"").json(), json!(["openfaas-fn"]));
    assert_eq!(gateway.call("show", b"").expect(200).text(), "default");
    gateway.namespace("dev", json!({}));
    assert_eq!(
        gateway.api("GET", "/system/secrets?namespace=dev", b"").expect(200).json(),
        json!([])
    );
}

#[test]
fn a_namespace_has_no_more_than_its_quota() {
    let gateway = Gateway::start();
    let quota = json!({ "dev.pinnace.quota.functions": "1", "dev.pinnace.quota.secrets": "1" });
    gateway.namespace("dev", quota);
    gateway.deploy_in("dev", Function::host("a", "cat"));
    let refused = gateway.try_deploy(&Function::host("b", "cat").with("namespace", "dev".into()));
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("dev.pinnace.quota.functions"), "{}", refused.text());
    gateway.secret("POST", "dev", "a", "x", 202);
    gateway.secret("POST", "dev", "b", "x", 400);
}
