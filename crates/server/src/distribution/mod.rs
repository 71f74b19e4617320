//! The built-in registry: what the OCI distribution API keeps, and how it comes and goes.
//!
//! ```text
//! DIR/registry.db              which repository has which blobs, manifests and tags
//! DIR/blobs/ALGORITHM/HEX      a blob, named by its digest
//! DIR/uploads/ID-HEX           what has come of an upload; HEX is of its repository's name
//! DIR/trash/                   what was removed; emptied at once, or by the next server
//! ```
//!
//! A blob is written to `uploads/`, hashed while it comes ([`uploads`]), synced, and only under its right digest put
//! into its place; then the database says that it is there, and then its sender is told. Blobs are removed the other
//! way round. All of that happens under the database's lock, so that whoever finds a blob there finds its file, and
//! nobody removes one that somebody has just been told of. What a crash leaves between the two steps is swept by the
//! next server.
//!
//! Functions that are deployed from here need no HTTP: [`own`] says which references are this server's, and a pull
//! takes blobs by hard links.

mod collecting;
mod error;
mod index;
mod own;
mod uploads;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt, FileExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use pinnace_core::{
    distribution::{Algorithm, Digest, Manifest, Page, Repository, Tag, Wanted},
    limits,
};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, statvfs, utimensat};
use sha2::{Digest as _, Sha256, Sha512};
use uuid::Uuid;

use self::index::{Index, NewManifest};
pub use self::{
    collecting::{Collected, Collection},
    error::{DistributionError, Fault},
    index::{Held, Listed, StoredManifest},
    own::OwnHosts,
    uploads::{Upload, Writing},
};

const BLOBS: &str = "blobs";
const UPLOADS: &str = "uploads";
const TRASH: &str = "trash";

/// The registry's store. Everything but uploads blocks.
#[derive(Debug)]
pub struct Distribution {
    dir: PathBuf,
    index: Mutex<Index>,
    uploads: Mutex<HashMap<Uuid, Arc<Upload>>>,
    /// Bytes of one blob.
    blob_bytes_max: u64,
    next_trash: AtomicU64,
}

/// A blob, open for reading. Its bytes stay as long as this does.
#[derive(Debug)]
pub struct Blob {
    file: File,
    path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

impl Distribution {
    /// Opens the store at `dir`, which is made if it is missing, for blobs of at most so many bytes, and removes what a
    /// crash left half-made.
    ///
    /// # Errors
    /// The directory holds something else, or cannot be used.
    pub fn open(dir: &Path, blob_bytes_max: u64) -> anyhow::Result<Self> {
        let algorithms = [Algorithm::Sha256, Algorithm::Sha512];
        let blobs = algorithms.map(|algorithm| Path::new(BLOBS).join(algorithm.name()));
        let parts = blobs.iter().map(PathBuf::as_path);
        for part in parts.chain([Path::new(UPLOADS), Path::new(TRASH)]) {
            let path = dir.join(part);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        let index = Index::open(&dir.join("registry.db"))?;
        for dir in [&dir.join(BLOBS), dir, dir.parent().unwrap_or(dir)] {
            sync_dir(dir)?;
        }
        let store = Self {
            dir: dir.to_owned(),
            index: Mutex::new(index),
            uploads: Mutex::default(),
            blob_bytes_max,
            next_trash: AtomicU64::default(),
        };
        store.sweep()?;
        store.find_uploads()?;
        Ok(store)
    }

    /// Bytes that one blob may have.
    #[must_use]
    pub fn blob_bytes_max(&self) -> u64 {
        self.blob_bytes_max
    }

    /// A blob of a repository.
    ///
    /// # Errors
    /// The repository does not have it, or it cannot be read.
    pub fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Blob, DistributionError> {
        let index = self.index();
        let bytes = index.blob_of(repository, digest)?;
        let bytes = bytes.ok_or_else(|| DistributionError::no_blob(repository, digest))?;
        // Whoever is told that it is there may refer to it next, and need not send it.
        self.touch(digest);
        Blob::open(self.blob_path(digest), bytes)
    }

    /// Removes a blob from a repository.
    ///
    /// # Errors
    /// The repository does not have it, or needs it for a manifest, or this is not durable.
    pub fn remove_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), DistributionError> {
        let mut index = self.index();
        let trashed = match index.remove_blob(repository, digest)? {
            true => self.discard(digest),
            false => None,
        };
        drop(index);
        remove_all(trashed);
        Ok(())
    }

