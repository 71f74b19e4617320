//! Waiting between two looks at something that nobody announces.

use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Lets a tenth of a second pass. Every loop around it has a deadline.
pub fn briefly() {
    of(BETWEEN_LOOKS);
}

/// Lets this time pass. Every loop around it has a count of rounds.
pub fn of(time: Duration) {
    let until = Instant::now() + time;
    // Parking may end early without a reason.
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
        std::thread::park_timeout(left);
    }
}
