//! Our watchdog alone, called directly: http mode beside the original before the same function, and the memory that it
//! takes.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    Plan,
    fork::{OF_WATCHDOG, OF_WATCHDOG_MISSING, against},
    hello,
    load::{load, post},
    reference::{Running, forking, watchdog},
    report::{Promise, Row},
};

/// How many callers there are at once.
const CONNECTIONS: [u32; 2] = [4, 32];
/// What the memory is promised to stay below.
const RESIDENT_MB: f64 = 3.0;

/// Requests/s in http mode.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn http(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    // First, since it needs port 8081 for metrics; ours does without.
    let original = std::env::var_os(OF_WATCHDOG).map(PathBuf::from);
    let original = original.map(|program| watchdog(&program, &hello)).transpose();
    let original = original.context("start the original, which needs port 8081 too")?;
    let ours = watchdog(&pinnace_tests::watchdog(), &hello)?;
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
        let rate = |side: &Running| {
            Ok::<_, anyhow::Error>(load(&side.url(), connections, plan.seconds)?.per_second)
        };
        for round in 0..plan.rounds {
            // Who goes first changes, so that nobody always follows the other.
            for turn in 0..2 {
                match (&original, (turn + round) % 2) {
                    (_, 0) => our_rates.push(rate(&ours)?),
                    (Some(original), _) => their_rates.push(rate(original)?),
                    (None, _) => {}
                }
            }
            eprintln!("  {connections} connections: round {} of {}", round + 1, plan.rounds);
        }
        let case = format!("{connections} connections, watchdog alone");
        rows.push(match their_rates.is_empty() {
            true => against(&case, &our_rates, OF_WATCHDOG_MISSING, &[], Promise::Nothing),
            false => {
                let promise = Promise::RatioAtLeast(1.5);
                against(&case, &our_rates, "of-watchdog alone", &their_rates, promise)
            }
        });
    }
    Ok(rows)
}

/// Resident memory after some thousands of calls.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn memory(plan: &Plan) -> Result<Vec<Row>> {
    let program = pinnace_tests::watchdog();
    let serializing = forking(&program, "/bin/busybox cat", "serializing")?;
    let http = watchdog(&program, &hello()?)?;
    let calls = |side: &Running, case: &str| -> Result<Row> {
        let mut calls = 0;
        while calls < 5000 {
            calls += post(&side.url(), b"a body\n", 4, plan.seconds)?.requests;
        }
        let resident = side.resident_bytes()? as f64 / 1e6;
        Ok(Row {
            case: format!("{case}, after {calls} calls at 4 connections"),
            measure: "resident MB",
            ours: resident,
            reference_name: "-",
            reference: None,
            promise: Promise::AtMost(RESIDENT_MB),
            outcome: resident,
        })
    };
    Ok(vec![calls(&serializing, "serializing")?, calls(&http, "http")?])
}
