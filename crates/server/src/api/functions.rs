//! `/system/functions` and `/system/function/NAME` (contract sections 4.1 to 4.5).

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
};
use pinnace_core::{
    FunctionRef,
    name::DEFAULT_NAMESPACE,
    spec::LABEL_FUNCTION,
    wire::{DeleteFunctionRequest, FunctionDeployment, FunctionStatus},
};
use serde::Deserialize;

use super::{Api, error::ApiError, json::json};
use crate::{catalog::Entry, deployments::ChangeError};

/// Query of requests that concern a namespace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct InNamespace {
    /// Empty for the default one.
    pub namespace: String,
    /// Whether resource use is asked for.
    pub usage: String,
}

/// GET `/system/functions`.
pub async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
) -> Json<Vec<FunctionStatus>> {
    let namespace = namespace_or_default(&query.namespace);
    let mut functions: Vec<FunctionStatus> = api
        .deployments
        .catalog
        .all()
        .iter()
        .filter(|entry| entry.id.namespace() == namespace)
        .map(|entry| status(entry))
        .collect();
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    Json(functions)
}

/// GET `/system/function/NAME`.
pub async fn describe(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(query): Query<InNamespace>,
) -> Result<Json<FunctionStatus>, ApiError> {
    let id = reference(&name, &query.namespace)?;
    let entry = api.deployments.catalog.get(&id).ok_or(ChangeError::Unknown(id))?;
    let mut status = status(&entry);
    if matches!(query.usage.as_str(), "1" | "true") {
        status.usage = Some(api.deployments.provider.usage(&entry.id));
    }
    Ok(Json(status))
}

/// POST `/system/functions`.
pub async fn create(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    api.deployments.create(deployment(body, query).await?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// PUT `/system/functions`.
pub async fn update(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    api.deployments.update(deployment(body, query).await?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// DELETE `/system/functions`.
pub async fn remove(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request: DeleteFunctionRequest = json(body).await?;
    let namespace = body_or_query(request.namespace, query.namespace);
    let id = FunctionRef::new(&request.function_name, &namespace).map_err(ChangeError::from)?;
    api.deployments.remove(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// GET `/system/namespaces`: the default one and those that functions are in.
pub async fn namespaces(State(api): State<Arc<Api>>) -> Json<BTreeSet<String>> {
    let used = api.deployments.catalog.all();
    let used = used.iter().map(|entry| entry.id.namespace().to_owned());
    Json(used.chain([DEFAULT_NAMESPACE.to_owned()]).collect())
}

/// A function named in the path; the namespace may stand in the query or behind the name's last dot.
pub(super) fn reference(name: &str, namespace: &str) -> Result<FunctionRef, ApiError> {
    let id = if namespace.is_empty() {
        FunctionRef::parse(name)
    } else {
        FunctionRef::new(name, namespace)
    };
    Ok(id.map_err(ChangeError::from)?)
}

/// Mutations name their namespace in the body; old clients in the query (contract section 4).
pub(super) fn body_or_query(body: String, query: String) -> String {
    if body.is_empty() { query } else { body }
}

async fn deployment(body: Body, query: InNamespace) -> Result<FunctionDeployment, ApiError> {
    let mut deployment: FunctionDeployment = json(body).await?;
    deployment.namespace = body_or_query(deployment.namespace, query.namespace);
    Ok(deployment)
}

fn namespace_or_default(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

fn status(entry: &Entry) -> FunctionStatus {
    let deployed = entry.deployed();
    let standing = entry.standing();
    let deployment = &deployed.spec.deployment;
    let mut labels = deployment.labels.clone().unwrap_or_default();
    labels.insert(LABEL_FUNCTION.to_owned(), entry.id.name().to_owned());
    FunctionStatus {
        name: entry.id.name().to_owned(),
        image: deployment.image.clone(),
        namespace: entry.id.namespace().to_owned(),
        env_process: deployment.env_process.clone(),
        env_vars: deployment.env_vars.clone().filter(|env| !env.is_empty()),
        constraints: deployment.constraints.clone(),
        secrets: deployment.secrets.clone(),
        labels,
        annotations: deployment.annotations.clone().unwrap_or_default(),
        limits: deployment.limits.clone(),
        requests: deployment.requests.clone(),
        read_only_root_filesystem: deployment.read_only_root_filesystem,
        invocation_count: entry.stats.total().answers() as f64,
        replicas: standing.wanted,
        available_replicas: u32::try_from(entry.ready().len()).unwrap_or(u32::MAX),
        created_at: entry.created_at.clone(),
        usage: None,
        rollout: Some(entry.rollout()),
        conditions: standing.conditions.clone(),
    }
}
