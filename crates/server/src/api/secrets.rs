//! `/system/secrets` (contract section 4.9). Values go in and never come out.

use std::{collections::BTreeSet, sync::Arc};

use axum::{Json, body::Body, extract::State, http::StatusCode};
use pinnace_core::{limits, secret, wire::Secret};
use serde::Deserialize;

use super::{
    Api,
    error::ApiError,
    functions::{InNamespace, body_or_query, namespace_or_default},
    json::{Most, json_if_any, json_within},
    query::Query,
};

/// What a body may be. Some clients send a secret's value to remove it too.
const SECRET_BODY: Most =
    Most { bytes: limits::SECRET_BODY_BYTES_MAX, limit: "SECRET_BODY_BYTES_MAX" };

/// Query of a removal, which may name the secret where the body does not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Removed {
    name: String,
    namespace: String,
}

/// GET `/system/secrets`.
pub async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
) -> Result<Json<Vec<Secret>>, ApiError> {
    let namespace = namespace_or_default(&query.namespace);
    api.deployments.namespaces.get(namespace)?;
    let names = api.deployments.secrets.list(namespace).into_iter();
    let shown = |name| Secret { name, namespace: namespace.to_owned(), ..Secret::default() };
    Ok(Json(names.map(shown).collect()))
}

/// POST `/system/secrets`.
pub async fn create(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sent = sent(body, query).await?;
    let value = secret::value(&sent)?;
    let inside = api.deployments.namespaces.enter(&sent.namespace).await?;
    let most = inside.namespace.quota.secrets;
    api.deployments.secrets.create(&sent.namespace, &sent.name, &value, most).await?;
    // One that was removed may still be seen, in its old value.
    api.deployments.provider.secret_changed(&sent.namespace, &sent.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// PUT `/system/secrets`. Answered once every replica sees the new value.
pub async fn update(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sent = sent(body, query).await?;
    let value = secret::value(&sent)?;
    let _inside = api.deployments.namespaces.enter(&sent.namespace).await?;
    check_room(&api, &sent, value.0.len()).await?;
    api.deployments.secrets.update(&sent.namespace, &sent.name, &value).await?;
    api.deployments.provider.secret_changed(&sent.namespace, &sent.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// DELETE `/system/secrets`.
pub async fn remove(
    State(api): State<Arc<Api>>,
    Query(query): Query<Removed>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let mut sent: Secret = json_if_any(body, SECRET_BODY).await?;
    sent.name = body_or_query(sent.name, query.name);
    sent.namespace = place(sent.namespace, query.namespace);
    let _inside = api.deployments.namespaces.enter(&sent.namespace).await?;
    api.deployments.secrets.remove(&sent.namespace, &sent.name).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Whether the functions that see a secret may have a value of so many bytes.
async fn check_room(api: &Arc<Api>, sent: &Secret, bytes: usize) -> Result<(), ApiError> {
    let mut functions = Vec::new();
    for function in api.deployments.catalog.all() {
        let deployed = function.deployed();
        let names = deployed.spec.secrets();
        if function.id.namespace() == sent.namespace && names.contains(sent.name.as_str()) {
            let names: BTreeSet<_> = names.into_iter().map(str::to_owned).collect();
            functions.push((function.id.clone(), names));
        }
    }
    let (api, name) = (api.clone(), sent.name.clone());
    let check = move || api.deployments.secrets.check_room(&name, bytes, &functions);
    let checked = tokio::task::spawn_blocking(check).await;
    Ok(checked
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??)
}

async fn sent(body: Body, query: InNamespace) -> Result<Secret, ApiError> {
    let mut sent: Secret = json_within(body, SECRET_BODY).await?;
    sent.namespace = place(sent.namespace, query.namespace);
    Ok(sent)
}

/// The namespace that a request means.
fn place(body: String, query: String) -> String {
    namespace_or_default(&body_or_query(body, query)).to_owned()
}
