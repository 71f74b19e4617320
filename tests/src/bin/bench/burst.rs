//! Many functions at zero that are called at the same time.

use std::{sync::Barrier, time::Instant};

use anyhow::{Result, bail};
use pinnace_tests::{Function, Gateway};

use crate::{
    Plan,
    figures::median,
    hello,
    latency::Caller,
    platform,
    reference::{Runc, if_there},
    report::{Promise, Row},
    warm::image,
};

/// How many functions there are.
const FUNCTIONS: usize = 100;
/// What they are made of.
const IMAGE: &str = "bench/burst:1";
/// The most that may pass until all are answered, in milliseconds.
const PROMISED_MS: f64 = 400.0;

/// Calls all functions at once, each over a connection of its own, beside as many `runc run`.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn from_zero(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&[]);
    let names: Vec<_> = (0..FUNCTIONS).map(|number| format!("burst-{number}")).collect();
    gateway.load(IMAGE, &image(IMAGE, &hello)?);
    for name in &names {
        gateway.deploy(&Function::new(name, IMAGE).label("com.openfaas.scale.zero", "true"));
    }
    let runc = if_there("runc run", Runc::bundle(&hello));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        ours.push(burst(&gateway, &names)?);
        if let Some(runc) = &runc {
            theirs.push(at_once((0..FUNCTIONS).map(|_| || runc.run().map(drop)).collect())?);
        }
        eprintln!("  round {} of {}", round + 1, plan.rounds);
    }
    let outcome = median(&ours);
    Ok(vec![Row {
        case: format!(
            "{FUNCTIONS} functions from zero, until all are answered, n = {}",
            ours.len()
        ),
        measure: "p50 ms",
        ours: outcome,
        reference_name: "100 runc run side by side",
        reference: (!theirs.is_empty()).then(|| median(&theirs)),
        promise: Promise::AtMost(PROMISED_MS),
        outcome,
    }])
}

/// Scales all to zero, then calls them; answers how long it took, in milliseconds.
fn burst(gateway: &Gateway, names: &[String]) -> Result<f64> {
    for name in names {
        gateway.scale(name, 0);
    }
    for name in names {
        gateway.until(name, "no replica is left", |status| {
            status["availableReplicas"].as_u64().unwrap_or(0) == 0
        });
    }
    let address = gateway.address().to_string();
    let mut calls = Vec::new();
    for name in names {
        let mut caller = Caller::connect(&address, &format!("/function/{name}/"))?;
        calls.push(move || caller.call().map(drop));
    }
    at_once(calls)
}

/// Begins all at the same time, each in a thread of its own that was there before; answers how long it took
/// until the last had ended, in milliseconds.
fn at_once(jobs: Vec<impl FnOnce() -> Result<()> + Send>) -> Result<f64> {
    let gate = Barrier::new(jobs.len() + 1);
    let gate = &gate;
    std::thread::scope(|scope| {
        let start = |job| {
            scope.spawn(move || {
                gate.wait();
                job_ended(job)
            })
        };
        let running: Vec<_> = jobs.into_iter().map(start).collect();
        gate.wait();
        let begin = Instant::now();
        let mut last = begin;
        for thread in running {
            let ended = thread.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
            last = last.max(ended);
        }
        Ok(last.duration_since(begin).as_secs_f64() * 1e3)
    })
}

fn job_ended(job: impl FnOnce() -> Result<()>) -> Result<Instant> {
    job()?;
    Ok(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_run_side_by_side_and_one_failure_is_told() {
        // Each waits for the other: in turn they would wait for ever.
        let meeting = Barrier::new(2);
        let meet = || {
            meeting.wait();
            Ok(())
        };
        assert!(at_once(vec![meet, meet]).unwrap() >= 0.0);
        let fails = |fails: bool| move || if fails { bail!("no answer") } else { Ok(()) };
        assert_eq!(at_once(vec![fails(false), fails(true)]).unwrap_err().to_string(), "no answer");
    }
}
