//! Images come from registries: from a real one in every way in which it may be protected, and with the
//! policies by which functions are pulled.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use pinnace_tests::{
    FaultyRegistry, Function, Gateway, Registry,
    faulty::{Gate, Reply},
    hello,
    images::{Image, Layer, Packing, digest},
    registry::{PASSWORD, USER},
};
use serde_json::json;

/// An image of two layers whose program prints its environment, in which `VERSION` is.
fn versioned(version: &str, packing: Packing) -> Image {
    let config = json!({ "Entrypoint": ["/hello"], "Env": [format!("VERSION={version}")] });
    Image::new("unused:1", config, packing)
        .layer(Layer::default().file("hello", 0o755, &hello()))
        .layer(Layer::default().file("version", 0o644, version.as_bytes()))
}

fn version(gateway: &Gateway, name: &str) -> String {
    let environment = gateway.call(&format!("{name}/env"), b"").expect(200).text();
    let version = environment.lines().find_map(|line| line.strip_prefix("VERSION="));
    version.unwrap_or_default().to_owned()
}

fn docker_config(dir: &Path, config: &serde_json::Value) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn login(host: &str, password: &str) -> serde_json::Value {
    let pair = BASE64_STANDARD.encode(format!("{USER}:{password}"));
    json!({ "auths": { host: { "auth": pair } } })
}

/// Scales a function to zero and waits until it is there.
fn to_zero(gateway: &Gateway, name: &str) {
    gateway.scale(name, 0);
    gateway.until(name, "none is left", |status| status["availableReplicas"].as_u64().is_none());
}

#[test]
fn functions_run_from_a_registry_as_they_are_packed() {
    let registry = Registry::open();
    let gateway = Gateway::start();
    for (name, packing) in
        [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)]
    {
        registry.push(&versioned(name, packing), &format!("made/{name}"), "1");
        let reference = format!("{}/made/{name}:1", registry.host());
        gateway.deploy(&Function::new(name, &reference));
        assert_eq!(version(&gateway, name), name);
        let status = gateway.status(name).unwrap();
        assert_eq!(status["image"], reference.as_str(), "the reference is shown as it was typed");
    }
    let images = gateway.api("GET", "/system/images", b"").expect(200).json();
    let gzip = format!("{}/made/gzip:1", registry.host());
    let listed = images.as_array().unwrap().iter().find(|image| image["reference"] == *gzip);
    assert_eq!(listed.unwrap()["functions"], json!(["gzip.openfaas-fn"]));
    let partial = gateway.state_dir().join("images/partial");
    assert_eq!(fs::read_dir(partial).unwrap().count(), 0, "what was fetched is not kept twice");
}

