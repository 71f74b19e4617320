//! `/system/telemetry` (contract section 4.7): what there is on this host, for whoever asks here. Nothing of it is
//! sent anywhere.

use std::{collections::HashSet, sync::Arc};

use axum::{Json, extract::State};
use pinnace_core::wire::Telemetry;

use super::{Api, info::version};

/// GET `/system/telemetry`.
pub async fn telemetry(State(api): State<Arc<Api>>) -> Json<Telemetry> {
    let functions = api.deployments.catalog.all();
    let namespaces: HashSet<&str> = functions.iter().map(|entry| entry.id.namespace()).collect();
    let counted = functions.iter().map(|entry| entry.stats.total());
    let calls = |(started, answered), counted: crate::stats::Counted| {
        (started + counted.started, answered + counted.answers())
    };
    let (calls_started, calls_answered) = counted.fold((0, 0), calls);
    Json(Telemetry {
        version: version(),
        functions: functions.len(),
        namespaces: namespaces.len(),
        replicas_wanted: functions.iter().map(|entry| u64::from(entry.standing().wanted)).sum(),
        replicas_ready: functions.iter().map(|entry| entry.ready().len()).sum(),
        calls_started,
        calls_answered,
    })
}
