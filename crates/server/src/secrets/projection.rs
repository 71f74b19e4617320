//! How secrets look to a replica: a directory of its own, bound into it read-only.
//!
//! ```text
//! REPLICA/NAME -> ..data/NAME
//! REPLICA/..data -> ..7f3a…
//! REPLICA/..7f3a…/NAME
//! ```
//!
//! All values change at once, when `..data` is renamed (the kubelet's AtomicWriter does it so). The directory
//! before is kept until the next change, for who has followed the link and not opened the file yet.
//!
//! It belongs to a replica, not to its function: so the secrets of a revision are there as long as a replica of
//! that revision is, and nobody has to count.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinnace_core::{limits, secret::Value};

use super::{SecretError, Secrets};
use crate::run_dir;

/// Link to the directory that counts.
const DATA: &str = "..data";

/// The same, before it takes the other's place.
const NEW_DATA: &str = "..data_new";

/// Directories with secrets, one for each replica that names any.
pub struct Projections {
    directory: PathBuf,
    secrets: Arc<Secrets>,
    shown: Mutex<BTreeMap<String, Arc<Projection>>>,
}

/// What one replica sees.
struct Projection {
    namespace: String,
    names: BTreeSet<String>,
    directory: PathBuf,
    /// Held by who writes; true once the replica is no more.
    ended: Mutex<bool>,
}

