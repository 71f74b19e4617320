//! HTTP/2 as a relay needs it (RFC 9113): each stream is read and written as an HTTP/1.1 connection that
//! carries one call.
//!
//! So there is one way of a call, whatever either side speaks: [`super::h1`] relays, and a translator stands
//! at the end that speaks HTTP/2. [`Multiplexed`] is a caller's connection and gives one [`Stream`] after the
//! other, many at a time; [`Lines`] are the connections to a function, and give a [`Stream`] for each call.
//! Bodies keep their framing in chunks on the inside, so trailers pass. What one side does not take is not read
//! from the other: a stream's window is given back byte by byte, as its bytes are handed on.
//!
//! Frames, header compression, windows and the defence against floods are the `h2` crate's.

mod callers;
mod functions;
mod head;
mod inlet;
mod outlet;
mod prefixed;

pub use callers::{Caller, Multiplexed, PREFACE};
pub use functions::Lines;

use std::io;

/// An error of HTTP/2 as one of a connection, which is what it looks like.
#[allow(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn failed(error: h2::Error) -> io::Error {
    // A server that does not speak it often just closes.
    let kind = error.get_io().map_or(io::ErrorKind::Other, io::Error::kind);
    io::Error::new(kind, format!("as HTTP/2: {error}"))
}

fn malformed(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}
