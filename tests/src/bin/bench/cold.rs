//! Calls that must start their function first.

use std::time::Instant;

use anyhow::Result;
use pinnace_tests::Gateway;

use crate::{
    Plan,
    figures::percentile,
    hello,
    latency::Caller,
    reference::Runc,
    report::{Promise, Row},
    warm::{Way, deploy},
};

/// Scales to zero and calls, again and again.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn from_zero(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = Gateway::start();
    deploy(&gateway, &hello, "cold", Way::Port)?;
    let mut runc = Runc::bundle(&hello).ok();
    let samples = plan.samples;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        ours.push(one(&gateway)?);
        if let Some(runc) = &mut runc {
            theirs.push(runc.run()?);
        }
        if (sample + 1) % 100 == 0 {
            eprintln!("  {} of {samples}", sample + 1);
        }
    }
    let row = |measure, percent, most| {
        let outcome = percentile(&ours, percent);
        Row {
            case: format!("from zero to the whole answer, n = {samples}"),
            measure,
            ours: outcome,
            reference_name: "runc run",
            reference: (!theirs.is_empty()).then(|| percentile(&theirs, percent)),
            promise: Promise::AtMost(most),
            outcome,
        }
    };
    Ok(vec![row("p50 us", 50.0, 2_000.0), row("p99 us", 99.0, 10_000.0)])
}

/// Ends all replicas, then calls; answers how long the call took, in microseconds.
fn one(gateway: &Gateway) -> Result<f64> {
    gateway.scale("cold", 0);
    gateway.until("cold", "no replica is left", |status| {
        status["availableReplicas"].as_u64().unwrap_or(0) == 0
    });
    let begin = Instant::now();
    Caller::connect(&gateway.address().to_string(), "/function/cold/")?.call()?;
    Ok(begin.elapsed().as_secs_f64() * 1e6)
}
