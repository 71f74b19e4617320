//! What the API says of schedules. OpenFaaS has no such thing; the names are ours.

use serde::{Deserialize, Serialize};

/// One schedule of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleDocument {
    /// The function.
    pub function: String,
    /// Its namespace.
    pub namespace: String,
    /// The schedule, as the annotation has it.
    pub schedule: String,
    /// RFC 3339 time at which it is due next; absent if it never is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// RFC 3339 time up to which it was called for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<String>,
    /// What is wrong with it, if it is not understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
