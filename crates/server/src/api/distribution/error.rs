//! Refusals: the one place where faults of the registry become statuses and the specification's codes.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::super::access::Denied;
use crate::{
    api::error::ApiError,
    distribution::{DistributionError, Fault},
};

/// An answer that refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    text: String,
    /// Beside those that every refusal has.
    headers: Box<HeaderMap>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), headers: Box::default() }
    }

    /// A path that names nothing.
    pub(super) fn no_such_path(path: &str) -> Self {
        let text = format!("{:.200} is no path of the distribution API", path.escape_debug());
        Self::new(StatusCode::NOT_FOUND, "UNSUPPORTED", text)
    }

    /// A method that a path does not know.
    pub(super) fn no_such_method(allowed: &'static str) -> Self {
        let text = format!("this path knows {allowed} alone");
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text);
        refusal.with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// A tag that can be none.
    pub(super) fn bad_tag(tag: &str) -> Self {
        let text = format!(
            "{:.140} is no tag: 1 to 128 letters, digits and _.-, the first no . or -",
            tag.escape_debug()
        );
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", text)
    }

    /// The same with a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// A part of a blob that it does not have.
    pub(super) fn beyond(bytes: u64) -> Self {
        let text = format!("the blob has {bytes} bytes, and none of those that were asked for");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", text)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = denied.status();
        let code = if status == StatusCode::UNAUTHORIZED { "UNAUTHORIZED" } else { "DENIED" };
        let mut refusal = Self::new(status, code, denied.words().trim_end());
        denied.challenge(&mut refusal.headers);
        refusal
    }
}

/// Which status a fault has, and which of the specification's codes; those of 5xx are not in it.
fn status_and_code(kind: Fault) -> (StatusCode, &'static str) {
    match kind {
        Fault::BlobUnknown => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
        Fault::ManifestUnknown => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        Fault::NameUnknown => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        Fault::NameInvalid => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        Fault::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        Fault::UploadInvalid => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        Fault::OutOfOrder => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
        Fault::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        Fault::SizeInvalid => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
        Fault::ManifestInvalid => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        Fault::ManifestBlobUnknown => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        Fault::TooManyTags => (StatusCode::URI_TOO_LONG, "MANIFEST_INVALID"),
        Fault::TooMany => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        Fault::InUse => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
        Fault::Request => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
        Fault::Full => (StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN"),
        Fault::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
    }
}

impl From<DistributionError> for Refusal {
    fn from(error: DistributionError) -> Self {
        let (status, code) = status_and_code(error.kind());
        if status.is_server_error() {
            tracing::warn!(%error, "the registry refused a request");
        }
        let refusal = Self::new(status, code, error.to_string());
        match status {
            StatusCode::METHOD_NOT_ALLOWED => {
                refusal.with(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
            }
            _ => refusal,
        }
    }
}

/// For `/system/registry`, which answers in plain sentences.
impl From<DistributionError> for ApiError {
    fn from(error: DistributionError) -> Self {
        Self::new(status_and_code(error.kind()).0, error.to_string())
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let code = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "SIZE_INVALID",
            _ => "MANIFEST_INVALID",
        };
        Self::new(error.status(), code, error.text())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.text });
        let text = json!({ "errors": [error] }).to_string();
        let mut response = super::json(self.status, text);
        response.headers_mut().extend(*self.headers);
        response
    }
}
