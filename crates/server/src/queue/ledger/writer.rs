//! The one thread that changes the database. It takes every change that waits, commits them together, and only
//! then says so: many enqueues cost one disk flush.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use pinnace_core::{
    limits::{
        FAILED_CALL_AGE_MAX, FAILED_CALLS_BYTES_MAX, FAILED_CALLS_BYTES_PER_FUNCTION_MAX,
        FAILED_CALLS_MAX, FAILED_CALLS_PER_FUNCTION_MAX, QUEUED_BODY_INLINE_BYTES_MAX,
    },
    network::Reach,
    queue::Attempt,
};
use rusqlite::{Connection, params};
use tokio::sync::oneshot;

use super::{Call, Callback, LedgerError, Mark, bodies::Bodies, now_ms};

/// How long changes that nobody waits for are collected: to settle a call must not cost a flush of its own.
const COLLECT: Duration = Duration::from_millis(20);

/// Which part of the time that the latest commit took the next one waits for another change, each time that one
/// comes, and which part at most in all. Callers that were answered together come back together: without it half
/// of them would miss the commit that the first of them begins, and wait for two.
const PAUSE_PART: u32 = 16;
const PAUSES_PART: u32 = 4;

/// Longest such wait for another change.
const PAUSE: Duration = Duration::from_millis(1);

/// Calls that fail until it is looked again whether there are too many, which reads all that have failed.
const FAILED_UNSEEN: usize = 500;

/// Changes of one commit.
const BATCH_MAX: usize = 4096;

/// A change of the database.
pub(super) enum Change {
    /// A new call.
    Add(Box<Added>),
    /// A call has been answered or was cancelled.
    End(u64),
    /// A call is tried again, or has failed.
    Note(u64, Progress, Done),
    /// A failed call waits again.
    Retry(u64, Done),
    /// Calls are forgotten, and somebody waits for that.
    Forget(Vec<u64>, Done),
    /// Marks are made where there are none of their names, and others forgotten.
    Marks { new: Vec<Mark>, gone: Vec<String>, done: Done },
    /// Nothing: whoever waits knows that all before it is done.
    Flush(Done),
}

/// Who waits for a change.
pub(super) type Done = oneshot::Sender<Result<bool, LedgerError>>;

/// A new call, with who waits for it; told whether it is new, by its mark.
pub struct Added {
    /// Its number for life.
    pub number: u64,
    /// The call, its body gone where that is in a file.
    pub call: Call,
    pub(super) mark: Option<Mark>,
    /// Bytes of the body, which may be in a file.
    pub body_bytes: u64,
    pub(super) submitted_ms: u64,
    pub(super) done: Done,
}

/// How far a call has come that did not settle.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in milliseconds of Unix time.
    pub due_ms: u64,
    /// Whether it has failed for good.
    pub is_failed: bool,
    /// The attempts.
    pub history: Vec<Attempt>,
}

/// Told of the calls that are in the database from now on, before those who added them are.
pub(super) type OnAdded = Box<dyn Fn(&[&Added]) + Send>;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) bodies: Bodies,
    pub(super) on_added: OnAdded,
    pub(super) path: PathBuf,
    /// Calls that have failed since it was last looked whether there are too many.
    pub(super) failed: usize,
}

impl Change {
    /// Whether a caller waits for it.
    fn is_urgent(&self) -> bool {
        !matches!(self, Self::End(_) | Self::Note(..))
    }
}

impl Writer {
    pub(super) fn run(mut self, changes: &Receiver<Change>) {
        let mut took = Duration::ZERO;
        while let Ok(first) = changes.recv() {
            let batch = collect(first, changes, took);
            let begun = Instant::now();
            self.commit_all(batch);
            took = begun.elapsed();
        }
    }

    fn commit_all(&mut self, batch: Vec<Change>) {
        // One change that is refused must not take the others with it: then each goes alone.
        match self.commit(&batch) {
            Ok(outcomes) => self.tell_all(batch, outcomes),
            Err(_) => {
                for change in batch {
                    match self.commit(std::slice::from_ref(&change)) {
                        Ok(outcomes) => self.tell_all(vec![change], outcomes),
                        Err(error) => self.tell(change, Err(error)),
                    }
                }
            }
        }
    }

