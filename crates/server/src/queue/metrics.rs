//! The queue's metrics, under OpenFaaS's names (contract section 11).

use std::{fmt::Write, sync::atomic::Ordering};

use super::AsyncQueue;

/// The one queue there is, by its name in OpenFaaS.
const QUEUE_NAME: &str = "faas-request";

/// Writes them in Prometheus's text format.
pub fn render(queue: &AsyncQueue, text: &mut String) {
    let (mut waiting, mut in_flight) = (String::new(), String::new());
    for counts in queue.shared.state().queue.counts() {
        let function = &counts.function;
        let labels = format!("queue_name=\"{QUEUE_NAME}\",function_name=\"{function}\"");
        // Writing to a string cannot fail.
        let _ = writeln!(waiting, "queue_worker_pending_messages{{{labels}}} {}", counts.waiting);
        let name = "queue_worker_function_invocation_inflight";
        let _ = writeln!(in_flight, "{name}{{{labels}}} {}", counts.in_flight);
    }
    let total = |name: &str, count: u64| format!("{name}{{queue_name=\"{QUEUE_NAME}\"}} {count}\n");
    let processed = "queue_worker_messages_processed_total";
    let submitted = "queue_worker_messages_submitted_total";
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let groups = [
        ("queue_worker_pending_messages", "gauge", "Asynchronous calls that wait", waiting),
        (
            "queue_worker_function_invocation_inflight",
            "gauge",
            "Asynchronous calls under way",
            in_flight,
        ),
        (
            processed,
            "counter",
            "Asynchronous calls that have been answered or have failed",
            total(processed, count(&queue.processed)),
        ),
        (
            submitted,
            "counter",
            "Asynchronous calls taken",
            total(submitted, count(&queue.shared.submitted)),
        ),
    ];
    for (name, kind, help, lines) in groups {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
    }
}
