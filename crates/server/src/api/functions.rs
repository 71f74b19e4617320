//! `/system/functions` and `/system/function/NAME` (contract sections 4.1 to 4.5).

use std::{io, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use pinnace_core::{
    FunctionRef,
    name::{DEFAULT_NAMESPACE, check_label},
    queue::RetryPolicy,
    schedule,
    spec::LABEL_FUNCTION,
    wire::{DeleteFunctionRequest, FunctionDeployment, FunctionStatus, Resources},
};
use serde::Deserialize;

use super::{
    Api,
    error::ApiError,
    json::{API_BODY, json, json_if_any},
    query::Query,
};
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

/// Query of a removal, which may name the function where the body does not.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Removed {
    function_name: String,
    namespace: String,
}

/// Bytes of JSON after which a piece of the list is sent off.
const LIST_PIECE_BYTES: usize = 64 << 10;

/// GET `/system/functions`.
pub async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
) -> Result<Response, ApiError> {
    let namespace = namespace_or_default(&query.namespace);
    check_label("namespace", namespace).map_err(ChangeError::from)?;
    let mut functions = api.deployments.catalog.all();
    functions.retain(|entry| entry.id.namespace() == namespace);
    functions.sort_unstable_by(|a, b| a.id.name().cmp(b.id.name()));
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], Body::from_stream(listed(functions))).into_response())
}

/// The list in pieces, each made when the one before is on its way: as many functions as may be deployed
/// would fill some hundred megabytes.
fn listed(functions: Vec<Arc<Entry>>) -> impl Stream<Item = io::Result<Vec<u8>>> {
    let mut functions = functions.into_iter();
    let mut before = Some(b'[');
    stream::iter(std::iter::from_fn(move || {
        let mut separator = before?;
        let mut piece = Vec::with_capacity(LIST_PIECE_BYTES + LIST_PIECE_BYTES / 8);
        for entry in functions.by_ref() {
            piece.push(separator);
            separator = b',';
            if let Err(error) = serde_json::to_writer(&mut piece, &status(&entry)) {
                before = None;
                return Some(Err(error.into()));
            }
            if piece.len() >= LIST_PIECE_BYTES {
                before = Some(separator);
                return Some(Ok(piece));
            }
        }
        // Of an empty list the bracket is still to come.
        piece.extend_from_slice(if separator == b'[' { b"[]" } else { b"]" });
        before = None;
        Some(Ok(piece))
    }))
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
    let network = api.deployments.provider.network(&entry.deployed().spec);
    status.network = Some(network.to_string());
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
    Query(query): Query<Removed>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let request: DeleteFunctionRequest = json_if_any(body, API_BODY).await?;
    let namespace = body_or_query(request.namespace, query.namespace);
    let name = body_or_query(request.function_name, query.function_name);
    let id = FunctionRef::new(&name, &namespace).map_err(ChangeError::from)?;
    api.deployments.remove(&id).await?;
    Ok(StatusCode::ACCEPTED)
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

pub(super) fn namespace_or_default(namespace: &str) -> &str {
    if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace }
}

fn status(entry: &Entry) -> FunctionStatus {
    let deployed = entry.deployed();
    let standing = entry.standing();
    let deployment = &deployed.spec.deployment;
    let annotations = deployment.annotations.as_ref();
    let schedules = schedule::of(annotations).into_iter().filter_map(Result::err);
    let faults = schedules.map(|fault| fault.to_string());
    let faults = faults.chain(RetryPolicy::faults(annotations).map(|fault| fault.to_string()));
    let conditions = standing.conditions.iter().cloned().chain(faults).collect();
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
        limits: deployment.limits.clone().filter(Resources::says_something),
        requests: deployment.requests.clone().filter(Resources::says_something),
        read_only_root_filesystem: deployment.read_only_root_filesystem,
        invocation_count: entry.stats.total().answers() as f64,
        replicas: standing.wanted,
        available_replicas: u32::try_from(entry.ready().len()).unwrap_or(u32::MAX),
        created_at: entry.created_at.clone(),
        usage: None,
        network: None,
        rollout: Some(entry.rollout()),
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use pinnace_core::FunctionSpec;

    use super::*;
    use crate::catalog::Deployed;

    fn entry(number: usize) -> Arc<Entry> {
        let deployment = FunctionDeployment {
            service: format!("f-{number}"),
            image: "a:1".to_owned(),
            ..FunctionDeployment::default()
        };
        let spec = FunctionSpec::check(deployment).unwrap();
        let deployed = Deployed { spec, revision: 1, created_at: String::new() };
        Arc::new(Entry::new(Arc::new(deployed), 0, String::new(), 1))
    }

    #[tokio::test]
    async fn a_list_of_any_length_is_json_and_comes_in_small_pieces() {
        for count in [0, 1, 2, 1000] {
            let pieces: Vec<_> = listed((0..count).map(entry).collect()).collect().await;
            let pieces: Vec<Vec<u8>> = pieces.into_iter().map(Result::unwrap).collect();
            assert!(pieces.iter().all(|piece| piece.len() < 2 * LIST_PIECE_BYTES));
            let read: Vec<FunctionStatus> = serde_json::from_slice(&pieces.concat()).unwrap();
            assert_eq!(read.len(), count);
            assert!(read.iter().enumerate().all(|(at, one)| one.name == format!("f-{at}")));
        }
    }
}
