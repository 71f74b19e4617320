//! Waiting for something that the kernel tells nobody about: asks again and again, within a deadline.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// Asks until the answer is something or the time is over. Pauses grow from 0.1 ms to 20 ms.
///
/// For threads that may wait; never for one that serves.
pub(crate) fn until<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    const LONGEST: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + time;
    let mut pause = Duration::from_micros(100);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        let timeout = Timespec::try_from(pause.min(left)).ok();
        // An interrupted wait only asks earlier.
        let _ = poll(&mut [], timeout.as_ref());
        pause = (pause * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_answered_and_no_longer_than_allowed() {
        let mut asked = 0;
        let answer = until(Duration::from_secs(5), || {
            asked += 1;
            (asked == 4).then_some(asked)
        });
        assert_eq!(answer, Some(4));
        assert_eq!(until(Duration::from_millis(3), || None::<()>), None);
    }
}