#[test]
fn a_protected_registry_wants_its_authority_and_a_login() {
    let registry = Registry::protected();
    registry.push(&versioned("1", Packing::Gzip), "team/app", "1");
    let reference = format!("{}/team/app:1", registry.host());
    let (host, authority) = (registry.host(), registry.authority());

    let unknown = Gateway::start();
    let said = unknown.try_pull(&reference).expect(502).text();
    assert!(said.contains("certificate") && said.contains("SSL_CERT_FILE"), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().to_str().unwrap();
    let environment = [("SSL_CERT_FILE", authority.to_str().unwrap()), ("DOCKER_CONFIG", config)];
    let gateway = Gateway::start_in(&[], &environment);
    let said = gateway.try_pull(&reference).expect(502).text();
    assert!(said.contains("docker login") && said.contains(host), "{said}");

    docker_config(dir.path(), &login(host, "wrong"));
    let said = gateway.try_pull(&reference).expect(502).text();
    assert!(said.contains("login") && said.contains("401"), "{said}");

    // A login counts at once.
    docker_config(dir.path(), &login(host, PASSWORD));
    gateway.deploy(&Function::new("app", &reference));
    assert_eq!(version(&gateway, "app"), "1");
    let said = gateway.try_pull(&format!("{host}/team/app:2")).expect(404).text();
    assert!(said.contains("team/app:2") && said.contains("not there"), "{said}");
    let secret = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for secret in [PASSWORD, &secret, "wrong"] {
        assert!(!gateway.log().contains(secret), "{}", gateway.log());
    }
}

#[test]
fn a_credential_helper_is_asked() {
    let registry = Registry::protected();
    registry.push(&versioned("1", Packing::Gzip), "team/app", "1");
    let reference = format!("{}/team/app:1", registry.host());
    let dir = tempfile::tempdir().unwrap();
    let helper = dir.path().join("docker-credential-tests");
    let write = |script: &str| {
        fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    };
    docker_config(dir.path(), &json!({ "credHelpers": { registry.host(): "tests" } }));
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let environment = [
        ("SSL_CERT_FILE", registry.authority().to_str().unwrap().to_owned()),
        ("DOCKER_CONFIG", dir.path().to_str().unwrap().to_owned()),
        ("PATH", path),
    ];
    let environment: Vec<_> = environment.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let gateway = Gateway::start_in(&[], &environment);

    write("echo credentials not found in native keychain; exit 1");
    assert!(gateway.try_pull(&reference).expect(502).text().contains("docker login"));
    write("echo a-secret-in-an-error; exit 1");
    let said = gateway.try_pull(&reference).expect(507).text();
    assert!(said.contains("docker-credential-tests failed"), "{said}");
    write("yes a-secret-without-end");
    let said = gateway.try_pull(&reference).expect(507).text();
    assert!(said.contains("said more than"), "{said}");
    assert!(!gateway.log().contains("a-secret"), "{}", gateway.log());

    let asked = dir.path().join("asked");
    write(&format!(
        r#"[ "$*" = get ] && cat > {} && echo '{{"ServerURL":"","Username":"{USER}","Secret":"{PASSWORD}"}}'"#,
        asked.display()
    ));
    gateway.try_pull(&reference).expect(200);
    assert_eq!(fs::read_to_string(asked).unwrap(), registry.host());
}

#[test]
fn a_deploy_runs_the_image_that_it_pulled_whatever_becomes_of_the_tag() {
    let mut registry = Registry::open();
    let mut gateway = Gateway::start();
    let reference = format!("{}/team/app:1", registry.host());
    let function = Function::new("app", &reference).annotation("dev.pinnace.pull", "always");
    registry.push(&versioned("old", Packing::Gzip), "team/app", "1");
    gateway.deploy(&function);
    assert_eq!(version(&gateway, "app"), "old");

    registry.push(&versioned("new", Packing::Gzip), "team/app", "1");
    to_zero(&gateway, "app");
    assert_eq!(version(&gateway, "app"), "old", "a start from zero is no deploy");
    // The store's tag moves, and nothing but the deploy needs the old image.
    gateway.try_pull(&reference).expect(200);
    to_zero(&gateway, "app");
    gateway.kill();
    registry.stop();
    gateway.up();
    gateway.api("POST", "/system/images/prune", b"").expect(200);
    assert_eq!(version(&gateway, "app"), "old", "nor is a new server");

    // A deploy that cannot be pulled leaves the one before in place, until it can.
    assert_eq!(gateway.try_update(&function).status, 202);
    let status = gateway.until("app", "it has failed", |s| s["rollout"]["phase"] == "failed");
    let told = status["rollout"]["message"].as_str().unwrap();
    assert!(told.contains("cannot pull") && told.contains("previous revision"), "{told}");
    assert!(told.contains(registry.host()) && told.contains("refused"), "{told}");
    assert_eq!(version(&gateway, "app"), "old");
    registry.up();
    gateway.until("app", "it is pulled at last", |s| s["rollout"]["phase"] == "ready");
    assert_eq!(version(&gateway, "app"), "new");
}

#[test]
fn policies_decide_when_a_registry_is_asked() {
    let registry = FaultyRegistry::start(versioned("1", Packing::Gzip).parts());
    let gateway = Gateway::start();
    let reference = format!("{}/team/app:1", registry.host());
    let with = |name: &str, policy: &str| {
        Function::new(name, &reference).annotation("dev.pinnace.pull", policy)
    };
    let refused = gateway.try_deploy(&with("a", "never")).expect(400).text();
    assert!(refused.contains(&reference) && refused.contains("pinnace image pull"), "{refused}");
    let refused = gateway.try_deploy(&with("a", "sometimes")).expect(400).text();
    assert!(refused.contains("dev.pinnace.pull"), "{refused}");
    let refused = gateway.try_deploy(&Function::new("a", "No/Such:image")).expect(400).text();
    assert!(refused.contains("No/Such:image"), "{refused}");
    assert!(registry.asked().is_empty());

    gateway.try_pull(&reference).expect(200);
    assert!(!registry.asked().is_empty());
    for policy in ["never", "missing"] {
        gateway.deploy(&with(policy, policy));
        assert!(registry.asked().is_empty(), "{policy}");
    }
    gateway.deploy(&with("always", "always"));
    let asked = registry.asked();
    assert!(asked.iter().all(|asked| !asked.path.contains("/blobs/")), "nothing is fetched twice");
    assert!(asked.iter().any(pinnace_tests::faulty::Asked::is_manifest));
    to_zero(&gateway, "always");
    gateway.call("always", b"").expect(200);
    assert!(registry.asked().is_empty(), "a start from zero asks nobody");
}

#[test]
fn a_pull_shows_how_far_it_is_and_ends_with_its_function() {
    let registry = FaultyRegistry::start(versioned("1", Packing::Gzip).parts());
    let gateway = Gateway::start();
    let gate = Gate::default();
    let (held, blobs) = (registry.parts().layers()[0].clone(), registry.parts().blobs.clone());
    let (layer, way) = (held.clone(), gate.clone());
    registry.answer(move |asked| {
        asked.is_blob(&layer).then(|| Reply::Held(way.clone(), blobs[&layer].clone()))
    });
    let reference = format!("{}/team/app:1", registry.host());
    for name in ["a", "b"] {
        gateway.try_deploy(&Function::new(name, &reference)).expect(202);
        let status = gateway.until(name, "it says how far it is", |status| {
            let message = status["rollout"]["message"].as_str().unwrap_or_default();
            message.contains("1 of 2 layers")
        });
        let message = status["rollout"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("pulling {reference}: 1 of 2 layers, ")), "{message}");
        assert_eq!(status["rollout"]["phase"], "progressing");
    }
    let asked = registry.asked();
    assert_eq!(asked.iter().filter(|asked| asked.is_blob(&held)).count(), 1, "they share a pull");
    gateway.remove("a");
    gate.open();
    gateway.until("b", "it serves", |status| status["availableReplicas"] == 1);
    assert!(gateway.status("a").is_none());
    assert_eq!(version(&gateway, "b"), "1");
}

