//! When a worker looks through the idle connections that it keeps: once a second while there are some. A server
//! that nobody calls is not woken.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval},
};

/// How often they are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Whether there may be idle connections. One thread tells and asks; what it belongs to must be shareable.
#[derive(Debug, Default)]
pub struct Sweeping {
    rests: AtomicBool,
    resumed: Notify,
}

impl Sweeping {
    /// The clock of [`Sweeping::due`].
    pub fn clock() -> Interval {
        let mut clock = interval(SWEEP_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        clock
    }

    /// A connection was put by.
    pub fn resume(&self) {
        if self.rests.load(Ordering::Relaxed) {
            self.rests.store(false, Ordering::Relaxed);
            self.resumed.notify_one();
        }
    }

    /// None is left.
    pub fn rest(&self) {
        self.rests.store(true, Ordering::Relaxed);
    }

    /// Waits until they are to be looked through. May be left and begun again.
    pub async fn due(&self, clock: &mut Interval) {
        if self.rests.load(Ordering::Relaxed) {
            self.resumed.notified().await;
            clock.reset();
        }
        clock.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_once_a_second_while_there_are_connections() {
        let (sweeping, mut clock) = (Sweeping::default(), Sweeping::clock());
        sweeping.due(&mut clock).await;
        let begin = Instant::now();
        sweeping.due(&mut clock).await;
        assert_eq!(begin.elapsed(), SWEEP_EVERY);
        sweeping.rest();
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(timeout(day, sweeping.due(&mut clock)).await.is_err(), "nobody is woken");
        let begin = Instant::now();
        let resumed = async { sweeping.resume() };
        // Left for something else, and begun again.
        let left = timeout(SWEEP_EVERY / 2, sweeping.due(&mut clock));
        assert!(tokio::join!(left, resumed).0.is_err());
        sweeping.due(&mut clock).await;
        assert_eq!(begin.elapsed(), SWEEP_EVERY);
    }
}
