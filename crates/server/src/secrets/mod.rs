//! Secrets: names in memory, values sealed in the store, and files in front of the replicas that name them.
//!
//! A change is durable first, then shown. A replica that starts meanwhile says so before it reads the values, so
//! that it either reads the new one or is told of it.

mod projection;
mod seal;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pinnace_core::{
    FunctionRef, limits,
    secret::{SecretFault, Value},
};
use tokio::sync::Semaphore;

pub use self::{
    projection::{ProjectionError, Projections},
    seal::Seal,
};
use crate::{
    store::{Store, StoreError},
    turns::Turns,
};

/// Values that are on their way to the store at once.
const CHANGES_AT_ONCE: usize = 16;

/// All secrets.
pub struct Secrets {
    names: Mutex<BTreeMap<String, BTreeSet<String>>>,
    seal: Seal,
    store: Store,
    turns: Turns,
    places: Semaphore,
}

/// Why a secret was not changed or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be one.
    #[error(transparent)]
    Fault(#[from] SecretFault),
    /// One of this name is there.
    #[error("secret {name} already exists in namespace {namespace}")]
    Exists {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
    },
    /// There is none of this name.
    #[error("unable to find secret: {0}")]
    Unknown(String),
    /// As many as there may be.
    #[error("{} secrets are kept, the most there may be (SECRETS_MAX)", limits::SECRETS_MAX)]
    TooMany,
    /// As many as the namespace may have.
    #[error(
        "namespace {namespace} has {most} secrets, the most it may have (annotation \
         dev.pinnace.quota.secrets)"
    )]
    Quota {
        /// The namespace.
        namespace: String,
        /// Its bound.
        most: u32,
    },
    /// A function would have more than it may.
    #[error(
        "with this value the secrets of function {0} would have more than {most} bytes together, and it could not be \
         started (SECRET_BYTES_PER_FUNCTION_MAX)",
        most = limits::SECRET_BYTES_PER_FUNCTION_MAX
    )]
    TooLarge(FunctionRef),
    /// It could not be made durable, or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot be sealed.
    #[error("secret {0} cannot be sealed: the kernel gives no random numbers")]
    Unsealed(String),
    /// It was sealed by another key.
    #[error(
        "secret {0} cannot be read: it was sealed by another key than secrets.key in the state directory; put that \
         key back, or set the secret anew"
    )]
    OtherKey(String),
}

impl Secrets {
    /// The secrets of a store, whose values have this seal.
    #[must_use]
    pub fn new(names: BTreeMap<String, BTreeSet<String>>, seal: Seal, store: Store) -> Self {
        let names = Mutex::new(names);
        let places = Semaphore::new(CHANGES_AT_ONCE);
        Self { names, seal, store, turns: Turns::default(), places }
    }

    /// The names of a namespace's secrets, in order.
    #[must_use]
    pub fn list(&self, namespace: &str) -> Vec<String> {
        self.names().get(namespace).into_iter().flatten().cloned().collect()
    }

