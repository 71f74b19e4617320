//! From a push to a function.

use std::fs;

use pinnace_tests::{Function, Gateway, eventually, images::Image, pushing::Pusher};
use serde_json::{Value, json};

use super::{skopeo, version, versioned, write_layout};

/// Scales a function to zero and waits until it is there.
fn to_zero(gateway: &Gateway, name: &str) {
    gateway.scale(name, 0);
    gateway.until(name, "none is left", |status| status["availableReplicas"].as_u64().is_none());
}

#[test]
fn what_a_client_pushes_is_deployed_and_can_be_pulled_again() {
    let gateway = Gateway::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_layout(&versioned("1"), &folder.path().join("made"));
    let host = gateway.address().to_string();
    let source = format!("oci:{}:made:1", path("made"));
    for (form, name) in [("oci", "oci"), ("v2s2", "docker")] {
        let there = format!("docker://{host}/team/{name}:1");
        skopeo(&gateway, &["copy", "--format", form, &source, &there]);
        gateway.deploy(&Function::new(name, &format!("{host}/team/{name}:1")));
        assert_eq!(version(&gateway, name), "1");

        let back = path(&format!("{name}-back"));
        skopeo(&gateway, &["copy", &there, &format!("dir:{back}")]);
        let kept = fs::read(format!("{back}/manifest.json")).unwrap();
        let raw = skopeo(&gateway, &["inspect", "--raw", &there]);
        assert_eq!(String::from_utf8(kept).unwrap(), raw, "it is kept byte by byte");
    }
    // From one repository to another, without the blobs being sent again.
    let (from, to) = (format!("docker://{host}/team/oci:1"), format!("docker://{host}/copy:2"));
    skopeo(&gateway, &["copy", &from, &to]);
    let tags: Value =
        serde_json::from_str(&skopeo(&gateway, &["list-tags", &format!("docker://{host}/copy")]))
            .unwrap();
    assert_eq!(tags["Tags"], json!(["2"]));
    skopeo(&gateway, &["delete", &to]);
    let partial = gateway.state_dir().join("images/partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0, "what was unpacked is kept once");
}

#[test]
fn a_push_counts_with_the_next_deploy_and_not_before() {
    let mut gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    // Every name of this server, whatever the client called it.
    let port = gateway.address().port();
    let reference = format!("localhost:{port}/app");
    let function = Function::new("app", &reference);
    pusher.push(&versioned("old"), "app", "latest");
    gateway.deploy(&function);
    assert_eq!(version(&gateway, "app"), "old");

    pusher.push(&versioned("new"), "app", "latest");
    to_zero(&gateway, "app");
    assert_eq!(version(&gateway, "app"), "old", "a start from zero is no deploy");
    to_zero(&gateway, "app");
    drop(pusher);
    gateway.kill();
    gateway.up();
    assert_eq!(version(&gateway, "app"), "old", "nor is a new server");

    gateway.try_update(&function).expect(202);
    eventually("the deploy has the new image", pinnace_tests::gateway::READY_MAX, || {
        (version(&gateway, "app") == "new").then_some(())
    });
    // What is no longer there keeps nobody from running it, and a deploy falls back on what was unpacked.
    let removed = gateway.api("DELETE", &format!("/system/registry?reference={reference}"), b"");
    removed.expect(202);
    gateway.api("POST", "/system/registry/gc?grace=0s&untagged=true", b"").expect(200);
    to_zero(&gateway, "app");
    assert_eq!(version(&gateway, "app"), "new");
    gateway.deploy(&Function::new("again", &reference));
    assert_eq!(version(&gateway, "again"), "new");
}

#[test]
fn an_index_leads_to_this_machine_and_what_is_missing_is_said() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    let image = versioned("1");
    pusher.push(&image, "app", "part");
    let manifest = image.parts().manifest;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let own = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": manifest.len(),
        "digest": image.parts().digest(),
        "platform": { "architecture": architecture, "os": "linux" },
    });
    let index = |parts: Value| json!({ "schemaVersion": 2, "manifests": parts }).to_string();
    let kind = [("Content-Type", "application/vnd.oci.image.index.v1+json")];
    let put = |tag: &str, text: String| {
        pusher.send("PUT", &format!("/v2/app/manifests/{tag}"), &kind, text.as_bytes())
    };
    put("1", index(json!([own]))).expect(201);
    let reference = format!("{}/app:1", pusher.host());
    gateway.deploy(&Function::new("app", &reference));
    assert_eq!(version(&gateway, "app"), "1");

    let mut absent = own.clone();
    absent["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    let refused = put("2", index(json!([own, absent]))).expect(404).json();
    assert_eq!(refused["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    let said = gateway.try_pull(&format!("{}/app:2", pusher.host())).expect(404).text();
    assert!(said.contains("repository app has no manifest 2"), "{said}");
    let fixed = format!("{}/app@{}", pusher.host(), image.parts().digest());
    gateway.deploy(&Function::new("fixed", &fixed));
    assert_eq!(version(&gateway, "fixed"), "1");
}

#[test]
fn another_name_for_this_server_is_not_what_a_request_says() {
    let gateway = Gateway::start_with(&["--external-url", "https://faas.example"]);
    let pusher = Pusher::new(&gateway);
    pusher.push(&Image::hello("made:1"), "app", "1");
    gateway.try_pull("faas.example/app:1").expect(200);
    // A registry that nobody serves: the name that a request calls this server by is another one's.
    let body = json!({ "reference": "other.invalid/app:1" }).to_string();
    let head = [("Host", "other.invalid"), ("Content-Type", "application/json")];
    let said = pusher.send("POST", "/system/images/pull", &head, body.as_bytes());
    assert_eq!(said.status, 502, "{}", said.text());
}
