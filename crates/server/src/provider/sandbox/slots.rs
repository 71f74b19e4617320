//! Sandboxes made ahead, so that a start need not make one: the loop around [`SlotStock`].
//!
//! A [`SlotPool`] names every slot, whether it is made ahead or with its start, and gives it its ids. What is
//! made ahead is lost with the spawner that keeps it; the pool then begins anew.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinnace_core::slots::{SlotStep, SlotStock};
use pinnace_sandbox::{
    cgroup::Cgroups,
    protocol::{Bounds, SlotSpec},
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep_until,
};

use super::{Spawner, id_ranges::IdRanges, spawner::Loss};
use crate::clock::now;

/// All slots that no replica has.
#[derive(Debug)]
pub struct SlotPool {
    state: Mutex<State>,
    /// Told when the stock may want something else.
    changed: Notify,
    cgroups: Arc<Cgroups>,
}

#[derive(Debug)]
struct State {
    stock: SlotStock,
    ready: VecDeque<SlotSpec>,
    /// `None` where sandboxes have no ranges of their own.
    ranges: Option<IdRanges>,
    /// Tells the slots of this server from those of another.
    prefix: String,
    named: u64,
}

impl SlotPool {
    /// An empty pool, of at most so many slots that wait.
    #[must_use]
    pub fn new(most: usize, has_ranges: bool, cgroups: Arc<Cgroups>) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let state = State {
            stock: SlotStock::new(most, now()),
            ready: VecDeque::new(),
            ranges: has_ranges.then(IdRanges::default),
            prefix: format!("slot-{}", unique.get(..8).unwrap_or_default()),
            named: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), cgroups }
    }

    /// A slot for a start: one that is ready, else the name of one to be made.
    pub fn take(&self) -> SlotSpec {
        let slot = {
            let mut state = self.state();
            state.stock.started(now());
            state.ready.pop_front().unwrap_or_else(|| state.name())
        };
        self.changed.notify_one();
        slot
    }

    /// A slot is in use, by a replica that was there before.
    pub fn claim(&self, slot: &SlotSpec) {
        if let (Some(ranges), Some(base)) = (&mut self.state().ranges, slot.id_base) {
            ranges.claim(base);
        }
    }

    /// Removes what is left of a slot that has no process any more, or ends the last ones. Not for a thread
    /// that serves.
    ///
    /// # Errors
    /// Its control group cannot be removed.
    pub fn clear(&self, slot: &SlotSpec) -> std::io::Result<()> {
        let cleared =
            self.cgroups.kill_all(&slot.name).and_then(|()| self.cgroups.remove(&slot.name));
        if let (Some(ranges), Some(base)) = (&mut self.state().ranges, slot.id_base) {
            ranges.give_back(base);
        }
        cleared
    }

    /// Keeps the stock as it is to be, until the spawner's handle is gone.
    pub async fn keep(
        self: Arc<Self>,
        spawner: Spawner,
        bounds: Bounds,
        mut losses: mpsc::UnboundedReceiver<Loss>,
    ) {
        loop {
            let step = self.state().stock.step(now());
            let due = match step {
                SlotStep::Make => {
                    self.make(&spawner, &bounds);
                    continue;
                }
                SlotStep::Retire => {
                    self.retire(&spawner).await;
                    continue;
                }
                SlotStep::WaitUntil(time) => Some(time),
                SlotStep::Settled => None,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = until(due) => {}
                loss = losses.recv() => match loss {
                    Some(loss) => self.lose(&loss),
                    None => return,
                },
            }
        }
    }

    fn make(self: &Arc<Self>, spawner: &Spawner, bounds: &Bounds) {
        let slot = self.state().name();
        let (pool, spawner, bounds) = (self.clone(), spawner.clone(), bounds.clone());
        tokio::spawn(async move {
            let made = spawner.prepare(slot.clone(), bounds).await;
            match made {
                Ok(()) => {
                    let mut state = pool.state();
                    state.stock.made();
                    state.ready.push_back(slot);
                }
                Err(reason) => {
                    tracing::warn!(%reason, "a sandbox cannot be made ahead");
                    pool.state().stock.failed(now());
                    pool.discard(slot);
                }
            }
            pool.changed.notify_one();
        });
    }

    async fn retire(self: &Arc<Self>, spawner: &Spawner) {
        // The one made last has been of no use for the shortest time, but all are alike.
        let Some(slot) = self.state().ready.pop_back() else { return };
        spawner.retire(slot.name.clone()).await;
        self.discard(slot);
    }

    fn lose(self: &Arc<Self>, loss: &Loss) {
        let is_lost = |slot: &SlotSpec| match loss {
            Loss::Slot(name) => slot.name == *name,
            Loss::Spawner => true,
        };
        let lost: VecDeque<SlotSpec> = {
            let mut state = self.state();
            let (lost, kept) = std::mem::take(&mut state.ready).into_iter().partition(is_lost);
            state.ready = kept;
            lost
        };
        for slot in lost {
            self.state().stock.lost();
            self.discard(slot);
        }
    }

    /// Clears a slot away that no replica had.
    pub fn discard(self: &Arc<Self>, slot: SlotSpec) {
        let pool = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = pool.clear(&slot) {
                tracing::warn!(slot = %slot.name, %error, "something of an unused sandbox stays until the next start");
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn name(&mut self) -> SlotSpec {
        self.named += 1;
        SlotSpec {
            name: format!("{}-{}", self.prefix, self.named),
            id_base: self.ranges.as_mut().map(IdRanges::take),
        }
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
