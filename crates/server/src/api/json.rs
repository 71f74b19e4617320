//! JSON bodies of requests: limited in size and time, and read even without a content type, as old clients
//! send them.

use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
};
use futures_util::StreamExt;
use pinnace_core::limits;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::ApiError;

/// Bytes of a body that is too large which are read and thrown away, so that its sender is still there to
/// read the answer.
const THROWN_AWAY_BYTES_MAX: usize = 64 << 20;

/// Reads a body.
///
/// # Errors
/// It is too large, came too slowly, broke off, or is not the JSON expected.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    json_within(body, API_BODY).await
}

/// How large a body may be, and the limit's name.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) bytes: usize,
    pub(super) limit: &'static str,
}

/// What most bodies may be.
pub(super) const API_BODY: Most =
    Most { bytes: limits::API_BODY_BYTES_MAX, limit: "API_BODY_BYTES_MAX" };

/// Reads a body of at most so many bytes.
///
/// # Errors
/// As [`json`].
pub(super) async fn json_within<T: DeserializeOwned>(
    body: Body,
    most: Most,
) -> Result<T, ApiError> {
    parsed(&read(body, most).await?)
}

/// Reads a body of a request that may come without one, as removals do: some clients and proxies send none.
///
/// # Errors
/// As [`json`].
pub(super) async fn json_if_any<T: DeserializeOwned + Default>(
    body: Body,
    most: Most,
) -> Result<T, ApiError> {
    let text = read(body, most).await?;
    if text.is_empty() { Ok(T::default()) } else { parsed(&text) }
}

fn parsed<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    // A list of an object's values in their order would be read as that object.
    let is_object = text.trim_ascii_start().first() == Some(&b'{');
    let parsed = match serde_json::from_slice(text) {
        Ok(_) if !is_object => Err("it is no object".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    };
    parsed.map_err(|why| {
        let text = format!("the body is not the JSON expected: {why}");
        ApiError::new(StatusCode::BAD_REQUEST, text)
    })
}

/// Reads a body as it is, of at most so many bytes.
///
/// # Errors
/// It is too large, came too slowly, or broke off.
pub(super) async fn read(body: Body, most: Most) -> Result<Vec<u8>, ApiError> {
    read_pieces(&mut body.into_data_stream(), most).await
}

/// Reads a body that somebody else may go on with.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_pieces(
    pieces: &mut BodyDataStream,
    most: Most,
) -> Result<Vec<u8>, ApiError> {
    let (mut text, mut bytes) = (Vec::new(), 0);
    loop {
        let piece = timeout(limits::BODY_IDLE_MAX, pieces.next()).await.map_err(|_| {
            let text = format!("no byte of the body came for {:?}", limits::BODY_IDLE_MAX);
            ApiError::new(StatusCode::REQUEST_TIMEOUT, text)
        })?;
        let Some(piece) = piece else { break };
        let piece = piece.map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        })?;
        bytes += piece.len();
        if bytes <= most.bytes {
            text.extend_from_slice(&piece);
        } else if bytes > THROWN_AWAY_BYTES_MAX {
            break;
        }
    }
    if bytes > most.bytes {
        let text = format!("the body is larger than {} bytes ({})", most.bytes, most.limit);
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(text)
}
