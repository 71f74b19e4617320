//! The store's directory: what is in it, what leads to what, and what nothing leads to.

use std::{
    collections::HashSet,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use pinnace_core::{
    image::{HOST, ImageConfig, WatchdogKind, stored_name},
    limits::PARTIAL_AGE_MAX,
    wire::ImageSummary,
};

use super::{
    error::StoreError,
    lease::{Lease, Leases},
    pull::PARTIAL,
    record::{self, ImageRecord, LayerRecord, ReferenceRecord},
    stream::{digest_of, is_sha256_hex, sha256_hex},
    tree,
};

const FORMAT: &str = "format";
const TMP: &str = "tmp";

/// Images on disk, for one process; see the module's description. Loads, removals and lookups may go on
/// at once, each on a thread that may block.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    ownership: Ownership,
    leases: Leases,
    next_work: AtomicU64,
}

/// Whose the files of a store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Everybody's own, as the image has them. Needs root.
    Real,
    /// All one ordinary user's.
    Squashed,
}

/// An image that can be run. Its layers stay in the store while this lives.
#[derive(Clone, Debug)]
pub struct Image {
    /// The reference it was looked up by, with its tag.
    pub reference: String,
    /// Digest of its configuration, `sha256:…`. [`ImageStore::resolve`] takes it too, and finds the same
    /// image when the reference stands for another one.
    pub digest: String,
    /// What it runs.
    pub config: ImageConfig,
    /// Its layers' directories, lowest first, none twice.
    pub layers: Vec<PathBuf>,
    /// `fwatchdog` or `of-watchdog`, if its command begins with such a program.
    pub watchdog: Option<String>,
    /// Which of OpenFaaS's watchdogs that is, if it is known.
    pub watchdog_kind: Option<WatchdogKind>,
    /// Whether it stands on the host's own programs, which its layers lie over.
    pub on_host: bool,
    /// Keeps the layers.
    pub lease: Arc<Lease>,
}

/// What a collection of garbage removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images.
    pub images: usize,
    /// Layers.
    pub layers: usize,
    /// Bytes of these layers' files, and of what broken-off pulls had fetched.
    pub bytes: u64,
}

/// A directory of a load or a removal at work; goes with all it holds.
#[derive(Debug)]
pub(super) struct Workspace(PathBuf);

impl Ownership {
    /// The attribute by which overlayfs knows an opaque directory in such a store.
    pub(super) fn opaque_xattr(self) -> &'static str {
        match self {
            Self::Real => "trusted.overlay.opaque",
            Self::Squashed => "user.overlay.opaque",
        }
    }

    fn format(self) -> &'static str {
        match self {
            Self::Real => "pinnace images 1 real\n",
            Self::Squashed => "pinnace images 1 squashed\n",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Real => "by root, with real owners",
            Self::Squashed => "by an ordinary user, with all files his own",
        }
    }
}

impl ImageStore {
    /// Opens the store at `dir`, which is made if it is missing, and removes what a crash left half-made.
    ///
    /// # Errors
    /// The directory holds something else or a store of the other kind, or cannot be used.
    pub fn open(dir: &Path, ownership: Ownership) -> Result<Self, StoreError> {
        if ownership == Ownership::Real && !rustix::process::geteuid().is_root() {
            return Err(StoreError::NotRoot { dir: dir.to_owned() });
        }
        make_dir(dir)?;
        let store = Self {
            dir: dir.to_owned(),
            ownership,
            leases: Leases::default(),
            next_work: AtomicU64::new(0),
        };
        store.check_format()?;
        for part in ["layers/sha256", "images/sha256", "references", "pins", PARTIAL] {
            make_dir(&dir.join(part))?;
        }
        record::sync_dir(dir)?;
        Ok(store)
    }

