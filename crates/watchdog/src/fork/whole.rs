//! Bodies of requests that are read whole before their process starts.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONNECTION};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use pinnace_core::limits::HELD_BODY_BYTES_MAX;
use tokio::time::timeout;

use crate::{
    answer::{self, Answer},
    front::Peer,
};

/// Why a body was not read.
#[derive(Debug, Clone, Copy)]
pub enum Refused {
    /// It is larger than what is held.
    TooLarge,
    /// Its sender took longer than `read_timeout`.
    TooSlow,
    /// Its sender is gone.
    Broken,
}

/// Reads a body.
///
/// # Errors
/// [`Refused`].
pub async fn read(body: Incoming, read_timeout: Duration) -> Result<Bytes, Refused> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let whole = Limited::new(body, HELD_BODY_BYTES_MAX).collect();
    match timeout(read_timeout, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge),
        Ok(Err(_)) => Err(Refused::Broken),
        Err(_) => Err(Refused::TooSlow),
    }
}

impl Refused {
    /// The answer: a status of its own for what is too large, `else_status` with Go's words for the rest. It is the
    /// connection's last.
    pub fn answer(self, else_status: StatusCode, peer: Option<Peer>) -> Response<Answer> {
        let words = match self {
            Self::TooLarge => format!(
                "the body is larger than {HELD_BODY_BYTES_MAX} bytes, which is what is held: use \
                 of-watchdog's mode=streaming"
            ),
            Self::TooSlow => match peer {
                Some(Peer { local, remote }) => format!("read tcp {local}->{remote}: i/o timeout"),
                None => "read unix: i/o timeout".to_owned(),
            },
            Self::Broken => "unexpected EOF".to_owned(),
        };
        let mut response = match self {
            Self::TooLarge => answer::error(StatusCode::PAYLOAD_TOO_LARGE, words + "\n"),
            Self::TooSlow | Self::Broken => {
                let mut response = Response::new(Answer::memory(words));
                *response.status_mut() = else_status;
                response
            }
        };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}