    /// Tells of what is durable now: first of all calls that are new, so that their deliveries are woken once.
    fn tell_all(&self, batch: Vec<Change>, outcomes: Vec<bool>) {
        let added = batch.iter().zip(&outcomes).filter_map(|(change, outcome)| match change {
            Change::Add(added) if *outcome => Some(&**added),
            _ => None,
        });
        let added: Vec<_> = added.collect();
        if !added.is_empty() {
            (self.on_added)(&added);
        }
        for (change, outcome) in batch.into_iter().zip(outcomes) {
            self.tell(change, Ok(outcome));
        }
    }

    fn commit(&mut self, batch: &[Change]) -> rusqlite::Result<Vec<bool>> {
        let transaction = self.connection.transaction()?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for change in batch {
            outcomes.push(apply(&transaction, change)?);
        }
        let failed = |change: &Change| matches!(change, Change::Note(_, note, _) if note.is_failed);
        let failed = self.failed + batch.iter().filter(|change| failed(change)).count();
        let pruned = match failed >= FAILED_UNSEEN {
            true => prune(&transaction)?,
            false => Vec::new(),
        };
        transaction.commit()?;
        self.failed = if failed >= FAILED_UNSEEN { 0 } else { failed };
        if !pruned.is_empty() {
            tracing::warn!(
                calls = pruned.len(),
                "failed asynchronous calls are forgotten, the oldest first: there are more than are kept \
                 (FAILED_CALLS_MAX, FAILED_CALLS_PER_FUNCTION_MAX and limits beside them)"
            );
        }
        for number in pruned {
            self.bodies.remove(number);
        }
        Ok(outcomes)
    }

    fn tell(&self, change: Change, outcome: rusqlite::Result<bool>) {
        let refused = |error: rusqlite::Error| {
            LedgerError::Database(format!("{} refused a change: {error}", self.path.display()))
        };
        let outcome = outcome.map_err(refused);
        match change {
            Change::Add(added) => {
                let Added { number, done, .. } = *added;
                if !matches!(outcome, Ok(true)) {
                    self.bodies.remove(number);
                }
                // A caller that left has no use for the answer; the call stands all the same.
                let _ = done.send(outcome);
            }
            Change::End(number) => match outcome {
                Ok(_) => self.bodies.remove(number),
                Err(error) => tracing::error!(%error, "a call that has ended will run again"),
            },
            Change::Note(_, _, done)
            | Change::Retry(_, done)
            | Change::Marks { done, .. }
            | Change::Flush(done) => drop(done.send(outcome)),
            Change::Forget(numbers, done) => {
                if outcome.is_ok() {
                    numbers.iter().for_each(|number| self.bodies.remove(*number));
                }
                let _ = done.send(outcome);
            }
        }
    }
}

