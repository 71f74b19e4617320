//! What the scaler and others tell each other about one function, without waiting for each other.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use pinnace_core::FunctionRef;
use tokio::sync::mpsc;

/// Where functions say that they are called again. Each says it once until it is at rest again, so no more
/// wait here than there are functions.
pub type Bell = mpsc::UnboundedSender<FunctionRef>;

/// Marks of one function.
#[derive(Debug)]
pub struct Marks {
    at_rest: AtomicBool,
    bell: OnceLock<Bell>,
    crowd: AtomicU32,
    floor: AtomicU32,
    wished: AtomicU32,
}

impl Marks {
    /// Of a function at rest of which so many replicas are wished.
    #[must_use]
    pub fn new(wished: u32) -> Self {
        Self {
            at_rest: AtomicBool::new(true),
            bell: OnceLock::new(),
            crowd: AtomicU32::new(0),
            floor: AtomicU32::new(0),
            wished: AtomicU32::new(wished),
        }
    }

    /// From now on its calls ring this bell.
    pub fn hang(&self, bell: Bell) {
        // A function has one catalog, and that has one bell.
        let _ = self.bell.set(bell);
    }

    /// It is called. Nothing but a look at a flag, unless the scaler has left it alone.
    pub fn called(&self, id: &FunctionRef) {
        if self.at_rest.load(Ordering::Relaxed)
            && self.at_rest.swap(false, Ordering::AcqRel)
            && let Some(bell) = self.bell.get()
        {
            // A server that is ending scales nothing.
            let _ = bell.send(id.clone());
        }
    }

    /// The scaler leaves it alone until it is called.
    pub fn rest(&self) {
        self.at_rest.store(true, Ordering::Release);
    }

    /// Calls found all replicas full; there are to be so many now.
    pub fn crowded(&self, replicas: u32) {
        self.crowd.fetch_max(replicas, Ordering::AcqRel);
    }

    /// The most replicas that calls have asked for so since the last look; 0 if they have not.
    #[must_use]
    pub fn take_crowd(&self) -> u32 {
        self.crowd.swap(0, Ordering::AcqRel)
    }

    /// Replicas that an alert asks for while it fires; 0 if none does.
    #[must_use]
    pub fn floor(&self) -> u32 {
        self.floor.load(Ordering::Acquire)
    }

    /// An alert asks for so many replicas.
    pub fn set_floor(&self, replicas: u32) {
        self.floor.store(replicas, Ordering::Release);
    }

    /// Replicas that its user wished for last, by a deploy or by hand. Only this is kept for a next server.
    #[must_use]
    pub fn wished(&self) -> u32 {
        self.wished.load(Ordering::Acquire)
    }

    /// Its user wishes for so many replicas.
    pub fn wish(&self, replicas: u32) {
        self.wished.store(replicas, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_rings_once_until_it_is_at_rest_again() {
        let (bell, mut rung) = mpsc::unbounded_channel();
        let (id, marks) = (FunctionRef::new("a", "").unwrap(), Marks::new(1));
        marks.hang(bell);
        marks.called(&id);
        marks.called(&id);
        assert_eq!(rung.try_recv().ok(), Some(id.clone()));
        assert!(rung.try_recv().is_err());
        marks.rest();
        marks.called(&id);
        assert_eq!(rung.try_recv().ok(), Some(id));
    }

    #[test]
    fn the_largest_crowd_is_seen_once() {
        let marks = Marks::new(1);
        marks.crowded(3);
        marks.crowded(2);
        assert_eq!((marks.take_crowd(), marks.take_crowd()), (3, 0));
    }
}
