//! Asynchronous calls, from their acknowledgement to their end (contract section 7).
//!
//! A worker submits a call ([`AsyncQueue::submit`]): it is written to disk ([`ledger`]), then answered 202. The
//! [`pump`] leases calls by the rules of `core::queue` and has each delivered ([`delivery`]), by the one way into
//! functions. A call that a function has answered is forgotten, its answer sent to the callback ([`callback`]);
//! one that failed is tried again, and kept among those that failed when it was tried often enough. What is
//! leased is known in memory alone: a server that starts delivers everything that has no end again, so a call
//! is delivered at least once.

mod callback;
mod delivery;
pub mod ledger;
mod listing;
pub mod metrics;
mod pump;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pinnace_core::{
    FunctionRef, limits,
    queue::{Found, Full, Queue, Queued, Stage},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use self::ledger::{Added, Ledger, now_ms};
pub use self::{
    callback::Callbacks,
    delivery::Delivery,
    ledger::{Call, Callback, LedgerError, Mark},
    pump::Pump,
};
use crate::clock::now;

/// The queue of asynchronous calls.
pub struct AsyncQueue {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    /// Room for what is being received, in units of [`RECEIVED_UNIT_BYTES`].
    received: Arc<Semaphore>,
    body_bytes_max: usize,
    processed: AtomicU64,
}

/// In which units room for what is being received is counted.
const RECEIVED_UNIT_BYTES: usize = 1 << 10;

/// What the ledger's writer tells of new calls too.
struct Shared {
    state: Mutex<State>,
    /// Something is to be delivered, or may be soon.
    wake: Notify,
    submitted: AtomicU64,
}

struct State {
    queue: Queue,
    /// Ends deliveries under way.
    cancels: HashMap<u64, oneshot::Sender<()>>,
}

impl State {
    /// Ends the deliveries of calls that are under way; answers the numbers of all.
    fn end_deliveries(&mut self, cancelled: Vec<Found>) -> Vec<u64> {
        for call in cancelled.iter().filter(|call| call.stage == Stage::InFlight) {
            if let Some(cancel) = self.cancels.remove(&call.number) {
                let _ = cancel.send(());
            }
        }
        cancelled.into_iter().map(|call| call.number).collect()
    }
}

/// Why the queue takes no further call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There are as many as may be.
    #[error(
        "{max} asynchronous calls wait or are under way, the most there may be (QUEUED_CALLS_MAX)",
        max = limits::QUEUED_CALLS_MAX
    )]
    Calls,
    /// They have as many bytes as may be.
    #[error(
        "asynchronous calls that wait or are under way have {max} bytes, the most they may have \
         (QUEUED_BYTES_MAX)",
        max = limits::QUEUED_BYTES_MAX
    )]
    Bytes,
    /// The function has its share.
    #[error(
        "the function has as many asynchronous calls that wait or are under way as are left for all others (of \
         QUEUED_CALLS_MAX, {calls}, and QUEUED_BYTES_MAX, {bytes})",
        calls = limits::QUEUED_CALLS_MAX, bytes = limits::QUEUED_BYTES_MAX
    )]
    Function,
    /// As much is being received as may be.
    #[error(
        "asynchronous calls of {max} bytes are being received, the most that may be at once \
         (ASYNC_RECEIVED_BYTES_MAX)",
        max = limits::ASYNC_RECEIVED_BYTES_MAX
    )]
    Received,
}

/// Room in the queue for one call; given back when it is dropped.
pub struct Room {
    shared: Arc<Shared>,
    bytes: u64,
    _received: OwnedSemaphorePermit,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.state().queue.unreserve(self.bytes);
    }
}

