//! The built-in registry: `docker push` to the gateway, then deploy from it. Clients are skopeo and hands.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod conformance;
mod deploying;
mod housekeeping;
mod uploads;

use std::{path::Path, process::Command};

use pinnace_tests::{
    Gateway, hello,
    images::{Image, Layer, Packing},
};
use serde_json::json;

/// An image of two layers whose program prints its environment, in which `VERSION` is.
fn versioned(version: &str) -> Image {
    let config = json!({ "Entrypoint": ["/hello"], "Env": [format!("VERSION={version}")] });
    Image::new("made:1", config, Packing::Gzip)
        .layer(Layer::default().file("hello", 0o755, &hello()))
        .layer(Layer::default().file("version", 0o644, version.as_bytes()))
}

fn version(gateway: &Gateway, name: &str) -> String {
    let environment = gateway.call(&format!("{name}/env"), b"").expect(200).text();
    let version = environment.lines().find_map(|line| line.strip_prefix("VERSION="));
    version.unwrap_or_default().to_owned()
}

/// Writes an image as the directory of an OCI layout.
fn write_layout(image: &Image, folder: &Path) {
    for (name, content) in image.oci_files() {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// Runs skopeo, which speaks to registries as podman and buildah do, and answers what it says.
fn skopeo(gateway: &Gateway, arguments: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    let password = format!("admin:{}", gateway.password());
    let (verb, rest) = arguments.split_first().unwrap();
    command.arg(verb);
    for flag in match *verb {
        "copy" => ["--src-creds", "--dest-creds"].as_slice(),
        _ => &["--creds"],
    } {
        command.args([*flag, &password, &flag.replace("creds", "tls-verify=false")]);
    }
    let output = command.args(rest).output().expect("skopeo is installed (xtask test --provision)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {said}\n{}", gateway.log());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
