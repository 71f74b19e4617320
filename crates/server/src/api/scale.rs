//! `/system/scale-function/NAME` (contract section 4.6).

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use pinnace_core::wire::ScaleServiceRequest;

use super::{
    Api,
    error::ApiError,
    functions::{InNamespace, body_or_query, reference},
    json::json,
    query::Query,
};

/// POST `/system/scale-function/NAME`. The path names the function; the body need not repeat it.
pub async fn scale(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request: ScaleServiceRequest = json(body).await?;
    let id = reference(&name, &body_or_query(request.namespace, query.namespace))?;
    api.deployments.scale(&id, request.replicas).await?;
    Ok(StatusCode::ACCEPTED)
}
