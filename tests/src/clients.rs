//! Real clients that tests run: curl, and Python with the packages that `cargo xtask test --provision` installs.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// Runs curl, which says nothing but what it is asked for and gives up after half a minute.
///
/// # Panics
/// There is none.
#[must_use]
pub fn curl(arguments: &[&str]) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--path-as-is", "--max-time", "30"]).args(arguments);
    curl.output().expect("curl is installed")
}

/// What curl wrote, where it succeeds.
///
/// # Panics
/// It does not; the message shows what it said.
#[must_use]
pub fn curled(arguments: &[&str]) -> String {
    let output = curl(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a Python program with arguments; answers what it wrote.
///
/// # Panics
/// It fails, or there are not the packages.
#[must_use]
pub fn python(program: &str, arguments: &[&str]) -> String {
    let python = venv().join("bin/python");
    assert!(python.is_file(), "{} is missing; run: cargo xtask test --provision", python.display());
    let mut command = Command::new(python);
    let output = command.arg("-c").arg(program).args(arguments).output();
    let output = output.expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `target/venv`.
fn venv() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    // It runs from target/TARGET/PROFILE/deps.
    let target = test.ancestors().nth(4).expect("a test runs from target/TARGET/PROFILE/deps");
    target.join("venv")
}
