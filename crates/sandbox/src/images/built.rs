//! The store's part of a build: its source is unpacked, what it makes is taken in as layers, and layers become an
//! image, as if it had been loaded.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use pinnace_core::{
    limits::{BUILD_CONTEXT_BYTES_MAX, IMAGE_UNPACKED_BYTES_MAX},
    wire::ImageSummary,
};
use rustix::fs::{CWD, Mode, openat};

use super::{
    entries::Entries,
    error::{LoadError, StoreError},
    harvest::{Harvest, LayerSink, Yield},
    lease::Lease,
    load::{Loading, nameable},
    plan::{ImagePlan, LayerSource, machine},
    spool::Blob,
    store::{ImageStore, Ownership},
    stream::{Bounded, Budget, decoded, digest_of, sha256_hex},
    tree::DIRECTORY,
    unpack::Unpacker,
};

const READ_BYTES: usize = 128 << 10;

/// A layer that stays in the store while this lives.
#[derive(Clone, Debug)]
pub struct HeldLayer {
    /// Its diff_id.
    pub diff_id: String,
    /// What it was made of, if it was made now.
    pub taken: Yield,
    /// Keeps it.
    _lease: Arc<Lease>,
}

/// What is stamped on a layer.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The directory that belongs to the owner, with all below it; so does whatever is not above it.
    pub own: &'a str,
    /// User and group.
    pub owner: (u32, u32),
}

/// A tree of which a layer is made.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// All of a directory, to this path of the image.
    Tree(&'a Path, &'a str),
    /// These paths of what a sandbox has written in a directory.
    Kept(&'a Path, &'a [String]),
}

impl ImageStore {
    /// Unpacks a tar below `dir`, an empty directory, all as this process's own. Nothing is written outside of it.
    ///
    /// # Errors
    /// It is no such tar, or a large one.
    pub fn unpack_source(&self, tar: impl Read, dir: &Path, what: &str) -> Result<(), LoadError> {
        let budget = Budget::new(BUILD_CONTEXT_BYTES_MAX);
        let root: OwnedFd = openat(CWD, dir, DIRECTORY, Mode::empty())
            .map_err(|errno| StoreError::io("open", dir)(errno.into()))?;
        let stream = decoded(tar).map_err(|error| LoadError::from_reader(what, error))?;
        let bounded = BufReader::with_capacity(READ_BYTES, Bounded::new(stream, &budget));
        let mut entries = Entries::new(bounded, what);
        Unpacker::new(root, Ownership::Squashed, &budget, what).run(&mut entries)?;
        // One without an end mark is taken: OpenFaaS's own library writes such tars.
        entries.finish().map(drop)
    }

    /// Makes a layer and takes it in. `None` if nothing of the source is there.
    ///
    /// # Errors
    /// The tree cannot be read or is too large, or the store cannot be changed.
    pub fn add_layer(
        &self,
        source: Source<'_>,
        stamp: Stamp<'_>,
        what: &str,
    ) -> Result<Option<HeldLayer>, LoadError> {
        let mut loading = Loading::new(self, IMAGE_UNPACKED_BYTES_MAX)?;
        let path = loading.make_dir("made")?.join("layer.tar");
        let file = File::create_new(&path).map_err(StoreError::io("make", &path))?;
        let mut sink =
            LayerSink::new(BufWriter::with_capacity(READ_BYTES, file), stamp.own, stamp.owner);
        let harvested = self.harvest(source, &mut sink);
        let harvested =
            harvested.map_err(|error| LoadError::unusable(what.to_owned(), error.to_string()))?;
        let Some(taken) = harvested else { return Ok(None) };
        let diff_id = sink.finish().map_err(StoreError::io("write", &path))?;
        let mut lease = self.leases().lease();
        lease.add(&diff_id);
        loading.stage(&diff_id, &path, what)?;
        std::fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        loading.save(&[])?;
        Ok(Some(HeldLayer { diff_id, taken, _lease: Arc::new(lease) }))
    }

