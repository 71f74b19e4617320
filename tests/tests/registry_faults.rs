//! Registries misbehave in every way there is: a clear error, nothing half-made, and what can go on goes on.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use pinnace_tests::{
    FaultyRegistry, Function, Gateway,
    faulty::{Asked, Gate, Reply},
    gateway::free_address,
    hello,
    images::{Image, Layer, Packing, Parts, digest},
};
use serde_json::json;

fn image() -> Parts {
    let config = json!({ "Entrypoint": ["/hello"] });
    let layer = Layer::default().file("hello", 0o755, &hello());
    Image::new("unused:1", config, Packing::Plain).layer(layer).parts()
}

/// All that the image store holds, but for what is kept of blobs under way.
fn stored(gateway: &Gateway) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![gateway.state_dir().join("images")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.ends_with("images/partial") {
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

fn status(status: u16) -> Option<Reply> {
    Some(Reply::Whole(status, Vec::new(), Vec::new()))
}

fn manifest(content: Vec<u8>, digest: String) -> Option<Reply> {
    Some(Reply::Whole(200, vec![("Docker-Content-Digest", digest)], content))
}

#[test]
fn every_fault_is_told_and_leaves_nothing() {
    let registry = FaultyRegistry::start(image());
    let gateway = Gateway::start_with(&["--registry-idle", "1s", "--image-bytes-max", "64Mi"]);
    let reference = format!("{}/team/app:1", registry.host());
    let before = stored(&gateway);
    let parts = registry.parts().clone();
    let (layer, good) = (parts.layers()[0].clone(), parts.manifest.clone());
    let blob = parts.blobs[&layer].clone();
    let refused = |what: &str, code: u16, words: &[&str], answer: Box<Answer>| {
        registry.answer(answer);
        let answer = gateway.try_pull(&reference);
        let said = answer.text();
        assert_eq!(answer.status, code, "{what}: {said}");
        assert!(said.contains(&reference), "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}, {word}: {said}");
        }
        assert_eq!(stored(&gateway), before, "{what}");
        let partial = gateway.state_dir().join("images/partial");
        for entry in fs::read_dir(partial).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
    };
    type Answer = dyn Fn(&Asked) -> Option<Reply> + Send + Sync;

    for (code, ours, word) in [
        (401, 502, "did not say how"),
        (403, 502, "403"),
        (404, 404, "not there"),
        (400, 502, "400"),
        (429, 502, "429"),
        (500, 502, "500"),
    ] {
        refused("a status", ours, &[word], Box::new(move |_| status(code)));
    }
    let bytes = good.clone();
    let other = digest(b"other");
    let expected = other.clone();
    refused(
        "a lying manifest",
        502,
        &[&expected, "digest"],
        Box::new(move |asked| {
            asked.is_manifest().then(|| manifest(bytes.clone(), other.clone()))?
        }),
    );
    let (name, mut lie) = (layer.clone(), blob.clone());
    lie[1000] ^= 1;
    refused(
        "a lying layer",
        502,
        &[&layer, "digest"],
        Box::new(move |asked| asked.is_blob(&name).then(|| Reply::Cut(lie.clone(), lie.len()))),
    );
    let name = layer.clone();
    refused(
        "an endless layer",
        502,
        &[&layer, "more than"],
        Box::new(move |asked| asked.is_blob(&name).then_some(Reply::Endless)),
    );
    refused(
        "an endless manifest",
        502,
        &["more than"],
        Box::new(|asked| asked.is_manifest().then_some(Reply::Endless)),
    );
    let (name, content) = (layer.clone(), blob.clone());
    refused(
        "a longer layer",
        502,
        &[&layer, "bytes"],
        Box::new(move |asked| {
            let length = content.len() + 10;
            asked.is_blob(&name).then(|| Reply::Announced(length, content.clone()))
        }),
    );
    let (name, content) = (layer.clone(), blob.clone());
    refused(
        "a shorter layer",
        502,
        &[&layer, "bytes"],
        Box::new(move |asked| asked.is_blob(&name).then(|| Reply::Announced(100, content.clone()))),
    );
    let (name, content) = (layer.clone(), blob.clone());
    refused(
        "a slow layer",
        502,
        &["too slow", "--registry-idle"],
        Box::new(move |asked| asked.is_blob(&name).then(|| Reply::Trickle(content.clone()))),
    );
    let name = layer.clone();
    let content = blob.clone();
    refused(
        "a layer cut at once",
        502,
        &["broke"],
        Box::new(move |asked| asked.is_blob(&name).then(|| Reply::Cut(content.clone(), 0))),
    );
    refused(
        "nonsense",
        502,
        &["manifest"],
        Box::new(|asked| {
            asked.is_manifest().then(|| Reply::Whole(200, Vec::new(), b"<html>".to_vec()))
        }),
    );
    let index = json!({ "schemaVersion": 2, "manifests": [
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": parts.digest(),
          "size": good.len(), "platform": { "os": "linux", "architecture": "s390x" } },
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": parts.digest(),
          "size": good.len(), "platform": { "os": "windows", "architecture": "amd64" } },
    ] });
    let index = index.to_string().into_bytes();
    let words = ["not made for this machine", "linux/s390x, windows/amd64"];
    refused(
        "no platform of ours",
        502,
        &words,
        Box::new(move |asked| {
            asked.is_manifest().then(|| Reply::Whole(200, Vec::new(), index.clone()))
        }),
    );
    let mut large: serde_json::Value = serde_json::from_slice(&good).unwrap();
    large["layers"][0]["size"] = json!(65u64 << 20);
    let large = large.to_string().into_bytes();
    refused(
        "too large",
        413,
        &["--image-bytes-max"],
        Box::new(move |asked| {
            asked.is_manifest().then(|| Reply::Whole(200, Vec::new(), large.clone()))
        }),
    );
    refused(
        "redirects without end",
        502,
        &["redirects"],
        Box::new(|asked| {
            let to = asked.path.clone();
            Some(Reply::Whole(302, vec![("Location", to)], Vec::new()))
        }),
    );
    refused(
        "a redirect to plain HTTP",
        502,
        &["not encrypted"],
        Box::new(|_| {
            let to = "http://registry.example/v2/".to_owned();
            Some(Reply::Whole(302, vec![("Location", to)], Vec::new()))
        }),
    );
    registry.behave();
    gateway.try_pull(&reference).expect(200);
    assert_ne!(stored(&gateway), before, "what is compared is what changes");
}

