//! Metrics in Prometheus's text format, under OpenFaaS's names (contract section 11), on a port of their
//! own.

use std::{fmt::Write, sync::Arc};

use axum::{Router, http::header, routing::get};

use crate::{
    catalog::Catalog,
    queue::{self, AsyncQueue},
    stats::{BUCKETS_SECONDS, Durations},
};

/// Every metric: its name, its type and what it says.
const METRICS: [(&str, &str, &str); 5] = [
    ("gateway_function_invocation_total", "counter", "Calls answered"),
    ("gateway_functions_seconds", "histogram", "Duration of calls"),
    ("gateway_function_invocation_started", "counter", "Calls that arrived"),
    ("gateway_function_invocation_inflight", "gauge", "Calls under way"),
    ("gateway_service_count", "gauge", "Replicas wanted"),
];

/// Answers `/metrics` and `/healthz`.
pub fn router(catalog: Arc<Catalog>, queue: Arc<AsyncQueue>) -> Router {
    let metrics = async move || {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let mut text = render(&catalog);
        queue::metrics::render(&queue, &mut text);
        ([(header::CONTENT_TYPE, kind)], text)
    };
    Router::new().route("/metrics", get(metrics)).route("/healthz", get(async || "OK"))
}

fn render(catalog: &Catalog) -> String {
    let mut groups: [String; METRICS.len()] = Default::default();
    let [total, seconds, started, in_flight, wanted] = &mut groups;
    for entry in catalog.all() {
        let counted = entry.stats.total();
        let name = &entry.id;
        for (status, durations) in &counted.answered {
            let labels = format!("function_name=\"{name}\",code=\"{status}\"");
            line(total, METRICS[0].0, &labels, durations.count as f64);
            histogram(seconds, METRICS[1].0, &labels, durations);
        }
        let labels = format!("function_name=\"{name}\"");
        if counted.started > 0 {
            line(started, METRICS[2].0, &labels, counted.started as f64);
            line(in_flight, METRICS[3].0, &labels, f64::from(entry.in_flight()));
        }
        line(wanted, METRICS[4].0, &labels, f64::from(entry.standing().wanted));
    }
    let mut text = String::new();
    for ((name, kind, help), lines) in METRICS.iter().zip(&groups) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}"));
    }
    text
}

fn line(text: &mut String, name: &str, labels: &str, value: f64) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

fn histogram(text: &mut String, name: &str, labels: &str, durations: &Durations) {
    let mut below = 0;
    for (upper, count) in BUCKETS_SECONDS.iter().zip(durations.buckets) {
        below += count;
        line(text, &format!("{name}_bucket"), &format!("{labels},le=\"{upper}\""), below as f64);
    }
    let all = durations.count as f64;
    line(text, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), all);
    line(text, &format!("{name}_sum"), labels, durations.sum_seconds);
    line(text, &format!("{name}_count"), labels, all);
}
