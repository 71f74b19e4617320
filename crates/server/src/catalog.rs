//! The live table of functions and their replicas.
//!
//! Deploy and remove swap the whole table; everything that changes more often is swapped inside an
//! [`Entry`]. Readers never wait: the way of an invocation loads a pointer and goes on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use pinnace_core::{
    FunctionRef, FunctionSpec, limits,
    wire::{Rollout, RolloutPhase},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    clock::now,
    replica::Replica,
    scaler::{Bell, Marks},
    stats::Stats,
};

/// All deployed functions.
#[derive(Debug)]
pub struct Catalog {
    table: ArcSwap<HashMap<Box<str>, Arc<Entry>>>,
    edit: Mutex<()>,
    workers: usize,
    bell: Bell,
    rung: Mutex<Option<mpsc::UnboundedReceiver<FunctionRef>>>,
}

/// A function as deployed now.
#[derive(Debug)]
pub struct Deployed {
    /// What was asked for.
    pub spec: FunctionSpec,
    /// Counts its deploys, from 1.
    pub revision: u64,
    /// RFC 3339 time of its first deploy: tells it from an earlier function of the same name.
    pub created_at: String,
}

/// A deployed function: what the way of an invocation needs, and what a GET shows.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub id: FunctionRef,
    /// RFC 3339 time of its first deploy.
    pub created_at: String,
    /// Counters, one set per worker.
    pub stats: Stats,
    /// What it and the scaler tell each other.
    pub marks: Marks,
    deployed: ArcSwap<Deployed>,
    ready: ArcSwap<Vec<Arc<Replica>>>,
    standing: ArcSwap<Standing>,
    in_flight: AtomicU32,
    waiting: AtomicUsize,
    capacity: Notify,
    called: AtomicBool,
    removed: AtomicBool,
    started_at: Instant,
    last_end_ms: AtomicU64,
}

/// How a function stands, as far as its replicas show.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Replicas wanted.
    pub wanted: u32,
    /// Where the latest deploy stands.
    pub phase: RolloutPhase,
    /// A sentence about it.
    pub message: String,
    /// What is wrong, a sentence each.
    pub conditions: Vec<String>,
    /// Set while it fails: calls are refused at once rather than held. The sentence says why, the time
    /// when the next replica is tried.
    pub failing: Option<(String, Instant)>,
}

impl Standing {
    /// Of a function whose replicas nobody has looked at yet.
    #[must_use]
    pub fn unknown(wanted: u32) -> Self {
        Self {
            wanted,
            phase: RolloutPhase::Progressing,
            message: "replicas are being started".to_owned(),
            conditions: Vec::new(),
            failing: None,
        }
    }
}

impl Catalog {
    /// An empty catalog for so many worker threads.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let (bell, rung) = mpsc::unbounded_channel();
        let rung = Mutex::new(Some(rung));
        Self { table: ArcSwap::default(), edit: Mutex::new(()), workers, bell, rung }
    }

    /// Where functions say that they are called again. It is given out once.
    #[must_use]
    pub fn take_rung(&self) -> Option<mpsc::UnboundedReceiver<FunctionRef>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Worker threads that count calls.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The function that a route's segment names: `name` or `name.namespace`.
    #[must_use]
    pub fn find(&self, segment: &str) -> Option<Arc<Entry>> {
        self.table.load().get(segment).cloned()
    }

    /// The function of a checked name.
    #[must_use]
    pub fn get(&self, id: &FunctionRef) -> Option<Arc<Entry>> {
        self.find(&id.to_string())
    }

    /// All functions, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let table = self.table.load();
        // Functions of the default namespace stand there under two names.
        table.iter().filter(|(key, _)| key.contains('.')).map(|(_, entry)| entry.clone()).collect()
    }

    /// Shows every ready replica of every function.
    pub fn each_ready(&self, mut show: impl FnMut(&Replica)) {
        for (_, entry) in self.table.load().iter().filter(|(key, _)| key.contains('.')) {
            entry.ready().iter().for_each(|replica| show(replica));
        }
    }

    /// Number of functions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.load().keys().filter(|key| key.contains('.')).count()
    }

    /// Whether nothing is deployed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.load().is_empty()
    }

    /// Adds functions, each in place of one of the same name.
    pub fn insert_all(&self, entries: impl IntoIterator<Item = Arc<Entry>>) {
        let _edit = self.edit.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = HashMap::clone(&self.table.load());
        for entry in entries {
            entry.marks.hang(self.bell.clone());
            for key in keys(&entry.id) {
                table.insert(key, entry.clone());
            }
        }
        self.table.store(Arc::new(table));
    }

    /// Takes a function out.
    pub fn remove(&self, id: &FunctionRef) {
        let _edit = self.edit.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = HashMap::clone(&self.table.load());
        for key in keys(id) {
            table.remove(&key);
        }
        self.table.store(Arc::new(table));
    }
}

