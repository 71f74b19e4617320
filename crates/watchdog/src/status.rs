//! What the watchdog answers in its own name (contract sections 8.4 and 8.7).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::answer::{self, Answer};

/// How long the function took, in seconds.
pub const X_DURATION_SECONDS: HeaderName = HeaderName::from_static("x-duration-seconds");
/// Who of the platform made this answer, which a function then did not.
pub const X_OPENFAAS_INTERNAL: HeaderName = HeaderName::from_static("x-openfaas-internal");

const FROM_WATCHDOG: HeaderValue = HeaderValue::from_static("of-watchdog");
/// What calls pass before the function made it.
pub const FROM_MIDDLEWARE: HeaderValue = HeaderValue::from_static("faas-middleware");

/// A call of http mode that failed: 500 where the function did not answer, 504 where it was too slow.
pub fn failed_call(status: StatusCode, took: Duration) -> Response<Answer> {
    let mut response = answer::bare(status);
    let headers = response.headers_mut();
    headers.insert(X_OPENFAAS_INTERNAL, FROM_WATCHDOG);
    headers.insert(X_DURATION_SECONDS, seconds(took));
    response
}

/// A streaming call whose process was ended by `exec_timeout` before it wrote anything.
pub fn silent_timeout(limit: Duration) -> Response<Answer> {
    let limit = crate::spelling::duration(limit);
    let text = format!("signal: killed (exec_timeout of {limit} has passed)\n");
    let mut response = answer::text(StatusCode::GATEWAY_TIMEOUT, text);
    response.headers_mut().insert(X_OPENFAAS_INTERNAL, FROM_WATCHDOG);
    response
}

/// More calls at once than `max_inflight` allows.
pub fn over_limit(max: usize) -> Response<Answer> {
    let text = format!("Concurrent request limit exceeded. Max concurrent requests: {max}\n");
    let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(X_OPENFAAS_INTERNAL, FROM_MIDDLEWARE);
    response
}

/// A request that cannot be understood. The connection ends with it.
pub fn refused(status: StatusCode, words: &'static str) -> Response<Answer> {
    let mut response = answer::text(status, words);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Nothing is there.
pub fn not_found() -> Response<Answer> {
    answer::error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A duration as `X-Duration-Seconds` has it: six decimals.
pub fn seconds(took: Duration) -> HeaderValue {
    let text = format!("{}.{:06}", took.as_secs(), took.subsec_micros());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0.000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_six_decimals() {
        assert_eq!(seconds(Duration::from_micros(3_712)), "0.003712");
        assert_eq!(seconds(Duration::from_millis(61_000)), "61.000000");
    }

    #[test]
    fn the_limit_names_itself() {
        let response = over_limit(3);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-openfaas-internal"], "faas-middleware");
        assert_eq!(response.headers()["content-type"], "text/plain");
    }
}