/// Why a replica does not see its secrets.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// One is not there.
    #[error("unable to fetch secrets: secret {name:?} not found in namespace {namespace}")]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// One cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// They are too large.
    #[error(
        "its secrets have more than {} bytes together (SECRET_BYTES_PER_FUNCTION_MAX)",
        limits::SECRET_BYTES_PER_FUNCTION_MAX
    )]
    TooLarge,
    /// The files cannot be written.
    #[error("its secrets cannot be written below {}: {error}", directory.display())]
    Io {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Projections {
    /// Projections below a directory, which is made.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(directory: PathBuf, secrets: Arc<Secrets>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory, secrets, shown: Mutex::default() })
    }

    /// What secrets lack here, a sentence each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let on_disk = !run_dir::is_in_memory(&self.directory);
        let sentence = || {
            format!(
                "secrets of running functions lie on disk, below {}: let `pinnace up --run-dir` name a directory in \
                 memory (tmpfs)",
                self.directory.display()
            )
        };
        on_disk.then(sentence).into_iter().collect()
    }

    /// A replica of an earlier server is there, and sees these.
    pub fn take_over(&self, replica: &str, namespace: &str, names: BTreeSet<String>) {
        self.register(replica, namespace, names);
    }

    /// Shows secrets as they are now to the replicas that were taken over, and removes what others have left.
    ///
    /// # Errors
    /// A directory cannot be read or removed.
    pub fn renew(&self) -> io::Result<()> {
        let known: Vec<_> = self.shown().values().cloned().collect();
        for projection in known {
            if let Err(error) = projection.write(&self.secrets) {
                tracing::error!(at = %projection.directory.display(), %error, "a replica may see old secrets");
            }
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.shown().contains_key(name.to_str().unwrap_or_default()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Shows secrets to a replica, from now on in whatever value they have; answers the directory to bind. Not for
    /// a thread that serves.
    ///
    /// # Errors
    /// One is missing or cannot be read, or the files cannot be written.
    pub fn show(
        &self,
        replica: &str,
        namespace: &str,
        names: BTreeSet<String>,
    ) -> Result<PathBuf, ProjectionError> {
        // Known before the values are read: a change that comes after that is told to it.
        let projection = self.register(replica, namespace, names);
        let written = projection.write(&self.secrets);
        if written.is_err() {
            self.forget(replica);
        }
        written.map(|()| projection.directory.clone())
    }

    fn register(&self, replica: &str, namespace: &str, names: BTreeSet<String>) -> Arc<Projection> {
        let directory = self.directory.join(replica);
        let (namespace, ended) = (namespace.to_owned(), Mutex::default());
        let projection = Arc::new(Projection { namespace, names, directory, ended });
        self.shown().insert(replica.to_owned(), projection.clone());
        projection
    }

    /// Shows a secret's new value to every replica that has it. Not for a thread that serves.
    ///
    /// # Errors
    /// The first replica's that still sees the old one; the others have been told.
    pub fn refresh(&self, namespace: &str, name: &str) -> Result<(), ProjectionError> {
        let shown = self.shown();
        let concerned: Vec<_> = shown
            .values()
            .filter(|shown| shown.namespace == namespace && shown.names.contains(name))
            .cloned()
            .collect();
        drop(shown);
        let written = concerned.iter().map(|projection| projection.write(&self.secrets));
        written.fold(Ok(()), Result::and)
    }

    /// A replica is no more. Not for a thread that serves.
    pub fn forget(&self, replica: &str) {
        let Some(projection) = self.shown().remove(replica) else { return };
        let mut ended = lock(&projection.ended);
        *ended = true;
        if let Err(error) = fs::remove_dir_all(&projection.directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%replica, %error, "secrets of an ended replica stay until the next start");
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Projection>>> {
        lock(&self.shown)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Projection {
    fn write(&self, secrets: &Secrets) -> Result<(), ProjectionError> {
        let ended = lock(&self.ended);
        if *ended {
            return Ok(());
        }
        let values = self.values(secrets)?;
        let directory = self.directory.clone();
        self.replace(&values).map_err(|error| ProjectionError::Io { directory, error })
    }

    /// The values as they are to be seen. A secret that was removed keeps the one that is seen.
    fn values(&self, secrets: &Secrets) -> Result<Vec<(&str, Value)>, ProjectionError> {
        let mut values = Vec::with_capacity(self.names.len());
        let mut bytes = 0;
        for name in &self.names {
            let seen = || fs::read(self.directory.join(name)).ok().map(Value);
            let value = secrets.value(&self.namespace, name)?.or_else(seen);
            let missing = || ProjectionError::Missing {
                name: name.clone(),
                namespace: self.namespace.clone(),
            };
            let value = value.ok_or_else(missing)?;
            bytes += value.0.len();
            values.push((name.as_str(), value));
        }
        if bytes > limits::SECRET_BYTES_PER_FUNCTION_MAX {
            return Err(ProjectionError::TooLarge);
        }
        Ok(values)
    }

    fn replace(&self, values: &[(&str, Value)]) -> io::Result<()> {
        public_directory(&self.directory)?;
        let before = fs::read_link(self.directory.join(DATA)).ok();
        let name = format!("..{}", uuid::Uuid::new_v4().simple());
        let next = self.directory.join(&name);
        public_directory(&next)?;
        for (secret, value) in values {
            let path = next.join(secret);
            let mut file =
                fs::File::options().write(true).create_new(true).mode(0o444).open(&path)?;
            file.write_all(&value.0)?;
            file.set_permissions(Permissions::from_mode(0o444))?;
            let link = self.directory.join(secret);
            match symlink(Path::new(DATA).join(secret), &link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let new_data = self.directory.join(NEW_DATA);
        drop(fs::remove_file(&new_data));
        symlink(&name, &new_data)?;
        fs::rename(&new_data, self.directory.join(DATA))?;
        self.remove_but(&[Some(name.as_ref()), before.as_deref().map(Path::as_os_str)])
    }

    /// Removes directories of values but for these.
    fn remove_but(&self, kept: &[Option<&OsStr>]) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_old = entry.file_type()?.is_dir() && !kept.contains(&Some(&entry.file_name()));
            if is_old {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Inside, a function may run as anybody; outside, the directory above is closed.
fn public_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Whatever the umask of this process is.
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{secrets::Seal, store::Store};

    struct Place {
        directory: tempfile::TempDir,
        secrets: Arc<Secrets>,
        projections: Projections,
    }

    impl Place {
        async fn with(values: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let (seal, _) = Seal::open(&directory.path().join("secrets.key")).unwrap();
            let (store, kept) = Store::open(&directory.path().join("functions.db")).unwrap();
            let secrets = Arc::new(Secrets::new(kept.secrets, seal, store));
            for (name, value) in values {
                secrets.create("n", name, &Value(value.as_bytes().to_vec()), None).await.unwrap();
            }
            let shown = directory.path().join("shown");
            let projections = Projections::new(shown, secrets.clone()).unwrap();
            Self { directory, secrets, projections }
        }

        async fn update(&self, name: &str, value: &str) {
            self.secrets.update("n", name, &Value(value.as_bytes().to_vec())).await.unwrap();
            self.projections.refresh("n", name).unwrap();
        }

        fn show(&self, names: &[&str]) -> Result<PathBuf, ProjectionError> {
            self.projections.show("r", "n", names.iter().map(|&name| name.to_owned()).collect())
        }
    }

    fn read(directory: &Path, name: &str) -> String {
        fs::read_to_string(directory.join(name)).unwrap()
    }

    #[tokio::test]
    async fn a_replica_sees_each_change_and_one_generation_before() {
        let place = Place::with(&[("a", "1"), ("b.c", "x")]).await;
        let seen = place.show(&["a", "b.c"]).unwrap();
        assert_eq!((read(&seen, "a"), read(&seen, "b.c")), ("1".to_owned(), "x".to_owned()));
        let followed = seen.join(fs::read_link(seen.join(DATA)).unwrap());
        for value in ["2", "3", "4"] {
            place.update("a", value).await;
            assert_eq!((read(&seen, "a"), read(&seen, "b.c")), (value.to_owned(), "x".to_owned()));
            if value == "2" {
                assert_eq!(read(&followed, "a"), "1");
            }
        }
        let generations = fs::read_dir(&seen).unwrap().flatten();
        let generations = generations.filter(|entry| entry.file_type().unwrap().is_dir()).count();
        assert_eq!(generations, 2);
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(seen.join("a")), mode(seen.clone())), (0o444, 0o755));
        assert_eq!(mode(place.directory.path().join("shown")), 0o700);
    }

    #[tokio::test]
    async fn a_removed_secret_stays_where_it_is_seen() {
        let place = Place::with(&[("a", "1"), ("b", "x")]).await;
        let seen = place.show(&["a", "b"]).unwrap();
        place.secrets.remove("n", "a").await.unwrap();
        place.update("b", "y").await;
        assert_eq!((read(&seen, "a"), read(&seen, "b")), ("1".to_owned(), "y".to_owned()));
        let error = place.projections.show("new", "n", ["a".to_owned()].into()).unwrap_err();
        assert!(error.to_string().contains("secret \"a\" not found in namespace n"), "{error}");
        assert!(!seen.with_file_name("new").exists());
    }

    #[tokio::test]
    async fn what_a_replica_saw_goes_with_it() {
        let place = Place::with(&[("a", "1")]).await;
        let seen = place.show(&["a"]).unwrap();
        let left = seen.with_file_name("left");
        fs::create_dir_all(&left).unwrap();
        place.projections.renew().unwrap();
        assert!(seen.exists() && !left.exists());
        place.projections.forget("r");
        assert!(!seen.exists());
        place.update("a", "2").await;
        assert!(!seen.exists());
    }

    #[tokio::test]
    async fn too_much_is_refused() {
        let large = "x".repeat(limits::SECRET_BYTES_MAX);
        let names = ["a", "b", "c", "d", "e"];
        let place = Place::with(&names.map(|name| (name, large.as_str()))).await;
        assert!(place.show(&names[..4]).is_ok());
        assert!(matches!(place.show(&names), Err(ProjectionError::TooLarge)));
    }
}
