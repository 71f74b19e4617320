//! Has calls delivered when it is their turn. While none waits it sleeps without a timer.

use std::{future::pending, sync::Arc, time::Duration};

use pinnace_core::FunctionRef;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{AsyncQueue, Delivery};
use crate::clock::now;

/// How long the end of the server waits for what deliveries that have ended still have to say and to write.
const END_MAX: Duration = Duration::from_secs(2);

/// Has calls delivered.
pub struct Pump {
    /// Whose calls.
    pub queue: Arc<AsyncQueue>,
    /// By whom.
    pub delivery: Arc<Delivery>,
    /// Turns true when the server is asked to end: no further delivery begins.
    pub ending: watch::Receiver<bool>,
    /// Told when calls under way have had their time.
    pub drained: oneshot::Receiver<()>,
}

impl Pump {
    /// Delivers until the server ends. What has no end then is delivered by the next one.
    pub async fn run(mut self) {
        let mut deliveries = JoinSet::new();
        loop {
            let next_due = self.lease(&mut deliveries);
            tokio::select! {
                () = self.queue.shared.wake.notified() => {}
                () = until(next_due) => {}
                Some(_) = deliveries.join_next() => {}
                _ = self.ending.wait_for(|ending| *ending) => break,
            }
        }
        tokio::select! {
            () = all(&mut deliveries) => {}
            _ = &mut self.drained => {
                // Workers are done: what they answered is said and kept.
                let _ = timeout(END_MAX, all(&mut deliveries)).await;
            }
        }
        deliveries.abort_all();
        let _ = timeout(END_MAX, self.queue.ledger.flush()).await;
    }

    /// Begins all deliveries that may begin now; answers when the next may.
    fn lease(&self, deliveries: &mut JoinSet<()>) -> Option<std::time::Instant> {
        let places = |function: &FunctionRef| self.places(function);
        let mut state = self.queue.shared.state();
        while let Some(number) = state.queue.lease(now(), places) {
            let (cancel, cancelled) = oneshot::channel();
            state.cancels.insert(number, cancel);
            deliveries.spawn(self.delivery.clone().deliver(number, cancelled));
        }
        state.queue.next_due()
    }

    /// How many calls a function can have under way: where its replicas serve so many at a time, as many as they
    /// have places, so that calls wait here and not for a replica, whose waiting has a deadline.
    fn places(&self, function: &FunctionRef) -> usize {
        // Calls of one that is not deployed are given up, which takes no replica.
        let Some(entry) = self.delivery.catalog.get(function) else { return usize::MAX };
        match entry.deployed().spec.concurrency {
            Some(places) => entry.ready().len().max(1).saturating_mul(places as usize),
            None => usize::MAX,
        }
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(Instant::from_std(due)).await,
        None => pending().await,
    }
}

async fn all(deliveries: &mut JoinSet<()>) {
    while deliveries.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
