//! Puts the git revision and what was said of it into the build, for `/system/info` and `pinnace version`.

use std::{path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The log of HEAD grows at each commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        let log = here().join(log);
        if log.exists() {
            println!("cargo::rerun-if-changed={}", log.display());
        }
    }
    // A source archive has no git; its release says enough.
    let revision = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=PINNACE_REVISION={revision}");
    let message = git(&["log", "-1", "--format=%s"]).unwrap_or_default();
    println!("cargo::rustc-env=PINNACE_COMMIT_MESSAGE={message}");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(here()).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn here() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
}
