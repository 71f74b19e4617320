//! Images made on the spot: good ones in every packing, and bad ones on purpose.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// As `docker save` of old and most registries do.
    Gzip,
    /// As newer builders do.
    Zstd,
}

/// A layer: a tar file under construction. Nothing is checked, so that bad ones can be made too.
#[derive(Default)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, None, content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, None, &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, Some(target), &[])
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, 0o644, Some(target), &[])
    }

    /// Adds a character device: the one of /dev/zero.
    #[must_use]
    pub fn device(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Char, 0o666, None, &[])
    }

    /// Adds the mark that hides a file of the layers below (OCI image-spec `layer.md`).
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.file(&format!("{folder}.wh.{name}"), 0o644, &[])
    }

    fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        link: Option<&str>,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        // The setters of the library refuse paths that climb; a hostile archive has them all the same.
        let bytes = header.as_old_mut();
        bytes.name[..path.len()].copy_from_slice(path.as_bytes());
        if let Some(link) = link {
            bytes.linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        if kind == tar::EntryType::Char {
            header.set_device_major(1).expect("ustar has the field");
            header.set_device_minor(5).expect("ustar has the field");
        }
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.tar.extend_from_slice(&[0; 1024]);
        self.tar
    }
}

/// An image as a registry has it.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Its configuration and layers, by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Parts {
    /// Digest of its manifest.
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Digests of its layers, lowest first.
    ///
    /// # Panics
    /// The manifest is none.
    #[must_use]
    pub fn layers(&self) -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&self.manifest).expect("a manifest is JSON");
        let layers = manifest["layers"].as_array().expect("a manifest has layers");
        layers.iter().filter_map(|layer| layer["digest"].as_str()).map(str::to_owned).collect()
    }
}

/// Digest of content as images write it.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

/// An image under construction.
pub struct Image {
    reference: String,
    config: Value,
    packing: Packing,
    layers: Vec<Vec<u8>>,
}

impl Image {
    /// An image whose configuration's `config` object is the given one.
    #[must_use]
    pub fn new(reference: &str, config: Value, packing: Packing) -> Self {
        Self { reference: reference.to_owned(), config, packing, layers: Vec::new() }
    }

    /// An image that holds the `hello` program alone, run as it is.
    #[must_use]
    pub fn hello(reference: &str) -> Self {
        let config = json!({ "Entrypoint": ["/hello"], "ExposedPorts": { "8080/tcp": {} } });
        let layer = Layer::default().file("hello", 0o755, &crate::hello());
        Self::new(reference, config, Packing::Plain).layer(layer)
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// The image as a tar file of an OCI layout.
    #[must_use]
    pub fn oci_layout(&self) -> Vec<u8> {
        tar_of(&self.oci_files())
    }

    /// The files of an OCI layout, for tests that change one.
    ///
    /// # Panics
    /// Never: memory takes it.
    #[must_use]
    pub fn oci_files(&self) -> Vec<(String, Vec<u8>)> {
        let config = self.config_json();
        let packed: Vec<_> = self.layers.iter().map(|layer| pack(layer, self.packing)).collect();
        let layer_type = match self.packing {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let layers: Vec<_> = packed.iter().map(|layer| descriptor(layer_type, layer)).collect();
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        }));
        let mut described = descriptor(manifest_type, &manifest);
        described["annotations"] = json!({ "org.opencontainers.image.ref.name": self.reference });
        let index = json!({ "schemaVersion": 2, "manifests": [described] });
        let blob = |content: Vec<u8>| (format!("blobs/sha256/{}", sha256(&content)), content);
        let mut files = vec![
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            ("index.json".to_owned(), bytes(&index)),
            blob(manifest),
            blob(config),
        ];
        files.extend(packed.into_iter().map(blob));
        files
    }

    /// The documents and blobs of the image as a registry has them.
    ///
    /// # Panics
    /// Never: they were made here.
    #[must_use]
    pub fn parts(&self) -> Parts {
        let mut files = self.oci_files();
        let index: Value = files
            .iter()
            .find(|(name, _)| name == "index.json")
            .map(|(_, content)| serde_json::from_slice(content).expect("it was made here"))
            .expect("a layout has an index");
        let manifest_digest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
        files.retain(|(name, _)| name.starts_with("blobs/"));
        let mut blobs: BTreeMap<String, Vec<u8>> = files
            .into_iter()
            .map(|(name, content)| (name.replace("blobs/sha256/", "sha256:"), content))
            .collect();
        let manifest = blobs.remove(manifest_digest).expect("an index names its manifest");
        Parts { manifest, blobs }
    }

    /// The image as `docker save` wrote it before Docker 25: `manifest.json` and a folder per layer.
    #[must_use]
    pub fn docker_save(&self) -> Vec<u8> {
        let config = self.config_json();
        let config_name = format!("{}.json", sha256(&config));
        let mut files = vec![(config_name.clone(), config)];
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}/layer.tar", sha256(layer));
            files.push((name.clone(), pack(layer, self.packing)));
            names.push(name);
        }
        let manifest = json!([{
            "Config": config_name, "RepoTags": [self.reference], "Layers": names,
        }]);
        files.push(("manifest.json".to_owned(), bytes(&manifest)));
        tar_of(&files)
    }

    fn config_json(&self) -> Vec<u8> {
        let ids: Vec<_> =
            self.layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        bytes(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": ids },
        }))
    }
}

/// A tar file of regular files.
#[must_use]
pub fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let add = |layer: Layer, (name, content): &(String, Vec<u8>)| layer.file(name, 0o644, content);
    files.iter().fold(Layer::default(), add).finish()
}

/// A layer as the tar file of a root directory.
#[must_use]
pub fn root_directory(layer: Layer) -> Vec<u8> {
    layer.finish()
}

fn pack(layer: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => layer.to_vec(),
        Packing::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(layer).expect("memory takes it");
            gzip.finish().expect("memory takes it")
        }
        Packing::Zstd => zstd::encode_all(layer, 1).expect("memory takes it"),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256(content)),
        "size": content.len(),
    })
}
