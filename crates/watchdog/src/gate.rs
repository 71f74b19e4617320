//! How many calls are under way, and how many may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Counts calls.
#[derive(Debug)]
pub struct Gate {
    busy: AtomicUsize,
    max: usize,
    idle: Notify,
}

/// A call's place; dropping it frees the place.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Gate {
    /// Lets `max` calls in at once, or any number.
    pub fn new(max: Option<usize>) -> Arc<Self> {
        let max = max.unwrap_or(usize::MAX);
        Arc::new(Self { busy: AtomicUsize::new(0), max, idle: Notify::new() })
    }

    /// A place for a call; `None` if all are taken.
    pub fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut busy = self.busy.load(Ordering::Relaxed);
        while busy < self.max {
            let (more, order) = (busy + 1, Ordering::Relaxed);
            match self.busy.compare_exchange_weak(busy, more, order, order) {
                Ok(_) => return Some(Pass(Arc::clone(self))),
                Err(now) => busy = now,
            }
        }
        None
    }

    /// A place for a call that the limit does not count against (the readiness question).
    pub fn enter_unlimited(self: &Arc<Self>) -> Pass {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Pass(Arc::clone(self))
    }

    /// Whether all places are taken.
    pub fn is_full(&self) -> bool {
        self.busy() >= self.max
    }

    /// Calls under way.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.busy() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_pass_is_dropped() {
        let gate = Gate::new(Some(2));
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert!(gate.enter().is_none() && gate.is_full());
        drop(first);
        assert!(!gate.is_full());
        let third = gate.enter().unwrap();
        drop((second, third));
        assert_eq!(gate.busy(), 0);
        let open = Gate::new(None);
        let passes: Vec<_> = (0..1000).map(|_| open.enter().unwrap()).collect();
        assert_eq!(open.busy(), passes.len());
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_call() {
        let gate = Gate::new(None);
        let pass = gate.enter().unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.idle().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(pass);
        waiting.await.unwrap();
    }
}
