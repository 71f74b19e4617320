//! The tests of `squashed` once more, run by a user without any privilege.

use std::{os::unix::fs::chown, process::Command};

use pinnace_sandbox::images::{ImageStore, Ownership, StoreError};

use crate::archive::Place;

const NOBODY: u32 = 65_534;

#[test]
fn the_squashed_store_works_for_nobody() {
    let temp = tempfile::tempdir().unwrap();
    // A copy in a place that he can reach.
    let program = temp.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    for path in [temp.path(), &program] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
        .arg(&program)
        .arg("squashed::")
        .env("TMPDIR", temp.path())
        .current_dir(temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok. 6 passed"), "{text}");
}

#[test]
fn stores_of_the_two_kinds_are_told_apart() {
    let real = Place::with(Ownership::Real);
    let error = ImageStore::open(&real.dir(), Ownership::Squashed).unwrap_err();
    assert!(matches!(error, StoreError::OtherOwnership { .. }), "{error}");
    assert!(error.to_string().contains("made by root"), "{error}");
    let squashed = Place::with(Ownership::Squashed);
    let error = ImageStore::open(&squashed.dir(), Ownership::Real).unwrap_err();
    assert!(error.to_string().contains("ordinary user"), "{error}");
}
