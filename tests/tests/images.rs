//! Images from every source run as functions, as their configuration says.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use pinnace_tests::{
    Function, Gateway, hello,
    images::{Image, Layer, Packing, root_directory},
};
use serde_json::json;

#[test]
fn every_source_and_packing_runs() {
    let gateway = Gateway::start();
    for (name, packing) in
        [("plain", Packing::Plain), ("gzip", Packing::Gzip), ("zstd", Packing::Zstd)]
    {
        let reference = format!("made/{name}:1");
        let config = json!({ "Entrypoint": ["/hello"] });
        let image = Image::new(&reference, config, packing).layer(Layer::default().file(
            "hello",
            0o755,
            &hello(),
        ));
        gateway.load(&reference, &image);
        gateway.deploy(&Function::new(&format!("oci-{name}"), &reference));
        assert_eq!(gateway.call(&format!("oci-{name}"), b"").expect(200).text(), "hello\n");

        let reference = format!("saved/{name}:1");
        let event = gateway.try_load(&reference, "archive", &image.docker_save());
        assert_eq!(event["event"], "loaded", "{event}");
        gateway.deploy(&Function::new(&format!("saved-{name}"), &reference));
        assert_eq!(gateway.call(&format!("saved-{name}"), b"").expect(200).text(), "hello\n");
    }
}

#[test]
fn a_root_directory_runs_with_an_fprocess() {
    let gateway = Gateway::start();
    let tar = root_directory(Layer::default().file("bin/busybox", 0o755, &busybox()));
    let event = gateway.try_load("tree:1", "rootdir", &tar);
    assert_eq!(event["event"], "loaded", "{event}");
    gateway.deploy(
        &Function::new("upper", "tree:1").with("envProcess", "/bin/busybox tr a-z A-Z".into()),
    );
    assert_eq!(gateway.call("upper", b"words").expect(200).text(), "WORDS");
}

#[test]
fn the_host_runs_its_own_programs_and_shows_nothing_else() {
    let gateway = Gateway::start();
    gateway.deploy(&Function::host("sort", "sort -r"));
    assert_eq!(gateway.call("sort", b"a\nb\n").expect(200).text(), "b\na\n");
    gateway.deploy(&Function::host("look", "sh -c eval\t\"$LOOK\"").env(
        "LOOK",
        "ls -A /root /home /etc; cat /etc/shadow; touch /usr/x || echo refused; echo end",
    ));
    let seen = gateway.call("look", b"").expect(200).text();
    assert!(seen.contains("refused\n") && seen.ends_with("end\n"), "{seen}");
    for secret in ["shadow", "ssh", ".bash", "root:*", "root:!", "root:$"] {
        assert!(!seen.contains(secret), "{secret} shows: {seen}");
    }
}

#[test]
fn the_configuration_is_honoured() {
    let gateway = Gateway::start();
    let config = json!({
        "Entrypoint": ["./hello"],
        "Env": ["FROM_IMAGE=1", "BOTH=image", "PORT=9000"],
        "WorkingDir": "/work",
        "User": "app",
        "ExposedPorts": { "9000/tcp": {} },
    });
    let layer = Layer::default()
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/work:/bin/sh\n")
        .file("etc/group", 0o644, b"app:x:1001:\nmore:x:1002:app\n")
        .directory("work", 0o755)
        .file("work/hello", 0o755, &hello());
    let image = Image::new("configured:1", config, Packing::Gzip).layer(layer);
    gateway.load("configured:1", &image);
    gateway.deploy(&Function::new("a", "configured:1").env("BOTH", "function"));
    let environment = gateway.call("a/env", b"").expect(200).text();
    for line in ["FROM_IMAGE=1\n", "BOTH=function\n", "OPENFAAS_NAME=a\n"] {
        assert!(environment.contains(line), "{environment}");
    }
    let status = gateway.call("a/read/proc/self/status", b"").expect(200).text();
    let fields = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(fields("Uid:")[0], "1000");
    assert_eq!(fields("Gid:")[0], "1001");
    assert!(fields("Groups:").contains(&"1002".to_owned()), "{status}");
    assert_eq!(fields("CapEff:")[0], "0000000000000000");
    assert_eq!(fields("NoNewPrivs:")[0], "1");
    assert_eq!(fields("Seccomp:")[0], "2");
}

#[test]
fn upper_layers_hide_link_and_replace() {
    let gateway = Gateway::start();
    let config = json!({ "Cmd": ["/hello"] });
    let below = Layer::default()
        .file("hello", 0o755, &hello())
        .directory("data", 0o755)
        .file("data/hidden", 0o644, b"hidden")
        .file("data/replaced", 0o644, b"old")
        .file("data/kept", 0o644, b"kept")
        .hard_link("data/linked", "data/kept")
        .directory("gone", 0o755)
        .file("gone/below", 0o644, b"below");
    let above = Layer::default()
        .whiteout("data/hidden")
        .file("data/replaced", 0o644, b"new")
        .symlink("data/symbolic", "kept")
        .directory("gone", 0o755)
        .file("gone/.wh..wh..opq", 0o644, b"")
        .file("gone/above", 0o644, b"above");
    gateway
        .load("layers:1", &Image::new("layers:1", config, Packing::Zstd).layer(below).layer(above));
    gateway.deploy(&Function::new("a", "layers:1"));
    let read = |path: &str| gateway.call(&format!("a/read/{path}"), b"").expect(200).text();
    assert_eq!(read("data"), "kept\nlinked\nreplaced\nsymbolic\n");
    assert_eq!(read("data/replaced"), "new");
    assert_eq!(read("data/linked"), "kept");
    assert_eq!(read("data/symbolic"), "kept");
    assert_eq!(read("gone"), "above\n");
}

#[test]
fn writes_stay_in_the_replica_and_a_read_only_root_takes_none() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.call("a/write/tmp/x", b"1").expect(200);
    gateway.call("a/write/written", b"1").expect(200);
    gateway.scale("a", 0);
    gateway.until("a", "none is left", |status| status["availableReplicas"].as_u64().is_none());
    gateway.call("a/read/written", b"").expect(403);

    gateway.deploy(&Function::new("b", "hello:test").with("readOnlyRootFilesystem", true.into()));
    gateway.call("b/write/written", b"1").expect(403);
    gateway.call("b/write/tmp/x", b"1").expect(200);
}

#[test]
fn images_are_listed_kept_once_and_removed_when_unused() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.load("hello:again", &Image::hello("hello:again"));
    let listed = gateway.api("GET", "/system/images", b"").expect(200).json();
    let find = |reference: &str| {
        let images = listed.as_array().unwrap();
        images.iter().find(|image| image["reference"] == reference).unwrap().clone()
    };
    assert_eq!(find("hello:test")["functions"], json!(["a.openfaas-fn"]));
    assert_eq!(find("hello:test")["digest"], find("hello:again")["digest"]);
}

fn busybox() -> Vec<u8> {
    std::fs::read("/bin/busybox").unwrap()
}
