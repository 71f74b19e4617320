//! A load: from a stream to images in the store, whole or not at all.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fs::{DirBuilder, File},
    io::{BufReader, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use oci_spec::image::ImageConfiguration;
use pinnace_core::{
    limits::{IMAGE_BYTES_MAX, IMAGE_UNPACKED_BYTES_MAX},
    wire::ImageSummary,
};
use rustix::fs::{CWD, Mode, openat};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    config, docker,
    entries::Entries,
    error::{LoadError, StoreError, printable},
    labels, layout,
    lease::Lease,
    plan::{ImagePlan, machine},
    record::{self, ImageRecord, LayerRecord, ReferenceRecord},
    spool::Spool,
    store::{ImageStore, Workspace, is_host, normal_reference},
    stream::{Bounded, Budget, Hashed, Metered, decoded, digest_of},
    tree::{self, DIRECTORY},
    unpack::Unpacker,
    watchdog,
};

const READ_BYTES: usize = 128 << 10;

/// How an archive is to be read.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What it is.
    pub kind: ArchiveKind,
    /// The image's name, in place of the one in the archive. A root directory needs one.
    pub reference: Option<String>,
    /// Bytes of the archive.
    pub bytes_max: u64,
    /// Bytes of the archive without outer compression, and of all its layers unpacked.
    pub unpacked_bytes_max: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            kind: ArchiveKind::Image,
            reference: None,
            bytes_max: IMAGE_BYTES_MAX,
            unpacked_bytes_max: IMAGE_UNPACKED_BYTES_MAX,
        }
    }
}

/// What an archive is. Each may be compressed with gzip or zstd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A `docker save` archive or an OCI image layout; found out by what is in it.
    Image,
    /// The tar of a root directory.
    RootDir,
}

/// How far a load has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the archive read so far.
    pub bytes: u64,
    /// What is being done: `reading`, `unpacking layer 2 of 5`, `saving`.
    pub step: Cow<'static, str>,
}

impl ImageStore {
    /// Loads the images of an archive, each under the references the archive gives it or the one that
    /// `options` name.
    ///
    /// # Errors
    /// Whatever is wrong with the archive, or the host cannot do. The store is then as it was.
    pub fn load(
        &self,
        archive: impl Read,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<ImageSummary>, LoadError> {
        let reference = options.reference.as_deref().map(nameable).transpose()?;
        let loading = Loading::new(self, options.unpacked_bytes_max)?;
        match options.kind {
            ArchiveKind::Image => loading.image_archive(archive, options, reference, progress),
            ArchiveKind::RootDir => loading.root_dir(archive, options, reference, progress),
        }
    }
}

/// A load under way.
pub(super) struct Loading<'s> {
    store: &'s ImageStore,
    work: Workspace,
    lease: Lease,
    budget: Budget,
    /// Where each layer's tree is now, by diff_id.
    layers: HashMap<String, PathBuf>,
    /// Layers to be put into the store, and their directories.
    fresh: Vec<(String, PathBuf)>,
}

/// An image that is ready to be recorded.
pub(super) struct Finished {
    names: Vec<String>,
    digest: String,
    record: ImageRecord,
}

impl Finished {
    /// Keeps its configuration as it was hashed, so that the image can go elsewhere as it is.
    pub(super) fn keep_document(&mut self, document: &[u8]) {
        self.record.document = String::from_utf8(document.to_owned()).ok();
    }
}

impl<'s> Loading<'s> {
    /// A load that has done nothing yet, and may unpack so many bytes.
    pub(super) fn new(store: &'s ImageStore, unpacked_bytes_max: u64) -> Result<Self, StoreError> {
        Ok(Self {
            store,
            work: store.workspace()?,
            lease: store.leases().lease(),
            budget: Budget::new(unpacked_bytes_max),
            layers: HashMap::new(),
            fresh: Vec::new(),
        })
    }

