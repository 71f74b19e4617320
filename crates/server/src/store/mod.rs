//! Ground state on one host: functions, namespaces and secrets, in SQLite, durable before it is acknowledged.
//!
//! One writer thread owns a connection. It takes every change that waits, commits them together, and
//! only then answers each: many deploys cost one disk flush. The values of secrets alone are read while the
//! server runs, by a connection of their own, which waits for no writer.

mod changes;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use pinnace_core::{
    FunctionRef, Namespace, limits,
    wire::{FunctionDeployment, FunctionNamespace},
};
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};

use self::changes::{Change, apply};

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

/// What a store holds when it is opened.
#[derive(Debug, Default)]
pub struct Kept {
    /// Deployed functions.
    pub functions: BTreeMap<FunctionRef, Stored>,
    /// Namespaces but the default one.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Names of secrets, by namespace.
    pub secrets: BTreeMap<String, BTreeSet<String>>,
}

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    changes: mpsc::Sender<Queued>,
    reader: Arc<Mutex<Connection>>,
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

impl Store {
    /// Opens the database file, makes it if it is missing, and reads what is in it.
    ///
    /// # Errors
    /// The file cannot be opened, is no such database, or comes from a newer Pinnace.
    pub fn open(path: &Path) -> Result<(Self, Kept), StoreError> {
        let describe = |error: rusqlite::Error| {
            StoreError::Database(format!("{} cannot be opened: {error}", path.display()))
        };
        let connection = Connection::open(path).map_err(describe)?;
        schema::prepare(&connection)
            .map_err(|error| StoreError::Database(format!("{}: {error}", path.display())))?;
        let kept = Kept {
            functions: read_functions(&connection).map_err(describe)?,
            namespaces: read_namespaces(&connection).map_err(describe)?,
            secrets: read_secret_names(&connection).map_err(describe)?,
        };
        let reader = Connection::open(path).map_err(describe)?;
        reader.busy_timeout(schema::BUSY).map_err(describe)?;
        let (changes, queue) = mpsc::channel(limits::STORE_QUEUE_MAX);
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(connection, queue))
            .map_err(|error| StoreError::Database(format!("has no thread: {error}")))?;
        Ok((Self { changes, reader: Arc::new(Mutex::new(reader)) }, kept))
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

    /// Keeps a namespace, in place of one of the same name.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn put_namespace(
        &self,
        name: String,
        namespace: Namespace,
    ) -> Result<(), StoreError> {
        self.change(Change::PutNamespace(name, namespace)).await
    }

    /// Forgets a namespace and its secrets.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn remove_namespace(&self, name: String) -> Result<(), StoreError> {
        self.change(Change::RemoveNamespace(name)).await
    }

    /// Keeps a secret's sealed value, in place of one of the same name.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn put_secret(
        &self,
        namespace: String,
        name: String,
        sealed: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.change(Change::PutSecret { namespace, name, sealed }).await
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn remove_secret(&self, namespace: String, name: String) -> Result<(), StoreError> {
        self.change(Change::RemoveSecret { namespace, name }).await
    }

    /// A secret's sealed value, `None` if there is none of this name. Not for a thread that serves.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn secret(&self, namespace: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader
            .prepare_cached("SELECT sealed FROM secrets WHERE namespace = ?1 AND name = ?2")
            .and_then(|mut found| found.query_row([namespace, name], |row| row.get(0)).optional())
            .map_err(|error| StoreError::Database(format!("cannot be read: {error}")))
    }

    async fn change(&self, change: Change) -> Result<(), StoreError> {
        let (done, answer) = oneshot::channel();
        let queued = Queued { change, done };
        self.changes.send(queued).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn read_functions(connection: &Connection) -> rusqlite::Result<BTreeMap<FunctionRef, Stored>> {
    let mut statement = connection.prepare(
        "SELECT name, namespace, deployment, revision, replicas, created_at FROM functions",
    )?;
    let mut functions = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, namespace): (String, String) = (row.get(0)?, row.get(1)?);
        let text: String = row.get(2)?;
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

fn read_namespaces(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Namespace>> {
    let mut statement = connection.prepare("SELECT name, labels, annotations FROM namespaces")?;
    let mut namespaces = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (labels, annotations): (String, String) = (row.get(1)?, row.get(2)?);
        let map = |text: &str| serde_json::from_str(text).map_err(|e| unreadable(e.to_string()));
        let (labels, annotations) = (map(&labels)?, map(&annotations)?);
        let kept = FunctionNamespace { name: row.get(0)?, labels, annotations };
        let name = kept.name.clone();
        let namespace = Namespace::check(kept).map_err(|e| unreadable(e.to_string()))?;
        namespaces.insert(name, namespace);
    }
    Ok(namespaces)
}

fn read_secret_names(
    connection: &Connection,
) -> rusqlite::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut statement = connection.prepare("SELECT namespace, name FROM secrets")?;
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        names.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(names)
}

fn unreadable(why: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, why.into())
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
            let (store, kept) = Store::open(&path).unwrap();
            assert!(kept.functions.is_empty());
            store.put(id("a"), stored("x", 1)).await.unwrap();
            store.put(id("b"), stored("y", 1)).await.unwrap();
            store.put(id("a"), stored("z", 2)).await.unwrap();
            store.scale(id("a"), 0).await.unwrap();
            store.remove(id("b")).await.unwrap();
        }
        let (_, Kept { functions, .. }) = Store::open(&path).unwrap();
        let kept = &functions[&id("a")];
        assert_eq!(functions.len(), 1);
        assert_eq!((kept.deployment.image.as_str(), kept.revision, kept.replicas), ("z", 2, 0));
    }

    #[tokio::test]
    async fn a_namespace_goes_with_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("functions.db");
        let text = |text: &str| text.to_owned();
        {
            let (store, _) = Store::open(&path).unwrap();
            for name in ["a", "b"] {
                store.put_namespace(text(name), Namespace::plain()).await.unwrap();
                store.put_secret(text(name), text("s"), vec![1]).await.unwrap();
            }
            store.put_secret(text("b"), text("s"), vec![2]).await.unwrap();
            store.put_secret(text("b"), text("t"), vec![3]).await.unwrap();
            store.remove_secret(text("b"), text("t")).await.unwrap();
            store.remove_namespace(text("a")).await.unwrap();
            assert_eq!(store.secret("b", "s").unwrap(), Some(vec![2]));
            assert_eq!(store.secret("a", "s").unwrap(), None);
        }
        let (_, kept) = Store::open(&path).unwrap();
        assert_eq!(kept.namespaces, BTreeMap::from([(text("b"), Namespace::plain())]));
        assert_eq!(kept.secrets, BTreeMap::from([(text("b"), BTreeSet::from([text("s")]))]));
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
