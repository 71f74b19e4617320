//! The database's tables and their versions.

use rusqlite::Connection;

/// Version of the tables below, kept in the file's `user_version`.
const VERSION: u32 = 2;

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
        0 => create(connection, ""),
        1 => create(connection, FROM_1),
        newer => anyhow::bail!(
            "it was written by a newer Pinnace (tables of version {newer}, this one knows {VERSION}); \
             use that version, or another state directory"
        ),
    }
}

/// Version 1 gave each function a number, from which its ids on the host followed.
const FROM_1: &str = "
    INSERT INTO functions
        SELECT name, namespace, deployment, revision, replicas, created_at FROM functions_1;
    DROP TABLE functions_1;";

/// Makes the tables, and fills them from those of an earlier version.
fn create(connection: &Connection, fill: &str) -> anyhow::Result<()> {
    let keep = if fill.is_empty() { "" } else { "ALTER TABLE functions RENAME TO functions_1;" };
    connection.execute_batch(&format!(
        "BEGIN;
         {keep}
         CREATE TABLE functions (
             name TEXT NOT NULL,
             namespace TEXT NOT NULL,
             deployment TEXT NOT NULL,
             revision INTEGER NOT NULL CHECK (revision > 0),
             replicas INTEGER NOT NULL,
             created_at TEXT NOT NULL,
             PRIMARY KEY (name, namespace)
         ) WITHOUT ROWID;
         {fill}
         PRAGMA user_version = {VERSION};
         COMMIT;"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_an_earlier_version_are_taken_over() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE functions (name TEXT NOT NULL, namespace TEXT NOT NULL,
                     deployment TEXT NOT NULL, revision INTEGER NOT NULL, replicas INTEGER NOT NULL,
                     created_at TEXT NOT NULL, slot INTEGER NOT NULL UNIQUE,
                     PRIMARY KEY (name, namespace)) WITHOUT ROWID;
                 INSERT INTO functions VALUES ('a', 'n', '{}', 3, 2, 'then', 7);
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        prepare(&connection).unwrap();
        let row = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(
            row("SELECT name || revision || replicas || created_at FROM functions"),
            "a32then"
        );
        assert_eq!(row("SELECT count(*) || '' FROM sqlite_schema WHERE type = 'table'"), "1");
    }
}
