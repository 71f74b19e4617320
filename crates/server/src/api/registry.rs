//! `/system/registry`: what is in the built-in registry, for those who look after it. Images come and go by `/v2/`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use pinnace_core::{
    distribution::{RegistryGarbage, RegistryImage, RegistryListing, local_reference},
    duration::parse_seconds_or_go,
    limits,
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::spawn_blocking;

use super::{Api, error::ApiError, query::Query};
use crate::distribution::{Collection, Distribution, DistributionError, Held};

/// Which image is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    reference: String,
}

/// How garbage is collected.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub struct Asked {
    grace: String,
    untagged: String,
    dry: String,
}

impl Default for Asked {
    fn default() -> Self {
        let no = || false.to_string();
        let grace = limits::REGISTRY_GRACE_DEFAULT.as_secs().to_string();
        Self { grace, untagged: no(), dry: no() }
    }
}

/// GET `/system/registry`.
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<RegistryListing>, ApiError> {
    let (held, has_more) = blocking(&api, Distribution::held).await?;
    let images = held.into_iter().map(image).collect();
    Ok(Json(RegistryListing { images, has_more }))
}

fn image(held: Held) -> RegistryImage {
    let pushed = OffsetDateTime::from_unix_timestamp(held.pushed_s);
    RegistryImage {
        repository: held.repository,
        tag: held.tag,
        digest: held.digest,
        media_type: held.media_type,
        size_bytes: held.bytes,
        pushed_at: pushed.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default(),
    }
}

/// DELETE `/system/registry?reference=…`: the tag goes, and what it stands for unless something else leads there.
pub async fn remove(
    State(api): State<Arc<Api>>,
    Query(named): Query<Named>,
) -> Result<StatusCode, ApiError> {
    let text = &named.reference;
    let local = match text.split_once('/') {
        Some((host, rest)) if api.puller.own().hosts.have(host) => rest,
        _ => text,
    };
    let (repository, wanted) = local_reference(local).ok_or_else(|| {
        let text = format!(
            "{:.300} names nothing of this registry: write NAME:TAG or NAME@DIGEST, with or without this server's name",
            text.escape_debug()
        );
        ApiError::new(StatusCode::BAD_REQUEST, text)
    })?;
    blocking(&api, move |store| store.remove_reference(&repository, &wanted)).await?;
    Ok(StatusCode::ACCEPTED)
}

/// POST `/system/registry/gc?grace=…&untagged=…&dry=…`.
pub async fn collect(
    State(api): State<Arc<Api>>,
    Query(asked): Query<Asked>,
) -> Result<Json<RegistryGarbage>, ApiError> {
    let grace = grace(&asked.grace)?;
    let untagged = flag("untagged", &asked.untagged)?;
    let is_dry = flag("dry", &asked.dry)?;
    let how = Collection { grace, untagged, is_dry };
    let collected = blocking(&api, move |store| store.collect(how)).await?;
    Ok(Json(RegistryGarbage {
        is_dry,
        manifests: collected.manifests,
        blobs: collected.blobs,
        uploads: collected.uploads,
        bytes: collected.bytes,
        young_blobs: collected.young_blobs,
        young_bytes: collected.young_bytes,
    }))
}

fn grace(text: &str) -> Result<Duration, ApiError> {
    parse_seconds_or_go(text).ok_or_else(|| {
        let text = format!("the grace {:.50} is no duration such as 30m", text.escape_debug());
        ApiError::new(StatusCode::BAD_REQUEST, text)
    })
}

fn flag(name: &str, text: &str) -> Result<bool, ApiError> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let text = format!("{name} is true or false, not {:.50}", other.escape_debug());
            Err(ApiError::new(StatusCode::BAD_REQUEST, text))
        }
    }
}

async fn blocking<T: Send + 'static>(
    api: &Api,
    work: impl FnOnce(&Distribution) -> Result<T, DistributionError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = api.distribution.clone();
    let done = spawn_blocking(move || work(&store)).await;
    let done = done.map_err(|error| {
        tracing::error!(%error, "the registry failed");
        let text = "the registry failed; the server's log says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })?;
    Ok(done?)
}