/// What becomes of a call whose delivery has ended.
enum Ending {
    /// It is forgotten.
    Forget,
    /// It is tried again then; how far it has come is on disk.
    Again(Instant),
    /// It has failed for good, which is on disk.
    Failed,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn added(&self, calls: &[&Added]) {
        let mut state = self.state();
        for Added { number, call, body_bytes, .. } in calls {
            let queued = Queued {
                function: call.function.clone(),
                id: call.id.as_str().into(),
                bytes: call.bytes() - call.body.len() as u64 + body_bytes,
            };
            state.queue.add(*number, queued, None);
        }
        drop(state);
        self.submitted.fetch_add(calls.len() as u64, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

impl AsyncQueue {
    /// Opens the queue that is kept in a directory. What an earlier server left waits again.
    ///
    /// # Errors
    /// Its database cannot be opened.
    pub fn open(state: &Path, body_bytes_max: usize) -> Result<Arc<Self>, LedgerError> {
        let queue =
            Queue::new(limits::DELIVERIES_MAX, limits::QUEUED_CALLS_MAX, limits::QUEUED_BYTES_MAX);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue, cancels: HashMap::new() }),
            wake: Notify::new(),
            submitted: AtomicU64::new(0),
        });
        let telling = shared.clone();
        let (ledger, left) = Ledger::open(state, move |calls| telling.added(calls))?;
        let (start, start_ms) = (now(), now_ms());
        let mut guard = shared.state();
        for call in left {
            // A clock that was set back must not put a call off for longer than anything may be.
            let wait = Duration::from_millis(call.due_ms.saturating_sub(start_ms));
            let due = (!wait.is_zero()).then(|| start + wait.min(limits::DELIVERY_WAIT_MAX));
            let queued =
                Queued { function: call.function, id: call.id.as_str().into(), bytes: call.bytes };
            guard.queue.add(call.number, queued, due);
        }
        drop(guard);
        let units = limits::ASYNC_RECEIVED_BYTES_MAX / RECEIVED_UNIT_BYTES;
        Ok(Arc::new(Self {
            shared,
            ledger,
            received: Arc::new(Semaphore::new(units)),
            body_bytes_max,
            processed: AtomicU64::new(0),
        }))
    }

    /// Bytes that a call's body may have.
    #[must_use]
    pub fn body_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Keeps room for a call of so many bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&self, function: &FunctionRef, bytes: usize) -> Result<Room, Refused> {
        let units = u32::try_from(bytes / RECEIVED_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let received = self.received.clone().try_acquire_many_owned(units);
        let received = received.map_err(|_| Refused::Received)?;
        let bytes = bytes as u64;
        self.shared.state().queue.reserve(function, bytes).map_err(|full| match full {
            Full::Calls => Refused::Calls,
            Full::Bytes => Refused::Bytes,
            Full::Function => Refused::Function,
        })?;
        Ok(Room { shared: self.shared.clone(), bytes, _received: received })
    }

    /// Takes a call. True once it is durable; false, and it is not taken, if one of this mark's row was taken that
    /// was as far or further on.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn submit(
        &self,
        call: Call,
        mark: Option<Mark>,
        room: Room,
    ) -> Result<bool, LedgerError> {
        let added = self.ledger.add(call, mark).await;
        drop(room);
        added
    }

    /// How far each row of calls has come that happen once. Not for a thread that serves.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn marks(&self) -> Result<BTreeMap<String, i64>, LedgerError> {
        self.ledger.marks()
    }

    /// Makes marks where there are none of their names, and forgets others.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn mark(&self, new: Vec<Mark>, gone: Vec<String>) -> Result<(), LedgerError> {
        self.ledger.mark(new, gone).await.map(drop)
    }

    /// Cancels the calls of an id: those that wait are dropped, those under way ended. False if there is none.
    ///
    /// # Errors
    /// They may come back when the server starts again.
    pub async fn cancel(&self, id: &str) -> Result<bool, LedgerError> {
        let found = {
            let mut state = self.shared.state();
            let found = state.queue.cancel(id);
            state.end_deliveries(found)
        };
        if found.is_empty() {
            return Ok(false);
        }
        self.ledger.forget(found).await?;
        Ok(true)
    }

    /// As [`Self::cancel`], of all calls of a function; whoever asks forgets them.
    fn cancel_all(&self, function: &FunctionRef) -> Vec<u64> {
        let mut state = self.shared.state();
        let found = state.queue.cancel_all(function);
        state.end_deliveries(found)
    }

    /// A delivery has ended.
    fn finish(&self, number: u64, ending: Ending) {
        let mut state = self.shared.state();
        // One that was cancelled meanwhile has no other end.
        let is_cancelled = state.cancels.remove(&number).is_none();
        let ending = if is_cancelled { Ending::Forget } else { ending };
        if !is_cancelled && matches!(ending, Ending::Forget | Ending::Failed) {
            self.processed.fetch_add(1, Ordering::Relaxed);
        }
        match ending {
            Ending::Forget => {
                state.queue.end(number);
                self.ledger.end(number);
            }
            Ending::Again(due) => state.queue.put_back(number, due),
            Ending::Failed => state.queue.end(number),
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}
