//! `/system/schedules`: what is due when. OpenFaaS has no such thing.

use std::sync::Arc;

use axum::{Json, extract::State};
use pinnace_core::schedule::ScheduleDocument;

use super::{Api, functions::InNamespace, query::Query};

/// GET `/system/schedules`: those of a namespace, or of all.
pub async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<InNamespace>,
) -> Json<Vec<ScheduleDocument>> {
    let namespace = Some(query.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    Json(api.schedules.as_ref().map(|schedules| schedules.list(namespace)).unwrap_or_default())
}
