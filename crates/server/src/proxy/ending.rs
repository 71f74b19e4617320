//! Telling every connection of a worker that the server is ending.
//!
//! A connection looks at a flag of its own and leaves its waker there once. A channel that all connections
//! share would be locked at each of their wake-ups.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
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
    /// Runs a connection until it ends (its result) or the server does (`None`).
    pub async fn until_ending<F: Future>(
        &mut self,
        mut connection: Pin<&mut F>,
    ) -> Option<F::Output> {
        std::future::poll_fn(|cx: &mut Context<'_>| {
            if !self.registered {
                // The waker of a task stays the same for its life.
                self.signal.waker.register(cx.waker());
                self.registered = true;
            }
            if self.signal.ending.load(Ordering::SeqCst) {
                return Poll::Ready(None);
            }
            connection.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_hears_the_end_while_it_waits() {
        let connections = Arc::new(Connections::default());
        let mut ear = connections.ear();
        let waiting = tokio::spawn(async move {
            let mut never = std::pin::pin!(std::future::pending::<()>());
            ear.until_ending(never.as_mut()).await
        });
        tokio::task::yield_now().await;
        connections.end();
        assert_eq!(waiting.await.unwrap(), None);
        let mut done = connections.ear();
        let mut ready = std::pin::pin!(std::future::ready(7));
        assert_eq!(done.until_ending(ready.as_mut()).await, Some(7));
    }
}
