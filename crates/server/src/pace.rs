//! Telling of progress: each new step at once, the same step now and then.

use std::time::{Duration, Instant};

use crate::clock::now;

/// Least time between two messages of the same step.
const SAME_STEP_EVERY: Duration = Duration::from_millis(100);

/// Decides what of a stream of progress is told on.
#[derive(Debug, Default)]
pub struct Pace {
    said: Option<(String, Instant)>,
}

impl Pace {
    /// Whether progress in this step is to be told now; if so, it counts as told.
    pub fn is_due(&mut self, step: &str) -> bool {
        let now = now();
        let is_due = self.said.as_ref().is_none_or(|(said, at)| {
            said != step || now.saturating_duration_since(*at) >= SAME_STEP_EVERY
        });
        if is_due {
            self.said = Some((step.to_owned(), now));
        }
        is_due
    }
}
