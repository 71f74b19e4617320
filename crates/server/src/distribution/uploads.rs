//! Uploads: blobs on their way in, which may come in pieces, over many requests and past a crash.
//!
//! Where an upload stands is the length of its file. A request that breaks off leaves what has come, and the next goes
//! on from there. It need not wait until the server has noticed that the former is gone: whoever comes last writes.
//! Bytes are gathered and written by a thread that may block, so that a slow sender holds none, and memory is that of
//! one piece whatever the blob's size.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use pinnace_core::{
    distribution::{Algorithm, Chunk, Digest, Repository},
    limits,
};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task::spawn_blocking,
    time::timeout,
};
use uuid::Uuid;

use super::{
    Distribution, DistributionError, Fault, UPLOADS, collecting::files, collecting::is_older,
    digest_of,
};

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes after which what was written is sent to the disk: the end of a large upload need not wait for all of it.
const SYNC_BYTES: u64 = 64 << 20;

/// Bytes read at once of what has come before.
const READ_BYTES: usize = 128 << 10;

/// A blob on its way in.
#[derive(Debug)]
pub struct Upload {
    id: Uuid,
    owner: String,
    path: PathBuf,
    /// Bytes that are in the file.
    offset: AtomicU64,
    /// Counts who came to write; the last one does.
    turn: watch::Sender<u64>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The hash of all that the file has, unless an earlier server wrote some of it.
    hasher: Option<Sha256>,
    /// Whether it has become a blob, or nothing.
    is_ended: bool,
}

/// The right to write to an upload.
#[derive(Debug)]
pub struct Writing {
    upload: Arc<Upload>,
    store: Arc<Distribution>,
    state: OwnedMutexGuard<State>,
    turns: watch::Receiver<u64>,
}

/// A file that is being written, for the thread that does so.
struct Output {
    file: File,
    hasher: Option<Sha256>,
    /// What is to be written. Copied: a small piece of a body may hold all of a large buffer.
    gathered: Vec<u8>,
    unsynced_bytes: u64,
}

impl Upload {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Bytes that have come.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Waits until nobody else writes, which those who do are asked for.
    ///
    /// # Errors
    /// It has ended meanwhile, or somebody else has come later.
    pub async fn write(
        self: Arc<Self>,
        store: Arc<Distribution>,
    ) -> Result<Writing, DistributionError> {
        let mut turns = self.turn.subscribe();
        let mut mine = 0;
        self.turn.send_modify(|turn| {
            *turn += 1;
            mine = *turn;
        });
        let state = self.state.clone().lock_owned().await;
        if state.is_ended {
            return Err(unknown(self.id));
        }
        if *turns.borrow_and_update() != mine {
            return Err(taken_over());
        }
        Ok(Writing { upload: self, store, state, turns })
    }
}

impl Writing {
    /// What is written to.
    #[must_use]
    pub fn upload(&self) -> &Upload {
        &self.upload
    }