fn keys(id: &FunctionRef) -> impl Iterator<Item = Box<str>> {
    let short = id.is_default_namespace().then(|| id.name().into());
    std::iter::once(id.to_string().into_boxed_str()).chain(short)
}

impl Entry {
    /// A function without replicas yet.
    #[must_use]
    pub fn new(deployed: Arc<Deployed>, wanted: u32, created_at: String, workers: usize) -> Self {
        Self {
            id: deployed.spec.id.clone(),
            created_at,
            stats: Stats::new(workers),
            marks: Marks::new(wanted),
            deployed: ArcSwap::new(deployed),
            ready: ArcSwap::default(),
            standing: ArcSwap::from_pointee(Standing::unknown(wanted)),
            in_flight: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            capacity: Notify::new(),
            called: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            started_at: now(),
            last_end_ms: AtomicU64::new(0),
        }
    }

    /// What is deployed.
    #[must_use]
    pub fn deployed(&self) -> Arc<Deployed> {
        self.deployed.load_full()
    }

    /// Longest time to the first byte of its answer, if it names one.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deployed.load().spec.deadline
    }

    /// Takes over a new deploy; replicas follow later.
    pub fn set_deployed(&self, deployed: Arc<Deployed>) {
        self.deployed.store(deployed);
        // Another deploy may follow its load otherwise: the next call rings.
        self.marks.rest();
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Says how it stands, and wakes calls that may now be refused.
    pub fn set_standing(&self, standing: Standing) {
        let failing = standing.failing.is_some();
        self.standing.store(Arc::new(standing));
        if failing {
            self.capacity.notify_waiters();
        }
    }

    /// Where the latest deploy stands, as a GET shows it.
    #[must_use]
    pub fn rollout(&self) -> Rollout {
        let (standing, revision) = (self.standing(), self.deployed().revision);
        Rollout { revision, phase: standing.phase, message: standing.message.clone() }
    }

    /// Replicas that serve.
    #[must_use]
    pub fn ready(&self) -> arc_swap::Guard<Arc<Vec<Arc<Replica>>>> {
        self.ready.load()
    }

    /// Swaps the replicas that serve, and wakes calls that wait for one.
    pub fn set_ready(&self, replicas: Vec<Arc<Replica>>) {
        let any = !replicas.is_empty();
        self.ready.store(Arc::new(replicas));
        if any {
            self.called.store(false, Ordering::Release);
            self.capacity.notify_waiters();
        }
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call in, unless as many as are allowed are under way.
    #[must_use]
    pub fn enter(&self) -> bool {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let fits = before < limits::IN_FLIGHT_PER_FUNCTION_MAX;
        if !fits {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        self.marks.called(&self.id);
        fits
    }

    /// Counts a call out.
    pub fn leave(&self) {
        // Only the last one out has to say when that was; it says so before it is counted out, so that
        // nobody sees a function idle since an earlier time.
        let is_alone = self.in_flight.load(Ordering::Acquire) == 1;
        if is_alone {
            self.note_end();
        }
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 && !is_alone {
            self.note_end();
        }
    }

    fn note_end(&self) {
        let ended = now().saturating_duration_since(self.started_at);
        let ended_ms = u64::try_from(ended.as_millis()).unwrap_or(u64::MAX);
        self.last_end_ms.store(ended_ms, Ordering::Relaxed);
    }

    /// Since when no call was under way, if none is now.
    #[must_use]
    pub fn idle_since(&self) -> Instant {
        self.started_at + Duration::from_millis(self.last_end_ms.load(Ordering::Relaxed))
    }

    /// Room has come free on a replica: the call that waits longest may try.
    pub fn room(&self) {
        if self.has_waiting() {
            self.capacity.notify_one();
        }
    }

    /// The function is no more: calls that wait are refused.
    pub fn mark_removed(&self) {
        self.removed.store(true, Ordering::SeqCst);
        self.capacity.notify_waiters();
    }

    /// Whether the function is no more.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// Calls that wait for a place on a replica.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether calls wait, which newcomers must not overtake.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Joins the queue, unless it is full.
    #[must_use]
    pub fn join_queue(self: &Arc<Self>) -> Option<Place> {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        if before >= limits::WAITING_CALLS_PER_FUNCTION_MAX {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Place { entry: self.clone() })
    }

    /// Marks that a call needs a replica started; true for the first that says so.
    #[must_use]
    pub fn call_for_replica(&self) -> bool {
        !self.called.swap(true, Ordering::AcqRel)
    }

    /// The call for a replica was heard and answered: the next one counts anew.
    pub fn heard_call(&self) {
        self.called.store(false, Ordering::Release);
    }
}

/// A place in a function's queue; leaving it is dropping it.
#[derive(Debug)]
pub struct Place {
    entry: Arc<Entry>,
}

impl Place {
    /// Resolves when it is worth trying again. Make it before looking, or a wake-up is lost.
    pub fn wake_up(&self) -> tokio::sync::futures::Notified<'_> {
        self.entry.capacity.notified()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.entry.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
