//! Errors of the API: the one place where they become statuses (contract sections 3 and 4).

use axum::{
    extract::OriginalUri,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use pinnace_core::{namespace::NamespaceFault, secret::SecretFault};

use crate::{
    deployments::ChangeError, namespaces::NamespaceError, provider::Refusal, secrets::SecretError,
};

/// A status and a sentence.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    text: String,
}

impl ApiError {
    /// This sentence under this status.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The answer to a method that a path does not know. The router names those it does in `Allow`.
pub(super) async fn no_such_method(method: Method, OriginalUri(uri): OriginalUri) -> ApiError {
    let text = format!("{method} is not for {}; the header Allow says what is", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = [
            (header::CONTENT_TYPE, text),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        (self.status, headers, self.text + "\n").into_response()
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::Faults(_)
            | ChangeError::Name(_)
            | ChangeError::NoSecret(_)
            | ChangeError::Quota { .. }
            | ChangeError::Replicas { .. } => StatusCode::BAD_REQUEST,
            // A deploy that names a namespace is wrong; one that is asked for itself is missing.
            ChangeError::Namespace(NamespaceError::Unknown(_)) => StatusCode::BAD_REQUEST,
            ChangeError::Namespace(error) => status_of_namespace(error),
            ChangeError::Exists(_) => StatusCode::CONFLICT,
            ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
            ChangeError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            ChangeError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            ChangeError::Refused(refusal) => status_of(refusal),
        };
        Self::new(status, error.to_string())
    }
}

impl From<NamespaceFault> for ApiError {
    fn from(fault: NamespaceFault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, fault.to_string())
    }
}

impl From<NamespaceError> for ApiError {
    fn from(error: NamespaceError) -> Self {
        Self::new(status_of_namespace(&error), error.to_string())
    }
}

fn status_of_namespace(error: &NamespaceError) -> StatusCode {
    match error {
        NamespaceError::Unknown(_) => StatusCode::NOT_FOUND,
        NamespaceError::Exists(_) => StatusCode::CONFLICT,
        NamespaceError::Default => StatusCode::BAD_REQUEST,
        NamespaceError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
        NamespaceError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl From<SecretFault> for ApiError {
    fn from(fault: SecretFault) -> Self {
        SecretError::from(fault).into()
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let status = match &error {
            SecretError::Fault(_) => StatusCode::UNPROCESSABLE_ENTITY,
            SecretError::Exists { .. } => StatusCode::CONFLICT,
            SecretError::Unknown(_) => StatusCode::NOT_FOUND,
            SecretError::Quota { .. } => StatusCode::BAD_REQUEST,
            SecretError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            SecretError::Store(_) | SecretError::Unsealed(_) | SecretError::OtherKey(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(status_of(&refusal), refusal.to_string())
    }
}

fn status_of(refusal: &Refusal) -> StatusCode {
    match refusal {
        Refusal::Unfit(_) => StatusCode::BAD_REQUEST,
        Refusal::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Broken(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
