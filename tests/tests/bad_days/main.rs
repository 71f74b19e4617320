//! Bad days: functions, callers and disks that behave as nobody wishes. Calls of others are answered all
//! the same, errors are clear, and nothing half-made stays.
//!
//! What is tried elsewhere: hostile archives and deployments (`bad_input`), ends of replicas, servers and
//! spawners (`crash`), redeploys under load (`churn`).

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod callers;
mod disks;
mod functions;
mod large;

use std::{fs, process::Command};

/// A number that the environment may set, as `cargo xtask soak` does.
fn setting(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("it is a number"))
}

/// Memory that a process uses, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Runs a test of this file in a process with a mount namespace of its own, so that nothing of what it mounts
/// is seen elsewhere or stays. `test` is its path.
fn with_own_mounts(test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "PINNACE_TEST_MOUNTS";
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private"]).arg(this);
    let output = command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
