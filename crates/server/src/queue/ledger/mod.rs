//! The queue on disk: every call from its acknowledgement to its end, in SQLite, in a file of its own, so that
//! no deploy waits behind enqueues.
//!
//! One thread writes ([`writer`]). A call is one insert; that it is under way is known in memory alone; its end
//! is a delete that rides along with others. After a crash everything that has no end is there again, and is
//! delivered again. A large body is a file beside the database ([`bodies`]).

mod bodies;
mod reader;
mod schema;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use pinnace_core::{FunctionRef, limits, network::Reach, queue::Attempt};
use rusqlite::Connection;
use tokio::sync::oneshot;

use self::{
    bodies::Bodies,
    writer::{Change, Done, Writer},
};
pub use self::{
    reader::Stored,
    writer::{Added, Progress},
};

/// A call as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub function: FunctionRef,
    /// Its id.
    pub id: String,
    /// The request's method.
    pub method: String,
    /// Path and query that the function sees.
    pub target: String,
    /// The request's headers, whole lines, without those of framing.
    pub headers: Vec<u8>,
    /// Where its answer goes.
    pub callback: Option<Callback>,
    /// The body.
    pub body: Vec<u8>,
}

impl Call {
    /// Bytes that it takes of the queue's.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.target.len() + self.headers.len() + self.body.len()) as u64
    }
}

/// Where an answer goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// To whom.
    pub url: String,
    /// No further than this.
    pub reach: Reach,
}

/// How far a row of calls has come of which each may happen once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Names the row.
    pub name: String,
    /// Grows from call to call.
    pub at: i64,
}

/// A call that an earlier server has left.
#[derive(Debug)]
pub struct Left {
    /// Its number.
    pub number: u64,
    /// Its function.
    pub function: FunctionRef,
    /// Its id.
    pub id: String,
    /// Bytes that it takes of the queue's.
    pub bytes: u64,
    /// When it is tried next, in milliseconds of Unix time.
    pub due_ms: u64,
}

/// Why something is not in the database.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database refused.
    #[error("the queue's database {0}")]
    Database(String),
    /// The writer has ended, which it does only with the server.
    #[error("the queue's database is closed: the server is ending")]
    Closed,
}

/// The database of queued calls.
pub struct Ledger {
    writer: mpsc::Sender<Change>,
    with_bodies: mpsc::Sender<Change>,
    reader: Mutex<Connection>,
    bodies: Bodies,
    next: AtomicU64,
}

impl Ledger {
    /// Opens the database in a directory, makes it if it is missing, and says which calls are in it.
    /// `on_added` is told of the calls that are added later, before those who added them are.
    ///
    /// # Errors
    /// The file cannot be opened, is no such database, or comes from a newer Pinnace.
    pub fn open(
        state: &Path,
        on_added: impl Fn(&[&Added]) + Send + 'static,
    ) -> Result<(Arc<Self>, Vec<Left>), LedgerError> {
        let path = state.join("queue.db");
        let describe = |error: &dyn std::fmt::Display| {
            LedgerError::Database(format!("{} cannot be opened: {error}", path.display()))
        };
        let connection = Connection::open(&path).map_err(|error| describe(&error))?;
        schema::prepare(&connection).map_err(|error| describe(&error))?;
        forget_old(&connection).map_err(|error| describe(&error))?;
        let left = reader::left(&connection).map_err(|error| describe(&error))?;
        let numbers = reader::numbers(&connection).map_err(|error| describe(&error))?;
        let bodies = Bodies::open(&state.join("queue")).map_err(|error| describe(&error))?;
        bodies.sweep(&numbers).map_err(|error| describe(&error))?;
        // The names of both must be as durable as what will be in them.
        sync_directories(state).map_err(|error| describe(&error))?;
        let reader = reader::open(&path).map_err(|error| describe(&error))?;
        let (sender, changes) = mpsc::channel();
        let writer = Writer {
            connection,
            bodies: bodies.clone(),
            on_added: Box::new(on_added),
            path: path.clone(),
            failed: 0,
        };
        let with_bodies = bodies.clone().start(sender.clone()).map_err(|error| describe(&error))?;
        let thread = thread::Builder::new().name("queue-writer".to_owned());
        thread.spawn(move || writer.run(&changes)).map_err(|error| describe(&error))?;
        let next = AtomicU64::new(numbers.iter().max().map_or(1, |last| last + 1));
        let reader = Mutex::new(reader);
        Ok((Arc::new(Self { writer: sender, with_bodies, reader, bodies, next }), left))
    }

    /// Adds a call. True once it is durable; false, and nothing is added, if one with a mark of this name was added
    /// that was as far or further on.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn add(&self, call: Call, mark: Option<Mark>) -> Result<bool, LedgerError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let body_bytes = call.body.len() as u64;
        let is_inline = call.body.len() <= limits::QUEUED_BODY_INLINE_BYTES_MAX;
        let way = if is_inline { &self.writer } else { &self.with_bodies };
        Self::ask(way, |done| {
            let submitted_ms = now_ms();
            Change::Add(Box::new(Added { number, call, mark, body_bytes, submitted_ms, done }))
        })
        .await
    }

    /// A call has been answered. It is forgotten soon.
    pub fn end(&self, number: u64) {
        let _ = self.writer.send(Change::End(number));
    }

    /// A call was tried. Waits until this is kept.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn note(&self, number: u64, progress: Progress) -> Result<bool, LedgerError> {
        Self::ask(&self.writer, |done| Change::Note(number, progress, done)).await
    }

    /// Has a failed call wait again; false if there is no such failed call.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn retry(&self, number: u64) -> Result<bool, LedgerError> {
        Self::ask(&self.writer, |done| Change::Retry(number, done)).await
    }

    /// Forgets calls, whatever became of them.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn forget(&self, numbers: Vec<u64>) -> Result<bool, LedgerError> {
        Self::ask(&self.writer, |done| Change::Forget(numbers, done)).await
    }

    /// Makes marks where there are none of their names, and forgets others.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn mark(&self, new: Vec<Mark>, gone: Vec<String>) -> Result<bool, LedgerError> {
        Self::ask(&self.writer, |done| Change::Marks { new, gone, done }).await
    }

    /// Waits until all changes so far are durable.
    pub async fn flush(&self) {
        let _ = Self::ask(&self.writer, Change::Flush).await;
    }

    async fn ask(
        way: &mpsc::Sender<Change>,
        change: impl FnOnce(Done) -> Change,
    ) -> Result<bool, LedgerError> {
        let (done, answer) = oneshot::channel();
        way.send(change(done)).map_err(|_| LedgerError::Closed)?;
        answer.await.map_err(|_| LedgerError::Closed)?
    }
}

/// Forgets what has been kept long enough.
fn forget_old(connection: &Connection) -> rusqlite::Result<()> {
    writer::prune(connection).map(drop)
}

fn sync_directories(state: &Path) -> io::Result<()> {
    File::open(state.join("queue"))?.sync_all()?;
    File::open(state)?.sync_all()?;
    match state.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Unix time in milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The latest attempts of a history, and one more.
#[must_use]
pub fn lengthened(mut history: Vec<Attempt>, attempt: Attempt) -> Vec<Attempt> {
    let excess = (history.len() + 1).saturating_sub(limits::DELIVERY_HISTORY_MAX);
    history.drain(..excess);
    history.push(attempt);
    history
}
