//! Lists, a page at a time: repositories, tags (end-8), referrers (end-12).

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use form_urlencoded::byte_serialize;
use pinnace_core::distribution::{Digest, Page, Repository};
use serde_json::json;

use super::{Answer, Asked, Refusal, value};
use crate::distribution::{DistributionError, Fault, Listed};

/// Says by what a list of referrers was filtered.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// GET `/v2/_catalog`.
pub(super) async fn catalog(asked: Asked) -> Answer {
    let page = page(&asked)?;
    let wanted = page.entries_max;
    let listed = asked.blocking(move |store| store.repositories(&page)).await?;
    let text = json!({ "repositories": listed.entries }).to_string();
    answered("/v2/_catalog", text, "application/json", &listed, wanted)
}

/// GET `/v2/NAME/tags/list`.
pub(super) async fn tags(asked: Asked, repository: Repository) -> Answer {
    let page = page(&asked)?;
    let wanted = page.entries_max;
    let path = format!("/v2/{repository}/tags/list");
    let name = repository.to_string();
    let listed = asked.blocking(move |store| store.tags(&repository, &page)).await?;
    let text = json!({ "name": name, "tags": listed.entries }).to_string();
    answered(&path, text, "application/json", &listed, wanted)
}

/// GET `/v2/NAME/referrers/DIGEST`.
pub(super) async fn referrers(asked: Asked, repository: Repository, digest: Digest) -> Answer {
    let page = page(&asked)?;
    let wanted = page.entries_max;
    let kind = asked.parameter("artifactType").filter(|kind| !kind.is_empty());
    let mut path = format!("/v2/{repository}/referrers/{digest}");
    if let Some(kind) = &kind {
        path += &format!("?artifactType={}", byte_serialize(kind.as_bytes()).collect::<String>());
    }
    let is_filtered = kind.is_some();
    let listed = asked
        .blocking(move |store| store.referrers(&repository, &digest, kind.as_deref(), &page))
        .await?;
    let media_type = "application/vnd.oci.image.index.v1+json";
    // Each entry is JSON already.
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#,
        listed.entries.join(",")
    );
    let mut response = answered(&path, text, media_type, &listed, wanted)?;
    if is_filtered {
        response.headers_mut().insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

fn page(asked: &Asked) -> Result<Page, Refusal> {
    let (n, last) = (asked.parameter("n"), asked.parameter("last"));
    Page::read(n.as_deref(), last.as_deref())
        .map_err(|text| DistributionError::new(Fault::Request, text).into())
}

/// A page, and where the next one is.
fn answered(
    path: &str,
    text: String,
    kind: &'static str,
    listed: &Listed,
    wanted: usize,
) -> Result<Response, Refusal> {
    let mut response = super::json(StatusCode::OK, text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(last) = &listed.next {
        let joint = if path.contains('?') { '&' } else { '?' };
        let last: String = byte_serialize(last.as_bytes()).collect();
        let link = format!("<{path}{joint}n={wanted}&last={last}>; rel=\"next\"");
        headers.insert(header::LINK, value(&link)?);
    }
    Ok(response)
}
