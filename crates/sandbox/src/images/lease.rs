//! Leases: what a load or a holder of an image needs stays, whatever else is removed meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many leases each image and layer has, by digest.
pub(super) type Counts = HashMap<String, usize>;

/// The leases of a store. Its lock also orders what reads and what removes.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases(Arc<Mutex<Counts>>);

/// Keeps images and layers in the store while it lives.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    digests: Vec<String>,
}

impl Leases {
    /// Holds off every new lease, and so every load that would rely on a layer.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty lease.
    pub(super) fn lease(&self) -> Lease {
        Lease { leases: self.clone(), digests: Vec::new() }
    }
}

impl Lease {
    /// Adds a digest.
    pub(super) fn add(&mut self, digest: &str) {
        let leases = self.leases.clone();
        self.add_locked(digest, &mut leases.lock());
    }

    /// Adds a digest while the lock is held.
    pub(super) fn add_locked(&mut self, digest: &str, counts: &mut Counts) {
        *counts.entry(digest.to_owned()).or_default() += 1;
        self.digests.push(digest.to_owned());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = self.leases.lock();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_count() {
        let leases = Leases::default();
        let mut one = leases.lease();
        one.add("a");
        let mut two = leases.lease();
        two.add("a");
        two.add("b");
        drop(one);
        assert_eq!(leases.lock().get("a"), Some(&1));
        drop(two);
        assert!(leases.lock().is_empty());
    }
}
