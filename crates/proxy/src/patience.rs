//! One timer for all the waits of a connection, one after the other.
//!
//! A wait that ends in time costs nothing: the timer stays where an earlier wait put it, and is moved on
//! only when it goes off too early. It is set anew only for a wait that ends sooner than it stands.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// A timer that is set late.
#[derive(Debug, Default)]
pub struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    /// Ready once `until` has passed; else the task is woken then, or earlier.
    pub fn poll(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if until < sleep.deadline() {
            sleep.as_mut().reset(until);
        }
        loop {
            // It must go off also for a task that has used up its turn by moving bytes without end.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_time() {
        let mut patience = Patience::default();
        let begin = Instant::now();
        for seconds in [60, 61, 62, 90, 91] {
            let until = begin + Duration::from_secs(seconds);
            poll_fn(|cx| patience.poll(cx, until)).await;
            assert_eq!(begin.elapsed().as_secs(), seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_wait_may_follow_a_longer_one() {
        let mut patience = Patience::default();
        let begin = Instant::now();
        let long = begin + Duration::from_secs(60);
        let is_over = poll_fn(|cx| Poll::Ready(patience.poll(cx, long).is_ready())).await;
        assert!(!is_over);
        poll_fn(|cx| patience.poll(cx, begin + Duration::from_secs(1))).await;
        assert_eq!(begin.elapsed().as_secs(), 1);
        poll_fn(|cx| patience.poll(cx, long)).await;
        assert_eq!(begin.elapsed().as_secs(), 60);
    }
}
