//! Our watchdog passes the golden table of OpenFaaS's two, case by case (`tests/contract`).
//!
//! The table holds what the originals do, their faults among it; `watchdog-better` says, case by case, where ours does
//! otherwise and why. The number of cases that must pass is written here, so that none can be lost.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Recorded of the originals.
const RECORDED: u32 = 287;
/// Of ours alone.
const OURS_ALONE: u32 = 7;

/// Plays the table; `of` and `classic` are commands.
fn play(of: &str, classic: &str, more: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let mut replay = Command::new("/usr/bin/python3");
    replay.current_dir(&folder).arg("watchdog-table.py");
    replay
        .args(["--of", of, "--classic", classic, "--again", "--jobs", "4", "watchdog"])
        .args(more);
    replay.output().unwrap()
}

fn assert_passed(played: &Output, cases: u32) {
    let text = String::from_utf8_lossy(&played.stdout);
    let last = text.lines().next_back().unwrap_or_default();
    let errors = String::from_utf8_lossy(&played.stderr);
    assert_eq!(last, format!("{cases} passed, 0 failed"), "{text}{errors}");
    assert!(played.status.success(), "{}", played.status);
}

#[test]
fn ours_passes_all_of_it_or_does_better() {
    let watchdog = pinnace_tests::watchdog();
    let kind = |kind: &str| format!("env watchdog_kind={kind} '{}'", watchdog.display());
    let played = play(&kind("of"), &kind("classic"), &["--better", "watchdog-better"]);
    assert_passed(&played, RECORDED + OURS_ALONE);
}

#[test]
fn the_originals_pass_it_where_they_are_at_hand() {
    let named = |name: &str| std::env::var_os(name).map(path);
    let (Some(of), Some(classic)) =
        (named("PINNACE_TEST_OF_WATCHDOG"), named("PINNACE_TEST_CLASSIC_WATCHDOG"))
    else {
        println!(
            "left out: PINNACE_TEST_OF_WATCHDOG and PINNACE_TEST_CLASSIC_WATCHDOG name no originals"
        );
        return;
    };
    assert_passed(&play(&of, &classic, &[]), RECORDED);
}

/// A program as a word of a shell.
fn path(program: OsString) -> String {
    format!("'{}'", PathBuf::from(program).display())
}
