//! Errors of the API: the one place where they become statuses (contract sections 3 and 4).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{deployments::ChangeError, provider::Refusal};

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
            | ChangeError::Replicas { .. } => StatusCode::BAD_REQUEST,
            ChangeError::Exists(_) => StatusCode::CONFLICT,
            ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
            ChangeError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            ChangeError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            ChangeError::Refused(refusal) => status_of(refusal),
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