#[test]
fn mirrors_are_asked_first_and_the_registry_when_they_fail() {
    let mirror = FaultyRegistry::start(versioned("mirror", Packing::Gzip).parts());
    let origin = FaultyRegistry::start(versioned("origin", Packing::Gzip).parts());
    let flag = |registry: &str| format!("{registry}=http://{}/some/path", mirror.host());
    let flags = [flag("docker.io"), flag(origin.host())];
    let gateway =
        Gateway::start_with(&["--registry-mirror", &flags[0], "--registry-mirror", &flags[1]]);
    gateway.deploy(&Function::new("hub", "team/app:1"));
    assert_eq!(version(&gateway, "hub"), "mirror");
    assert!(mirror.asked()[0].path.starts_with("/some/path/v2/team/app/manifests/1"));
    mirror.answer(|_| Some(Reply::Whole(404, Vec::new(), Vec::new())));
    gateway.deploy(&Function::new("own", &format!("{}/team/app:1", origin.host())));
    assert_eq!(version(&gateway, "own"), "origin");
    assert!(!mirror.asked().is_empty());
}

#[test]
fn what_proves_who_we_are_goes_nowhere_else() {
    let parts = versioned("1", Packing::Gzip).parts();
    let registry = FaultyRegistry::start(parts.clone());
    let elsewhere = FaultyRegistry::start(parts.clone());
    let dir = tempfile::tempdir().unwrap();
    docker_config(dir.path(), &login(registry.host(), PASSWORD));
    let gateway = Gateway::start_in(&[], &[("DOCKER_CONFIG", dir.path().to_str().unwrap())]);
    let reference = format!("{}/team/app:1", registry.host());
    let challenge = |realm: &str| {
        let challenge = format!(r#"Bearer realm="{realm}",service="tests""#);
        Reply::Whole(401, vec![("WWW-Authenticate", challenge)], Vec::new())
    };
    let plain = challenge("http://tokens.example/token");
    registry.answer(move |_| Some(plain.clone()));
    let said = gateway.try_pull(&reference).expect(502).text();
    assert!(said.contains("tokens.example") && said.contains("not encrypted"), "{said}");

    let realm = challenge(&format!("http://{}/token", registry.host()));
    let blobs = format!("http://{}", elsewhere.host());
    registry.answer(move |asked| {
        if asked.path.starts_with("/token") {
            let token = br#"{"token":"a-token-of-tests"}"#.to_vec();
            return Some(Reply::Whole(200, Vec::new(), token));
        }
        if asked.headers.get("authorization").is_none_or(|a| a != "Bearer a-token-of-tests") {
            return Some(realm.clone());
        }
        let to = format!("{blobs}{}", asked.path);
        asked
            .path
            .contains("/blobs/")
            .then(|| Reply::Whole(307, vec![("Location", to)], Vec::new()))
    });
    gateway.try_pull(&reference).expect(200);
    let asked = registry.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert!(token.path.contains("service=tests"), "{}", token.path);
    assert!(token.path.contains("repository%3Ateam%2Fapp%3Apull"), "{}", token.path);
    assert!(token.headers["authorization"].starts_with("Basic "));
    let led = elsewhere.asked();
    assert_eq!(led.len(), parts.blobs.len());
    assert!(led.iter().all(|asked| !asked.headers.contains_key("authorization")));

    let identity = json!({ "auths": { registry.host(): { "identitytoken": "an-identity" } } });
    docker_config(dir.path(), &identity);
    gateway.try_pull(&format!("{}/team/app:2", registry.host())).expect(200);
    let asked = registry.asked();
    let token = asked.iter().find(|asked| asked.path.starts_with("/token")).unwrap();
    assert_eq!(token.method, "POST");
    assert!(token.body.contains("refresh_token=an%2Didentity"), "{}", token.body);
    for secret in ["a-token-of-tests", "an-identity", PASSWORD] {
        assert!(!gateway.log().contains(secret), "{}", gateway.log());
    }
}

#[test]
fn prune_takes_only_what_nothing_runs_on() {
    let registry = Registry::open();
    let gateway = Gateway::start();
    gateway.login();
    let reference = |name: &str| format!("{}/team/{name}:1", registry.host());
    for name in ["running", "zero", "unused", "moved"] {
        registry.push(&versioned(name, Packing::Gzip), &format!("team/{name}"), "1");
        gateway.try_pull(&reference(name)).expect(200);
    }
    for name in ["running", "zero", "moved"] {
        gateway.deploy(&Function::new(name, &reference(name)));
    }
    to_zero(&gateway, "zero");
    // Nothing but its replica and its deploy leads to its image any more.
    registry.push(&versioned("moved on", Packing::Gzip), "team/moved", "1");
    gateway.try_pull(&reference("moved")).expect(200);

    let asked = gateway.cli(&["image", "prune"]);
    assert!(!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("--yes"));
    let pruned = gateway.cli(&["image", "prune", "--yes"]);
    let out = String::from_utf8_lossy(&pruned.stdout).into_owned();
    assert!(pruned.status.success(), "{}", String::from_utf8_lossy(&pruned.stderr));
    assert_eq!(out.lines().next().unwrap(), format!("Removed {}.", reference("unused")));
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(out.contains("are free again"), "{out}");

    to_zero(&gateway, "moved");
    for name in ["running", "zero", "moved"] {
        assert_eq!(version(&gateway, name), name);
    }
    let again = gateway.api("POST", "/system/images/prune", b"").expect(200).json();
    assert_eq!(again, json!({ "references": [], "images": 0, "layers": 0, "bytes": 0 }));
    // With its function goes what it has pinned.
    gateway.remove("moved");
    gateway.until("running", "it serves", |status| status["availableReplicas"] == 1);
    pinnace_tests::eventually("its images can go", std::time::Duration::from_secs(20), || {
        let pruned = gateway.api("POST", "/system/images/prune", b"").expect(200).json();
        (pruned["images"].as_u64() >= Some(1)).then_some(())
    });
}

#[test]
fn the_command_line_pulls_and_deploys() {
    let registry = Registry::open();
    let image = versioned("1", Packing::Zstd);
    registry.push(&image, "team/app", "1");
    let gateway = Gateway::start();
    gateway.login();
    let reference = format!("{}/team/app:1", registry.host());
    let pulled = gateway.cli(&["image", "pull", &reference]);
    let (out, told) =
        (String::from_utf8_lossy(&pulled.stdout), String::from_utf8_lossy(&pulled.stderr));
    assert!(pulled.status.success(), "{told}");
    assert!(out.starts_with(&format!("Pulled {reference} (2 layers, ")), "{out}");
    assert!(told.contains("saving") || told.contains("layers"), "{told}");
    let missing = gateway.cli(&["image", "pull", &format!("{}/none:1", registry.host())]);
    let told = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && told.contains("not there"), "{told}");

    let by_digest = format!("{}/team/app@{}", registry.host(), digest(&image.parts().manifest));
    let deployed = gateway.cli(&["deploy", "app", "--image", &by_digest, "--pull", "always"]);
    let told = String::from_utf8_lossy(&deployed.stderr).into_owned();
    assert!(deployed.status.success() && told.contains("app is ready"), "{told}");
    assert_eq!(version(&gateway, "app"), "1");
    let status = gateway.status("app").unwrap();
    assert_eq!(status["annotations"]["dev.pinnace.pull"], "always");
}
