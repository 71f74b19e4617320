//! Puts the git revision into the build, for `/system/info` and `pinnace version`.

use std::process::Command;

fn main() {
    let revision = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    // A source archive has no git; its release says enough.
    let revision = revision.as_deref().map_or("unknown", str::trim);
    println!("cargo:rustc-env=PINNACE_GIT_SHA={revision}");
    println!("cargo:rerun-if-changed=../../.git/HEAD");
    println!("cargo:rerun-if-changed=../../.git/refs/heads");
}
