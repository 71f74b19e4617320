//! HTTP/1.1 as a relay needs it (RFC 9112): heads are read where they were received and written anew,
//! header by header; bodies are decoded and encoded anew, so nothing about the framing of one side reaches
//! the other.
//!
//! [`Inbound`] is a caller's connection: it gives one request after the other. [`Exchange`] sends one
//! request to an upstream and passes the answer back, both bodies at the same time, in the caller's own
//! task. [`Idle`] keeps connections to an upstream; [`tunnel`] takes over where a call turns into two
//! streams of bytes; [`Lent`] lends a connection for one request to another HTTP server.
//!
//! A general client and server library spends most of its time on what a relay does not need: a map of
//! headers per message, a task and two channels per upstream connection, a read buffer per connection. Here
//! all connections of a thread read into the same buffer, and a connection between two calls holds none.

mod answer;
pub mod body;
mod exchange;
pub mod head;
mod hold;
mod idle;
mod inbound;
mod lent;
mod scratch;
mod tunnel;

pub use answer::{WholeAnswer, read_answer};
pub(crate) use body::Decoder;
pub use body::{BodyFault, Framing};
pub(crate) use exchange::write_framing;
pub use exchange::{Answered, Exchange, ExchangeFailure, Outgoing};
pub use head::{HeadFault, RequestHead, ResponseHead, write_header, write_number};
pub(crate) use head::{request as request_head, response as response_head};
pub use idle::Idle;
pub use inbound::{Asked, Inbound};
pub use lent::{Lent, LentBody, Returned};
pub use tunnel::tunnel;

/// Shows a request's whole head.
///
/// # Errors
/// It is refused, or not whole.
pub fn with_request_head<T>(
    bytes: &[u8],
    show: impl FnOnce(&RequestHead<'_>) -> T,
) -> Result<T, HeadFault> {
    head::request(bytes, |head, _| show(head))?.ok_or(HeadFault::Short)
}

/// Shows an answer's whole head.
///
/// # Errors
/// It is refused, or not whole.
pub fn with_response_head<T>(
    bytes: &[u8],
    show: impl FnOnce(&ResponseHead<'_>) -> T,
) -> Result<T, HeadFault> {
    head::response(bytes, |head, _| show(head))?.ok_or(HeadFault::Short)
}
