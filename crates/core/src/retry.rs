//! Trying again what failed for a reason that may pass, such as a broken connection to a registry.
//!
//! [`Tries`] is told what failed and answers how long to wait; what moves on meanwhile clears the row.

use std::time::Duration;

use crate::limits;

/// Tries of one thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tries {
    failed: u32,
}

impl Tries {
    /// Something was got: failures count anew.
    pub fn on_progress(&mut self) {
        self.failed = 0;
    }

    /// It failed. The time to wait before the next try, `None` if there is to be no further one.
    ///
    /// `asked` is how long the other side asks to be left alone (`Retry-After`).
    pub fn on_failure(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= limits::REGISTRY_TRIES_MAX {
            return None;
        }
        let doubled = limits::REGISTRY_BACKOFF_MIN.saturating_mul(1 << (self.failed - 1).min(16));
        let wait = asked.unwrap_or_default().max(doubled.min(limits::REGISTRY_BACKOFF_MAX));
        (wait <= limits::REGISTRY_RETRY_AFTER_MAX).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let mut tries = Tries::default();
        let waits: Vec<_> = std::iter::from_fn(|| tries.on_failure(None)).collect();
        assert_eq!(waits.len() as u32, limits::REGISTRY_TRIES_MAX - 1);
        assert_eq!(waits[0], limits::REGISTRY_BACKOFF_MIN);
        assert_eq!(waits[1], limits::REGISTRY_BACKOFF_MIN * 2);
        assert!(waits.iter().all(|wait| *wait <= limits::REGISTRY_BACKOFF_MAX));
        assert_eq!(tries.on_failure(None), None);
        tries.on_progress();
        assert_eq!(tries.on_failure(None), Some(limits::REGISTRY_BACKOFF_MIN));
    }

    #[test]
    fn what_the_other_side_asks_for_is_granted_within_reason() {
        let mut tries = Tries::default();
        let asked = Duration::from_secs(20);
        assert_eq!(tries.on_failure(Some(asked)), Some(asked));
        assert_eq!(tries.on_failure(Some(Duration::ZERO)), Some(limits::REGISTRY_BACKOFF_MIN * 2));
        assert_eq!(tries.on_failure(Some(limits::REGISTRY_RETRY_AFTER_MAX * 2)), None);
    }
}
