//! A process per request: `busybox cat` gives back the body of a POST.
//!
//! What is promised holds for the watchdogs alone, called directly; what the platform makes of it is shown
//! beside that.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use pinnace_tests::{
    Function,
    images::{Image, Layer, Packing},
};
use serde_json::json;

use crate::{
    Plan,
    figures::median,
    load::post,
    platform,
    reference::{Running, forking, spawned_per_second},
    report::{Promise, Row},
    warm::unpacked_watchdog,
};

/// The program: static, so that the image holds nothing else.
const BUSYBOX: &str = "/bin/busybox";
/// What is sent and comes back.
const BODY: &[u8] = b"a body of the size of a small event\n";
/// How many callers there are at once.
const CONNECTIONS: [u32; 3] = [1, 4, 16];
/// Names the original's program.
pub const OF_WATCHDOG: &str = "PINNACE_OF_WATCHDOG";
/// What is said where it is not named.
pub const OF_WATCHDOG_MISSING: &str = "PINNACE_OF_WATCHDOG, the path of of-watchdog,";

/// Requests/s of our watchdog, of the original, of a bare loop, and of the platform, in both forking modes.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn per_request(plan: &Plan) -> Result<Vec<Row>> {
    let gateway = platform(&[]);
    gateway.load("bench/cat:1", &image()?);
    let ours = unpacked_watchdog(&gateway)?;
    let original = std::env::var_os(OF_WATCHDOG).map(PathBuf::from);
    let mut rows = Vec::new();
    for mode in ["serializing", "streaming"] {
        let function = Function::new(mode, "bench/cat:1").with("envProcess", "/busybox cat".into());
        gateway.deploy(&function.env("mode", mode));
        let started = |watchdog: &Path| forking(watchdog, &format!("{BUSYBOX} cat"), mode);
        // The original first, since it needs port 8081 for metrics; ours does without.
        let original = original.as_deref().map(started).transpose();
        let sides = Sides {
            original: original.context("start the original, which needs port 8081 too")?,
            ours: started(&ours)?,
            platform: format!("{}/function/{mode}", gateway.url()),
        };
        for connections in CONNECTIONS {
            let figures = sides.measure(plan, mode, connections)?;
            rows.extend(figures.rows(&format!("{mode}, {connections} connections")));
        }
    }
    Ok(rows)
}

/// The image that holds the command.
fn image() -> Result<Image> {
    let program = fs::read(BUSYBOX).with_context(|| format!("read {BUSYBOX}"))?;
    let layer = Layer::default().file("busybox", 0o755, &program);
    Ok(Image::new("bench/cat:1", json!({}), Packing::Plain).layer(layer))
}

/// Who is measured.
struct Sides {
    ours: Running,
    original: Option<Running>,
    /// URL of the function.
    platform: String,
}

/// Requests/s, a figure for each round.
#[derive(Debug, Default)]
struct Figures {
    ours: Vec<f64>,
    original: Vec<f64>,
    bare: Vec<f64>,
    platform: Vec<f64>,
}

impl Sides {
    /// Rounds of all in turn.
    fn measure(&self, plan: &Plan, mode: &str, connections: u32) -> Result<Figures> {
        let mut figures = Figures::default();
        let rate = |url: &str| -> Result<f64> {
            Ok(post(url, BODY, connections, plan.seconds)?.per_second)
        };
        for round in 0..plan.rounds {
            // Who goes first changes, so that nobody always follows the same.
            for turn in 0..4 {
                match (turn + round) % 4 {
                    0 => figures.ours.push(rate(&self.ours.url())?),
                    1 => {
                        let original = self.original.as_ref();
                        figures.original.extend(original.map(|it| rate(&it.url())).transpose()?);
                    }
                    2 => figures.bare.push(bare(connections, plan.seconds)?),
                    _ => figures.platform.push(rate(&self.platform)?),
                }
            }
            eprintln!(
                "  {mode}, {connections} connections: round {} of {}",
                round + 1,
                plan.rounds
            );
        }
        Ok(figures)
    }
}

fn bare(threads: u32, seconds: u32) -> Result<f64> {
    let duration = Duration::from_secs(seconds.into());
    spawned_per_second((Path::new(BUSYBOX), &["cat"]), BODY, threads, duration)
}

impl Figures {
    fn rows(&self, case: &str) -> Vec<Row> {
        let (alone, through) = (format!("{case}, watchdog alone"), format!("{case}, the platform"));
        let original = match self.original.is_empty() {
            true => against(&alone, &self.ours, OF_WATCHDOG_MISSING, &[], Promise::Nothing),
            false => {
                let promise = Promise::RatioAtLeast(1.3);
                against(&alone, &self.ours, "of-watchdog alone", &self.original, promise)
            }
        };
        let promise = Promise::RatioAtLeast(0.8);
        let bare = "a bare spawn loop, a thread per connection";
        let bare = against(&alone, &self.ours, bare, &self.bare, promise);
        let promise = Promise::Nothing;
        let platform = against(&through, &self.platform, "our watchdog alone", &self.ours, promise);
        vec![original, bare, platform]
    }
}

/// A row of the median ratio; of ours alone where there is no reference.
pub fn against(
    case: &str,
    ours: &[f64],
    reference_name: &'static str,
    theirs: &[f64],
    promise: Promise,
) -> Row {
    let ratios: Vec<_> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    Row {
        case: case.to_owned(),
        measure: "requests/s",
        ours: median(ours),
        reference_name,
        reference: (!theirs.is_empty()).then(|| median(theirs)),
        promise,
        outcome: if ratios.is_empty() { median(ours) } else { median(&ratios) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_made_of_the_watchdogs_alone() {
        let mut figures = Figures {
            ours: vec![130.0, 150.0, 170.0],
            original: vec![100.0, 100.0, 100.0],
            bare: vec![200.0, 200.0, 200.0],
            platform: vec![75.0, 75.0, 75.0],
        };
        let rows = figures.rows("streaming, 1 connections");
        let outcomes: Vec<_> = rows.iter().map(|row| (row.outcome, row.is_kept())).collect();
        assert_eq!(outcomes, [(1.5, true), (0.75, false), (0.5, true)]);
        assert_eq!(rows[2].case, "streaming, 1 connections, the platform");

        figures.original.clear();
        let alone = &figures.rows("streaming, 1 connections")[0];
        assert_eq!((alone.reference, alone.outcome), (None, 150.0));
        assert!(alone.reference_name.contains(OF_WATCHDOG));
    }
}
