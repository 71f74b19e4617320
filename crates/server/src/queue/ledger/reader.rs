//! Reading the queue's database. Each read is short, and blocks its thread.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use pinnace_core::{FunctionRef, network::Reach, queue::Attempt};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params, types::Type};

use super::{Call, Callback, Ledger, LedgerError, Left};

/// How long a read waits for a checkpoint.
const BUSY: Duration = Duration::from_secs(5);

/// A call with all that is known of it on disk.
#[derive(Debug)]
pub struct Stored {
    /// Its number.
    pub number: u64,
    /// The call; without its body where calls are listed.
    pub call: Call,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// When it was taken, in milliseconds of Unix time.
    pub submitted_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in milliseconds of Unix time.
    pub due_ms: u64,
    /// When it failed for good, in milliseconds of Unix time.
    pub failed_ms: Option<u64>,
    /// Its attempts.
    pub history: Vec<Attempt>,
}

const COLUMNS: &str = "number, name, namespace, id, method, target, headers, callback, body_bytes, \
                       submitted_ms, attempts, due_ms, failed_ms, history, reach";

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

pub(super) fn left(connection: &Connection) -> rusqlite::Result<Vec<Left>> {
    let mut statement = connection.prepare(
        "SELECT number, name, namespace, id, length(target) + length(headers) + body_bytes, due_ms
         FROM calls WHERE failed_ms IS NULL ORDER BY number",
    )?;
    let left = statement.query_map([], |row| {
        Ok(Left {
            number: row.get(0)?,
            function: function(row)?,
            id: row.get(3)?,
            bytes: row.get(4)?,
            due_ms: row.get(5)?,
        })
    })?;
    left.collect()
}

pub(super) fn numbers(connection: &Connection) -> rusqlite::Result<HashSet<u64>> {
    connection.prepare("SELECT number FROM calls")?.query_map([], |row| row.get(0))?.collect()
}

fn function(row: &Row<'_>) -> rusqlite::Result<FunctionRef> {
    let (name, namespace): (String, String) = (row.get(1)?, row.get(2)?);
    FunctionRef::new(&name, &namespace).map_err(|error| unreadable(1, error))
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

fn callback(row: &Row<'_>) -> rusqlite::Result<Option<Callback>> {
    let Some(url) = row.get(7)? else { return Ok(None) };
    Ok(Some(Callback { url, reach: Reach::named(row.get_ref(14)?.as_str()?) }))
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let history: String = row.get(13)?;
    let call = Call {
        function: function(row)?,
        id: row.get(3)?,
        method: row.get(4)?,
        target: row.get(5)?,
        headers: row.get(6)?,
        callback: callback(row)?,
        body: Vec::new(),
    };
    Ok(Stored {
        number: row.get(0)?,
        call,
        body_bytes: row.get(8)?,
        submitted_ms: row.get(9)?,
        attempts: row.get(10)?,
        due_ms: row.get(11)?,
        failed_ms: row.get(12)?,
        history: serde_json::from_str(&history).map_err(|error| unreadable(13, error))?,
    })
}

impl Ledger {
    /// How far each row of calls has come that happen once.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn marks(&self) -> Result<BTreeMap<String, i64>, LedgerError> {
        self.read(|connection| {
            let mut statement = connection.prepare("SELECT name, at FROM marks")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// A call with its body; `None` if it is no longer there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self, number: u64) -> Result<Option<Stored>, LedgerError> {
        let sql = format!("SELECT {COLUMNS}, body FROM calls WHERE number = ?1");
        let found = self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let row = |row: &Row<'_>| Ok((stored(row)?, row.get::<_, Option<Vec<u8>>>(15)?));
            statement.query_row([number], row).optional()
        })?;
        let Some((mut stored, body)) = found else { return Ok(None) };
        stored.call.body = match body {
            Some(body) => body,
            None => self.bodies.read(number).map_err(|error| {
                LedgerError::Database(format!("has lost the body of call {number}: {error}"))
            })?,
        };
        Ok(Some(stored))
    }

    /// Calls that have not failed, oldest first, at most so many; of one function, if it is named.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn waiting(
        &self,
        function: Option<&FunctionRef>,
        most: usize,
    ) -> Result<Vec<Stored>, LedgerError> {
        self.list("failed_ms IS NULL", "number", function, most)
    }

    /// Calls that have failed, oldest first, at most so many; of one function, if it is named.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn failed(
        &self,
        function: Option<&FunctionRef>,
        most: usize,
    ) -> Result<Vec<Stored>, LedgerError> {
        self.list("failed_ms IS NOT NULL", "failed_ms, number", function, most)
    }

    /// Failed calls of an id.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn failed_of(&self, id: &str) -> Result<Vec<Stored>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM calls WHERE failed_ms IS NOT NULL AND id = ?1");
        self.read(|connection| connection.prepare_cached(&sql)?.query_map([id], stored)?.collect())
    }

    /// Numbers of a function's failed calls.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn failed_numbers(&self, function: &FunctionRef) -> Result<Vec<u64>, LedgerError> {
        let sql =
            "SELECT number FROM calls WHERE failed_ms IS NOT NULL AND name = ?1 AND namespace = ?2";
        self.read(|connection| {
            let values = [function.name(), function.namespace()];
            connection.prepare_cached(sql)?.query_map(values, |row| row.get(0))?.collect()
        })
    }

    /// How many calls have failed.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn count_failed(&self) -> Result<usize, LedgerError> {
        let sql = "SELECT count(*) FROM calls WHERE failed_ms IS NOT NULL";
        self.read(|connection| connection.prepare_cached(sql)?.query_row([], |row| row.get(0)))
    }

    fn list(
        &self,
        condition: &str,
        order: &str,
        function: Option<&FunctionRef>,
        most: usize,
    ) -> Result<Vec<Stored>, LedgerError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM calls
             WHERE {condition} AND (?1 IS NULL OR (name = ?1 AND namespace = ?2))
             ORDER BY {order} LIMIT ?3"
        );
        let (name, namespace) =
            (function.map(FunctionRef::name), function.map(FunctionRef::namespace));
        self.read(|connection| {
            let values = params![name, namespace, most];
            connection.prepare_cached(&sql)?.query_map(values, stored)?.collect()
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let connection: MutexGuard<'_, Connection> =
            self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        read(&connection).map_err(|error| LedgerError::Database(format!("cannot be read: {error}")))
    }
}
