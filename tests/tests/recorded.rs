//! Recorded sessions of the real faas-cli (`contract/cli`): what it sent, our gateway answers as it expects.
//!
//! The recordings are replayed by `contract/replay-cli.py`, which says of each what differs. With the client itself,
//! `PINNACE_TEST_FAAS_CLI`, the same sessions are run by it, and what it prints is compared.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{path::Path, process::Command};

use pinnace_tests::{
    Gateway,
    images::{Image, Layer, Packing},
    program,
};
use serde_json::json;

/// The image that the recorded functions have.
const IMAGE: &str = "docker.io/example/hello:1";

/// What the replayer says of recordings that concern the client alone.
const CLIENT_ALONE: usize = 21;

/// All recordings.
const RECORDINGS: usize = 100;

#[test]
fn what_faas_cli_sent_is_answered_as_it_expects() {
    let said = replay(&[]);
    assert!(said.contains(&format!("{} passed, 0 failed", RECORDINGS - CLIENT_ALONE)), "{said}");
    assert!(said.contains(&format!("{CLIENT_ALONE} left out")), "{said}");
}

#[test]
fn faas_cli_itself_says_the_same_as_with_openfaas() {
    let Ok(client) = std::env::var("PINNACE_TEST_FAAS_CLI") else {
        println!("left out: PINNACE_TEST_FAAS_CLI names no faas-cli");
        return;
    };
    let said = replay(&["--faas-cli", &client]);
    assert!(said.contains(&format!("{RECORDINGS} passed, 0 failed")), "{said}");
}

/// Replays all recordings against a new gateway; answers what the replayer says.
fn replay(further: &[&str]) -> String {
    let gateway = Gateway::start();
    let applets = Layer::default().file("bin/busybox", 0o755, &program("applets"));
    gateway.load(IMAGE, &Image::new(IMAGE, json!({}), Packing::Plain).layer(applets));
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let mut replayer = Command::new("python3");
    replayer.arg(contract.join("replay-cli.py")).args(["--gateway", &gateway.url()]);
    replayer.args(["--image", IMAGE, "--password-file"]);
    replayer.arg(gateway.state_dir().join("basic-auth-password")).args(further);
    let output = replayer.arg(contract.join("cli")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    said.into_owned()
}
