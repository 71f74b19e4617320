//! The database's tables and their versions.

use std::time::Duration;

use rusqlite::Connection;

/// Version of the tables below, kept in the file's `user_version`.
const VERSION: u32 = 2;

/// From version 1, which did not know by whom a callback was asked for: none of its goes further than to functions.
const FROM_1: &str = "BEGIN;
    ALTER TABLE calls ADD COLUMN reach TEXT NOT NULL DEFAULT 'gateway';
    PRAGMA user_version = 2;
    COMMIT;";

/// How long a statement waits for another process that has the file open, such as `sqlite3`.
const BUSY: Duration = Duration::from_secs(5);

/// Pages of the write-ahead log after which it is written back: a longer one makes that rarer, and does not
/// grow, since it is begun anew each time.
const CHECKPOINT_PAGES: u32 = 4000;

/// Sets durability and makes the tables if they are missing.
pub(super) fn prepare(connection: &Connection) -> anyhow::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is synced, so that what was acknowledged survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        VERSION => Ok(()),
        1 => Ok(connection.execute_batch(FROM_1)?),
        0 => Ok(connection.execute_batch(&create())?),
        newer => anyhow::bail!(
            "it was written by a newer Pinnace (tables of version {newer}, this one knows {VERSION}); \
             use that version, or another state directory"
        ),
    }
}

/// Indexes are on failed calls alone: one on all would cost each enqueue a page at a random place.
fn create() -> String {
    format!(
        "BEGIN;
         CREATE TABLE calls (
             number INTEGER PRIMARY KEY,
             name TEXT NOT NULL,
             namespace TEXT NOT NULL,
             id TEXT NOT NULL,
             method TEXT NOT NULL,
             target TEXT NOT NULL,
             headers BLOB NOT NULL,
             callback TEXT,
             body_bytes INTEGER NOT NULL,
             submitted_ms INTEGER NOT NULL,
             attempts INTEGER NOT NULL DEFAULT 0,
             due_ms INTEGER NOT NULL DEFAULT 0,
             failed_ms INTEGER,
             history TEXT NOT NULL DEFAULT '[]',
             body BLOB,
             reach TEXT NOT NULL DEFAULT 'gateway'
         );
         CREATE INDEX failed ON calls (failed_ms, body_bytes) WHERE failed_ms IS NOT NULL;
         CREATE INDEX failed_ids ON calls (id) WHERE failed_ms IS NOT NULL;
         CREATE TABLE marks (name TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
         PRAGMA user_version = {VERSION};
         COMMIT;"
    )
}
