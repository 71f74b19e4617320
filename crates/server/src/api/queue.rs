//! `/system/queue`: asynchronous calls that wait, and those that failed. OpenFaaS has no such thing.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pinnace_core::queue::{CallDocument, Dropped, QueueListing};
use serde::Deserialize;

use super::{Api, error::ApiError, functions::reference};
use crate::queue::LedgerError;

/// What is listed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Listed {
    function: Option<String>,
    namespace: String,
    failed: bool,
}

/// GET `/system/queue`: calls that wait or are under way; with `failed=true` those that failed.
pub async fn list(
    State(api): State<Arc<Api>>,
    Query(listed): Query<Listed>,
) -> Result<Json<QueueListing>, ApiError> {
    let name = listed.function.as_deref();
    let function = name.map(|name| reference(name, &listed.namespace)).transpose()?;
    Ok(Json(api.queue.list(function, listed.failed).await?))
}

/// DELETE `/system/queue?function=NAME`: all of the function's that wait are forgotten and those under way ended; with
/// `failed=true` those that failed are forgotten.
pub async fn discard_all(
    State(api): State<Arc<Api>>,
    Query(listed): Query<Listed>,
) -> Result<Json<Dropped>, ApiError> {
    let Some(name) = listed.function.as_deref() else {
        let text = "calls of which function are to be dropped is not said: add ?function=NAME";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, text.to_owned()));
    };
    let function = reference(name, &listed.namespace)?;
    Ok(Json(Dropped { dropped: api.queue.discard_all(function, listed.failed).await? }))
}

/// GET `/system/queue/CALL-ID`.
pub async fn show(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<CallDocument>>, ApiError> {
    match api.queue.show(&id).await? {
        calls if calls.is_empty() => Err(unknown(&id)),
        calls => Ok(Json(calls)),
    }
}

/// POST `/system/queue/CALL-ID/retry`: a failed call waits again.
pub async fn retry(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    match api.queue.retry(&id).await? {
        true => Ok(StatusCode::ACCEPTED),
        false => {
            let text = format!("there is no failed asynchronous call {:?}", shown(&id));
            Err(ApiError::new(StatusCode::NOT_FOUND, text))
        }
    }
}

/// DELETE `/system/queue/CALL-ID`: it is forgotten, and ended if it is under way.
pub async fn discard(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    match api.queue.discard(&id).await? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(unknown(&id)),
    }
}

fn unknown(id: &str) -> ApiError {
    let text = format!("there is no asynchronous call {:?}", shown(id));
    ApiError::new(StatusCode::NOT_FOUND, text)
}

/// The beginning of an id, which may be long.
fn shown(id: &str) -> String {
    id.chars().take(64).collect()
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}
