//! One place that turns what came back, or did not, into sentences for people.

use std::{
    fmt,
    io::{self, Read},
};

use pinnace_core::limits;
use pinnace_server::TlsFault;
use ureq::http::StatusCode;

use super::{Address, Answer};
use crate::{image::SourceError, output::printable};

/// What went wrong when nothing came back from `address` for `doing`.
pub fn no_answer(address: &Address, doing: &str, error: &ureq::Error) -> anyhow::Error {
    let why = match error {
        ureq::Error::Io(io) => return by_io(address, doing, io),
        ureq::Error::ConnectionFailed => return unreachable(address, doing),
        ureq::Error::HostNotFound => {
            format!("the host of {address} is not known; check --gateway")
        }
        ureq::Error::Timeout(_) => format!("{address} did not answer in time"),
        ureq::Error::Tls(why) => insecure(address, why, None),
        ureq::Error::Rustls(why) => insecure(address, why, TlsFault::behind(why)),
        ureq::Error::RedirectFailed => {
            format!("{address} asks to send the request elsewhere, which would repeat its body")
        }
        other => format!("{address}: {other}"),
    };
    anyhow::anyhow!("{doing}: {why}")
}

fn by_io(address: &Address, doing: &str, error: &io::Error) -> anyhow::Error {
    if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<SourceError>) {
        return anyhow::anyhow!("{doing}: {error}");
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => unreachable(address, doing),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => {
            anyhow::anyhow!("{doing}: {address} closed the connection without an answer")
        }
        io::ErrorKind::InvalidData => {
            let why = insecure(address, error, TlsFault::behind(error));
            anyhow::anyhow!("{doing}: {why}")
        }
        _ => anyhow::anyhow!("{doing}: {address}: {error}"),
    }
}

fn unreachable(address: &Address, doing: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{doing}: no gateway answers at {address}; start one with `pinnace up`, or name another with \
         --gateway or OPENFAAS_URL"
    )
}

fn insecure(address: &Address, why: impl fmt::Display, fault: Option<TlsFault>) -> String {
    let advice = match &fault {
        Some(TlsFault::Certificate(_)) => {
            "; with a certificate of your own, --tls-no-verify leaves the check out"
        }
        Some(TlsFault::NotTls(_)) => "; perhaps its URL begins with http://",
        Some(TlsFault::Other(_)) | None => "",
    };
    let why = fault.map_or_else(|| why.to_string(), |fault| fault.to_string());
    format!("there is no secure connection to {address}: {why}{advice}")
}

/// What an answer that is no success means for `doing`.
pub fn refused(address: &Address, doing: &str, mut answer: Answer) -> anyhow::Error {
    let status = answer.status();
    if status == StatusCode::UNAUTHORIZED {
        return anyhow::anyhow!(
            "{doing}: not logged in at {address}; run `pinnace login --gateway {address}`"
        );
    }
    if status.is_redirection() {
        let target = answer.headers().get("location").and_then(|value| value.to_str().ok());
        let target = printable(target.unwrap_or("another address"));
        return anyhow::anyhow!(
            "{doing}: {address} answers {} and points to {target}; give the gateway's own URL with \
             --gateway",
            spoken(status)
        );
    }
    let text = error_text(answer.body_mut().as_reader());
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    if status == StatusCode::FORBIDDEN {
        return anyhow::anyhow!("{doing}: your account at {address} may not do this{text}");
    }
    anyhow::anyhow!("{doing}: {address} answers {}{text}", spoken(status))
}

/// A status as people say it: `404 Not Found`.
pub fn spoken(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The beginning of an error's body, in one piece and without control characters.
fn error_text(body: impl Read) -> String {
    let mut bytes = Vec::new();
    // Half an error text is better than none.
    let _ = body.take(limits::ERROR_TEXT_BYTES_MAX).read_to_end(&mut bytes);
    printable(String::from_utf8_lossy(&bytes).trim())
}
