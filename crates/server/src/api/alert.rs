//! `/system/alert`: what Alertmanager tells of (contract section 4.11).

use std::{fmt::Write, sync::Arc};

use axum::{body::Body, extract::State, http::StatusCode};
use pinnace_core::{FunctionRef, limits, wire::AlertMessage};

use super::{
    Api,
    error::ApiError,
    json::{API_BODY, read},
};
use crate::deployments::ChangeError;

/// POST `/system/alert`: a message of Alertmanager, version 4, with any number of alerts. All are acted upon,
/// also where one cannot be.
pub async fn alert(State(api): State<Arc<Api>>, body: Body) -> Result<StatusCode, ApiError> {
    let text = read(body, API_BODY).await?;
    let refused = |text: &str| ApiError::new(StatusCode::BAD_REQUEST, text);
    if text.is_empty() {
        return Err(refused("A body is required for this endpoint"));
    }
    let message: AlertMessage =
        serde_json::from_slice(&text).map_err(|_| refused("Unable to parse alert, bad format."))?;
    let (alerts, most) = (message.alerts.len(), limits::ALERTS_PER_MESSAGE_MAX);
    if alerts > most {
        return Err(refused(&format!(
            "the message has {alerts} alerts, at most {most} may be in one (ALERTS_PER_MESSAGE_MAX)"
        )));
    }
    let (mut errors, mut is_lasting) = (String::new(), true);
    for (number, alert) in message.alerts.iter().enumerate() {
        let id = FunctionRef::parse(&alert.labels.function_name).map_err(ChangeError::from);
        let done = match id {
            Ok(id) => api.deployments.alert(&id, alert.status == "firing").await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            is_lasting &= matches!(error, ChangeError::Name(_) | ChangeError::Unknown(_));
            // Writing to a string cannot fail.
            let _ = writeln!(errors, "[{number}] {error}");
        }
    }
    if errors.is_empty() {
        return Ok(StatusCode::OK);
    }
    // Alertmanager sends again what is answered 500, and each time is another step of the functions that are there: of use
    // where something may change, and not where a name is none, or one of a function that is gone.
    let status =
        if is_lasting { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR };
    Err(ApiError::new(status, errors.trim_end()))
}
