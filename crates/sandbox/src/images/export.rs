//! An image of the store as an archive: an OCI image layout, as `docker load`, registries' tools and [`super`] take it.
//!
//! The store keeps trees, not archives, so a layer is made again from its tree. Of one that was built here this gives
//! the same bytes, and so the image keeps its digest. One that was pulled or loaded was archived by others in their
//! way: its files are the same, its digest is another, and the image gets a configuration that says so.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use pinnace_core::{
    build::{BUILT_ON_HOST, LABEL_BASE, LABEL_WATCHDOG, SOURCE_DATE_EPOCH},
    image::ImageConfig,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    error::{LoadError, StoreError},
    harvest::{Harvest, LayerSink},
    plan::machine,
    record::ImageRecord,
    store::{Image, ImageStore, Ownership},
    stream::{digest_name, digest_of},
};

const WRITE_BYTES: usize = 128 << 10;

/// A layer, as it goes into the archive.
struct Blob {
    path: PathBuf,
    digest: String,
    bytes: u64,
    diff_id: String,
}

impl ImageStore {
    /// Writes an image to a file as an OCI image layout. `scratch` is an empty directory with room for its layers.
    ///
    /// # Errors
    /// There is no such image, or it cannot be read or written.
    pub fn export(&self, reference: &str, scratch: &Path, file: &Path) -> Result<(), LoadError> {
        let image = self.resolve(reference)?;
        let record = self.image_record(&image.digest)?;
        let record = record.ok_or_else(|| StoreError::NoImage(reference.to_owned()))?;
        let mut blobs: Vec<Blob> = Vec::new();
        for (number, tree) in image.layers.iter().enumerate() {
            let path = scratch.join(number.to_string());
            let what = format!("layer {}", number + 1);
            blobs.push(self.pack(tree, &image.config, path, &what)?);
        }
        let config = document(&record, &blobs);
        let written = File::create_new(file)
            .and_then(|file| write(&image, &config, &blobs, BufWriter::new(file)));
        Ok(written.map_err(StoreError::io("write", file))?)
    }

    /// Makes a layer's archive from its tree.
    fn pack(
        &self,
        tree: &Path,
        config: &ImageConfig,
        path: PathBuf,
        what: &str,
    ) -> Result<Blob, LoadError> {
        let failed = || StoreError::io("write", path.clone());
        let file = File::create_new(&path).map_err(failed())?;
        let hashing = Hashing {
            inner: BufWriter::with_capacity(WRITE_BYTES, file),
            hasher: Sha256::new(),
            bytes: 0,
        };
        let mut gzip = GzEncoder::new(hashing, Compression::default());
        let mut sink = match self.ownership() {
            Ownership::Real => LayerSink::exact(&mut gzip),
            // The owners on disk are the one user that there is.
            Ownership::Squashed => {
                let owner = (config.user.uid, config.user.gid);
                LayerSink::new(&mut gzip, &config.working_dir, owner)
            }
        };
        let taken = Harvest::new(tree, self.ownership(), &mut sink)
            .and_then(|mut harvest| harvest.take("", ""));
        taken.map_err(|error| LoadError::unusable(what, error.to_string()))?;
        let diff_id = sink.finish().map_err(failed())?;
        let mut hashing = gzip.finish().map_err(failed())?;
        hashing.inner.flush().map_err(failed())?;
        let (digest, bytes) = (digest_name(hashing.hasher), hashing.bytes);
        Ok(Blob { path, digest, bytes, diff_id })
    }
}

/// The configuration: the one that was hashed, if the layers are still those.
fn document(record: &ImageRecord, blobs: &[Blob]) -> Vec<u8> {
    let same = record.layers.iter().eq(blobs.iter().map(|blob| &blob.diff_id));
    if let Some(document) = record.document.as_ref().filter(|_| same) {
        return document.clone().into_bytes();
    }
    let ImageConfig { entrypoint, cmd, env, working_dir, user, exposed_port, stop_signal } =
        &record.config;
    let mut labels = serde_json::Map::new();
    if record.on_host {
        labels.insert(LABEL_BASE.to_owned(), BUILT_ON_HOST.into());
    }
    if let Some(kind) = record.watchdog_kind {
        labels.insert(LABEL_WATCHDOG.to_owned(), kind.name().into());
    }
    let mut config = json!({
        "User": format!("{}:{}", user.uid, user.gid),
        "Env": env,
        "WorkingDir": working_dir,
        "Labels": labels,
    });
    for (key, list) in [("Entrypoint", entrypoint), ("Cmd", cmd)] {
        if !list.is_empty() {
            config[key] = json!(list);
        }
    }
    if let Some(port) = exposed_port {
        config["ExposedPorts"] = json!({ format!("{port}/tcp"): {} });
    }
    if let Some(signal) = stop_signal {
        config["StopSignal"] = signal.to_string().into();
    }
    let diff_ids: Vec<&str> = blobs.iter().map(|blob| blob.diff_id.as_str()).collect();
    let document = json!({
        "architecture": machine(),
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    document.to_string().into_bytes()
}

fn write(image: &Image, config: &[u8], blobs: &[Blob], out: impl Write) -> io::Result<()> {
    let layer = |blob: &Blob| {
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &blob.digest, blob.bytes)
    };
    let config_digest = digest_of(config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len() as u64),
        "layers": blobs.iter().map(layer).collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_digest = digest_of(&manifest);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let mut listed = descriptor(media_type, &manifest_digest, manifest.len() as u64);
    let tag = image.reference.rsplit(':').next().unwrap_or_default();
    listed["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": tag,
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [listed],
    });
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", index.to_string().as_bytes())?;
    append(&mut tar, &blob_path(&manifest_digest), &manifest)?;
    append(&mut tar, &blob_path(&config_digest), config)?;
    let mut written: Vec<&str> = Vec::new();
    for blob in blobs {
        if !written.contains(&blob.digest.as_str()) {
            written.push(&blob.digest);
            let file = File::open(&blob.path)?;
            tar.append_data(
                &mut header(blob.bytes),
                blob_path(&blob.digest),
                file.take(blob.bytes),
            )?;
        }
    }
    tar.into_inner()?.flush()
}

fn descriptor(media_type: &str, digest: &str, bytes: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": bytes })
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(content.len() as u64), path, content)
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(SOURCE_DATE_EPOCH);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Hashes and counts what is written.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