#[test]
fn who_is_not_there_is_named() {
    let gateway = Gateway::start();
    let before = stored(&gateway);
    let nobody = free_address();
    let said = gateway.try_pull(&format!("{nobody}/a:1")).expect(502).text();
    assert!(said.contains(&nobody.to_string()) && said.contains("refused"), "{said}");
    let said = gateway.try_pull("no-such-host.invalid/a:1").expect(502).text();
    assert!(said.contains("no-such-host.invalid"), "{said}");
    let said = gateway.try_pull("Not/A:reference").expect(400).text();
    assert!(said.contains("small letters") && said.contains("/app:1.0"), "{said}");
    assert!(gateway.try_pull("host").expect(400).text().contains("host"));
    gateway.api("POST", "/system/images/pull", b"{}").expect(400);
    assert_eq!(stored(&gateway), before);
}

#[test]
fn all_replicas_that_wait_share_one_refusal() {
    let registry = FaultyRegistry::start(image());
    let gateway = Gateway::start();
    let gate = Gate::default();
    let way = gate.clone();
    registry.answer(move |_| {
        way.pass();
        status(403)
    });
    let function = Function::new("app", &format!("{}/team/app:1", registry.host()));
    gateway.try_deploy(&function.label("com.openfaas.scale.min", "4")).expect(202);
    gateway.until("app", "it asks", |status| status.to_string().contains("asking the registry"));
    gate.open();
    gateway.until("app", "all have failed", |status| {
        status["conditions"].to_string().contains("failures in a row: 4")
    });
    assert_eq!(registry.asked().len(), 1);
    registry.behave();
    gateway.until("app", "it is tried again", |status| status["availableReplicas"] == 4);
}

