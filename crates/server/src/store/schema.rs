//! The database's tables and their versions.

use std::time::Duration;

use rusqlite::Connection;

/// Version of the tables below, kept in the file's `user_version`.
const VERSION: u32 = 3;

/// How long a statement waits for another process that has the file open, such as `sqlite3`.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Sets durability and makes the tables that are missing.
pub(super) fn prepare(connection: &Connection) -> anyhow::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let steps = match version {
        0 => [FUNCTIONS, TENANTS].concat(),
        1 => [KEEP_1, FUNCTIONS, FROM_1, TENANTS, FROM_2].concat(),
        2 => [TENANTS, FROM_2].concat(),
        VERSION => return Ok(()),
        newer => anyhow::bail!(
            "it was written by a newer Pinnace (tables of version {newer}, this one knows {VERSION}); \
             use that version, or another state directory"
        ),
    };
    connection
        .execute_batch(&format!("BEGIN; {steps} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    Ok(())
}

const FUNCTIONS: &str = "
    CREATE TABLE functions (
        name TEXT NOT NULL,
        namespace TEXT NOT NULL,
        deployment TEXT NOT NULL,
        revision INTEGER NOT NULL CHECK (revision > 0),
        replicas INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        PRIMARY KEY (name, namespace)
    ) WITHOUT ROWID;";

/// Version 1 gave each function a number, from which its ids on the host followed.
const KEEP_1: &str = "ALTER TABLE functions RENAME TO functions_1;";
const FROM_1: &str = "
    INSERT INTO functions
        SELECT name, namespace, deployment, revision, replicas, created_at FROM functions_1;
    DROP TABLE functions_1;";

/// Values of secrets are sealed, and may be large: they are not kept in the index.
const TENANTS: &str = "
    CREATE TABLE namespaces (
        name TEXT NOT NULL PRIMARY KEY,
        labels TEXT NOT NULL,
        annotations TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE secrets (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        sealed BLOB NOT NULL,
        UNIQUE (namespace, name)
    );";

/// Up to version 2 a namespace was there if a function was in it.
const FROM_2: &str = r#"
    INSERT INTO namespaces
        SELECT DISTINCT namespace, '{"openfaas":"1"}', '{}' FROM functions
        WHERE namespace <> 'openfaas-fn';"#;

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
        assert_eq!(row("SELECT name || labels FROM namespaces"), r#"n{"openfaas":"1"}"#);
        assert_eq!(row("SELECT count(*) || '' FROM sqlite_schema WHERE type = 'table'"), "3");
    }
}
