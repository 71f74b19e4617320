//! Telling the connections of a worker that they should end: all of them when the server does, those idle
//! longest when there is no place for others.
//!
//! A connection looks at a flag of its own and leaves its waker there once. A channel that all connections
//! share would be locked at each of their wake-ups.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// The connections of one worker.
#[derive(Debug)]
pub struct Connections {
    signals: Mutex<Vec<Weak<Signal>>>,
    /// From when idle times are counted.
    began: Instant,
}

#[derive(Debug, Default)]
struct Signal {
    ending: AtomicBool,
    /// Since when there is no request, in nanoseconds; [`BUSY`] while there is one.
    idle_since: AtomicU64,
    waker: AtomicWaker,
}

/// In place of the time since which a connection is idle.
const BUSY: u64 = 0;

/// One connection's ear.
#[derive(Debug)]
pub struct Ear {
    signal: Arc<Signal>,
    registered: bool,
    began: Instant,
}

impl Default for Connections {
    fn default() -> Self {
        Self { signals: Mutex::default(), began: Instant::now() }
    }
}

impl Connections {
    /// A new connection's ear.
    pub fn ear(&self) -> Ear {
        let signal = Arc::new(Signal::default());
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        // Ears of closed connections are cleared away before the list would grow.
        if signals.len() == signals.capacity() {
            signals.retain(|signal| signal.strong_count() > 0);
        }
        signals.push(Arc::downgrade(&signal));
        Ear { signal, registered: false, began: self.began }
    }

    /// Tells all of them.
    pub fn end(&self) {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in signals.iter().filter_map(Weak::upgrade) {
            signal.end();
        }
    }

    /// Ends those that have been idle longest, at most so many. How many they are.
    pub fn end_idle(&self, count_max: usize) -> usize {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let living = signals.iter().filter_map(Weak::upgrade);
        let idle = living.filter_map(|signal| {
            let since = signal.idle_since.load(Ordering::Relaxed);
            (since != BUSY && !signal.ending.load(Ordering::SeqCst)).then_some((since, signal))
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        idle.truncate(count_max);
        idle.iter().for_each(|(_, signal)| signal.end());
        idle.len()
    }
}

impl Signal {
    fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

impl Ear {
    /// The connection waits for a request since then.
    pub fn idle(&self, since: Instant) {
        let since = since.saturating_duration_since(self.began).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(BUSY + 1);
        self.signal.idle_since.store(since, Ordering::Relaxed);
    }

    /// The connection has a request.
    pub fn busy(&self) {
        self.signal.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Whether the connection should end. A task that asks is woken when that begins.
    pub fn hears(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            // The waker of a task stays the same for its life.
            self.signal.waker.register(cx.waker());
            self.registered = true;
        }
        self.has_heard()
    }

    /// Whether the connection should end.
    pub fn has_heard(&self) -> bool {
        self.signal.ending.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[tokio::test]
    async fn a_connection_hears_the_end_while_it_waits() {
        let connections = Connections::default();
        let mut ear = connections.ear();
        let waiting = tokio::spawn(poll_fn(move |cx| match ear.hears(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }));
        tokio::task::yield_now().await;
        connections.end();
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn those_idle_longest_make_room_and_busy_ones_never_do() {
        let connections = Connections::default();
        let ears: Vec<_> = (0..4).map(|_| connections.ear()).collect();
        let at = |seconds| connections.began + std::time::Duration::from_secs(seconds);
        ears[0].idle(at(9));
        ears[1].idle(at(0));
        ears[2].idle(at(5));
        ears[3].idle(at(1));
        ears[3].busy();
        let heard = || ears.iter().map(Ear::has_heard).collect::<Vec<_>>();
        assert_eq!(connections.end_idle(1), 1);
        assert_eq!(heard(), [false, true, false, false]);
        assert_eq!(connections.end_idle(1), 1);
        assert_eq!(heard(), [false, true, true, false]);
        assert_eq!(connections.end_idle(9), 1);
        assert_eq!(heard(), [true, true, true, false]);
        assert_eq!(connections.end_idle(9), 0);
    }
}
