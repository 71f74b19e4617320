//! Sandboxes made ahead, so that a start need not make one: the loop around [`SlotStock`].
//!
//! A [`SlotPool`] names every slot, whether it is made ahead or with its start, and gives it its ids and its
//! directory. What is made ahead is lost with the spawner that keeps it; the pool then begins anew.

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinnace_core::slots::{SlotStep, SlotStock};
use pinnace_sandbox::{
    cgroup::Cgroups,
    protocol::{Expected, SlotSpec},
    sweep::{self, Swept},
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep_until,
};

use super::{
    Spawner,
    endpoint::UnixConnector,
    id_ranges::IdRanges,
    loopback,
    record::{Door, Record},
    spawner::{Loss, StartFailure},
};
use crate::clock::now;

/// All slots that no replica has.
#[derive(Debug)]
pub struct SlotPool {
    state: Mutex<State>,
    /// Told when the stock may want something else.
    changed: Notify,
    cgroups: Arc<Cgroups>,
    /// Where their directories are.
    directory: PathBuf,
}

/// A slot that has its directory.
#[derive(Debug)]
pub struct Slot {
    /// What it is made by.
    pub spec: SlotSpec,
    /// Listens in its directory.
    listener: Option<OwnedFd>,
    /// Listens at its `host_gateway`.
    gateway: Option<OwnedFd>,
}

#[derive(Debug)]
struct State {
    stock: SlotStock,
    ready: VecDeque<Slot>,
    /// Names of those that are being made for the stock, and are not lost already.
    making: BTreeSet<String>,
    /// Slots of which there may be something, by name.
    known: BTreeSet<String>,
    /// `None` where sandboxes have no ranges of their own.
    ranges: Option<IdRanges>,
    /// Tells the slots of this server from those of another.
    prefix: String,
    named: u64,
}