    /// Bytes that have come.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.upload.offset()
    }

    /// Adds what comes. What has come stays, whatever becomes of the rest, but for a disk that is full: then all of the
    /// upload goes.
    ///
    /// # Errors
    /// More comes than may, or less than was said; it breaks off; somebody else goes on; the disk takes no more.
    pub async fn append<E: std::fmt::Display>(
        &mut self,
        pieces: impl Stream<Item = Result<Bytes, E>>,
        chunk: Chunk,
    ) -> Result<(), DistributionError> {
        let added = self.add(pieces, chunk).await;
        if added.as_ref().is_err_and(|error| error.kind() == Fault::Full) {
            self.end();
        }
        added
    }

    async fn add<E: std::fmt::Display>(
        &mut self,
        pieces: impl Stream<Item = Result<Bytes, E>>,
        chunk: Chunk,
    ) -> Result<(), DistributionError> {
        let mut pieces = std::pin::pin!(pieces);
        self.store.room(chunk.bytes.unwrap_or(0))?;
        let file = self.open()?;
        let hasher = self.state.hasher.take();
        let mut output = Output { file, hasher, gathered: Vec::new(), unsynced_bytes: 0 };
        let mut left = chunk.bytes_max;
        let mut ended = None;
        while ended.is_none() {
            while output.gathered.len() < WRITE_BYTES && ended.is_none() {
                match self.next(&mut pieces).await {
                    Ok(Some(piece)) if piece.len() as u64 > left => {
                        ended = Some(Err(too_much(chunk)));
                    }
                    Ok(Some(piece)) => {
                        left -= piece.len() as u64;
                        output.gathered.extend_from_slice(&piece);
                    }
                    Ok(None) => ended = Some(Ok(())),
                    Err(error) => ended = Some(Err(error)),
                }
            }
            let (store, bytes) = (self.store.clone(), output.gathered.len() as u64);
            let written = spawn_blocking(move || {
                store.room(bytes)?;
                let written = output.write();
                written.map(|()| output).map_err(|error| {
                    DistributionError::io("write to", &store.dir.join(UPLOADS), &error)
                })
            });
            output = written.await.map_err(|error| broken(&error))??;
            self.upload.offset.fetch_add(bytes, Ordering::Release);
        }
        self.state.hasher = output.hasher;
        ended.unwrap_or(Ok(()))?;
        match chunk.bytes {
            Some(_) if left > 0 => {
                let text = format!("the body ended {left} bytes early; what has come is kept");
                Err(DistributionError::new(Fault::SizeInvalid, text))
            }
            _ => Ok(()),
        }
    }

    /// The next piece of a body, unless somebody else wants to write.
    async fn next<E: std::fmt::Display>(
        &mut self,
        pieces: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<Option<Bytes>, DistributionError> {
        let piece = tokio::select! {
            biased;
            _ = self.turns.changed() => return Err(taken_over()),
            piece = timeout(limits::BODY_IDLE_MAX, pieces.next()) => piece,
        };
        let broke_off = |why: String| {
            let text = format!("the body broke off: {why}; what has come is kept");
            DistributionError::new(Fault::UploadInvalid, text)
        };
        match piece {
            Ok(piece) => piece.transpose().map_err(|error| broke_off(error.to_string())),
            Err(_) => Err(broke_off(format!("nothing came for {:?}", limits::BODY_IDLE_MAX))),
        }
    }

    /// The file, at its end. What a crash of the host has cut off of it is known by the digest at last.
    fn open(&mut self) -> Result<File, DistributionError> {
        let path = &self.upload.path;
        let mut file = File::options()
            .write(true)
            .open(path)
            .map_err(|error| DistributionError::io("open", path, &error))?;
        let end = file.seek(SeekFrom::End(0));
        let end = end.map_err(|error| DistributionError::io("read", path, &error))?;
        if end != self.upload.offset() {
            self.state.hasher = None;
            self.upload.offset.store(end, Ordering::Release);
        }
        Ok(file)
    }

    /// Makes it a blob of a repository, if it is what this digest names; else nothing of it stays.
    ///
    /// # Errors
    /// It has another digest, or this is not durable.
    pub async fn finish(
        mut self,
        repository: Repository,
        digest: Digest,
    ) -> Result<(), DistributionError> {
        let (store, upload) = (self.store.clone(), self.upload.clone());
        let hasher = self.state.hasher.take();
        let finished =
            spawn_blocking(move || store.finish(&upload, hasher, &repository, &digest)).await;
        self.end();
        finished.map_err(|error| broken(&error))?
    }

    /// Gives it up.
    pub fn cancel(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.state.is_ended = true;
        self.store.forget(&self.upload);
    }
}

