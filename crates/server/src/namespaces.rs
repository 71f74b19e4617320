//! Namespaces: which there are, and that nothing comes into one that is on its way out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinnace_core::{Namespace, limits, name::DEFAULT_NAMESPACE};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::store::{Store, StoreError};

/// All namespaces.
pub struct Namespaces {
    rooms: Mutex<BTreeMap<String, Room>>,
    store: Store,
}

#[derive(Clone)]
struct Room {
    namespace: Arc<Namespace>,
    /// Held for reading by whoever brings something in, for writing by who removes it; true once it is removed.
    door: Arc<RwLock<bool>>,
}

/// Something may be brought in until this is dropped.
pub struct Inside {
    /// The namespace.
    pub namespace: Arc<Namespace>,
    _door: OwnedRwLockReadGuard<bool>,
}

/// A namespace that nobody brings anything into any more. Dropped, it opens again.
pub struct Closed {
    name: String,
    door: OwnedRwLockWriteGuard<bool>,
}

/// Why a namespace was not changed or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// There is none of this name.
    #[error("namespace {0} not found")]
    Unknown(String),
    /// One of this name is there.
    #[error("namespace {0} already exists")]
    Exists(String),
    /// The default one stays.
    #[error("namespace {DEFAULT_NAMESPACE} is the default one and cannot be removed")]
    Default,
    /// As many as there may be.
    #[error(
        "{} namespaces are there, the most there may be (NAMESPACES_MAX)",
        limits::NAMESPACES_MAX
    )]
    TooMany,
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Namespaces {
    /// The namespaces of a store, and the default one.
    #[must_use]
    pub fn new(mut kept: BTreeMap<String, Namespace>, store: Store) -> Self {
        kept.entry(DEFAULT_NAMESPACE.to_owned()).or_insert_with(Namespace::plain);
        let rooms = kept.into_iter().map(|(name, namespace)| (name, Room::new(namespace)));
        Self { rooms: Mutex::new(rooms.collect()), store }
    }

    /// Their names, in order.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.rooms().keys().cloned().collect()
    }

    /// A namespace.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn get(&self, name: &str) -> Result<Arc<Namespace>, NamespaceError> {
        Ok(self.room(name)?.namespace)
    }

    /// Keeps a new namespace.
    ///
    /// # Errors
    /// There is one of this name, there are too many, or it cannot be made durable.
    pub async fn create(&self, name: &str, namespace: Namespace) -> Result<(), NamespaceError> {
        let room = Room::new(namespace.clone());
        // Nobody enters before it is durable.
        let door = room.door.clone().write_owned().await;
        {
            let mut rooms = self.rooms();
            if rooms.contains_key(name) {
                return Err(NamespaceError::Exists(name.to_owned()));
            }
            if rooms.len() >= limits::NAMESPACES_MAX {
                return Err(NamespaceError::TooMany);
            }
            rooms.insert(name.to_owned(), room);
        }
        let closed = Closed { name: name.to_owned(), door };
        let made = self.store.put_namespace(name.to_owned(), namespace).await;
        made.inspect_err(|_| self.forget(closed)).map_err(NamespaceError::from)
    }

    /// Keeps a namespace's new labels and annotations.
    ///
    /// # Errors
    /// There is none of this name, or they cannot be made durable.
    pub async fn update(&self, name: &str, namespace: Namespace) -> Result<(), NamespaceError> {
        let _inside = self.enter(name).await?;
        self.store.put_namespace(name.to_owned(), namespace.clone()).await?;
        if let Some(room) = self.rooms().get_mut(name) {
            room.namespace = Arc::new(namespace);
        }
        Ok(())
    }

    /// Keeps a namespace from being removed while something is brought in.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn enter(&self, name: &str) -> Result<Inside, NamespaceError> {
        let door = self.room(name)?.door.read_owned().await;
        if *door {
            return Err(NamespaceError::Unknown(name.to_owned()));
        }
        // As it is now: it may have been changed while this waited.
        Ok(Inside { namespace: self.get(name)?, _door: door })
    }

    /// Closes a namespace that is to be emptied and removed.
    ///
    /// # Errors
    /// There is none of this name, or it is the default one.
    pub async fn close(&self, name: &str) -> Result<Closed, NamespaceError> {
        if name == DEFAULT_NAMESPACE {
            return Err(NamespaceError::Default);
        }
        let door = self.room(name)?.door.write_owned().await;
        if *door {
            return Err(NamespaceError::Unknown(name.to_owned()));
        }
        Ok(Closed { name: name.to_owned(), door })
    }

    /// Removes a namespace in which nothing is left, and its secrets with it.
    ///
    /// # Errors
    /// Its removal cannot be made durable.
    pub async fn remove(&self, closed: Closed) -> Result<(), NamespaceError> {
        self.store.remove_namespace(closed.name.clone()).await?;
        self.forget(closed);
        Ok(())
    }

    fn forget(&self, mut closed: Closed) {
        *closed.door = true;
        self.rooms().remove(&closed.name);
    }

    fn room(&self, name: &str) -> Result<Room, NamespaceError> {
        let room = self.rooms().get(name).cloned();
        room.ok_or_else(|| NamespaceError::Unknown(name.to_owned()))
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn new(namespace: Namespace) -> Self {
        Self { namespace: Arc::new(namespace), door: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &std::path::Path) -> Namespaces {
        let (store, kept) = Store::open(&dir.join("functions.db")).unwrap();
        Namespaces::new(kept.namespaces, store)
    }

    #[tokio::test]
    async fn a_namespace_from_its_making_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let namespaces = open(dir.path());
        assert_eq!(namespaces.list(), [DEFAULT_NAMESPACE]);
        namespaces.create("dev", Namespace::plain()).await.unwrap();
        let again = namespaces.create("dev", Namespace::plain()).await.unwrap_err();
        assert_eq!(again.to_string(), "namespace dev already exists");
        let mut changed = Namespace::plain();
        changed.labels.insert("team".into(), "a".into());
        namespaces.update("dev", changed.clone()).await.unwrap();
        drop(namespaces);
        let namespaces = open(dir.path());
        assert_eq!(*namespaces.get("dev").unwrap(), changed);
        let closed = namespaces.close("dev").await.unwrap();
        namespaces.remove(closed).await.unwrap();
        assert!(matches!(namespaces.get("dev"), Err(NamespaceError::Unknown(_))));
        assert_eq!(open(dir.path()).list(), [DEFAULT_NAMESPACE]);
        assert!(matches!(namespaces.close(DEFAULT_NAMESPACE).await, Err(NamespaceError::Default)));
    }

    #[tokio::test]
    async fn nothing_comes_into_a_namespace_on_its_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let namespaces = Arc::new(open(dir.path()));
        namespaces.create("dev", Namespace::plain()).await.unwrap();
        let closed = namespaces.close("dev").await.unwrap();
        let (late, later) = (namespaces.clone(), namespaces.clone());
        let late = tokio::spawn(async move { late.enter("dev").await.is_ok() });
        tokio::task::yield_now().await;
        namespaces.remove(closed).await.unwrap();
        assert!(!late.await.unwrap());
        assert!(later.enter("dev").await.is_err());
    }
}