/// All changes that wait, and those that come soon after. `took` is how long the latest commit took.
fn collect(first: Change, changes: &Receiver<Change>, took: Duration) -> Vec<Change> {
    let urgent_pause = (took / PAUSE_PART).min(PAUSE);
    let (whole, mut pause) = match first.is_urgent() {
        true => (took / PAUSES_PART, urgent_pause),
        false => (COLLECT, COLLECT),
    };
    let until = Instant::now() + whole;
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX {
        let left = until.saturating_duration_since(Instant::now());
        match changes.recv_timeout(left.min(pause)) {
            Ok(change) => {
                if change.is_urgent() {
                    pause = pause.min(urgent_pause);
                }
                batch.push(change);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

/// Makes a change; answers whether it changed something.
fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<bool> {
    match change {
        Change::Add(added) => add(connection, added),
        Change::End(number) => delete(connection, *number),
        Change::Note(number, progress, _) => note(connection, *number, progress),
        Change::Retry(number, _) => {
            let sql = "UPDATE calls SET failed_ms = NULL, attempts = 0, due_ms = 0
                       WHERE number = ?1 AND failed_ms IS NOT NULL";
            Ok(connection.prepare_cached(sql)?.execute([number])? > 0)
        }
        Change::Forget(numbers, _) => {
            let mut any = false;
            for number in numbers {
                any |= delete(connection, *number)?;
            }
            Ok(any)
        }
        Change::Marks { new, gone, .. } => {
            let sql = "INSERT INTO marks (name, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            for Mark { name, at } in new {
                connection.prepare_cached(sql)?.execute(params![name, at])?;
            }
            for name in gone {
                connection.prepare_cached("DELETE FROM marks WHERE name = ?1")?.execute([name])?;
            }
            Ok(true)
        }
        Change::Flush(_) => Ok(true),
    }
}

fn add(connection: &Connection, added: &Added) -> rusqlite::Result<bool> {
    if let Some(Mark { name, at }) = &added.mark {
        let sql = "INSERT INTO marks (name, at) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET at = ?2 WHERE at < ?2";
        if connection.prepare_cached(sql)?.execute(params![name, at])? == 0 {
            return Ok(false);
        }
    }
    let call = &added.call;
    let (callback, reach) = match &call.callback {
        Some(Callback { url, reach }) => (Some(url), *reach),
        None => (None, Reach::Gateway),
    };
    let is_inline = added.body_bytes <= QUEUED_BODY_INLINE_BYTES_MAX as u64;
    let sql = "INSERT INTO calls
         (number, name, namespace, id, method, target, headers, callback, body_bytes, submitted_ms, body, reach)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    connection.prepare_cached(sql)?.execute(params![
        added.number,
        call.function.name(),
        call.function.namespace(),
        call.id,
        call.method,
        call.target,
        call.headers,
        callback,
        added.body_bytes,
        added.submitted_ms,
        is_inline.then_some(&call.body),
        reach.name(),
    ])?;
    Ok(true)
}

fn delete(connection: &Connection, number: u64) -> rusqlite::Result<bool> {
    Ok(connection.prepare_cached("DELETE FROM calls WHERE number = ?1")?.execute([number])? > 0)
}

fn note(connection: &Connection, number: u64, progress: &Progress) -> rusqlite::Result<bool> {
    let history = serde_json::to_string(&progress.history)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let failed_ms = progress.is_failed.then(now_ms);
    let sql = "UPDATE calls SET attempts = ?2, due_ms = ?3, failed_ms = ?4, history = ?5
               WHERE number = ?1";
    let values = params![number, progress.attempts, progress.due_ms, failed_ms, history];
    Ok(connection.prepare_cached(sql)?.execute(values)? > 0)
}

/// Removes failed calls that are too old or too many; answers which.
pub(super) fn prune(connection: &Connection) -> rusqlite::Result<Vec<u64>> {
    let age_ms = u64::try_from(FAILED_CALL_AGE_MAX.as_millis()).unwrap_or(u64::MAX);
    let sql = "DELETE FROM calls WHERE number IN (
                   SELECT number FROM (
                       SELECT number, failed_ms,
                              row_number() OVER newest AS place, sum(body_bytes) OVER newest AS bytes,
                              row_number() OVER own AS own_place, sum(body_bytes) OVER own AS own_bytes
                       FROM calls WHERE failed_ms IS NOT NULL
                       WINDOW newest AS (ORDER BY failed_ms DESC, number DESC
                                         ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
                              own AS (PARTITION BY namespace, name ORDER BY failed_ms DESC, number DESC
                                      ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW))
                   WHERE failed_ms < ?1 OR place > ?2 OR bytes > ?3 OR own_place > ?4 OR own_bytes > ?5)
               RETURNING number";
    let oldest_ms = now_ms().saturating_sub(age_ms);
    let mut statement = connection.prepare_cached(sql)?;
    let values = params![
        oldest_ms,
        FAILED_CALLS_MAX,
        FAILED_CALLS_BYTES_MAX,
        FAILED_CALLS_PER_FUNCTION_MAX,
        FAILED_CALLS_BYTES_PER_FUNCTION_MAX
    ];
    statement.query_map(values, |row| row.get(0))?.collect()
}
