//! Replicas whose image is not there yet: they have no sandbox, but can be stopped like any other.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

/// The replicas that wait.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<String, oneshot::Sender<Duration>>>);

impl Waiting {
    /// A replica begins to wait. Resolves when it is to stop, with its grace.
    pub fn enter(&self, replica: &str) -> oneshot::Receiver<Duration> {
        let (stop, stopped) = oneshot::channel();
        self.replicas().insert(replica.to_owned(), stop);
        stopped
    }

    /// A replica waits no longer. It must be known as a running one by now, so that whoever stops it finds
    /// it either here or there.
    pub fn leave(&self, replica: &str) {
        self.replicas().remove(replica);
    }

    /// Stops a replica if it waits.
    pub fn stop(&self, replica: &str, grace: Duration) -> bool {
        let waiting = self.replicas().remove(replica);
        waiting.is_some_and(|stop| stop.send(grace).is_ok())
    }

    fn replicas(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Duration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
