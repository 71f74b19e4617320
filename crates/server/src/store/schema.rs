//! The database's tables and their versions.

use rusqlite::Connection;

/// Version of the tables below, kept in the file's `user_version`.
const VERSION: u32 = 1;

/// How long a statement waits for another process that has the file open, such as `sqlite3`.
const BUSY_MS: u64 = 5000;

/// Sets durability and makes the tables that are missing.
pub(super) fn prepare(connection: &Connection) -> anyhow::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(BUSY_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        VERSION => Ok(()),
        0 => create(connection),
        newer => anyhow::bail!(
            "it was written by a newer Pinnace (tables of version {newer}, this one knows {VERSION}); \
             use that version, or another state directory"
        ),
    }
}

fn create(connection: &Connection) -> anyhow::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE functions (
             name TEXT NOT NULL,
             namespace TEXT NOT NULL,
             deployment TEXT NOT NULL,
             revision INTEGER NOT NULL,
             replicas INTEGER NOT NULL,
             created_at TEXT NOT NULL,
             slot INTEGER NOT NULL UNIQUE,
             PRIMARY KEY (name, namespace)
         ) WITHOUT ROWID;
         PRAGMA user_version = {VERSION};
         COMMIT;"
    ))?;
    Ok(())
}
