//! A client that is made from `/openapi.json` tries everything that stands in it, right and wrong (schemathesis).

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{path::Path, process::Command};

use pinnace_tests::Gateway;

/// How often each operation is tried, with the same requests at each run.
const EXAMPLES_DEFAULT: &str = "10";
const SEED: &str = "1";

#[test]
fn a_client_made_from_the_description_finds_nothing_amiss() {
    // Many, and others at each run.
    let soak = std::env::var("PINNACE_SOAK_EXAMPLES").ok();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = tests.parent().unwrap().join("target/venv/bin/schemathesis");
    assert!(client.is_file(), "{} is missing: cargo xtask test --provision", client.display());
    let gateway = Gateway::start();
    // Functions that it makes must be there for all to be tried; some it may remove.
    gateway.deploy_hello("hello");
    let place = tempfile::tempdir().unwrap();
    let mut client = Command::new(client);
    client.arg("--no-color").arg("run").arg(format!("{}/openapi.json", gateway.url()));
    client.args(["--auth", &format!("admin:{}", gateway.password())]);
    client.args(["--max-examples", soak.as_deref().unwrap_or(EXAMPLES_DEFAULT)]);
    client.args(["--request-timeout", "30"]);
    if soak.is_none() {
        client.args(["--seed", SEED]);
    }
    // What a schema cannot say may be refused: that a namespace must be marked, that the path names what the body does.
    client.args(["--exclude-checks", "positive_data_acceptance"]);
    // It would ask registries of the internet.
    client.args(["--exclude-operation-id", "pullImage"]);
    client.env("SCHEMATHESIS_HOOKS", tests.join("contract/schemathesis_hooks.py"));
    let output = client.current_dir(place.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let cases = said.lines().find(|line| line.contains("test cases")).unwrap_or_default();
    println!("{}", cases.trim());
}
