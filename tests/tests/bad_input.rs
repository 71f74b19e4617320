//! Bad input: a clear error, the right status, nothing lost and nothing left behind.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{collections::BTreeSet, fs, path::PathBuf, process::Stdio};

use pinnace_tests::{
    Function, Gateway,
    gateway::free_address,
    hello,
    images::{Image, Layer, Packing, root_directory, tar_of},
};
use serde_json::{Value, json};

/// The files of a gateway's state that loads write to.
fn files(gateway: &Gateway) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![gateway.state_dir()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name =
                path.strip_prefix(gateway.state_dir()).unwrap().to_string_lossy().into_owned();
            // Databases and logs grow by themselves; running replicas have files of their own.
            if name.contains("db") || name.starts_with("log") || name.starts_with("run") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

#[test]
fn an_unknown_function_is_not_found() {
    let gateway = Gateway::start();
    let answer = gateway.call("nobody", b"").expect(404);
    assert!(answer.text().contains("nobody.openfaas-fn"), "{}", answer.text());
    assert_eq!(gateway.call(".openfaas-fn", b"").status, 404);
    gateway.call("Bad_Name", b"").expect(404);
    gateway.api("GET", "/system/function/nobody", b"").expect(404);
    gateway.api("DELETE", "/system/functions", br#"{"functionName":"nobody"}"#).expect(404);
    gateway.api("POST", "/system/scale-function/nobody", br#"{"replicas":1}"#).expect(404);
    gateway.api("GET", "/system/logs?name=nobody&follow=false", b"").expect(404);
}

#[test]
fn deployments_are_checked_as_a_whole() {
    let gateway = Gateway::start();
    let refused = |body: &[u8], status: u16| {
        gateway.api("POST", "/system/functions", body).expect(status).text()
    };
    assert!(!refused(b"{", 400).is_empty());
    assert!(!refused(b"[]", 400).is_empty());
    assert!(refused(b"{}", 400).contains("service: is required"));
    let two = refused(br#"{"service":"Bad_Name","image":""}"#, 400);
    assert!(two.contains("Bad_Name") && two.contains("image"), "every fault is told: {two}");
    let big =
        format!(r#"{{"service":"a","image":"b","envVars":{{"A":"{}"}}}}"#, "x".repeat(2 << 20));
    assert!(refused(big.as_bytes(), 413).contains("1"), "the limit is named");
    let wide = json!({ "service": "a", "image": "host", "envVars": { "A": "x".repeat(70_000) } });
    assert!(refused(wide.to_string().as_bytes(), 400).contains("65536"));
    let never = json!({ "dev.pinnace.pull": "never" });
    let missing = json!({ "service": "a", "image": "no/such:image", "annotations": never });
    let missing = missing.to_string();
    assert!(refused(missing.as_bytes(), 400).contains("no/such:image"));
    assert!(gateway.api("GET", "/system/functions", b"").expect(200).json() == json!([]));
}

#[test]
fn a_missing_command_says_so() {
    let gateway = Gateway::start();
    let layer = Layer::default().file("data", 0o644, b"no program");
    gateway.load("empty:1", &Image::new("empty:1", json!({}), Packing::Plain).layer(layer));
    let refused = gateway.try_deploy(&Function::new("a", "empty:1")).expect(400).text();
    assert!(refused.contains("command") || refused.contains("fprocess"), "{refused}");
    let refused = gateway.try_deploy(&Function::new("b", "host")).expect(400).text();
    assert!(refused.contains("fprocess"), "{refused}");

    // Known only when it is started: by the function's own watchdog.
    let missing = Function::new("d", "host").with("envProcess", "no-such-program".into());
    gateway.try_deploy(&missing).expect(202);
    gateway.until("d", "its failure is told", |status| {
        status["rollout"]["phase"] == "failed"
            && status["conditions"].to_string().contains("crashed with exit code")
    });
    let log = gateway.api("GET", "/system/logs?name=d&follow=false", b"").expect(200).text();
    assert!(log.contains("fprocess cannot be started") && log.contains("no-such-program"), "{log}");

    let image = Image::new("wrong:1", json!({ "Entrypoint": ["/not-there"] }), Packing::Plain);
    gateway.load("wrong:1", &image.layer(Layer::default().file("data", 0o644, b"")));
    let _ = gateway.try_deploy(&Function::new("c", "wrong:1"));
    let status =
        gateway.until("c", "it has failed", |status| status["rollout"]["phase"] == "failed");
    assert!(status.to_string().contains("not-there"), "{status:#}");
}

#[test]
fn a_time_limit_beyond_all_clocks_is_no_limit() {
    let gateway = Gateway::start();
    for limit in ["9223372036854775807s", "18446744073709551615s", "2562047h"] {
        gateway.deploy(&Function::host("a", "cat").env("exec_timeout", limit));
        gateway.call("a", b"still there").expect(200);
        gateway.remove("a");
    }
}

#[test]
fn hostile_and_broken_archives_leave_nothing() {
    let gateway = Gateway::start();
    let before = files(&gateway);
    let refused = |tar: &[u8], kind: &str, word: &str| {
        let event = gateway.try_load("bad:1", kind, tar);
        assert!(matches!(event["event"].as_str(), Some("failed" | "refused")), "{word}: {event}");
        let error = event["error"].as_str().unwrap().to_lowercase();
        assert!(error.contains(word), "{word}: {error}");
    };
    let image = |layer: Layer| {
        Image::new("bad:1", json!({ "Entrypoint": ["/hello"] }), Packing::Plain).layer(layer)
    };

    refused(b"these bytes are no archive", "archive", "archive");
    refused(b"", "archive", "");
    refused(&tar_of(&[("a".into(), b"b".to_vec())]), "archive", "index.json");

    let good = image(Layer::default().file("hello", 0o755, &hello()));
    let mut wrong = good.oci_files();
    let layer = wrong.last_mut().unwrap();
    layer.1[1000] ^= 1;
    refused(&tar_of(&wrong), "archive", "damaged: expected sha256:");
    let mut cut = good.oci_files();
    let layer = cut.last_mut().unwrap();
    layer.1.truncate(5000);
    refused(&tar_of(&cut), "archive", "");
    let whole = good.oci_layout();
    refused(&whole[..whole.len() / 2], "archive", "");

    let climbing = image(Layer::default().file("../../../../tmp/pinnace-climbed", 0o644, b"x"));
    refused(&climbing.oci_layout(), "archive", "..");
    let linked =
        image(Layer::default().symlink("out", "/tmp").file("out/pinnace-climbed", 0o644, b"x"));
    // A link that leads out is either refused or stays inside; the file must not be on the host.
    drop(gateway.try_load("linked:1", "archive", &linked.oci_layout()));
    assert!(!PathBuf::from("/tmp/pinnace-climbed").exists());
    let device = image(Layer::default().device("zero"));
    refused(&device.oci_layout(), "archive", "device");
    refused(&root_directory(Layer::default().file("../x", 0o644, b"x")), "rootdir", "..");

    let removed = gateway.api("DELETE", "/system/images?reference=linked:1", b"");
    assert!(matches!(removed.status, 200 | 202 | 204 | 404), "{}", removed.text());
    let left: Vec<_> = files(&gateway).difference(&before).cloned().collect();
    assert!(left.iter().all(|path| path.is_dir()), "left behind: {left:?}");
    assert_eq!(gateway.api("GET", "/system/images", b"").expect(200).json(), json!([]));

    gateway.deploy_hello("after");
    gateway.call("after", b"").expect(200);
}

#[test]
fn an_archive_that_does_not_exist_is_named() {
    let gateway = Gateway::start();
    gateway.login();
    let output = gateway.cli(&["image", "load", "/no/such/archive.tar"]);
    assert_eq!(output.status.code(), Some(1));
    let error =
        String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(error.contains("/no/such/archive.tar"), "{error}");
}

#[test]
fn wrong_methods_paths_and_numbers_are_refused() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    assert!(matches!(gateway.api("PATCH", "/system/functions", b"{}").status, 404 | 405));
    assert_eq!(gateway.api("GET", "/system/nothing", b"").status, 404);
    let scale =
        |body: &str| gateway.api("POST", "/system/scale-function/a", body.as_bytes()).status;
    for bad in [
        "",
        "{",
        r#"{"replicas":-1}"#,
        r#"{"replicas":"x"}"#,
        r#"{"serviceName":"a","replicas":1000000}"#,
    ] {
        assert_eq!(scale(bad), 400, "{bad}");
    }
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n");
}

/// Runs `pinnace up` where it must fail, and answers what it said.
fn refused_start(mut command: std::process::Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn one_state_directory_has_one_server() {
    let gateway = Gateway::start();
    let (listen, metrics) = (free_address().to_string(), free_address().to_string());
    // On other ports: the address is not what stops it.
    let other = gateway.up_command_with(&[("--listen", &listen), ("--metrics-listen", &metrics)]);
    let said = refused_start(other);
    assert!(said.contains(gateway.state_dir().to_str().unwrap()), "{said}");
    gateway.api("GET", "/system/functions", b"").expect(200);
}

#[test]
fn one_address_has_one_server() {
    let gateway = Gateway::start();
    let state = tempfile::tempdir().unwrap();
    let (state, metrics) = (state.path().to_str().unwrap(), free_address().to_string());
    let refused = |listen: &str| {
        let flags = [("--state-dir", state), ("--metrics-listen", &metrics), ("--listen", listen)];
        refused_start(gateway.up_command_with(&flags))
    };
    let address = gateway.address().to_string();
    let said = refused(&address);
    assert!(said.contains(&address), "another Pinnace has it: {said}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(&address);
    assert!(said.contains(&address), "another program has it: {said}");
}

#[test]
fn what_was_there_is_there_after_all_that() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let before: Value = gateway.status("a").unwrap();
    gateway.api("POST", "/system/functions", br#"{"service":"a","image":"host"}"#);
    let never = json!({ "dev.pinnace.pull": "never" });
    let other = json!({ "service": "a", "image": "no/such:1", "annotations": never });
    gateway.api("PUT", "/system/functions", other.to_string().as_bytes()).expect(400);
    let after = gateway.status("a").unwrap();
    assert_eq!(before["image"], after["image"]);
    assert_eq!(before["createdAt"], after["createdAt"]);
    assert_eq!(gateway.call("a", b"").expect(200).text(), "hello\n");
}
