//! Connections to one upstream that are not in use, kept by one worker thread.
//!
//! The one used last is taken first, so that their number shrinks to what is needed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::Stream;

/// Idle connections of one worker to one upstream. Its lock is never contended.
#[derive(Debug)]
pub struct Idle {
    connections: Mutex<Vec<(Stream, Instant)>>,
    count_max: usize,
    kept: Duration,
}

impl Idle {
    /// Keeps at most `count_max` connections, each unused for at most `kept`.
    #[must_use]
    pub fn new(count_max: usize, kept: Duration) -> Self {
        Self { connections: Mutex::default(), count_max, kept }
    }

    /// A connection that was silent since its last use, so that it can take a request.
    pub fn take(&self, now: Instant) -> Option<Stream> {
        let mut connections = self.connections();
        while let Some((stream, since)) = connections.pop() {
            if self.is_fresh(&stream, since, now) {
                return Some(stream);
            }
        }
        None
    }

    /// Takes a connection back.
    pub fn put(&self, stream: Stream, now: Instant) {
        let mut connections = self.connections();
        if connections.len() < self.count_max {
            connections.push((stream, now));
        }
    }

    /// Closes connections that were unused for too long, and those that the upstream has closed; answers how
    /// many stay.
    pub fn sweep(&self, now: Instant) -> usize {
        let mut connections = self.connections();
        connections.retain(|(stream, since)| self.is_fresh(stream, *since, now));
        connections.len()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.connections().len()
    }

    fn is_fresh(&self, stream: &Stream, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) < self.kept && stream.is_quiet()
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(Stream, Instant)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
