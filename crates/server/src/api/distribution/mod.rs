//! `/v2/`: the OCI distribution API of the built-in registry (sections are named as in its specification, 1.1).
//!
//! Names have slashes in them, so paths are read by `core::distribution` and not by the router. What is kept and how is
//! `crate::distribution`; here are statuses, headers and bodies.

mod blobs;
mod error;
mod lists;
mod manifests;
mod uploads;

use std::sync::Arc;

use axum::{
    body::{Body, BodyDataStream},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use pinnace_core::distribution::{Digest, Repository, Target, Wanted};
use tokio::task::spawn_blocking;

use self::error::Refusal;
use super::{Api, access};
use crate::distribution::{Distribution, DistributionError, Fault};

/// What old clients look for.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

/// The digest of what an answer is about.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

type Answer = Result<Response, Refusal>;

/// A request as its handlers see it.
struct Asked {
    store: Arc<Distribution>,
    head: Parts,
}

/// Answers whatever lies under `/v2`.
pub(super) async fn serve(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let answer = match access::admit(&api, &head.headers) {
        Ok(()) => answer(&api, head, &mut body).await,
        Err(denied) => Err(Refusal::from(denied)),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    let (name, value) = API_VERSION;
    response.headers_mut().insert(name, value);
    response
}

async fn answer(api: &Api, head: Parts, body: &mut BodyDataStream) -> Answer {
    let path = decoded(head.uri.path())?;
    let method = head.method.clone();
    let asked = Asked { store: api.distribution.clone(), head };
    let target = path.strip_prefix("/v2").and_then(Target::parse);
    let target = target.ok_or_else(|| Refusal::no_such_path(&path))?;
    let name = target.name().map(|name| Repository::parse(name).ok_or_else(|| bad_name(name)));
    let name = name.transpose()?;
    match (target, name) {
        (Target::Base, _) => match method {
            Method::GET | Method::HEAD => Ok(json(StatusCode::OK, "{}".to_owned())),
            _ => Err(Refusal::no_such_method("GET, HEAD")),
        },
        (Target::Catalog, _) => match method {
            Method::GET | Method::HEAD => lists::catalog(asked).await,
            _ => Err(Refusal::no_such_method("GET, HEAD")),
        },
        (Target::Tags(_), Some(name)) => match method {
            Method::GET | Method::HEAD => lists::tags(asked, name).await,
            _ => Err(Refusal::no_such_method("GET, HEAD")),
        },
        (Target::Referrers(_, digest), Some(name)) => match method {
            Method::GET | Method::HEAD => {
                lists::referrers(asked, name, Digest::parse(digest).map_err(denoted)?).await
            }
            _ => Err(Refusal::no_such_method("GET, HEAD")),
        },
        (Target::Manifest(_, wanted), Some(name)) => {
            let parsed = Wanted::parse(wanted).map_err(denoted)?;
            match (method, parsed) {
                (Method::PUT, Some(wanted)) => manifests::put(asked, name, wanted, body).await,
                (Method::PUT, None) => Err(Refusal::bad_tag(wanted)),
                (Method::GET | Method::HEAD | Method::DELETE, None) => {
                    Err(DistributionError::no_manifest(&name, &wanted.escape_debug()).into())
                }
                (Method::GET | Method::HEAD, Some(wanted)) => {
                    manifests::get(asked, name, wanted).await
                }
                (Method::DELETE, Some(wanted)) => manifests::delete(asked, name, wanted).await,
                _ => Err(Refusal::no_such_method("GET, HEAD, PUT, DELETE")),
            }
        }
        (Target::Blob(_, digest), Some(name)) => {
            let digest = Digest::parse(digest).map_err(denoted)?;
            match method {
                Method::GET | Method::HEAD => blobs::get(asked, name, digest).await,
                Method::DELETE => blobs::delete(asked, name, digest).await,
                _ => Err(Refusal::no_such_method("GET, HEAD, DELETE")),
            }
        }
        (Target::Uploads(_), Some(name)) => match method {
            Method::POST => uploads::begin(asked, name, body).await,
            _ => Err(Refusal::no_such_method("POST")),
        },
        (Target::Upload(_, id), Some(name)) => match method {
            Method::GET | Method::HEAD => uploads::stands(asked, name, id).await,
            Method::PATCH => uploads::add(asked, name, id, body).await,
            Method::PUT => uploads::finish(asked, name, id, body).await,
            Method::DELETE => uploads::cancel(asked, name, id).await,
            _ => Err(Refusal::no_such_method("GET, HEAD, PATCH, PUT, DELETE")),
        },
        (_, None) => Err(Refusal::no_such_path(&path)),
    }
}

impl Asked {
    /// Does something that blocks, on a thread for that.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Distribution) -> Result<T, DistributionError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.store.clone();
        match spawn_blocking(move || work(&store)).await {
            Ok(done) => Ok(done?),
            Err(error) => {
                tracing::error!(%error, "the registry failed");
                let text = "the registry failed; the server's log says why";
                Err(DistributionError::new(Fault::Broken, text).into())
            }
        }
    }

    /// A header that is text.
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Bytes of the body, if the head says how many.
    fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok())
    }

    /// The values of a parameter of the query.
    fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let query = self.head.uri.query().unwrap_or_default().as_bytes();
        let pairs = form_urlencoded::parse(query);
        pairs.filter(move |(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The first value of a parameter of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        self.parameters(name).next()
    }
}

/// A path as it is meant. A slash that was written as none would have two readers see two paths.
fn decoded(path: &str) -> Result<String, Refusal> {
    let is_plain = !path.to_ascii_lowercase().contains("%2f");
    let decoded = percent_decode_str(path).decode_utf8().ok().filter(|_| is_plain);
    decoded.map(Into::into).ok_or_else(|| bad_name(path))
}

fn bad_name(name: &str) -> Refusal {
    let text = format!(
        "{:.100} is no repository: parts of small letters and digits, with . _ __ or - between them, and / between \
         the parts; 255 bytes at most",
        name.escape_debug()
    );
    DistributionError::new(Fault::NameInvalid, text).into()
}

fn denoted(fault: impl Into<DistributionError>) -> Refusal {
    fault.into().into()
}

/// An answer of JSON.
fn json(status: StatusCode, text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, kind, text).into_response()
}

/// An answer without a body, that says where something is.
fn located(status: StatusCode, path: &str) -> Result<Response, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, value(path)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok((status, headers, Body::empty()).into_response())
}

/// A header's value. What was checked always is one.
fn value(text: &str) -> Result<HeaderValue, Refusal> {
    text.parse()
        .map_err(|_| DistributionError::new(Fault::Broken, "a header cannot be written").into())
}
