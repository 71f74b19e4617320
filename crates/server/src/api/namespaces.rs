//! `/system/namespaces` and `/system/namespace/NAME` (contract section 4.10).

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use pinnace_core::{Namespace, name::DEFAULT_NAMESPACE, wire::FunctionNamespace};

use super::{
    Api,
    error::ApiError,
    json::{API_BODY, json_if_any},
};

/// The name in a path, which clients may leave out.
type Named = Option<Path<String>>;

/// GET `/system/namespaces`.
pub async fn list(State(api): State<Arc<Api>>) -> Json<Vec<String>> {
    Json(api.deployments.namespaces.list())
}

/// GET `/system/namespace/NAME`; without a name, the default one.
pub async fn show(
    State(api): State<Arc<Api>>,
    name: Named,
) -> Result<Json<FunctionNamespace>, ApiError> {
    let name = name.map_or_else(|| DEFAULT_NAMESPACE.to_owned(), |Path(name)| name);
    let namespace = api.deployments.namespaces.get(&name)?;
    let (labels, annotations) = (namespace.labels.clone(), namespace.annotations.clone());
    Ok(Json(FunctionNamespace { name, labels, annotations }))
}

/// POST `/system/namespace/`, where clients leave the name out of the path.
pub async fn create(
    State(api): State<Arc<Api>>,
    name: Named,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sent = sent(name, body).await?;
    let name = sent.name.clone();
    api.deployments.namespaces.create(&name, Namespace::check(sent)?).await?;
    Ok(StatusCode::CREATED)
}

/// PUT `/system/namespace/NAME`.
pub async fn update(
    State(api): State<Arc<Api>>,
    name: Named,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sent = sent(name, body).await?;
    let name = sent.name.clone();
    // What is not there is said before what is wrong with it.
    api.deployments.namespaces.get(&name)?;
    api.deployments.namespaces.update(&name, Namespace::check(sent)?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// DELETE `/system/namespace/NAME`, with all that is in it.
pub async fn remove(
    State(api): State<Arc<Api>>,
    name: Named,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sent = sent(name, body).await?;
    api.deployments.namespaces.get(&sent.name)?;
    api.deployments.remove_namespace(&sent.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// What was sent, by the name in the path; a body without one, or none at all, means that.
async fn sent(name: Named, body: Body) -> Result<FunctionNamespace, ApiError> {
    let mut sent: FunctionNamespace = json_if_any(body, API_BODY).await?;
    let Some(Path(name)) = name else { return Ok(sent) };
    if sent.name.is_empty() {
        sent.name.clone_from(&name);
    }
    if sent.name != name {
        let text = format!("the path names namespace {name}, the body another one");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, text));
    }
    Ok(sent)
}