impl SlotPool {
    /// An empty pool, of at most so many slots that wait.
    #[must_use]
    pub fn new(directory: PathBuf, most: usize, has_ranges: bool, cgroups: Arc<Cgroups>) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let state = State {
            stock: SlotStock::new(most, now()),
            ready: VecDeque::new(),
            making: BTreeSet::new(),
            known: BTreeSet::new(),
            ranges: has_ranges.then(IdRanges::default),
            prefix: format!("slot-{}", unique.get(..8).unwrap_or_default()),
            named: 0,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), cgroups, directory }
    }

    /// A slot for a start: one that is ready, else the name of one to be made.
    ///
    /// # Errors
    /// It has no directory and can get none.
    pub fn take(self: &Arc<Self>) -> io::Result<Slot> {
        let ready = {
            let mut state = self.state();
            state.stock.started(now());
            state.ready.pop_front()
        };
        self.changed.notify_one();
        ready.map_or_else(|| self.with_directory(self.name()), Ok)
    }

    /// A slot on the host's network, to be made with its start: none is made ahead.
    ///
    /// # Errors
    /// It gets no directory, or there is no address for its gateway.
    pub fn take_on_host(self: &Arc<Self>) -> io::Result<Slot> {
        let (address, gateway) = loopback::listen()?;
        let slot = self.with_directory(SlotSpec { host_gateway: Some(address), ..self.name() })?;
        Ok(Slot { gateway: Some(gateway), ..slot })
    }

    /// A slot is in use, by a replica that was there before.
    pub fn claim(&self, slot: &SlotSpec) {
        let mut state = self.state();
        state.known.insert(slot.name.clone());
        if let (Some(ranges), Some(base)) = (&mut state.ranges, slot.id_base) {
            ranges.claim(base);
        }
    }

    /// Ends what runs in a slot and removes what is left of it. Not for a thread that serves.
    ///
    /// # Errors
    /// Something stays; then nobody else gets its ids.
    pub fn clear(&self, slot: &SlotSpec) -> io::Result<()> {
        sweep::clear(slot, &self.cgroups)?;
        let mut state = self.state();
        let was_known = state.known.remove(&slot.name);
        if let (true, Some(ranges), Some(base)) = (was_known, &mut state.ranges, slot.id_base) {
            ranges.give_back(base);
        }
        Ok(())
    }

    /// Clears away all slots that this pool does not know.
    ///
    /// # Errors
    /// The directory of the slots cannot be read.
    pub fn sweep(&self) -> io::Result<Swept> {
        let known = self.state().known.clone();
        sweep::sweep(&self.directory, &self.cgroups, &known)
    }

    /// Names a slot.
    fn name(&self) -> SlotSpec {
        let mut state = self.state();
        state.named += 1;
        let name = format!("{}-{}", state.prefix, state.named);
        state.known.insert(name.clone());
        let id_base = state.ranges.as_mut().map(IdRanges::take);
        SlotSpec { dir: self.directory.join(&name), name, id_base, host_gateway: None }
    }

    /// Makes the server's part of a slot but its listener.
    fn with_directory(self: &Arc<Self>, spec: SlotSpec) -> io::Result<Slot> {
        let made = fs::DirBuilder::new().mode(0o700).create(&spec.dir);
        match made.and_then(|()| Record::make(&spec.dir)) {
            Ok(()) => Ok(Slot { spec, listener: None, gateway: None }),
            Err(error) => {
                let text = format!("cannot make {}: {error}", spec.dir.display());
                self.discard(spec);
                Err(io::Error::new(error.kind(), text))
            }
        }
    }

    /// Keeps the stock as it is to be, until the spawner's handle is gone.
    pub async fn keep(
        self: Arc<Self>,
        spawner: Spawner,
        expected: Expected,
        mut losses: mpsc::UnboundedReceiver<Loss>,
    ) {
        loop {
            let step = self.state().stock.step(now());
            let due = match step {
                SlotStep::Make => {
                    self.make(&spawner, &expected);
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

    fn make(self: &Arc<Self>, spawner: &Spawner, expected: &Expected) {
        let (pool, spawner, expected) = (self.clone(), spawner.clone(), expected.clone());
        let spec = self.name();
        self.state().making.insert(spec.name.clone());
        tokio::spawn(async move {
            let name = spec.name.clone();
            let made = pool.make_one(&spawner, spec, expected).await;
            pool.keep_ready(&name, made);
            pool.changed.notify_one();
        });
    }

    /// Takes in what was made. Its loss may have been told before: by another channel than that it is made.
    fn keep_ready(self: &Arc<Self>, name: &str, made: Result<Slot, StartFailure>) {
        let mut state = self.state();
        let is_there = state.making.remove(name);
        match made {
            Ok(slot) if is_there => {
                state.stock.made();
                state.ready.push_back(slot);
            }
            Ok(slot) => {
                state.stock.failed(now());
                drop(state);
                self.discard(slot.spec);
            }
            Err(failure) => {
                match failure {
                    StartFailure::Refused(reason) => {
                        tracing::warn!(%reason, "a sandbox cannot be made ahead");
                    }
                    StartFailure::SpawnerDied | StartFailure::Ending => {
                        tracing::debug!(?failure, "a sandbox was not made ahead");
                    }
                }
                state.stock.failed(now());
            }
        }
    }

    async fn make_one(
        self: &Arc<Self>,
        spawner: &Spawner,
        spec: SlotSpec,
        expected: Expected,
    ) -> Result<Slot, StartFailure> {
        let pool = self.clone();
        let begin = move || {
            let mut slot = pool.with_directory(spec)?;
            match UnixConnector::listen(&slot.spec.dir) {
                Ok(listener) => slot.listener = Some(listener),
                Err(error) => {
                    pool.discard(slot.spec);
                    return Err(error);
                }
            }
            Ok(slot)
        };
        let begun = tokio::task::spawn_blocking(begin).await.map_err(io::Error::other).flatten();
        let slot = begun.map_err(|error| StartFailure::Refused(error.to_string()))?;
        if let Err(failure) = spawner.prepare(slot.spec.clone(), expected).await {
            self.discard(slot.spec);
            return Err(failure);
        }
        Ok(slot)
    }

    async fn retire(self: &Arc<Self>, spawner: &Spawner) {
        // The one made last has been of no use for the shortest time, but all are alike.
        let Some(slot) = self.state().ready.pop_back() else { return };
        spawner.retire(slot.spec.name.clone()).await;
        self.discard(slot.spec);
    }

    fn lose(self: &Arc<Self>, loss: &Loss) {
        let is_lost = |lost: &str| match loss {
            Loss::Slot(name) => lost == name,
            Loss::Spawner => true,
        };
        let lost: VecDeque<Slot> = {
            let mut state = self.state();
            state.making.retain(|name| !is_lost(name));
            let is_lost = |slot: &Slot| is_lost(&slot.spec.name);
            let (lost, kept) = std::mem::take(&mut state.ready).into_iter().partition(is_lost);
            state.ready = kept;
            lost
        };
        for slot in lost {
            self.state().stock.lost();
            self.discard(slot.spec);
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

impl Slot {
    /// It, with the listeners that the start of a replica with this door needs.
    ///
    /// # Errors
    /// A listener was not made ahead and cannot be made. The slot is for the caller to clear.
    pub fn with_listeners(
        self,
        door: Door,
    ) -> Result<(SlotSpec, Vec<OwnedFd>), (SlotSpec, io::Error)> {
        let Self { spec, listener, gateway } = self;
        let own = match (door, listener) {
            (Door::Port(_), _) => None,
            (Door::Socket, Some(listener)) => Some(listener),
            (Door::Socket, None) => match UnixConnector::listen(&spec.dir) {
                Ok(listener) => Some(listener),
                Err(error) => return Err((spec, error)),
            },
        };
        Ok((spec, own.into_iter().chain(gateway).collect()))
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
