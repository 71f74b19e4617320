//! The store's part of a pull: which blobs of an image are missing, where they are kept while they arrive,
//! and how they become layers.
//!
//! Blobs arrive in `partial/`, named by their digests, so that a pull that broke off goes on where it was,
//! also after a restart. What lies there counts for nothing until somebody has checked all of it; a name
//! leads to an image only when everything of it is in the store, as with any load.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use pinnace_core::{limits::IMAGE_UNPACKED_BYTES_MAX, wire::ImageSummary};

use super::{
    error::{LoadError, StoreError},
    lease::Lease,
    load::{Loading, Progress, nameable, now},
    plan::{ImagePlan, LayerSource},
    record::{self, ReferenceRecord},
    remote::{RemoteBlob, RemoteManifest},
    spool::Blob,
    store::{ImageStore, file_stem},
};

/// The directory of blobs under way.
pub(super) const PARTIAL: &str = "partial";

/// A pull that knows what it needs. What the store has of it stays there while this lives.
pub struct PullPlan {
    plan: ImagePlan,
    missing: Vec<RemoteBlob>,
    lease: Lease,
}

impl std::fmt::Debug for PullPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullPlan").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl PullPlan {
    /// The blobs that must be in `partial/` and checked before [`ImageStore::finish_pull`], none twice.
    #[must_use]
    pub fn missing(&self) -> &[RemoteBlob] {
        &self.missing
    }
}

impl ImageStore {
    /// Gives an image that is whole in the store a further name; `None` if it is not.
    ///
    /// # Errors
    /// The reference cannot be a name, or the store cannot be changed.
    pub fn name_image(
        &self,
        reference: &str,
        digest: &str,
    ) -> Result<Option<ImageSummary>, LoadError> {
        let name = nameable(reference)?;
        let image = match self.resolve(digest) {
            Ok(image) => image,
            Err(StoreError::NoImage(_) | StoreError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(record) = self.image_record(&image.digest)? else { return Ok(None) };
        let reference =
            ReferenceRecord { reference: name.clone(), digest: image.digest, loaded_at: now() };
        record::write(&self.reference_path(&name), &reference, self.workspace()?.path())?;
        Ok(Some(self.summary(reference, &record)?))
    }

    /// Finds out what of an image is missing. `config` is its configuration, checked against its digest.
    ///
    /// # Errors
    /// The image is not for this machine, or is not one that can be unpacked.
    pub fn plan_pull(
        &self,
        reference: &str,
        manifest: &RemoteManifest,
        config: &[u8],
    ) -> Result<PullPlan, LoadError> {
        manifest.config.check(config)?;
        let layers = manifest.layers.iter().map(|layer| LayerSource {
            blob: Blob {
                path: self.partial_path(&layer.digest),
                digest: layer.digest.clone(),
                bytes: layer.bytes,
            },
            media_type: Some(layer.media_type.clone()),
        });
        let names = vec![nameable(reference)?];
        let what = format!("the configuration of {reference}");
        let plan = ImagePlan::new(names, config, &what, layers.collect())?;
        plan.check_platform()?;
        let mut lease = self.leases().lease();
        let mut missing: Vec<RemoteBlob> = Vec::new();
        for (diff_id, layer) in plan.config.rootfs().diff_ids().iter().zip(&manifest.layers) {
            // Leased first, so that it cannot be collected between the look and the use.
            lease.add(diff_id);
            let is_known = missing.iter().any(|known| known.digest == layer.digest);
            if !is_known && !self.has_layer(diff_id) {
                lease.add(&partial_lease(&layer.digest));
                missing.push(layer.clone());
            }
        }
        Ok(PullPlan { plan, missing, lease })
    }

    /// Unpacks what was missing and puts the image into the store; its blobs go.
    ///
    /// # Errors
    /// A layer cannot be unpacked, or the host cannot do it. The store is then as it was.
    pub fn finish_pull(
        &self,
        pull: PullPlan,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageSummary, LoadError> {
        let PullPlan { plan, missing, lease } = pull;
        let name = plan.name();
        let mut loading = Loading::new(self, IMAGE_UNPACKED_BYTES_MAX)?;
        let loaded = loading
            .unpack_all(vec![plan], 0, progress)
            .and_then(|finished| loading.save(&finished));
        drop(lease);
        self.drop_partials(&missing)?;
        let loaded = loaded?.pop();
        loaded.ok_or_else(|| LoadError::Naming(format!("the image {name} has no name")))
    }

    /// Where a blob is kept while it arrives. `digest` is a checked sha256 digest.
    #[must_use]
    pub fn partial_path(&self, digest: &str) -> PathBuf {
        self.dir().join(PARTIAL).join(file_stem(digest))
    }

    /// Removes what broken-off pulls have fetched longer than `age` ago, and answers its bytes. What a pull
    /// under way needs stays.
    ///
    /// # Errors
    /// The directory cannot be read or changed.
    pub fn remove_partials(&self, age: Duration) -> Result<u64, StoreError> {
        let counts = self.leases().lock();
        let mut bytes = 0;
        for digest in self.names(PARTIAL, "")? {
            let path = self.partial_path(&digest);
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            let touched = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_old = touched.elapsed().is_ok_and(|elapsed| elapsed >= age);
            if is_old && !counts.contains_key(&partial_lease(&digest)) {
                std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
                bytes += metadata.len();
            }
        }
        Ok(bytes)
    }

    /// Removes these blobs, but for those that another pull needs.
    fn drop_partials(&self, blobs: &[RemoteBlob]) -> Result<(), StoreError> {
        let counts = self.leases().lock();
        for blob in blobs.iter().filter(|b| !counts.contains_key(&partial_lease(&b.digest))) {
            let path = self.partial_path(&blob.digest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a blob under way is leased as: a layer that is not compressed has the same digest as its blob.
fn partial_lease(digest: &str) -> String {
    format!("{PARTIAL}:{digest}")
}