    fn image_archive(
        mut self,
        archive: impl Read,
        options: &LoadOptions,
        reference: Option<String>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<ImageSummary>, LoadError> {
        let mut metered = Metered::new(archive, options.bytes_max, progress);
        let spool_dir = self.make_dir("spool")?;
        let spool = spool(&mut metered, options.unpacked_bytes_max, &spool_dir)?;
        let bytes = metered.bytes_read();
        let mut plans = if spool.get(docker::MANIFEST).is_some() {
            docker::images(&spool)?
        } else if spool.get(layout::INDEX).is_some() {
            layout::images(&spool)?
        } else {
            return Err(LoadError::NotAnImage);
        };
        name_all(&mut plans, reference)?;
        let finished = self.unpack_all(plans, bytes, progress)?;
        // Before the layers are made durable: what is removed need not reach the disk.
        drop(spool);
        remove(&spool_dir)?;
        progress(Progress { bytes, step: "saving".into() });
        self.save(&finished)
    }

    /// Unpacks what the store lacks of these images, and works out what they run. `bytes` is told on.
    pub(super) fn unpack_all(
        &mut self,
        plans: Vec<ImagePlan>,
        bytes: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<Finished>, LoadError> {
        let all = plans
            .iter()
            .flat_map(|plan| plan.config.rootfs().diff_ids())
            .collect::<HashSet<_>>()
            .len();
        let mut finished = Vec::new();
        for plan in plans {
            plan.check_platform()?;
            for (diff_id, layer) in plan.config.rootfs().diff_ids().iter().zip(&plan.layers) {
                if !self.layers.contains_key(diff_id) {
                    let step = format!("unpacking layer {} of {all}", self.layers.len() + 1);
                    let what = format!("layer {} of {all} ({diff_id})", self.layers.len() + 1);
                    if !self.store.has_layer(diff_id) {
                        progress(Progress { bytes, step: step.into() });
                    }
                    self.stage(diff_id, &layer.blob.path, &what)?;
                }
            }
            finished.push(self.finish(plan.names, plan.digest, &plan.config)?);
        }
        Ok(finished)
    }

    fn root_dir(
        mut self,
        archive: impl Read,
        options: &LoadOptions,
        reference: Option<String>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<ImageSummary>, LoadError> {
        const WHAT: &str = "the root directory's archive";
        let reference = reference.ok_or_else(|| {
            LoadError::Naming("a root directory has no name of its own: give it a reference".into())
        })?;
        let mut metered = Metered::new(archive, options.bytes_max, progress);
        let dir = self.make_dir("layer-0")?;
        let (diff_id, marked) = self.unpack(&mut metered, &dir, WHAT)?;
        if !marked {
            return Err(LoadError::Truncated(WHAT.into()));
        }
        let bytes = metered.bytes_read();
        self.settle(&diff_id, dir)?;
        let config = serde_json::json!({
            "architecture": machine(),
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let digest = digest_of(config.to_string().as_bytes());
        let config = serde_json::from_value(config)
            .map_err(|source| LoadError::Json { what: "the configuration".into(), source })?;
        let finished = self.finish(vec![reference], digest, &config)?;
        progress(Progress { bytes, step: "saving".into() });
        self.save(&[finished])
    }

    /// Gets a layer ready: the store's own, or unpacked from its file in the archive.
    pub(super) fn stage(
        &mut self,
        diff_id: &str,
        blob: &Path,
        what: &str,
    ) -> Result<(), LoadError> {
        // Leased first, so that it cannot be collected between the look and the use.
        self.lease.add(diff_id);
        if self.store.has_layer(diff_id) {
            self.layers.insert(diff_id.to_owned(), self.store.layer_path(diff_id).join("fs"));
            return Ok(());
        }
        let dir = self.make_dir(&format!("layer-{}", self.fresh.len()))?;
        let file = File::open(blob).map_err(StoreError::io("open", blob))?;
        let (found, _) = self.unpack(file, &dir, what)?;
        if found != diff_id {
            return Err(LoadError::Digest {
                what: what.to_owned(),
                expected: diff_id.to_owned(),
                found,
            });
        }
        self.settle(diff_id, dir)
    }

    /// Takes a freshly unpacked layer among the load's layers, unless the store has the same by now.
    fn settle(&mut self, diff_id: &str, dir: PathBuf) -> Result<(), LoadError> {
        self.lease.add(diff_id);
        if self.store.has_layer(diff_id) {
            remove(&dir)?;
            self.layers.insert(diff_id.to_owned(), self.store.layer_path(diff_id).join("fs"));
        } else {
            self.layers.insert(diff_id.to_owned(), dir.join("fs"));
            self.fresh.push((diff_id.to_owned(), dir));
        }
        Ok(())
    }

    /// Unpacks a layer into `dir`. Answers with the digest of its tar, and whether the tar had an end mark.
    fn unpack(
        &self,
        stream: impl Read,
        dir: &Path,
        what: &str,
    ) -> Result<(String, bool), LoadError> {
        let fs = dir.join("fs");
        DirBuilder::new()
            .create(&fs)
            .and_then(|()| std::fs::set_permissions(&fs, PermissionsExt::from_mode(0o755)))
            .map_err(StoreError::io("make", &fs))?;
        let root = openat(CWD, &fs, DIRECTORY, Mode::empty())
            .map_err(|errno| StoreError::io("open", &fs)(errno.into()))?;
        let stream = decoded(stream).map_err(|error| LoadError::from_reader(what, error))?;
        let stream = Hashed::new(Bounded::new(stream, &self.budget));
        let mut entries = Entries::new(BufReader::with_capacity(READ_BYTES, stream), what);
        let unpacker = Unpacker::new(root, self.store.ownership(), &self.budget, what);
        let size_bytes = unpacker.run(&mut entries)?;
        let (stream, marked) = entries.finish()?;
        let record = serde_json::to_vec(&LayerRecord { size_bytes })
            .map_err(|source| LoadError::Json { what: what.to_owned(), source })?;
        let path = dir.join("layer.json");
        std::fs::write(&path, record).map_err(StoreError::io("write", &path))?;
        Ok((stream.into_inner().digest(), marked))
    }

    /// Works out what an image runs, from its configuration and its layers.
    fn finish(
        &mut self,
        names: Vec<String>,
        digest: String,
        image: &ImageConfiguration,
    ) -> Result<Finished, LoadError> {
        self.lease.add(&digest);
        let layers = image.rootfs().diff_ids().clone();
        let dirs: Vec<PathBuf> =
            layers.iter().filter_map(|id| self.layers.get(id).cloned()).collect();
        let config = config::resolve(image, &dirs, self.store.ownership())?;
        let watchdog = config::watchdog(&config);
        let watchdog_kind = watchdog::kind(&config, &dirs, self.store.ownership())
            .or_else(|| watchdog.as_ref().and_then(|_| labels::watchdog(image)));
        let on_host = labels::is_on_host(image);
        let record =
            ImageRecord { config, layers, watchdog, watchdog_kind, document: None, on_host };
        Ok(Finished { names, digest, record })
    }

    /// Puts everything into the store: layers, then images, then references, so that nothing ever leads to
    /// something that is not there.
    pub(super) fn save(self, finished: &[Finished]) -> Result<Vec<ImageSummary>, LoadError> {
        let mut placed = HashSet::new();
        let saved = self.place_all(finished, &mut placed);
        if saved.is_err() && !placed.is_empty() {
            let Self { store, work, lease, .. } = self;
            drop(lease);
            drop(work);
            // The error that led here is the one to tell. What stays is collected with other garbage.
            let _ = store.take_back(&placed);
        }
        Ok(saved?)
    }

    fn place_all(
        &self,
        finished: &[Finished],
        placed: &mut HashSet<String>,
    ) -> Result<Vec<ImageSummary>, StoreError> {
        let store = self.store;
        if !self.fresh.is_empty() {
            self.sync_files()?;
        }
        for (diff_id, dir) in &self.fresh {
            let path = store.layer_path(diff_id);
            match std::fs::rename(dir, &path) {
                Ok(()) => {
                    placed.insert(diff_id.clone());
                }
                // Another load was faster; its layer is the same.
                Err(_) if store.has_layer(diff_id) => {}
                Err(error) => return Err(StoreError::io("make", path)(error)),
            }
        }
        record::sync_dir(&store.dir().join("layers/sha256"))?;
        for Finished { digest, record, .. } in finished {
            let path = store.image_path(digest);
            if !path.exists() {
                placed.insert(digest.clone());
            }
            record::write(&path, record, self.work.path())?;
        }
        let mut summaries = Vec::new();
        for Finished { names, digest, record } in finished {
            for name in names {
                let reference = ReferenceRecord {
                    reference: name.clone(),
                    digest: digest.clone(),
                    loaded_at: now(),
                };
                record::write(&store.reference_path(name), &reference, self.work.path())?;
                summaries.push(store.summary(reference, record)?);
            }
        }
        Ok(summaries)
    }

    /// Makes the unpacked layers durable. One `syncfs` for all: a layer has tens of thousands of files, and
    /// an `fsync` for each takes minutes. It waits for other programs' data on the same file system too,
    /// which a load can bear. Only then are the layers renamed, so what has its final name is whole.
    fn sync_files(&self) -> Result<(), StoreError> {
        let dir = self.work.path();
        let handle = File::open(dir).map_err(StoreError::io("open", dir))?;
        rustix::fs::syncfs(&handle).map_err(|errno| StoreError::io("sync", dir)(errno.into()))
    }

    pub(super) fn make_dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.work.path().join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(StoreError::io("make", &path))?;
        Ok(path)
    }
}

fn spool<R: Read>(
    archive: &mut Metered<'_, R>,
    bytes_max: u64,
    dir: &Path,
) -> Result<Spool, LoadError> {
    let budget = Budget::new(bytes_max);
    let stream = decoded(archive).map_err(|error| LoadError::from_reader("the archive", error))?;
    Spool::read(BufReader::with_capacity(READ_BYTES, Bounded::new(stream, &budget)), dir)
}

/// Gives each image the names it is stored under.
fn name_all(plans: &mut [ImagePlan], reference: Option<String>) -> Result<(), LoadError> {
    if let Some(reference) = reference {
        let [plan] = plans else {
            let names: Vec<String> = plans.iter().map(ImagePlan::name).take(20).collect();
            return Err(LoadError::Naming(format!(
                "the archive holds {} images ({}), so `{reference}` cannot name them: leave the reference out",
                plans.len(),
                names.join(", ")
            )));
        };
        plan.names = vec![reference];
        return Ok(());
    }
    if plans.is_empty() {
        return Err(LoadError::NotAnImage);
    }
    for plan in plans {
        if plan.names.is_empty() {
            return Err(LoadError::Naming(format!(
                "the archive does not say how the image {} is called: give it a reference",
                plan.digest
            )));
        }
        // The specification lets an index name a mere tag.
        if let [tag] = plan.names.as_slice()
            && !tag.contains([':', '/'])
        {
            return Err(LoadError::Naming(format!(
                "the archive calls its image only `{}`, which is a tag and no name: give it a reference",
                printable(tag.as_bytes())
            )));
        }
        plan.names = plan.names.iter().map(|name| nameable(name)).collect::<Result<_, _>>()?;
    }
    Ok(())
}

/// A reference under which an image can be stored.
pub(super) fn nameable(reference: &str) -> Result<String, LoadError> {
    let reference = normal_reference(reference)?;
    if is_host(&reference) {
        return Err(LoadError::Naming(
            "`host` stands for the host's own programs: give the image another reference".into(),
        ));
    }
    Ok(reference)
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    tree::remove_path(dir).map_err(|errno| StoreError::io("remove", dir)(errno.into()))
}

pub(super) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}
