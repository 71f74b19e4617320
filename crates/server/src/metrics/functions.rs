//! Metrics of functions, a line or more for each.

use std::sync::Arc;

use super::text::{Head, histogram, line};
use crate::{catalog::Entry, provider::Used, stats::Counted};

/// One function at a scrape.
pub struct Row {
    /// The function.
    pub entry: Arc<Entry>,
    /// What it uses, if it has, or had, replicas.
    pub used: Option<Used>,
}

/// One metric of all functions.
pub struct Metric {
    head: Head,
    write: fn(&mut String, &str, &Row),
}

impl Metric {
    /// Writes what goes before the values.
    pub fn begin(&self, text: &mut String) {
        self.head.write(text);
    }

    /// Writes the values of one function.
    pub fn write(&self, text: &mut String, row: &Row) {
        (self.write)(text, self.head.name, row);
    }
}

const fn metric(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    write: fn(&mut String, &str, &Row),
) -> Metric {
    Metric { head: Head { name, kind, help }, write }
}

/// All of them. Two have a second name, by which OpenFaaS's documents call them (contract section 11).
pub const METRICS: [Metric; 14] = [
    metric("gateway_function_invocation_total", "counter", "Calls answered", answered),
    metric("gateway_functions_seconds", "histogram", "Duration of calls", durations),
    metric("gateway_function_invocation_started", "counter", "Calls that arrived", started),
    metric("gateway_invocation_function_started", "counter", "Calls that arrived", started),
    metric("gateway_function_invocation_inflight", "gauge", "Calls under way", in_flight),
    metric(
        "gateway_invocation_function_invocation_inflight",
        "gauge",
        "Calls under way",
        in_flight,
    ),
    metric("gateway_service_count", "gauge", "Replicas wanted", |text, name, row| {
        gauge(text, name, row, f64::from(row.entry.standing().wanted));
    }),
    metric("gateway_service_ready_count", "gauge", "Replicas that serve", |text, name, row| {
        gauge(text, name, row, row.entry.ready().len() as f64);
    }),
    metric("gateway_service_min", "gauge", "Least replicas", |text, name, row| {
        gauge(text, name, row, f64::from(row.entry.deployed().spec.scale.min));
    }),
    metric(
        "gateway_service_target",
        "gauge",
        "Load of one replica that it is scaled by",
        |text, name, row| target(text, name, row, false),
    ),
    metric(
        "gateway_service_target_load",
        "gauge",
        "Load of one replica that it is scaled by, with how the load is measured",
        |text, name, row| target(text, name, row, true),
    ),
    metric(
        "pinnace_function_waiting_calls",
        "gauge",
        "Calls that wait for a replica",
        |text, name, row| {
            if row.entry.waiting() > 0 {
                gauge(text, name, row, row.entry.waiting() as f64);
            }
        },
    ),
    metric(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Processor time of its replicas",
        |text, name, row| used(text, name, row, |used| used.cpu_ns as f64 / 1e9),
    ),
    metric("pod_memory_working_set_bytes", "gauge", "Memory of its replicas", |text, name, row| {
        used(text, name, row, |used| used.memory_bytes as f64);
    }),
];

fn of(row: &Row) -> String {
    format!("function_name=\"{}\"", row.entry.id)
}

fn counted(row: &Row) -> Option<Counted> {
    let counted = row.entry.stats.total();
    (counted.started > 0).then_some(counted)
}

fn gauge(text: &mut String, name: &str, row: &Row, value: f64) {
    line(text, name, &of(row), value);
}

fn answered(text: &mut String, name: &str, row: &Row) {
    for (status, durations) in counted(row).iter().flat_map(|counted| &counted.answered) {
        line(text, name, &format!("{},code=\"{status}\"", of(row)), durations.count as f64);
    }
}

fn durations(text: &mut String, name: &str, row: &Row) {
    for (status, durations) in counted(row).iter().flat_map(|counted| &counted.answered) {
        histogram(text, name, &format!("{},code=\"{status}\"", of(row)), durations);
    }
}

fn started(text: &mut String, name: &str, row: &Row) {
    if let Some(counted) = counted(row) {
        gauge(text, name, row, counted.started as f64);
    }
}

fn in_flight(text: &mut String, name: &str, row: &Row) {
    if counted(row).is_some() {
        gauge(text, name, row, f64::from(row.entry.in_flight()));
    }
}

fn target(text: &mut String, name: &str, row: &Row, with_type: bool) {
    let deployed = row.entry.deployed();
    let rules = &deployed.spec.scale.rules;
    let Some(measure) = rules.measure.name() else { return };
    let scaling_type =
        if with_type { format!(",scaling_type=\"{measure}\"") } else { String::new() };
    line(text, name, &format!("{}{scaling_type}", of(row)), rules.target);
}

fn used(text: &mut String, name: &str, row: &Row, value: impl Fn(&Used) -> f64) {
    let Some(used) = &row.used else { return };
    let labels = format!("{},namespace=\"{}\"", of(row), row.entry.id.namespace());
    line(text, name, &labels, value(used));
}
