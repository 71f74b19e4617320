//! `/system/scale-function/NAME` (contract section 4.6).

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Path, Query, State, rejection::BytesRejection},
    http::StatusCode,
};
use pinnace_core::wire::ScaleServiceRequest;

use super::{
    Api,
    error::ApiError,
    functions::{InNamespace, body_or_query, json, reference},
};

/// POST `/system/scale-function/NAME`. The path names the function; the body need not repeat it.
pub async fn scale(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(query): Query<InNamespace>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, ApiError> {
    let request: ScaleServiceRequest = json(body)?;
    let id = reference(&name, &body_or_query(request.namespace, query.namespace))?;
    api.deployments.scale(&id, request.replicas).await?;
    Ok(StatusCode::ACCEPTED)
}
