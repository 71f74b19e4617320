//! The database's tables and their versions.

use std::time::Duration;

use rusqlite::Connection;

/// Version of the tables below, kept in the file's `user_version`.
const VERSION: u32 = 1;

/// How long a statement waits for another process that has the file open, such as `sqlite3`.
const BUSY: Duration = Duration::from_secs(5);

/// Sets durability and makes the tables if they are missing.
pub(super) fn prepare(connection: &Connection) -> anyhow::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is synced, so that what was acknowledged survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        VERSION => Ok(()),
        0 => Ok(connection
            .execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?),
        newer => anyhow::bail!(
            "it was written by a newer Pinnace (tables of version {newer}, this one knows {VERSION}); \
             use that version, or another state directory"
        ),
    }
}

/// `links` says which blobs a repository has, `parts` what each of its manifests is made of. Manifests are small and
/// are kept here, with what a list of referrers says of those that have a subject.
const TABLES: &str = "
    CREATE TABLE blobs (digest TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE links (
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (repository, digest)
    ) WITHOUT ROWID;
    CREATE INDEX links_of_blob ON links (digest);
    CREATE TABLE manifests (
        number INTEGER PRIMARY KEY,
        repository TEXT NOT NULL,
        digest TEXT NOT NULL,
        media_type TEXT NOT NULL,
        pushed_s INTEGER NOT NULL,
        subject TEXT,
        artifact_type TEXT,
        referrer TEXT,
        content BLOB NOT NULL,
        UNIQUE (repository, digest)
    );
    CREATE INDEX manifests_of_subject ON manifests (repository, subject, digest)
        WHERE subject IS NOT NULL;
    CREATE TABLE tags (
        repository TEXT NOT NULL,
        tag TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (repository, tag)
    ) WITHOUT ROWID;
    CREATE INDEX tags_of_manifest ON tags (repository, digest);
    CREATE TABLE parts (
        repository TEXT NOT NULL,
        manifest TEXT NOT NULL,
        digest TEXT NOT NULL,
        is_manifest INTEGER NOT NULL,
        PRIMARY KEY (repository, manifest, digest, is_manifest)
    ) WITHOUT ROWID;
    CREATE INDEX parts_by_digest ON parts (repository, digest);";
