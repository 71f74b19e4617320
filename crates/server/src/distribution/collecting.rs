//! Garbage: what crashes left, uploads that nobody goes on with, and blobs that no manifest refers to.
//!
//! A blob is old when its file was last touched: written, found to be there, or mounted. A push first sends or finds
//! its blobs and then names them in a manifest, so what is younger than the grace may belong to one under way.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use pinnace_core::{
    distribution::{Algorithm, Digest},
    limits,
};

use super::{BLOBS, Distribution, DistributionError, TRASH, remove_all};

/// What a collection is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// How long what no manifest refers to is kept.
    pub grace: Duration,
    /// Whether manifests go that no tag leads to.
    pub untagged: bool,
    /// Whether nothing is removed, and only found out what would be.
    pub is_dry: bool,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests.
    pub manifests: usize,
    /// Blobs.
    pub blobs: usize,
    /// Their bytes, and those of uploads.
    pub bytes: u64,
    /// Uploads that nobody went on with.
    pub uploads: usize,
    /// Blobs that no manifest refers to and that were too young.
    pub young_blobs: usize,
    /// Their bytes.
    pub young_bytes: u64,
}

impl Default for Collection {
    fn default() -> Self {
        Self { grace: limits::REGISTRY_GRACE_DEFAULT, untagged: false, is_dry: false }
    }
}

impl Distribution {
    /// Removes what nothing leads to.
    ///
    /// # Errors
    /// The database cannot be read, or this is not durable.
    pub fn collect(&self, how: Collection) -> Result<Collected, DistributionError> {
        let untagged_age_s =
            how.untagged.then(|| i64::try_from(how.grace.as_secs()).unwrap_or(i64::MAX));
        let is_young = |digest: &Digest| !is_older(&self.blob_path(digest), how.grace);
        let mut index = self.index();
        let garbage = index.collect(is_young, untagged_age_s, how.is_dry)?;
        let mut trashed = Vec::new();
        if !how.is_dry {
            trashed.extend(garbage.blobs.iter().filter_map(|(digest, _)| self.discard(digest)));
        }
        drop(index);
        remove_all(trashed);
        let bytes = |blobs: &[(Digest, u64)]| blobs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let (uploads, upload_bytes) = self.end_old_uploads(how.is_dry);
        Ok(Collected {
            manifests: garbage.manifests,
            blobs: garbage.blobs.len(),
            bytes: bytes(&garbage.blobs) + upload_bytes,
            uploads,
            young_blobs: garbage.young.len(),
            young_bytes: bytes(&garbage.young),
        })
    }

    /// Collects once now and then, as long as somebody has the store.
    pub async fn collect_always(store: Weak<Self>) {
        loop {
            let Some(store) = store.upgrade() else { return };
            let collected = tokio::task::spawn_blocking(move || collect_once(&store)).await;
            if let Err(error) = collected {
                tracing::error!(%error, "the registry's garbage was not collected");
            }
            tokio::time::sleep(limits::REGISTRY_COLLECTED_EVERY).await;
        }
    }

    /// Removes what an earlier server left half-made: files that the database does not know, and trash.
    pub(super) fn sweep(&self) -> anyhow::Result<()> {
        let index = self.index();
        let mut strays = files(&self.dir.join(TRASH))?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for path in files(&self.dir.join(BLOBS).join(algorithm.name()))? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let digest = Digest::parse(&format!("{}:{name}", algorithm.name()));
                let is_known = match digest {
                    Ok(digest) => index.knows(&digest)?,
                    Err(_) => false,
                };
                if !is_known {
                    strays.push(path);
                }
            }
        }
        drop(index);
        remove_all(strays);
        Ok(())
    }
}

fn collect_once(store: &Arc<Distribution>) {
    match store.collect(Collection::default()) {
        Ok(collected) if collected.blobs + collected.uploads > 0 => {
            let Collected { blobs, bytes, uploads, .. } = collected;
            tracing::info!(blobs, uploads, bytes, "garbage of the registry removed");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the registry's garbage was not collected"),
    }
}

/// Whether a file was last touched so long ago, or is gone. One from the future is young.
pub(super) fn is_older(path: &Path, age: Duration) -> bool {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(touched) => touched.elapsed().is_ok_and(|elapsed| elapsed >= age),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The files in a directory.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}