impl Output {
    /// Writes what was gathered.
    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.gathered)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&self.gathered);
        }
        self.unsynced_bytes += self.gathered.len() as u64;
        self.gathered.clear();
        if self.unsynced_bytes >= SYNC_BYTES {
            self.unsynced_bytes = 0;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Distribution {
    /// Begins an upload to a repository.
    ///
    /// # Errors
    /// There are as many as may be, or its file cannot be made.
    pub fn begin(&self, repository: &Repository) -> Result<Arc<Upload>, DistributionError> {
        self.room(0)?;
        let mut uploads = self.known_uploads();
        if uploads.len() >= limits::REGISTRY_UPLOADS_MAX {
            let max = limits::REGISTRY_UPLOADS_MAX;
            let text = format!(
                "{max} uploads have begun and not ended, the most there may be (REGISTRY_UPLOADS_MAX)"
            );
            return Err(DistributionError::new(Fault::TooMany, text));
        }
        let (id, owner) = (Uuid::new_v4(), owner(repository.as_str()));
        let path = self.dir.join(UPLOADS).join(format!("{id}-{owner}"));
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| DistributionError::io("make", &path, &error))?;
        let upload = Arc::new(Upload::new(id, owner, path, 0, Some(Sha256::new())));
        uploads.insert(id, upload.clone());
        Ok(upload)
    }

    /// An upload to a repository that has begun.
    ///
    /// # Errors
    /// There is none.
    pub fn upload(
        &self,
        repository: &Repository,
        id: &str,
    ) -> Result<Arc<Upload>, DistributionError> {
        let not_there = || {
            let text = format!(
                "repository {repository} has no upload {:.64}; it may have ended, or been left for too long",
                id.escape_debug()
            );
            DistributionError::new(Fault::UploadUnknown, text)
        };
        let id = Uuid::parse_str(id).map_err(|_| not_there())?;
        let found = self.known_uploads().get(&id).cloned();
        let is_of = |upload: &Arc<Upload>| upload.owner == owner(repository.as_str());
        found.filter(is_of).ok_or_else(not_there)
    }

    /// Finds what an earlier server has not finished.
    pub(super) fn find_uploads(&self) -> io::Result<()> {
        let mut uploads = self.known_uploads();
        for path in files(&self.dir.join(UPLOADS))? {
            let bytes = fs::metadata(&path)?.len();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let parts = name
                .rsplit_once('-')
                .and_then(|(id, owner)| Some((Uuid::parse_str(id).ok()?, owner.to_owned())));
            match parts {
                Some((id, owner)) => {
                    let upload = Upload::new(id, owner, path, bytes, None);
                    uploads.insert(id, Arc::new(upload));
                }
                None => tracing::warn!(path = %path.display(), "this is no upload"),
            }
        }
        Ok(())
    }

    /// Ends uploads that nobody has gone on with; answers how many, and their bytes. Only finds them out if `is_dry`.
    pub(super) fn end_old_uploads(&self, is_dry: bool) -> (usize, u64) {
        let known: Vec<_> = self.known_uploads().values().cloned().collect();
        let (mut count, mut bytes) = (0, 0);
        for upload in known {
            let Ok(mut state) = upload.state.clone().try_lock_owned() else { continue };
            let age = match upload.offset() {
                0 => limits::REGISTRY_EMPTY_UPLOAD_AGE_MAX,
                _ => limits::REGISTRY_UPLOAD_AGE_MAX,
            };
            if !is_older(&upload.path, age) {
                continue;
            }
            count += 1;
            bytes += upload.offset();
            if !is_dry {
                state.is_ended = true;
                self.forget(&upload);
            }
        }
        (count, bytes)
    }

    fn finish(
        &self,
        upload: &Upload,
        hasher: Option<Sha256>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), DistributionError> {
        let path = &upload.path;
        let failed = |error: io::Error| DistributionError::io("read", path, &error);
        let found = match (digest.algorithm(), hasher) {
            (Algorithm::Sha256, Some(hasher)) => {
                Digest::of_bytes(Algorithm::Sha256, &hasher.finalize())
            }
            (algorithm, _) => digest_of_file(algorithm, path).map_err(failed)?,
        };
        if found != *digest {
            return Err(DistributionError::lie(digest, &found));
        }
        let file = File::open(path).map_err(failed)?;
        file.sync_all().map_err(|error| DistributionError::io("sync", path, &error))?;
        let bytes = file.metadata().map_err(failed)?.len();
        self.keep(path, repository, digest, bytes)
    }

    /// Forgets an upload, and removes what is left of it.
    fn forget(&self, upload: &Upload) {
        match fs::remove_file(&upload.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = upload.path.display();
                tracing::warn!(%path, %error, "what has come of an upload stays until the next start");
            }
            _ => {}
        }
        self.known_uploads().remove(&upload.id);
    }

    fn known_uploads(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<Uuid, Arc<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    fn new(id: Uuid, owner: String, path: PathBuf, bytes: u64, hasher: Option<Sha256>) -> Self {
        Self {
            id,
            owner,
            path,
            offset: AtomicU64::new(bytes),
            turn: watch::Sender::new(0),
            state: Arc::new(Mutex::new(State { hasher, is_ended: false })),
        }
    }
}

/// What an upload's file says of its repository: names are longer than those of files may be.
fn owner(repository: &str) -> String {
    digest_of(Algorithm::Sha256, repository.as_bytes()).hex()[..16].to_owned()
}

fn digest_of_file(algorithm: Algorithm, path: &std::path::Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    Ok(match algorithm {
        Algorithm::Sha256 => Digest::of_bytes(algorithm, &hashed::<Sha256>(&mut file)?),
        Algorithm::Sha512 => Digest::of_bytes(algorithm, &hashed::<Sha512>(&mut file)?),
    })
}

fn hashed<D: sha2::Digest>(file: &mut File) -> io::Result<Vec<u8>> {
    let mut hasher = D::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().to_vec()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn unknown(id: Uuid) -> DistributionError {
    DistributionError::new(Fault::UploadUnknown, format!("the upload {id} has ended"))
}

fn taken_over() -> DistributionError {
    let text = "another request goes on with this upload; what has come is kept";
    DistributionError::new(Fault::UploadInvalid, text)
}

fn too_much(chunk: Chunk) -> DistributionError {
    match chunk.bytes {
        Some(bytes) => {
            let text = format!("the body has more than the {bytes} bytes that were said");
            DistributionError::new(Fault::SizeInvalid, text)
        }
        None => {
            let text = "the blob has more bytes than one may have (--image-bytes-max)";
            DistributionError::new(Fault::TooLarge, text)
        }
    }
}

fn broken(error: &tokio::task::JoinError) -> DistributionError {
    DistributionError::new(Fault::Broken, format!("the registry failed: {error}"))
}