    /// Whether there is a secret of this name.
    #[must_use]
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        self.names().get(namespace).is_some_and(|names| names.contains(name))
    }

    /// Keeps a new secret, of at most so many in its namespace.
    ///
    /// # Errors
    /// There is one of this name, there are too many, or it cannot be made durable.
    pub async fn create(
        &self,
        namespace: &str,
        name: &str,
        value: &Value,
        most: Option<u32>,
    ) -> Result<(), SecretError> {
        // One at a time in a namespace, so that they can be counted.
        let _turn = self.turns.of(&namespace).await;
        let (own, all) = {
            let names = self.names();
            let own = names.get(namespace);
            if own.is_some_and(|own| own.contains(name)) {
                let (name, namespace) = (name.to_owned(), namespace.to_owned());
                return Err(SecretError::Exists { name, namespace });
            }
            (own.map_or(0, BTreeSet::len), names.values().map(BTreeSet::len).sum::<usize>())
        };
        if let Some(most) = most.filter(|most| own >= *most as usize) {
            return Err(SecretError::Quota { namespace: namespace.to_owned(), most });
        }
        if all >= limits::SECRETS_MAX {
            return Err(SecretError::TooMany);
        }
        self.put(namespace, name, value).await?;
        self.names().entry(namespace.to_owned()).or_default().insert(name.to_owned());
        Ok(())
    }

    /// Keeps another value of a secret.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be made durable.
    pub async fn update(
        &self,
        namespace: &str,
        name: &str,
        value: &Value,
    ) -> Result<(), SecretError> {
        let _turn = self.turns.of(&namespace).await;
        self.known(namespace, name)?;
        self.put(namespace, name, value).await
    }

    /// Forgets a secret. Replicas that have it keep it; a new one that needs it does not start.
    ///
    /// # Errors
    /// There is none of this name, or its removal cannot be made durable.
    pub async fn remove(&self, namespace: &str, name: &str) -> Result<(), SecretError> {
        let _turn = self.turns.of(&namespace).await;
        self.known(namespace, name)?;
        self.store.remove_secret(namespace.to_owned(), name.to_owned()).await?;
        if let Some(names) = self.names().get_mut(namespace) {
            names.remove(name);
        }
        Ok(())
    }

    /// A namespace's secrets are gone with it.
    pub fn forget_namespace(&self, namespace: &str) {
        self.names().remove(namespace);
    }

    /// A secret's value, `None` if there is none of this name. Not for a thread that serves.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn value(&self, namespace: &str, name: &str) -> Result<Option<Value>, SecretError> {
        let Some(sealed) = self.store.secret(namespace, name)? else { return Ok(None) };
        let value = self.seal.value(namespace, name, &sealed);
        value.map(Some).ok_or_else(|| SecretError::OtherKey(name.to_owned()))
    }

    /// Whether functions, each with the names of its secrets, may have a value of so many bytes for one of them. Not for a
    /// thread that serves.
    ///
    /// # Errors
    /// One may not, or a value cannot be read.
    pub fn check_room(
        &self,
        name: &str,
        bytes: usize,
        functions: &[(FunctionRef, BTreeSet<String>)],
    ) -> Result<(), SecretError> {
        // Many functions may see the same ones, and each is to be unsealed to be measured.
        let mut measured = HashMap::new();
        for (function, names) in functions.iter().filter(|(_, names)| names.contains(name)) {
            let mut all = bytes;
            for other in names.iter().filter(|other| *other != name) {
                all += match measured.entry((function.namespace(), other)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(unknown) => {
                        let value = self.value(function.namespace(), other)?;
                        *unknown.insert(value.map_or(0, |value| value.0.len()))
                    }
                };
            }
            if all > limits::SECRET_BYTES_PER_FUNCTION_MAX {
                return Err(SecretError::TooLarge(function.clone()));
            }
        }
        Ok(())
    }

    async fn put(&self, namespace: &str, name: &str, value: &Value) -> Result<(), SecretError> {
        // Never closed.
        let _place = self.places.acquire().await;
        let sealed = self.seal.close(namespace, name, value);
        let sealed = sealed.map_err(|_| SecretError::Unsealed(name.to_owned()))?;
        Ok(self.store.put_secret(namespace.to_owned(), name.to_owned(), sealed).await?)
    }

    fn known(&self, namespace: &str, name: &str) -> Result<(), SecretError> {
        let is_known = self.has(namespace, name);
        is_known.then_some(()).ok_or_else(|| SecretError::Unknown(name.to_owned()))
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<String>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(dir: &std::path::Path) -> Secrets {
        let (seal, _) = Seal::open(&dir.join("secrets.key")).unwrap();
        let (store, kept) = Store::open(&dir.join("functions.db")).unwrap();
        Secrets::new(kept.secrets, seal, store)
    }

    fn text(text: &str) -> Value {
        Value(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_secret_from_its_making_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let kept = secrets(dir.path());
        assert!(matches!(kept.update("n", "a", &text("1")).await, Err(SecretError::Unknown(_))));
        kept.create("n", "a", &text("1"), None).await.unwrap();
        let again = kept.create("n", "a", &text("2"), None).await.unwrap_err();
        assert_eq!(again.to_string(), "secret a already exists in namespace n");
        assert_eq!(kept.value("n", "a").unwrap(), Some(text("1")));
        kept.update("n", "a", &text("2")).await.unwrap();
        drop(kept);
        let kept = secrets(dir.path());
        assert_eq!(kept.list("n"), ["a"]);
        assert_eq!(kept.value("n", "a").unwrap(), Some(text("2")));
        kept.remove("n", "a").await.unwrap();
        assert_eq!((kept.list("n").len(), kept.value("n", "a").unwrap()), (0, None));
    }

    #[tokio::test]
    async fn a_namespace_has_no_more_than_its_quota() {
        let dir = tempfile::tempdir().unwrap();
        let kept = secrets(dir.path());
        kept.create("n", "a", &text("1"), Some(1)).await.unwrap();
        let error = kept.create("n", "b", &text("1"), Some(1)).await.unwrap_err().to_string();
        assert!(error.contains("dev.pinnace.quota.secrets"), "{error}");
        kept.create("other", "b", &text("1"), Some(1)).await.unwrap();
    }

    #[tokio::test]
    async fn a_value_with_which_a_function_could_not_start_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kept = secrets(dir.path());
        kept.create("n", "a", &text("1234"), None).await.unwrap();
        kept.create("n", "b", &text("1"), None).await.unwrap();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let both = (FunctionRef::new("both", "n").unwrap(), names(&["a", "b"]));
        let one = (FunctionRef::new("one", "n").unwrap(), names(&["b"]));
        let most = limits::SECRET_BYTES_PER_FUNCTION_MAX;
        let check = |bytes| kept.check_room("b", bytes, &[one.clone(), both.clone()]);
        assert!(check(most - 4).is_ok());
        assert!(
            matches!(check(most - 3), Err(SecretError::TooLarge(function)) if function == both.0)
        );
    }

    #[tokio::test]
    async fn a_lost_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        secrets(dir.path()).create("n", "a", &text("1"), None).await.unwrap();
        std::fs::remove_file(dir.path().join("secrets.key")).unwrap();
        let kept = secrets(dir.path());
        let error = kept.value("n", "a").unwrap_err().to_string();
        assert!(error.contains("secrets.key"), "{error}");
        kept.update("n", "a", &text("2")).await.unwrap();
        assert_eq!(kept.value("n", "a").unwrap(), Some(text("2")));
    }
}
