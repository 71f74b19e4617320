//! Durable enqueues, beside a loop that does nothing but to write and sync.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use pinnace_tests::Function;

use crate::{
    Plan,
    figures::median,
    hello,
    load::post,
    platform,
    report::{Promise, Row},
    warm::image,
};

/// Callers at once, and records of one batch of the loop.
const CALLERS: u32 = 64;
/// What the function is made of.
const IMAGE: &str = "bench/async:1";
/// Bytes of a call's body.
const BODY_BYTES: usize = 256;
/// Bytes of a record of the loop: about what a call takes with its headers.
const RECORD_BYTES: usize = 768;
/// The least share of the loop's records that are enqueued.
const PROMISED: f64 = 0.7;

/// Calls that are answered 202, each on disk by then, a second. Their function is slow and takes one at a time, so
/// that deliveries take nothing of the machine.
///
/// # Errors
/// Something cannot be started, or a call was not taken.
pub fn durable(plan: &Plan) -> Result<Vec<Row>> {
    let archive = image(IMAGE, &hello()?)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        // A new platform each time, whose queue is empty.
        let gateway = platform(&[]);
        gateway.load(IMAGE, &archive);
        gateway.deploy(&Function::new("slow", IMAGE).annotation("dev.pinnace.concurrency", "1"));
        let url = format!("{}/async-function/slow/wait/600000", gateway.url());
        ours.push(post(&url, &[b'x'; BODY_BYTES], CALLERS, plan.seconds)?.per_second);
        theirs.push(bare(&gateway.state_dir(), Duration::from_secs(plan.seconds.into()))?);
        eprintln!("  round {} of {}", round + 1, plan.rounds);
    }
    let ratios: Vec<_> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    Ok(vec![Row {
        case: format!("{CALLERS} callers, bodies of {BODY_BYTES} bytes"),
        measure: "enqueues/s",
        ours: median(&ours),
        reference_name: "fdatasync of 64 records",
        reference: Some(median(&theirs)),
        promise: Promise::RatioAtLeast(PROMISED),
        outcome: median(&ratios),
    }])
}

/// Records a second that are appended to a file and synced, so many at a time.
fn bare(folder: &Path, time: Duration) -> Result<f64> {
    let path = folder.join("bare");
    let mut file = File::create(&path)?;
    let batch = vec![b'x'; RECORD_BYTES * CALLERS as usize];
    let (begin, mut records) = (Instant::now(), 0);
    while begin.elapsed() < time {
        file.write_all(&batch)?;
        file.sync_data()?;
        records += CALLERS;
    }
    let per_second = f64::from(records) / begin.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(per_second)
}