    /// The image that a reference stands for. The digest of an image that is in the store is a reference
    /// too, whether any name is left for it or not.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn resolve(&self, reference: &str) -> Result<Image, StoreError> {
        // Declared before the lock, so that it is dropped after it, which it needs.
        let mut lease = self.leases.lease();
        let mut counts = self.leases.lock();
        let (reference, digest) = match sha256_hex(reference) {
            Some(_) => (reference.to_owned(), reference.to_owned()),
            None => {
                let reference = normal_reference(reference)?;
                let found: Option<ReferenceRecord> =
                    record::read(&self.reference_path(&reference))?;
                let record = found.ok_or_else(|| StoreError::NoImage(reference.clone()))?;
                (reference, record.digest)
            }
        };
        let Some(image) = self.image_record(&digest)? else {
            if reference == digest {
                return Err(StoreError::NoImage(reference));
            }
            return Err(StoreError::Damaged { reference, missing: format!("the image {digest}") });
        };
        lease.add_locked(&digest, &mut counts);
        let mut layers = Vec::with_capacity(image.layers.len());
        for diff_id in distinct(&image.layers) {
            if !self.has_layer(diff_id) {
                let missing = format!("the layer {diff_id}");
                return Err(StoreError::Damaged { reference, missing });
            }
            lease.add_locked(diff_id, &mut counts);
            layers.push(self.layer_path(diff_id).join("fs"));
        }
        drop(counts);
        Ok(Image {
            reference,
            digest,
            config: image.config,
            layers,
            watchdog: image.watchdog,
            watchdog_kind: image.watchdog_kind,
            on_host: image.on_host,
            lease: Arc::new(lease),
        })
    }

    /// All references with their images, sorted. Which functions use them is not known here.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let _guard = self.leases.lock();
        let mut summaries = Vec::new();
        for reference in self.references()? {
            if let Some(image) = self.image_record(&reference.digest)? {
                summaries.push(self.summary(reference, &image)?);
            }
        }
        summaries.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(summaries)
    }

    /// Forgets a reference. Its image and layers go with the next [`ImageStore::collect_garbage`], if
    /// nothing else leads to them.
    ///
    /// # Errors
    /// There is no such reference, or it cannot be removed.
    pub fn remove(&self, reference: &str) -> Result<(), StoreError> {
        let reference = normal_reference(reference)?;
        let path = self.reference_path(&reference);
        let _guard = self.leases.lock();
        match std::fs::remove_file(&path) {
            Ok(()) => record::sync_dir(&self.dir.join("references")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoImage(reference))
            }
            Err(error) => Err(StoreError::io("remove", path)(error)),
        }
    }

    /// Removes images and layers that no reference and no pin leads to. Those whose digests (an image's, or a
    /// layer's diff_id) are in `in_use` stay, and so do leased ones. What a
    /// pull has fetched and nobody has fetched on for long goes too.
    ///
    /// # Errors
    /// The store cannot be read or changed. What could be removed until then is.
    pub fn collect_garbage(&self, in_use: &HashSet<String>) -> Result<Collected, StoreError> {
        let mut collected = self.sweep(in_use, |_| true)?;
        collected.bytes += self.remove_partials(PARTIAL_AGE_MAX)?;
        Ok(collected)
    }

    /// Removes what of `candidates` nothing leads to: things that a failed load put in place.
    pub(super) fn take_back(&self, candidates: &HashSet<String>) -> Result<Collected, StoreError> {
        self.sweep(&HashSet::new(), |digest| candidates.contains(digest))
    }

    fn sweep(
        &self,
        in_use: &HashSet<String>,
        may_go: impl Fn(&str) -> bool,
    ) -> Result<Collected, StoreError> {
        let trash = self.workspace()?;
        let mut collected = Collected::default();
        // Moved away under the lock, so that no load can come to rely on it; removed without.
        let counts = self.leases.lock();
        let mut kept: HashSet<String> = in_use.iter().chain(counts.keys()).cloned().collect();
        kept.extend(self.references()?.into_iter().map(|reference| reference.digest));
        kept.extend(self.pins()?.into_iter().map(|pin| pin.digest));
        let images = self.names("images/sha256", ".json")?;
        let (kept_images, gone): (Vec<_>, Vec<_>) =
            images.into_iter().partition(|digest| kept.contains(digest) || !may_go(digest));
        for digest in kept_images {
            kept.extend(self.image_record(&digest)?.map(|image| image.layers).unwrap_or_default());
        }
        for digest in gone {
            self.discard(&self.image_path(&digest), &trash, &digest)?;
            collected.images += 1;
        }
        for digest in self.names("layers/sha256", "")? {
            if !kept.contains(&digest) && may_go(&digest) {
                collected.bytes += self.layer_bytes(&digest)?;
                self.discard(&self.layer_path(&digest), &trash, &format!("layer-{digest}"))?;
                collected.layers += 1;
            }
        }
        // Before any of it is removed, it must be out of its place for good.
        record::sync_dir(&self.dir.join("images/sha256"))?;
        record::sync_dir(&self.dir.join("layers/sha256"))?;
        drop(counts);
        Ok(collected)
    }

    fn discard(&self, path: &Path, trash: &Workspace, name: &str) -> Result<(), StoreError> {
        std::fs::rename(path, trash.path().join(name)).map_err(StoreError::io("remove", path))
    }

    /// A new directory to work in.
    pub(super) fn workspace(&self) -> Result<Workspace, StoreError> {
        let number = self.next_work.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(TMP).join(number.to_string());
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(StoreError::io("make", &path))?;
        Ok(Workspace(path))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn ownership(&self) -> Ownership {
        self.ownership
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Where a layer is or would be. `diff_id` is a checked sha256 digest.
    pub(super) fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.dir.join("layers/sha256").join(file_stem(diff_id))
    }

    pub(super) fn image_path(&self, digest: &str) -> PathBuf {
        self.dir.join("images/sha256").join(format!("{}.json", file_stem(digest)))
    }

    /// References are longer than file names may be, so the file is named by their hash.
    pub(super) fn reference_path(&self, reference: &str) -> PathBuf {
        let hash = digest_of(reference.as_bytes());
        self.dir.join("references").join(format!("{}.json", file_stem(&hash)))
    }

    /// Whether the layer is in the store. Certain to stay true only for a leased one.
    pub(super) fn has_layer(&self, diff_id: &str) -> bool {
        self.layer_path(diff_id).join("layer.json").exists()
    }

    pub(super) fn summary(
        &self,
        reference: ReferenceRecord,
        image: &ImageRecord,
    ) -> Result<ImageSummary, StoreError> {
        let layers = distinct(&image.layers);
        let mut size_bytes = 0u64;
        for diff_id in &layers {
            size_bytes = size_bytes.saturating_add(self.layer_bytes(diff_id)?);
        }
        Ok(ImageSummary {
            reference: reference.reference,
            digest: reference.digest,
            size_bytes,
            layers: layers.len(),
            loaded_at: reference.loaded_at,
            functions: Vec::new(),
        })
    }

    fn layer_bytes(&self, diff_id: &str) -> Result<u64, StoreError> {
        let record: Option<LayerRecord> =
            record::read(&self.layer_path(diff_id).join("layer.json"))?;
        Ok(record.map_or(0, |record| record.size_bytes))
    }

    pub(super) fn image_record(&self, digest: &str) -> Result<Option<ImageRecord>, StoreError> {
        record::read(&self.image_path(digest))
    }

    fn references(&self) -> Result<Vec<ReferenceRecord>, StoreError> {
        let mut references = Vec::new();
        for digest in self.names("references", ".json")? {
            let path = self.dir.join("references").join(format!("{}.json", file_stem(&digest)));
            references.extend(record::read::<ReferenceRecord>(&path)?);
        }
        Ok(references)
    }

    /// The digests that the files of a directory of the store are named by.
    pub(super) fn names(&self, part: &str, suffix: &str) -> Result<Vec<String>, StoreError> {
        let path = self.dir.join(part);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(StoreError::io("read", &path))? {
            let name = entry.map_err(StoreError::io("read", &path))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(suffix));
            names.extend(hex.filter(|hex| is_sha256_hex(hex)).map(|hex| format!("sha256:{hex}")));
        }
        Ok(names)
    }

    /// Reads the mark of the store's kind, or sets it in a new store, and empties the working directory.
    fn check_format(&self) -> Result<(), StoreError> {
        let path = self.dir.join(FORMAT);
        let found = match std::fs::read(&path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        if found.as_deref() == Some(self.ownership.format().as_bytes()) {
            return self.empty_tmp();
        }
        let kinds = [Ownership::Real, Ownership::Squashed];
        if let Some(other) =
            kinds.into_iter().find(|k| found.as_deref() == Some(k.format().as_bytes()))
        {
            return Err(StoreError::OtherOwnership {
                dir: self.dir.clone(),
                found: other.description(),
                wanted: self.ownership.description(),
            });
        }
        let list = std::fs::read_dir(&self.dir).map_err(StoreError::io("read", &self.dir))?;
        for entry in list {
            if entry.map_err(StoreError::io("read", &self.dir))?.file_name() != TMP {
                return Err(StoreError::NotAStore { dir: self.dir.clone() });
            }
        }
        self.empty_tmp()?;
        record::write_bytes(&path, self.ownership.format().as_bytes(), &self.dir.join(TMP))
    }

    fn empty_tmp(&self) -> Result<(), StoreError> {
        let tmp = self.dir.join(TMP);
        make_dir(&tmp)?;
        for entry in std::fs::read_dir(&tmp).map_err(StoreError::io("read", &tmp))? {
            let path = entry.map_err(StoreError::io("read", &tmp))?.path();
            tree::remove_path(&path)
                .map_err(|errno| StoreError::io("remove", path)(errno.into()))?;
        }
        Ok(())
    }
}