#[test]
fn a_pull_that_breaks_goes_on_where_it_was() {
    let registry = FaultyRegistry::start(image());
    let layer = registry.parts().layers()[0].clone();
    let blob = registry.parts().blobs[&layer].clone();
    let piece = blob.len() / 4;
    let (name, content) = (layer.clone(), blob.clone());
    registry.answer(move |asked| asked.is_blob(&name).then(|| Reply::Cut(content.clone(), piece)));
    let gateway = Gateway::start();
    gateway.deploy(&Function::new("app", &format!("{}/team/app:1", registry.host())));
    gateway.call("app", b"").expect(200);
    let asked = registry.asked();
    let from: Vec<usize> = asked.iter().filter(|a| a.is_blob(&layer)).map(Asked::from).collect();
    assert!(from.len() >= 4, "{from:?}");
    assert!(from.windows(2).all(|pair| pair[1] > pair[0]), "each goes on: {from:?}");
}

#[test]
fn so_it_does_after_the_server_was_killed_and_what_it_had_is_checked() {
    let registry = FaultyRegistry::start(image());
    let layer = registry.parts().layers()[0].clone();
    let blob = registry.parts().blobs[&layer].clone();
    let half = blob.len() / 2;
    let reference = format!("{}/team/app:1", registry.host());
    let mut gateway = Gateway::start();
    let partial = gateway.state_dir().join("images/partial").join(layer.replace("sha256:", ""));
    let cut = |registry: &FaultyRegistry| {
        let (name, content) = (layer.clone(), blob.clone());
        registry.answer(move |asked| match (asked.is_blob(&name), asked.from()) {
            (true, 0) => Some(Reply::Cut(content.clone(), half)),
            (true, _) => Some(Reply::Whole(403, Vec::new(), Vec::new())),
            (false, _) => None,
        });
    };
    let first = |registry: &FaultyRegistry| {
        let asked = registry.asked();
        asked.iter().filter(|asked| asked.is_blob(&layer)).map(Asked::from).collect::<Vec<_>>()
    };
    cut(&registry);
    gateway.try_pull(&reference).expect(502);
    assert_eq!(fs::metadata(&partial).unwrap().len(), half as u64);
    gateway.kill();
    gateway.up();
    registry.behave();
    drop(registry.asked());
    // What lies there may have been spoilt by the crash.
    let mut spoilt = fs::read(&partial).unwrap();
    spoilt[half / 2] ^= 1;
    fs::write(&partial, &spoilt).unwrap();
    gateway.try_pull(&reference).expect(200);
    assert_eq!(first(&registry), [half, 0], "spoilt, so it is fetched once more");
    assert!(!partial.exists());

    gateway.api("DELETE", &format!("/system/images?reference={reference}"), b"").expect(202);
    cut(&registry);
    gateway.try_pull(&reference).expect(502);
    gateway.kill();
    gateway.up();
    registry.behave();
    drop(registry.asked());
    gateway.try_pull(&reference).expect(200);
    assert_eq!(first(&registry), [half], "only the rest is fetched");

    // What nobody comes back for goes.
    gateway.api("DELETE", &format!("/system/images?reference={reference}"), b"").expect(202);
    cut(&registry);
    gateway.try_pull(&reference).expect(502);
    assert!(partial.exists());
    let pruned = gateway.api("POST", "/system/images/prune", b"").expect(200).json();
    assert_eq!(pruned["bytes"].as_u64(), Some(half as u64));
    assert!(!partial.exists());
}

#[test]
fn a_registry_that_asks_for_time_gets_it() {
    let registry = FaultyRegistry::start(image());
    let counted = std::sync::atomic::AtomicUsize::new(0);
    registry.answer(move |asked| {
        let is_early = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        let later = vec![("Retry-After", "1".to_owned())];
        (asked.is_manifest() && is_early).then(|| Reply::Whole(429, later, Vec::new()))
    });
    let gateway = Gateway::start();
    let begun = std::time::Instant::now();
    gateway.try_pull(&format!("{}/team/app:1", registry.host())).expect(200);
    assert!(begun.elapsed().as_secs() >= 2, "{:?}", begun.elapsed());
}
