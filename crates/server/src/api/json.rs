//! JSON bodies of requests: limited in size and time, and read even without a content type, as old clients
//! send them.

use axum::{body::Body, http::StatusCode};
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
    let text = read(body).await?;
    serde_json::from_slice(&text).map_err(|error| {
        let text = format!("the body is not the JSON expected: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, text)
    })
}

/// Reads a body as it is.
///
/// # Errors
/// It is too large, came too slowly, or broke off.
pub(super) async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let mut pieces = body.into_data_stream();
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
        if bytes <= limits::API_BODY_BYTES_MAX {
            text.extend_from_slice(&piece);
        } else if bytes > THROWN_AWAY_BYTES_MAX {
            break;
        }
    }
    if bytes > limits::API_BODY_BYTES_MAX {
        let most = limits::API_BODY_BYTES_MAX;
        let text = format!("the body is larger than {most} bytes (API_BODY_BYTES_MAX)");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(text)
}
