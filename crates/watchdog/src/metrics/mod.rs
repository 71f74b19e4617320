//! What the metrics port tells (contract section 8.1): calls by status and method, how long they took, and how
//! many are under way, under the names that both originals use.
//!
//! Main path: [`Metrics::begin`] when a call comes in; the [`Counted`] that it returns goes with the answer's body
//! and counts the call when that is over.

mod port;
mod process;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Method, StatusCode};
use tokio::time::Instant;

pub use self::port::listen;

/// Upper bounds of the buckets, in seconds.
const BUCKETS_SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The caller left before there was an answer. No server sends this; log readers know it from nginx.
const CALLER_LEFT: u16 = 499;

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    series: Mutex<BTreeMap<Labels, Series>>,
    in_flight: AtomicUsize,
}

/// Status and method; both come from small sets, so that callers cannot fill the memory with series.
type Labels = (u16, &'static str);

#[derive(Debug, Default)]
struct Series {
    calls: u64,
    seconds: f64,
    /// Calls that took no longer than the bound and longer than the one before.
    buckets: [u64; BUCKETS_SECONDS.len()],
}

/// A call under way. Dropping it counts the call.
#[derive(Debug)]
pub struct Counted {
    metrics: Arc<Metrics>,
    started: Instant,
    method: &'static str,
    status: u16,
}

impl Metrics {
    /// A call has come in.
    pub fn begin(self: &Arc<Self>, method: &Method, started: Instant) -> Counted {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let (metrics, method) = (Arc::clone(self), label(method));
        Counted { metrics, started, method, status: CALLER_LEFT }
    }

    /// All there is to tell, in the text format of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(4 << 10);
        // Writing to memory cannot fail.
        let _ = self.write_durations(&mut text);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let _ = writeln!(
            text,
            "# HELP http_requests_in_flight total HTTP requests in-flight\n\
             # TYPE http_requests_in_flight gauge\n\
             http_requests_in_flight {in_flight}"
        );
        let _ = self.write_totals(&mut text);
        text.push_str(&process::text());
        text
    }

    fn write_durations(&self, text: &mut String) -> std::fmt::Result {
        const NAME: &str = "http_request_duration_seconds";
        let series = self.lock();
        if series.is_empty() {
            return Ok(());
        }
        writeln!(text, "# HELP {NAME} Seconds spent serving HTTP requests.")?;
        writeln!(text, "# TYPE {NAME} histogram")?;
        for ((code, method), series) in series.iter() {
            let labels = format!("code=\"{code}\",method=\"{method}\"");
            let mut calls = 0;
            for (bound, within) in BUCKETS_SECONDS.iter().zip(series.buckets) {
                calls += within;
                writeln!(text, "{NAME}_bucket{{{labels},le=\"{bound}\"}} {calls}")?;
            }
            writeln!(text, "{NAME}_bucket{{{labels},le=\"+Inf\"}} {}", series.calls)?;
            writeln!(text, "{NAME}_sum{{{labels}}} {}", series.seconds)?;
            writeln!(text, "{NAME}_count{{{labels}}} {}", series.calls)?;
        }
        Ok(())
    }

    fn write_totals(&self, text: &mut String) -> std::fmt::Result {
        const NAME: &str = "http_requests_total";
        let series = self.lock();
        if series.is_empty() {
            return Ok(());
        }
        writeln!(text, "# HELP {NAME} total HTTP requests processed\n# TYPE {NAME} counter")?;
        for ((code, method), series) in series.iter() {
            writeln!(text, "{NAME}{{code=\"{code}\",method=\"{method}\"}} {}", series.calls)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Labels, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// The call is answered with this status.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        let seconds = self.started.elapsed().as_secs_f64();
        let mut all = self.metrics.lock();
        let series = all.entry((self.status, self.method)).or_default();
        series.calls += 1;
        series.seconds += seconds;
        if let Some(bucket) = BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound) {
            series.buckets[bucket] += 1;
        }
    }
}

/// Small letters; what is none of the usual methods is one.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" | "get" => "get",
        "PUT" | "put" => "put",
        "HEAD" | "head" => "head",
        "POST" | "post" => "post",
        "DELETE" | "delete" => "delete",
        "CONNECT" | "connect" => "connect",
        "OPTIONS" | "options" => "options",
        "NOTIFY" | "notify" => "notify",
        "TRACE" | "trace" => "trace",
        "PATCH" | "patch" => "patch",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(metrics: &Arc<Metrics>, line: &str) -> bool {
        metrics.text().lines().any(|other| other == line)
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_when_they_end() {
        let metrics = Arc::new(Metrics::default());
        let mut call = metrics.begin(&Method::GET, Instant::now());
        assert!(told(&metrics, "http_requests_in_flight 1"));
        assert!(!metrics.text().contains("http_requests_total"));
        tokio::time::advance(Duration::from_millis(300)).await;
        call.answered(StatusCode::OK);
        drop(call);
        for line in [
            "http_requests_in_flight 0",
            "http_requests_total{code=\"200\",method=\"get\"} 1",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.25\"} 0",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.5\"} 1",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"+Inf\"} 1",
            "http_request_duration_seconds_sum{code=\"200\",method=\"get\"} 0.3",
            "http_request_duration_seconds_count{code=\"200\",method=\"get\"} 1",
        ] {
            assert!(told(&metrics, line), "{line} is not in\n{}", metrics.text());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_is_in_no_bucket_but_the_last_and_odd_methods_are_one() {
        let metrics = Arc::new(Metrics::default());
        let call = metrics.begin(&Method::from_bytes(b"BREW").unwrap(), Instant::now());
        tokio::time::advance(Duration::from_secs(11)).await;
        drop(call);
        let labels = "code=\"499\",method=\"unknown\"";
        let bucket = |le: &str, calls: u64| {
            format!("http_request_duration_seconds_bucket{{{labels},le=\"{le}\"}} {calls}")
        };
        assert!(told(&metrics, &bucket("10", 0)) && told(&metrics, &bucket("+Inf", 1)));
    }
}
