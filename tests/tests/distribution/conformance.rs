//! The OCI's own program for conformance to its distribution specification, built here by go, which fetches it by name
//! and checks it against `go.sum`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use pinnace_tests::Gateway;

const PROGRAM: &str = "github.com/opencontainers/distribution-spec/conformance";

#[test]
fn the_registry_conforms_to_the_distribution_specification() {
    let program = built();
    let gateway = Gateway::start();
    // The release, and what is to come: both of the tests' own choice, with nothing switched off.
    for version in ["1.1", "dev"] {
        let results = tempfile::tempdir().unwrap();
        let mut command = Command::new(&program);
        command.current_dir(results.path()).env("OCI_RESULTS_DIR", results.path());
        command.env("OCI_VERSION", version).env("OCI_TLS", "disabled");
        command.env("OCI_REGISTRY", gateway.address().to_string());
        command.env("OCI_USERNAME", "admin").env("OCI_PASSWORD", gateway.password());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let faults: Vec<_> = said.lines().filter(|line| !line.ends_with("Pass")).collect();
        let faults = faults.join("\n");
        let counts = fs::read_to_string(results.path().join("junit.xml")).unwrap();
        let suite = counts.lines().find(|line| line.contains("<testsuite ")).unwrap();
        let [tests, failures, errors, skipped] =
            ["tests", "failures", "errors", "skipped"].map(|name| count(suite, name));
        println!(
            "conformance {version}: {} of {tests} passed, {failures} failed, {skipped} skipped",
            tests - failures - errors - skipped
        );
        assert!(output.status.success(), "{faults}\n{}", gateway.log());
        assert_eq!((failures, errors, skipped), (0, 0, 0), "{faults}");
        assert!(tests > 500, "{suite}");
    }
}

/// A number of the suite's element.
fn count(element: &str, name: &str) -> u64 {
    let value = element.split_once(&format!(" {name}=\"")).map_or("0", |(_, rest)| rest);
    value.split('"').next().unwrap().parse().unwrap()
}

fn built() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).expect("a test runs from target/TARGET/PROFILE/deps");
    let program = folder.join("go-clients/conformance");
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/conformance"));
    // The module is its own, whatever the user builds else.
    go.env("GOFLAGS", "").env("GOWORK", "off").env("CGO_ENABLED", "0");
    go.args(["build", "-o"]).arg(&program).arg(PROGRAM);
    let output = go.output().unwrap_or_else(|error| {
        panic!("go 1.24 or newer builds the conformance tests, but it cannot be run: {error}")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    let needs = "it takes go 1.24 or newer and, for the first time, a way to the Go module proxy";
    assert!(output.status.success(), "{PROGRAM} cannot be built; {needs}:\n{said}");
    program
}
