//! Calls that must start their function first.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use pinnace_tests::{Gateway, eventually};

use crate::{
    Plan,
    figures::percentile,
    hello,
    latency::Caller,
    platform,
    reference::{Docker, Migrated, Runc, if_there},
    report::{Promise, Row},
    warm::{Way, deploy},
};

/// Samples of `docker run`, which takes half a second each.
const DOCKER_SAMPLES: u32 = 30;

/// How long a replica may take to end.
const END_MAX: Duration = Duration::from_secs(20);

/// Scales to zero and calls, again and again, beside `runc run` and `docker run`.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn from_zero(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&[]);
    deploy(&gateway, &hello, "cold", Way::Port)?;
    let promises = [("p50 us", 50.0, 2_000.0), ("p99 us", 99.0, 10_000.0)];

    let runc = if_there("runc run", Runc::bundle(&hello));
    let run = runc.as_ref().map(|runc| || runc.run());
    let mut rows = beside(&gateway, plan.samples, "runc run", run, &promises)?;

    // In turns of its own: what the daemon writes would slow the hundredth part that p99 is made of.
    let docker = if_there("docker run", Docker::start(&hello));
    let run = docker.as_ref().map(|docker| || docker.run());
    let samples = plan.samples.min(DOCKER_SAMPLES);
    rows.extend(beside(&gateway, samples, "docker run", run, &promises[..1])?);
    Ok(rows)
}

/// The same where no sandbox is made ahead, beside a process that is moved into a control group.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn without_slots(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&["--slots", "0"]);
    deploy(&gateway, &hello, "cold", Way::Port)?;
    let mut migrated = Migrated::new(&hello)?;
    let promises = [("p50 us", 50.0, 12_000.0), ("p99 us", 99.0, 30_000.0)];
    let run = Some(|| migrated.run());
    beside(&gateway, plan.samples, "a bare clone with one migration", run, &promises)
}

/// Ours and the reference in turns; a row for each promised percentile: its name, which it is, and the most
/// that it may be.
fn beside(
    gateway: &Gateway,
    samples: u32,
    reference_name: &'static str,
    mut reference: Option<impl FnMut() -> Result<f64>>,
    promises: &[(&'static str, f64, f64)],
) -> Result<Vec<Row>> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        ours.push(one(gateway)?);
        if let Some(reference) = &mut reference {
            theirs.push(reference()?);
        }
        if (sample + 1) % 100 == 0 || sample + 1 == samples {
            eprintln!("  beside {reference_name}: {} of {samples}", sample + 1);
        }
    }
    let rows = promises.iter().map(|&(measure, percent, most)| {
        let outcome = percentile(&ours, percent);
        Row {
            case: format!("from zero to the whole answer, n = {samples}"),
            measure,
            ours: outcome,
            reference_name,
            reference: (!theirs.is_empty()).then(|| percentile(&theirs, percent)),
            promise: Promise::AtMost(most),
            outcome,
        }
    });
    Ok(rows.collect())
}

/// Ends all replicas, then calls; answers how long the call took, in microseconds.
fn one(gateway: &Gateway) -> Result<f64> {
    gateway.scale("cold", 0);
    gateway.until("cold", "no replica is left", |status| {
        status["availableReplicas"].as_u64().unwrap_or(0) == 0
    });
    // Else its end would be a part of what is measured.
    eventually("nothing is left of the last one", END_MAX, || {
        let slots = fs::read_dir(gateway.state_dir().join("run/slots")).ok()?.flatten();
        let has_replica =
            |slot: &Path| fs::metadata(slot.join("replica.json")).is_ok_and(|file| file.len() > 0);
        (!slots.map(|slot| slot.path()).any(|slot| has_replica(&slot))).then_some(())
    });
    let begin = Instant::now();
    Caller::connect(&gateway.address().to_string(), "/function/cold/")?.call()?;
    Ok(begin.elapsed().as_secs_f64() * 1e6)
}