    /// Gives a repository a blob that another one has, or any if none is named. False if there is no such.
    ///
    /// # Errors
    /// This is not durable.
    pub fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
    ) -> Result<bool, DistributionError> {
        let mut index = self.index();
        let bytes = match from {
            Some(from) => index.blob_of(from, digest)?,
            None => index.blob(digest)?,
        };
        let Some(bytes) = bytes else { return Ok(false) };
        self.touch(digest);
        index.add_blob(repository, digest, bytes)?;
        Ok(true)
    }

    /// Puts a file into its place as a blob. It was synced, and has this digest.
    fn keep(
        &self,
        file: &Path,
        repository: &Repository,
        digest: &Digest,
        bytes: u64,
    ) -> Result<(), DistributionError> {
        let path = self.blob_path(digest);
        let mut index = self.index();
        let is_new = !index.knows(digest)?;
        // A blob that has lost its file gets it back.
        fs::rename(file, &path).map_err(|error| DistributionError::io("make", &path, &error))?;
        let folder = path.parent().unwrap_or(&self.dir);
        let kept = sync_dir(folder)
            .map_err(|error| DistributionError::io("sync", folder, &error))
            .and_then(|()| index.add_blob(repository, digest, bytes));
        if kept.is_err() && is_new {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(&path);
        }
        kept
    }

    /// Keeps a manifest under its tags.
    ///
    /// # Errors
    /// Something that it is made of is not there, or this is not durable.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        content: &[u8],
        content_type: Option<&str>,
        tags: &[Tag],
    ) -> Result<Manifest, DistributionError> {
        let found = digest_of(digest.algorithm(), content);
        if found != *digest {
            return Err(DistributionError::lie(digest, &found));
        }
        let manifest = Manifest::read(content, content_type)?;
        self.room(content.len() as u64)?;
        let new = NewManifest { digest, manifest: &manifest, content, tags };
        self.index().put_manifest(repository, &new)?;
        Ok(manifest)
    }

    /// A repository's manifest.
    ///
    /// # Errors
    /// The repository does not have it.
    pub fn manifest(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<StoredManifest, DistributionError> {
        let found = self.index().manifest(repository, wanted)?;
        found.ok_or_else(|| DistributionError::no_manifest(repository, wanted))
    }

    /// Forgets a tag, or a manifest with all its tags.
    ///
    /// # Errors
    /// The repository does not have it, or this is not durable.
    pub fn remove_manifest(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<(), DistributionError> {
        self.index().remove_manifest(repository, wanted)
    }

    /// Forgets what a reference stands for: its tag, and the manifest unless something else leads to it.
    ///
    /// # Errors
    /// The repository does not have it, or this is not durable.
    pub fn remove_reference(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<(), DistributionError> {
        self.index().remove_reference(repository, wanted)
    }

    /// A repository's tags.
    ///
    /// # Errors
    /// There is no such repository.
    pub fn tags(&self, repository: &Repository, page: &Page) -> Result<Listed, DistributionError> {
        let index = self.index();
        if !index.has_repository(repository)? {
            return Err(DistributionError::no_repository(repository));
        }
        index.tags(repository, page)
    }

    /// Repositories.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn repositories(&self, page: &Page) -> Result<Listed, DistributionError> {
        self.index().repositories(page)
    }

    /// Manifests that say something about a digest, each as JSON.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
    ) -> Result<Listed, DistributionError> {
        let bytes_max = limits::REGISTRY_PAGE_BYTES_MAX;
        self.index().referrers(repository, subject, artifact_type, page, bytes_max)
    }

    /// What there is, by tags, and whether that is more than is listed.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn held(&self) -> Result<(Vec<Held>, bool), DistributionError> {
        self.index().held(limits::REGISTRY_LISTED_MAX)
    }

    /// Refuses what would leave less of the disk than pushes must.
    fn room(&self, bytes: u64) -> Result<(), DistributionError> {
        let disk = statvfs(&self.dir).map_err(|errno| {
            DistributionError::io("ask for the room of", &self.dir, &errno.into())
        })?;
        let left = disk.f_bavail.saturating_mul(disk.f_frsize);
        match left.checked_sub(limits::REGISTRY_DISK_LEFT_BYTES_MIN) {
            Some(room) if room >= bytes => Ok(()),
            _ => Err(DistributionError::full(left)),
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(BLOBS).join(digest.algorithm().name()).join(digest.hex())
    }

    /// Makes a blob young. Where that cannot be noted it is as old as it was.
    fn touch(&self, digest: &Digest) {
        let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: keep, last_modification: now };
        if let Err(errno) = utimensat(CWD, self.blob_path(digest), &times, AtFlags::empty()) {
            tracing::debug!(%digest, %errno, "a blob stays as old as it was");
        }
    }

    /// Moves a blob's file away. Removing a large one takes time, for which nobody should wait.
    fn discard(&self, digest: &Digest) -> Option<PathBuf> {
        let number = self.next_trash.fetch_add(1, Ordering::Relaxed);
        let (path, trash) = (self.blob_path(digest), self.dir.join(TRASH).join(number.to_string()));
        match fs::rename(&path, &trash) {
            Ok(()) => Some(trash),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a removed blob's file stays until the next start");
                None
            }
        }
    }
}

