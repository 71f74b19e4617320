//! Waiting on conditions, never on time alone.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `condition` answers something, and gives that.
///
/// # Panics
/// It did not within `limit`; the message says `what` was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {} s in vain until {what}", limit.as_secs_f32());
        std::thread::park_timeout(LOOK_EVERY);
    }
}
