//! Requests to the API and to the queue: how many, how long, how they were answered.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::Method,
    middleware::Next,
    response::Response,
};

use super::text::{Head, histogram, line};
use crate::stats::Durations;

/// Counters of requests. There are no more than routes, methods and statuses: a path is told without what it
/// names, and methods that nobody serves count as one.
#[derive(Debug, Default)]
pub struct Requests {
    counted: Mutex<BTreeMap<Kind, Durations>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    path: String,
    method: &'static str,
    status: u16,
}

impl Requests {
    /// Counts one. `route` is the pattern that it was matched by, such as `/system/function/{name}`.
    pub fn answered(&self, route: &str, method: &Method, status: u16, took: Duration) {
        let path = route.split("/{").next().unwrap_or_default().trim_end_matches('/').to_owned();
        let kind = Kind { path, method: known(method), status };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.entry(kind).or_default().add(took.as_secs_f64());
    }

    /// Their text: once under the gateway's names, once under those of its provider, which here is the same
    /// program.
    pub fn written(&self) -> String {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        for (prefix_total, prefix_seconds, status_label) in [
            ("http_requests_total", "http_request_duration_seconds", "status"),
            ("provider_http_requests_total", "provider_http_request_duration_seconds", "code"),
        ] {
            let labels = |kind: &Kind| {
                let Kind { path, method, status } = kind;
                format!("method=\"{method}\",path=\"{path}\",{status_label}=\"{status}\"")
            };
            Head { name: prefix_total, kind: "counter", help: "Requests to the API and the queue" }
                .write(&mut text);
            for (kind, durations) in &counted {
                line(&mut text, prefix_total, &labels(kind), durations.count as f64);
            }
            Head {
                name: prefix_seconds,
                kind: "histogram",
                help: "Duration of requests to the API",
            }
            .write(&mut text);
            for (kind, durations) in &counted {
                histogram(&mut text, prefix_seconds, &labels(kind), durations);
            }
        }
        text
    }
}

/// Counts a request that goes through a router, by the route that it takes.
pub async fn count(
    State(requests): State<Arc<Requests>>,
    request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    if let Some(route) = route {
        requests.answered(route.as_str(), &method, response.status().as_u16(), begun.elapsed());
    }
    response
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_names_is_not_told() {
        let requests = Requests::default();
        let method = Method::from_bytes(b"BREW").unwrap();
        for route in ["/system/function/{name}", "/system/function/{name}", "/system/namespace/"] {
            requests.answered(route, &method, 404, Duration::from_millis(7));
        }
        let text = requests.written();
        for line in [
            "http_requests_total{method=\"OTHER\",path=\"/system/function\",status=\"404\"} 2",
            "http_requests_total{method=\"OTHER\",path=\"/system/namespace\",status=\"404\"} 1",
            "provider_http_requests_total{method=\"OTHER\",path=\"/system/function\",code=\"404\"} 2",
            "http_request_duration_seconds_bucket{method=\"OTHER\",path=\"/system/function\",status=\"404\",le=\"0.01\"} 2",
        ] {
            assert!(text.contains(line), "{line} not in:\n{text}");
        }
    }
}
