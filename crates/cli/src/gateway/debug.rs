//! `FAAS_DEBUG=1`: what is asked of a gateway, on standard error, since a function's answer may go to a file.
//!
//! No secret is shown: neither what says who we are, nor a platform's secret on its way, nor what is sent to a function,
//! where only the caller knows what is one.

use std::fmt::Write as _;

use ureq::http::{HeaderName, HeaderValue, Request, Uri, header};

use crate::output::{self, printable};

/// What stands in the place of a secret.
const REDACTED: &str = "REDACTED";

/// Parts of names of headers whose values are nobody's business.
const SECRET_NAMES: [&str; 8] =
    ["authorization", "callback", "cookie", "key", "password", "secret", "signature", "token"];

/// A body that may be shown.
#[derive(Clone)]
pub struct Shown(pub Vec<u8>);

/// Whether requests are to be shown.
pub fn is_on() -> bool {
    std::env::var_os("FAAS_DEBUG").is_some_and(|value| value == "1")
}

/// Shows a request.
pub fn show(request: &Request<impl Sized>) {
    if is_on() {
        output::remark(described(request).trim_end());
    }
}

fn described(request: &Request<impl Sized>) -> String {
    let mut text = format!("{} {}\n", request.method(), url(request.uri()));
    for (name, value) in request.headers() {
        let _ = writeln!(text, "{name}: {}", shown(name, value));
    }
    if let Some(Shown(body)) = request.extensions().get::<Shown>() {
        let _ = writeln!(text, "{}", printable(&String::from_utf8_lossy(body)));
    }
    text
}

/// A URL without what is said to a function.
fn url(uri: &Uri) -> String {
    let text = uri.to_string();
    let to_function = ["/function/", "/async-function/"].iter().any(|way| uri.path().contains(way));
    match text.split_once('?') {
        Some((before, _)) if to_function => format!("{before}?{REDACTED}"),
        _ => text,
    }
}

fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    let is_secret = SECRET_NAMES.iter().any(|part| name.as_str().contains(part));
    let text = String::from_utf8_lossy(value.as_bytes());
    if !is_secret && !value.is_sensitive() {
        return printable(&text);
    }
    match text.split_once(' ') {
        Some((scheme @ ("Basic" | "Bearer"), _)) if name == header::AUTHORIZATION => {
            format!("{scheme} {REDACTED}")
        }
        _ => REDACTED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let request = Request::post("https://h/function/f?token=hunter2")
            .header("Authorization", "Bearer hunter2")
            .header("X-Api-Key", "hunter2")
            .header("Cookie", "a=hunter2")
            .header("Accept", "text/plain")
            .body(b"hunter2")
            .unwrap();
        assert_eq!(
            described(&request),
            "POST https://h/function/f?REDACTED\nauthorization: Bearer REDACTED\nx-api-key: REDACTED\n\
             cookie: REDACTED\naccept: text/plain\n"
        );
    }

    #[test]
    fn what_the_api_is_asked_is_shown() {
        let request = Request::put("http://h/system/functions?namespace=dev")
            .header("Authorization", "hunter2")
            .extension(Shown(br#"{"service":"f"}"#.to_vec()))
            .body(())
            .unwrap();
        assert_eq!(
            described(&request),
            "PUT http://h/system/functions?namespace=dev\nauthorization: REDACTED\n{\"service\":\"f\"}\n"
        );
    }
}
