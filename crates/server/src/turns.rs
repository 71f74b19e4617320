//! Turns: what concerns one thing happens one after the other, what concerns different things side by side.

use std::hash::{BuildHasher, Hash, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// Locks that things share by the hash of their names.
const LOCKS: usize = 64;

/// A bounded number of locks for any number of things.
#[derive(Debug)]
pub struct Turns {
    locks: Box<[Mutex<()>]>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    /// Waits for this thing's turn, which lasts until what is returned is dropped.
    pub async fn of(&self, thing: &impl Hash) -> MutexGuard<'_, ()> {
        let lock = self.hasher.hash_one(thing) as usize % LOCKS;
        self.locks[lock].lock().await
    }
}