impl Blob {
    fn open(path: PathBuf, bytes: u64) -> Result<Self, DistributionError> {
        let file = File::open(&path);
        let file = file.map_err(|error| DistributionError::io("open", &path, &error))?;
        let found = file.metadata();
        let found = found.map_err(|error| DistributionError::io("look at", &path, &error))?.len();
        if found != bytes {
            let text =
                format!("{} has {found} bytes, not its {bytes}: push it again", path.display());
            return Err(DistributionError::new(Fault::Broken, text));
        }
        Ok(Self { file, path, bytes })
    }

    /// Reads from a byte on, as much as there is and the buffer holds.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn read_at(&self, buffer: &mut [u8], from: u64) -> io::Result<usize> {
        self.file.read_at(buffer, from)
    }

    /// All of it; for small ones.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn content(&self) -> Result<Vec<u8>, DistributionError> {
        let mut content = Vec::new();
        (&self.file)
            .read_to_end(&mut content)
            .map_err(|error| DistributionError::io("read", &self.path, &error))?;
        Ok(content)
    }

    /// Gives the blob a further name; a copy where that cannot be.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn link_to(&self, path: &Path) -> Result<(), DistributionError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DistributionError::io("remove", path, &error));
            }
            _ => {}
        }
        let linked = fs::hard_link(&self.path, path).or_else(|_| {
            let mut source = &self.file;
            io::copy(&mut source, &mut File::create_new(path)?).map(drop)
        });
        linked.map_err(|error| DistributionError::io("make", path, &error))
    }
}

/// The digest of some content.
pub fn digest_of(algorithm: Algorithm, content: &[u8]) -> Digest {
    match algorithm {
        Algorithm::Sha256 => Digest::of_bytes(algorithm, &Sha256::digest(content)),
        Algorithm::Sha512 => Digest::of_bytes(algorithm, &Sha512::digest(content)),
    }
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes files that are needed no more.
fn remove_all(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "what was removed stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests;
