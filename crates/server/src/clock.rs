//! The clock that decisions read: tokio's, so that tests can stop and turn it.

use std::time::Instant;

/// Now.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
