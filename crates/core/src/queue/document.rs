//! What the API says of asynchronous calls. OpenFaaS has no such thing; the names are ours.

use serde::{Deserialize, Serialize};

/// Calls of the queue, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueListing {
    /// Calls that wait.
    pub waiting: usize,
    /// Calls that are being delivered.
    pub in_flight: usize,
    /// Failed calls that are kept.
    pub failed: usize,
    /// Some of them, oldest first.
    pub calls: Vec<CallDocument>,
}

/// One asynchronous call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallDocument {
    /// The id that its caller was told, or gave.
    pub call_id: String,
    /// The function.
    pub function: String,
    /// The function's namespace.
    pub namespace: String,
    /// Where it stands.
    pub state: CallState,
    /// The method of the request.
    pub method: String,
    /// Path and query that the function sees.
    pub target: String,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// RFC 3339 time at which it was taken.
    pub submitted_at: String,
    /// How often it was tried.
    pub attempts: u32,
    /// RFC 3339 time of the next attempt, if it waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
    /// RFC 3339 time at which it failed for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<String>,
    /// Where its answer goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// Its attempts, oldest first; of many the latest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Attempt>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// It waits for its turn or its next attempt.
    #[default]
    Waiting,
    /// It is being delivered.
    InFlight,
    /// It has failed for good.
    Failed,
}

/// One try of a call that did not settle it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// RFC 3339 time at which it ended.
    pub at: String,
    /// The answer's status, if there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong, a sentence.
    pub error: String,
}

/// How many calls were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// Their number.
    pub dropped: usize,
}
