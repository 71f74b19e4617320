//! HTTP in and out once, for gateway and watchdog.
//!
//! The way of a call through here: the server side hands over a request; [`headers`] takes off what
//! belongs to the one connection; [`Pool::send`] puts it on an idle connection to the upstream, or on a
//! new one, and tries once more where that is safe; [`Relay`] carries each body, one frame at a time,
//! with a limit on silence; when the answer's body has ended the connection goes back to its pool.
//! [`upgrade`] takes over where a call turns into two streams of bytes.
//!
//! A pool belongs to one upstream and one worker thread, so its lock is never contended; it is there
//! because the types must be `Send`.

#![forbid(unsafe_code)]

pub mod h1;
pub mod h2;
pub mod headers;
mod patience;
pub mod pool;
pub mod relay;
pub mod stream;
pub mod upgrade;

pub use pool::{Lease, Pool, SendFailure, Sent};
pub use relay::{BodyEnd, Ended, Relay, RelayError};
pub use stream::{Layer, Stream};