impl Workspace {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed now is removed when the store is opened next.
        let _ = tree::remove_path(&self.0);
    }
}

/// A reference as the store knows it.
pub(super) fn normal_reference(text: &str) -> Result<String, StoreError> {
    stored_name(text).ok_or_else(|| StoreError::BadReference(text.chars().take(200).collect()))
}

/// Whether a reference means the host's own programs and so can name no image.
pub(super) fn is_host(reference: &str) -> bool {
    stored_name(HOST).is_some_and(|host| reference == host)
}

/// Layers without those that come again higher up: the kernel refuses an overlay with one directory twice,
/// and the higher one decides all that the lower one does.
fn distinct(layers: &[String]) -> Vec<&String> {
    let again = |at: usize| layers[at + 1..].contains(&layers[at]);
    layers.iter().enumerate().filter(|&(at, _)| !again(at)).map(|(_, layer)| layer).collect()
}

pub(super) fn file_stem(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Makes a directory that nobody else may enter: layers hold setuid programs, which on the host must be out
/// of everybody's reach.
fn make_dir(path: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)))
        .map_err(StoreError::io("make", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_no_image() {
        assert!(is_host("host:latest"));
        let bad = normal_reference("a b");
        assert!(matches!(bad, Err(StoreError::BadReference(_))));
    }

    #[test]
    fn layers_are_taken_once_at_their_highest() {
        let layers = ["a", "b", "a", "c", "b"].map(str::to_owned);
        assert_eq!(distinct(&layers), ["a", "c", "b"]);
    }

    #[test]
    fn the_two_kinds_of_store_are_not_mixed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/store");
        ImageStore::open(&dir, Ownership::Squashed).unwrap();
        std::fs::create_dir_all(dir.join("tmp/7/deep")).unwrap();
        ImageStore::open(&dir, Ownership::Squashed).unwrap();
        assert_eq!(std::fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
        std::fs::write(dir.join("format"), Ownership::Real.format()).unwrap();
        let error = ImageStore::open(&dir, Ownership::Squashed).unwrap_err().to_string();
        assert!(error.contains("was made by root"), "{error}");
        std::fs::write(dir.join("format"), "pinnace images 2 real\n").unwrap();
        let error = ImageStore::open(&dir, Ownership::Squashed).unwrap_err();
        assert!(matches!(error, StoreError::NotAStore { .. }));
    }

    #[test]
    fn foreign_directories_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("mine"), "x").unwrap();
        let error = ImageStore::open(temp.path(), Ownership::Squashed).unwrap_err();
        assert!(matches!(error, StoreError::NotAStore { .. }));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
