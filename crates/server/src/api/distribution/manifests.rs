//! Manifests, by tag and by digest (end-3, 7, 9).

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::IntoResponse,
};
use pinnace_core::{
    distribution::{Algorithm, Repository, Tag, Wanted},
    limits,
};

use super::{Answer, Asked, CONTENT_DIGEST, Refusal, located, value};
use crate::{
    api::json::{Most, read_pieces},
    distribution::{DistributionError, Fault, digest_of},
};

/// What a manifest may be.
const MOST: Most =
    Most { bytes: limits::REGISTRY_MANIFEST_BYTES_MAX, limit: "REGISTRY_MANIFEST_BYTES_MAX" };

/// Says that the registry has read a manifest's subject.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Tags that a manifest was given by the query.
const TAG: HeaderName = HeaderName::from_static("oci-tag");

/// GET, HEAD `/v2/NAME/manifests/REFERENCE`.
pub(super) async fn get(asked: Asked, repository: Repository, wanted: Wanted) -> Answer {
    let manifest = asked.blocking(move |store| store.manifest(&repository, &wanted)).await?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_DIGEST, value(manifest.digest.as_str())?);
    headers.insert(header::CONTENT_TYPE, value(&manifest.media_type)?);
    headers.insert(header::CONTENT_LENGTH, manifest.content.len().into());
    // A browser is not to guess.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let body = match asked.head.method {
        Method::HEAD => Body::empty(),
        _ => Body::from(manifest.content),
    };
    Ok((StatusCode::OK, headers, body).into_response())
}

/// PUT `/v2/NAME/manifests/REFERENCE`, with further tags as `?tag=…` where the reference is a digest.
pub(super) async fn put(
    asked: Asked,
    repository: Repository,
    wanted: Wanted,
    body: &mut BodyDataStream,
) -> Answer {
    let tags = tags(&asked, &wanted)?;
    let kind = asked.header(header::CONTENT_TYPE).map(str::to_owned);
    let content = read_pieces(body, MOST).await?;
    let digest = match &wanted {
        Wanted::Digest(digest) => digest.clone(),
        Wanted::Tag(_) => digest_of(Algorithm::Sha256, &content),
    };
    let named = format!("/v2/{repository}/manifests/{digest}");
    let (own, own_digest, own_tags) = (repository.clone(), digest.clone(), tags.clone());
    let manifest = asked
        .blocking(move |store| {
            store.put_manifest(&own, &own_digest, &content, kind.as_deref(), &own_tags)
        })
        .await?;
    let mut response = located(StatusCode::CREATED, &named)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(digest.as_str())?);
    if let Some(subject) = &manifest.subject {
        headers.insert(SUBJECT, value(subject.as_str())?);
    }
    if matches!(wanted, Wanted::Digest(_)) {
        for tag in &tags {
            headers.append(TAG, value(tag.as_str())?);
        }
    }
    Ok(response)
}

/// The tags that a manifest is to have.
fn tags(asked: &Asked, wanted: &Wanted) -> Result<Vec<Tag>, Refusal> {
    if let Wanted::Tag(tag) = wanted {
        return Ok(vec![tag.clone()]);
    }
    let max = limits::REGISTRY_TAGS_PER_PUSH_MAX;
    let texts: Vec<_> = asked.parameters("tag").take(max + 1).collect();
    if texts.len() > max {
        let text =
            format!("a manifest is given at most {max} tags at once (REGISTRY_TAGS_PER_PUSH_MAX)");
        return Err(DistributionError::new(Fault::TooManyTags, text).into());
    }
    texts.iter().map(|text| Tag::parse(text).ok_or_else(|| Refusal::bad_tag(text))).collect()
}

/// DELETE `/v2/NAME/manifests/REFERENCE`.
pub(super) async fn delete(asked: Asked, repository: Repository, wanted: Wanted) -> Answer {
    asked.blocking(move |store| store.remove_manifest(&repository, &wanted)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
