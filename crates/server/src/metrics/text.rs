//! Lines of Prometheus's text format.

use std::fmt::Write;

use crate::stats::{BUCKETS_SECONDS, Durations};

/// Name, type and meaning of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

impl Head {
    /// Writes the lines that go before a metric's values.
    pub fn write(&self, text: &mut String) {
        let Self { name, kind, help } = self;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// Writes one value. Labels are `name="value"` each; no value of ours needs an escape.
pub fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        _ => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// Writes a histogram's values.
pub fn histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let mut below = 0;
    for (upper, count) in BUCKETS_SECONDS.iter().zip(durations.buckets) {
        below += count;
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{upper}\"}} {below}");
    }
    let Durations { count, sum_seconds, .. } = durations;
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{{labels}}} {sum_seconds}");
    let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
}
