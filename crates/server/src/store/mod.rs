//! Ground state on one host: what was deployed, in SQLite, durable before it is acknowledged.
//!
//! One writer thread owns the connection. It takes every change that waits, commits them together, and
//! only then answers each: many deploys cost one disk flush.

mod schema;

use std::{collections::BTreeMap, path::Path, thread};

use pinnace_core::{FunctionRef, limits, wire::FunctionDeployment};
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

/// A function as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The deployment as it was sent.
    pub deployment: FunctionDeployment,
    /// Counts the deploys, from 1.
    pub revision: u64,
    /// Replicas wanted; 0 after a scale to zero.
    pub replicas: u32,
    /// RFC 3339 time of the first deploy.
    pub created_at: String,
}

/// The database of deployed functions.
#[derive(Clone, Debug)]
pub struct Store {
    changes: mpsc::Sender<Queued>,
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("the function database {0}")]
    Database(String),
    /// The writer has ended, which it does only with the server.
    #[error("the function database is closed: the server is ending")]
    Closed,
}

#[derive(Debug)]
struct Queued {
    change: Change,
    done: oneshot::Sender<Result<(), StoreError>>,
}

#[derive(Debug)]
enum Change {
    Put(FunctionRef, Box<Stored>),
    Scale(FunctionRef, u32),
    Remove(FunctionRef),
}

impl Store {
    /// Opens the database file, makes it if it is missing, and reads what is in it.
    ///
    /// # Errors
    /// The file cannot be opened, is no such database, or comes from a newer Pinnace.
    pub fn open(path: &Path) -> Result<(Self, BTreeMap<FunctionRef, Stored>), StoreError> {
        let describe = |error: rusqlite::Error| {
            StoreError::Database(format!("{} cannot be opened: {error}", path.display()))
        };
        let connection = Connection::open(path).map_err(describe)?;
        schema::prepare(&connection)
            .map_err(|error| StoreError::Database(format!("{}: {error}", path.display())))?;
        let functions = read_all(&connection).map_err(describe)?;
        let (changes, queue) = mpsc::channel(limits::STORE_QUEUE_MAX);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(connection, queue))
            .map_err(|error| StoreError::Database(format!("has no thread: {error}")))?;
        Ok((Self { changes }, functions))
    }

    /// Keeps a function, in place of one of the same name.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn put(&self, id: FunctionRef, stored: Stored) -> Result<(), StoreError> {
        self.change(Change::Put(id, Box::new(stored))).await
    }

    /// Keeps how many replicas are wanted.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn scale(&self, id: FunctionRef, replicas: u32) -> Result<(), StoreError> {
        self.change(Change::Scale(id, replicas)).await
    }

    /// Forgets a function.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn remove(&self, id: FunctionRef) -> Result<(), StoreError> {
        self.change(Change::Remove(id)).await
    }

    async fn change(&self, change: Change) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let queued = Queued { change, done };
        self.changes.send(queued).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn read_all(connection: &Connection) -> rusqlite::Result<BTreeMap<FunctionRef, Stored>> {
    let mut statement = connection.prepare(
        "SELECT name, namespace, deployment, revision, replicas, created_at FROM functions",
    )?;
    let mut functions = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, namespace): (String, String) = (row.get(0)?, row.get(1)?);
        let text: String = row.get(2)?;
        let unreadable = |error: String| {
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into())
        };
        let id = FunctionRef::new(&name, &namespace).map_err(|e| unreadable(e.to_string()))?;
        let deployment = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
        let stored = Stored {
            deployment,
            revision: row.get(3)?,
            replicas: row.get(4)?,
            created_at: row.get(5)?,
        };
        functions.insert(id, stored);
    }
    Ok(functions)
}

fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Queued>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while let Ok(next) = queue.try_recv() {
            batch.push(next);
        }
        // One change that is refused must not take the others with it: then each goes alone.
        let together = commit(&mut connection, &batch).is_ok();
        for queued in batch {
            let result = if together {
                Ok(())
            } else {
                commit(&mut connection, std::slice::from_ref(&queued))
                    .map_err(|error| StoreError::Database(format!("refused a change: {error}")))
            };
            // A caller that left has no use for the answer; the change stands all the same.
            let _ = queued.done.send(result);
        }
    }
}

fn commit(connection: &mut Connection, batch: &[Queued]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for queued in batch {
        apply(&transaction, &queued.change)?;
    }
    transaction.commit()
}

fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put(id, stored) => {
            let deployment = serde_json::to_string(&stored.deployment)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            connection.prepare_cached(
                "INSERT INTO functions (name, namespace, deployment, revision, replicas, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (name, namespace) DO UPDATE SET deployment = ?3, revision = ?4, replicas = ?5",
            )?
            .execute(params![
                id.name(),
                id.namespace(),
                deployment,
                stored.revision,
                stored.replicas,
                stored.created_at,
            ])?;
        }
        Change::Scale(id, replicas) => {
            connection
                .prepare_cached(
                    "UPDATE functions SET replicas = ?3 WHERE name = ?1 AND namespace = ?2",
                )?
                .execute(params![id.name(), id.namespace(), replicas])?;
        }
        Change::Remove(id) => {
            connection
                .prepare_cached("DELETE FROM functions WHERE name = ?1 AND namespace = ?2")?
                .execute(params![id.name(), id.namespace()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(image: &str, revision: u64) -> Stored {
        let deployment = FunctionDeployment { image: image.into(), ..Default::default() };
        let created_at = "2026-01-01T00:00:00Z".to_owned();
        Stored { deployment, revision, replicas: 1, created_at }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("functions.db");
        let id = |name| FunctionRef::new(name, "").unwrap();
        {
            let (store, functions) = Store::open(&path).unwrap();
            assert!(functions.is_empty());
            store.put(id("a"), stored("x", 1)).await.unwrap();
            store.put(id("b"), stored("y", 1)).await.unwrap();
            store.put(id("a"), stored("z", 2)).await.unwrap();
            store.scale(id("a"), 0).await.unwrap();
            store.remove(id("b")).await.unwrap();
        }
        let (_, functions) = Store::open(&path).unwrap();
        let kept = &functions[&id("a")];
        assert_eq!(functions.len(), 1);
        assert_eq!((kept.deployment.image.as_str(), kept.revision, kept.replicas), ("z", 2, 0));
    }

    #[tokio::test]
    async fn a_refused_change_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&dir.path().join("functions.db")).unwrap();
        let id = |name| FunctionRef::new(name, "").unwrap();
        let (a, b, c) = tokio::join!(
            store.put(id("a"), stored("x", 1)),
            store.put(id("b"), stored("x", 0)),
            store.put(id("c"), stored("x", 1)),
        );
        assert_eq!((a.is_ok(), b.is_ok(), c.is_ok()), (true, false, true));
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("functions.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("functions.db");
        std::fs::write(&path, "no database at all, but long enough to be read").unwrap();
        assert!(Store::open(&path).unwrap_err().to_string().contains("functions.db"));
    }
}
