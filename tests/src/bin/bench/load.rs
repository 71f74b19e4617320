//! Load by `wrk`, and what it says of it.

use std::{fmt::Write as _, io::Write as _, process::Command};

use anyhow::{Context, Result, bail};

/// What one run of wrk measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Requests that were answered.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Median of latency, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency, in microseconds.
    pub p99_us: f64,
}

/// Runs wrk against a URL.
///
/// # Errors
/// wrk cannot be run, or a call failed.
pub fn load(url: &str, connections: u32, seconds: u32) -> Result<Load> {
    run(&mut Command::new("wrk"), url, connections, seconds)
}

/// The same with this body in each request, which is a POST.
///
/// # Errors
/// wrk cannot be run, or a call failed.
pub fn post(url: &str, body: &[u8], connections: u32, seconds: u32) -> Result<Load> {
    let mut file = tempfile::Builder::new().prefix("bench-wrk-").suffix(".lua").tempfile()?;
    file.write_all(script(body).as_bytes())?;
    run(Command::new("wrk").arg("--script").arg(file.path()), url, connections, seconds)
}

/// A program for wrk. Each byte is written by its number, so that none needs another spelling.
fn script(body: &[u8]) -> String {
    let mut script = String::from("wrk.method = \"POST\"\nwrk.body = \"");
    for byte in body {
        write!(script, "\\{byte:03}").expect("a string takes it");
    }
    script + "\"\n"
}

fn run(wrk: &mut Command, url: &str, connections: u32, seconds: u32) -> Result<Load> {
    let threads = connections.min(2);
    let arguments = [format!("-t{threads}"), format!("-c{connections}"), format!("-d{seconds}s")];
    let output = wrk.arg("--latency").args(arguments).arg(url).output();
    let output = output.context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed at {url}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("at {url}"))
}

/// Reads wrk's report. A report that tells of failed calls is an error: a fast wrong answer is no answer.
fn parse(text: &str) -> Result<Load> {
    let after = |start: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(start));
        line.map(str::trim)
    };
    if let Some(bad) = after("Non-2xx or 3xx responses:") {
        bail!("{bad} answers were no success");
    }
    if let Some(errors) = after("Socket errors:") {
        bail!("connections failed: {errors}");
    }
    let per_second = after("Requests/sec:").context("wrk told no rate")?.parse()?;
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests = requests.context("wrk told no number of requests")?.0.parse()?;
    let p50_us = microseconds(after("50%").context("wrk told no median")?)?;
    let p99_us = microseconds(after("99%").context("wrk told no 99th percentile")?)?;
    Ok(Load { requests, per_second, p50_us, p99_us })
}

fn microseconds(text: &str) -> Result<f64> {
    let end = text.find(char::is_alphabetic).unwrap_or(text.len());
    let factor = match &text[end..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        unit => bail!("unknown unit {unit:?}"),
    };
    Ok(text[..end].parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
Running 3s test @ http://127.0.0.1:1/
  2 threads and 32 connections
  Latency Distribution
     50%  635.91us
     99%    2.87ms
  75000 requests in 3.00s, 9.1MB read
Requests/sec:  24987.53
Transfer/sec:      3.05MB
";

    #[test]
    fn a_report_is_read() {
        let load = Load { requests: 75_000, per_second: 24987.53, p50_us: 635.91, p99_us: 2870.0 };
        assert_eq!(parse(GOOD).unwrap(), load);
    }

    #[test]
    fn a_body_is_spelt_so_that_nothing_ends_it() {
        assert_eq!(script(b"a\"\n"), "wrk.method = \"POST\"\nwrk.body = \"\\097\\034\\010\"\n");
    }

    #[test]
    fn failed_calls_spoil_a_report() {
        let some = format!("{GOOD}  Non-2xx or 3xx responses: 5\n");
        assert!(parse(&some).unwrap_err().to_string().contains("5 answers"));
        let some = format!("{GOOD}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        assert!(parse(&some).is_err());
        assert!(parse("").is_err());
    }
}