    /// Digest of a source, or of those of its files that are named.
    ///
    /// # Errors
    /// It cannot be read or is too large.
    pub fn digest_of_source(
        &self,
        source: &Path,
        files: Option<&[String]>,
        what: &str,
    ) -> Result<String, LoadError> {
        let unusable =
            |error: super::HarvestError| LoadError::unusable(what.to_owned(), error.to_string());
        let mut sink = LayerSink::new(io::sink(), "", (0, 0));
        let mut harvest = Harvest::new(source, Ownership::Squashed, &mut sink).map_err(unusable)?;
        match files {
            None => drop(harvest.take("", "").map_err(unusable)?),
            Some(files) => {
                for file in files {
                    harvest.take(file, file).map_err(unusable)?;
                }
            }
        }
        Ok(sink.finish().map_err(StoreError::io("read", source))?)
    }

    fn harvest(
        &self,
        source: Source<'_>,
        sink: &mut LayerSink<impl io::Write>,
    ) -> Result<Option<Yield>, super::HarvestError> {
        match source {
            Source::Tree(dir, to) => {
                let mut harvest = Harvest::new(dir, Ownership::Squashed, sink)?;
                harvest.take("", to)?;
                Ok(Some(harvest.taken()))
            }
            Source::Kept(dir, paths) => {
                let mut harvest = Harvest::new(dir, self.ownership(), sink)?;
                let mut found = false;
                for path in paths {
                    found |= harvest.take(path, path)?;
                }
                Ok(found.then(|| harvest.taken()))
            }
        }
    }

    /// A layer that was made before, if it is still there.
    #[must_use]
    pub fn hold_layer(&self, diff_id: &str) -> Option<HeldLayer> {
        sha256_hex(diff_id)?;
        let mut lease = self.leases().lease();
        // Leased first, so that it cannot be collected between the look and the use.
        lease.add(diff_id);
        let diff_id = diff_id.to_owned();
        self.has_layer(&diff_id).then(|| HeldLayer {
            diff_id,
            taken: Yield::default(),
            _lease: Arc::new(lease),
        })
    }

    /// Where the files of a layer are that is held.
    #[must_use]
    pub fn layer_dir(&self, layer: &HeldLayer) -> std::path::PathBuf {
        self.layer_path(&layer.diff_id).join("fs")
    }

    /// Makes an image of layers that are held, under this name.
    ///
    /// # Errors
    /// It cannot be named so, or the store cannot be changed.
    pub fn add_image(&self, reference: &str, config: &[u8]) -> Result<ImageSummary, LoadError> {
        let what = format!("the configuration of {reference}");
        let name = nameable(reference)?;
        let document: oci_spec::image::ImageConfiguration = super::spool::parse(config, &what)?;
        let layers = document.rootfs().diff_ids().iter().map(|diff_id| LayerSource {
            blob: Blob { path: "missing".into(), digest: diff_id.clone(), bytes: 0 },
            media_type: None,
        });
        let plan = ImagePlan::new(vec![name], config, &what, layers.collect())?;
        let mut loading = Loading::new(self, IMAGE_UNPACKED_BYTES_MAX)?;
        let mut finished = loading.unpack_all(vec![plan], 0, &mut |_| {})?;
        finished.iter_mut().for_each(|image| image.keep_document(config));
        let saved = loading.save(&finished)?.pop();
        saved.ok_or_else(|| LoadError::Naming(format!("the image {reference} has no name")))
    }

    /// The diff_ids of an image, lowest first.
    ///
    /// # Errors
    /// It is not there.
    pub fn diff_ids(&self, digest: &str) -> Result<Vec<String>, StoreError> {
        let record = self.image_record(digest)?;
        record.map(|record| record.layers).ok_or_else(|| StoreError::NoImage(digest.to_owned()))
    }

    /// This machine's platform, and its architecture alone, as images name them.
    #[must_use]
    pub fn platform() -> (String, &'static str) {
        (format!("linux/{}", machine()), machine())
    }

    /// Digest of bytes, as images write it.
    #[must_use]
    pub fn digest_of(bytes: &[u8]) -> String {
        digest_of(bytes)
    }
}
