//! Telling every connection of a worker that the server is ending.
//!
//! A connection looks at a flag of its own and leaves its waker there once. A channel that all connections
//! share would be locked at each of their wake-ups.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Context,
};

use futures_util::task::AtomicWaker;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    signals: Mutex<Vec<Weak<Signal>>>,
}

#[derive(Debug, Default)]
struct Signal {
    ending: AtomicBool,
    waker: AtomicWaker,
}

/// One connection's ear.
#[derive(Debug)]
pub struct Ear {
    signal: Arc<Signal>,
    registered: bool,
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
        Ear { signal, registered: false }
    }

    /// Tells all of them.
    pub fn end(&self) {
        let signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in signals.iter().filter_map(Weak::upgrade) {
            signal.ending.store(true, Ordering::SeqCst);
            signal.waker.wake();
        }
    }
}

impl Ear {
    /// Whether the server is ending. A task that asks is woken when that begins.
    pub fn hears(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            // The waker of a task stays the same for its life.
            self.signal.waker.register(cx.waker());
            self.registered = true;
        }
        self.has_heard()
    }

    /// Whether the server is ending.
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
}
