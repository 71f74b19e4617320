//! Builds archives, good and bad, and looks at what became of them.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use pinnace_core::wire::ImageSummary;
use pinnace_sandbox::images::{Image, ImageStore, LoadError, LoadOptions, Ownership};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A time that files of layers get: 2001-09-09.
pub const MTIME: u64 = 1_000_000_000;

/// A tar under construction. Paths are written as they are, however bad.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path, "", content.as_bytes(), |_| ())
    }

    pub fn dir(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"", |header| header.set_mode(0o755))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"", |_| ())
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"", |_| ())
    }

    pub fn long_file(mut self, path: &str, content: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content.as_bytes()).unwrap();
        self
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn build(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// This machine's architecture in Go's words.
pub fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// An image to be put into archives of all forms.
#[derive(Clone)]
pub struct Spec {
    pub names: Vec<String>,
    pub layers: Vec<Vec<u8>>,
    /// The `config` object of the configuration.
    pub config: serde_json::Value,
    pub architecture: String,
}

impl Spec {
    pub fn new(name: &str, layers: Vec<Vec<u8>>) -> Self {
        Self {
            names: vec![name.to_owned()],
            layers,
            config: serde_json::json!({ "Cmd": ["/bin/app"] }),
            architecture: machine().to_owned(),
        }
    }

    pub fn config_bytes(&self) -> Vec<u8> {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
        serde_json::to_vec(&serde_json::json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [{ "created_by": "a test" }],
        }))
        .unwrap()
    }

    pub fn digest(&self) -> String {
        format!("sha256:{}", sha256(&self.config_bytes()))
    }

    /// As Docker up to 24 saves it: layers first, the manifest last; a layer that came before is a link.
    pub fn docker_legacy(specs: &[Self]) -> Vec<u8> {
        let mut tar = Tar::new();
        let mut items = Vec::new();
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for (at, spec) in specs.iter().enumerate() {
            let mut names = Vec::new();
            for (layer_at, layer) in spec.layers.iter().enumerate() {
                let dir =
                    format!("{}{layer_at}", sha256(format!("{at}").as_bytes())[..20].to_owned());
                let name = format!("{dir}/layer.tar");
                tar = tar.dir(&format!("{dir}/")).file(&format!("{dir}/VERSION"), "1.0");
                tar = match known.get(&sha256(layer)) {
                    Some(earlier) => tar.symlink(&name, &format!("../{earlier}")),
                    None => tar.entry(EntryType::Regular, &name, "", layer, |_| ()),
                };
                known.entry(sha256(layer)).or_insert_with(|| name.clone());
                names.push(name);
            }
            let config = format!("{}.json", spec.digest().strip_prefix("sha256:").unwrap());
            tar = tar.entry(EntryType::Regular, &config, "", &spec.config_bytes(), |_| ());
            items.push(
                serde_json::json!({ "Config": config, "RepoTags": spec.names, "Layers": names }),
            );
        }
        tar.file("manifest.json", &serde_json::to_string(&items).unwrap())
            .file("repositories", "{}")
            .build()
    }

    /// As Docker 25 and later save it.
    pub fn docker_modern(&self) -> Vec<u8> {
        let mut layout = Layout::new();
        let manifest = layout.add(self, <[u8]>::to_vec, "application/vnd.oci.image.layer.v1.tar");
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
        let item = serde_json::json!([{
            "Config": blob(&self.config_bytes()),
            "RepoTags": self.names,
            "Layers": self.layers.iter().map(|layer| blob(layer)).collect::<Vec<_>>(),
        }]);
        layout.build_with(&[manifest], |tar| tar.file("manifest.json", &item.to_string()))
    }

    /// As OCI tools write it, with layers packed by `pack`.
    pub fn oci(&self, pack: impl Fn(&[u8]) -> Vec<u8>, media_type: &str) -> Vec<u8> {
        let mut layout = Layout::new();
        let mut manifest = layout.add(self, pack, media_type);
        manifest["annotations"] =
            serde_json::json!({ "org.opencontainers.image.ref.name": self.names[0] });
        layout.build(&[manifest])
    }
}

/// An OCI image layout under construction.
pub struct Layout(pub BTreeMap<String, Vec<u8>>);

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const ZSTD_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Layout {
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds a blob and returns its descriptor.
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> serde_json::Value {
        let digest = sha256(&bytes);
        let size = bytes.len();
        self.0.insert(format!("blobs/sha256/{digest}"), bytes);
        serde_json::json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
    }

    /// Adds an image and returns the descriptor of its manifest.
    pub fn add(
        &mut self,
        spec: &Spec,
        pack: impl Fn(&[u8]) -> Vec<u8>,
        media_type: &str,
    ) -> serde_json::Value {
        let layers: Vec<_> =
            spec.layers.iter().map(|layer| self.blob(media_type, pack(layer))).collect();
        let config = self.blob("application/vnd.oci.image.config.v1+json", spec.config_bytes());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        self.blob(MANIFEST, serde_json::to_vec(&manifest).unwrap())
    }

    pub fn add_index(&mut self, manifests: &[serde_json::Value]) -> serde_json::Value {
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
        self.blob(INDEX, serde_json::to_vec(&index).unwrap())
    }

    pub fn build(self, manifests: &[serde_json::Value]) -> Vec<u8> {
        self.build_with(manifests, |tar| tar)
    }

    pub fn build_with(
        self,
        manifests: &[serde_json::Value],
        more: impl FnOnce(Tar) -> Tar,
    ) -> Vec<u8> {
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let mut tar = Tar::new().dir("blobs/").dir("blobs/sha256/");
        for (name, bytes) in &self.0 {
            tar = tar.entry(EntryType::Regular, name, "", bytes, |_| ());
        }
        let tar = tar
            .file("index.json", &index.to_string())
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        more(tar).build()
    }
}

/// A store in a directory of its own, beside something that nothing may touch.
pub struct Place {
    pub store: ImageStore,
    temp: tempfile::TempDir,
    before: Vec<String>,
}

impl Place {
    pub fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self::with(if root { Ownership::Real } else { Ownership::Squashed })
    }

    pub fn with(ownership: Ownership) -> Self {
        Self::at(tempfile::tempdir().unwrap(), ownership)
    }

    /// Where nothing need be made durable, for tests of many loads.
    pub fn in_memory(ownership: Ownership) -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").unwrap(), ownership)
    }

    fn at(temp: tempfile::TempDir, ownership: Ownership) -> Self {
        std::fs::create_dir_all(temp.path().join("sentinel/etc")).unwrap();
        std::fs::write(temp.path().join("sentinel/etc/passwd"), "sentinel").unwrap();
        let store = ImageStore::open(&temp.path().join("store"), ownership).unwrap();
        let mut place = Self { store, temp, before: Vec::new() };
        place.before = place.outside();
        place
    }

    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    pub fn sentinel(&self) -> PathBuf {
        self.temp.path().join("sentinel")
    }

    pub fn load(&self, archive: &[u8]) -> Result<Vec<ImageSummary>, LoadError> {
        self.load_with(archive, &LoadOptions::default())
    }

    pub fn load_with(
        &self,
        archive: &[u8],
        options: &LoadOptions,
    ) -> Result<Vec<ImageSummary>, LoadError> {
        self.store.load(archive, options, &mut |_| ())
    }

    /// Loads one layer as the image `a:1`.
    pub fn layer(&self, tar: impl AsRef<[u8]>) -> Result<Vec<ImageSummary>, LoadError> {
        self.load(&Spec::docker_legacy(&[Spec::new("a:1", vec![tar.as_ref().to_vec()])]))
    }

    /// Loads one layer and says where its tree is.
    pub fn tree(&self, tar: impl AsRef<[u8]>) -> PathBuf {
        self.layer(tar).unwrap();
        self.image("a:1").layers.last().unwrap().clone()
    }

    pub fn image(&self, reference: &str) -> Image {
        self.store.resolve(reference).unwrap()
    }

    /// All that is in the store.
    pub fn contents(&self) -> Vec<String> {
        describe(&self.dir())
    }

    /// Checks that nothing was made or changed outside of the store, and nothing half-made left in it.
    pub fn check(&self) {
        assert_eq!(self.outside(), self.before, "something outside of the store was touched");
        assert_eq!(std::fs::read_dir(self.dir().join("tmp")).unwrap().count(), 0);
    }

    fn outside(&self) -> Vec<String> {
        describe(&self.sentinel())
            .into_iter()
            .chain(
                std::fs::read_dir(self.temp.path())
                    .unwrap()
                    .map(|e| format!("{:?}", e.unwrap().path())),
            )
            .collect()
    }
}

/// A line for each file of a tree: path, kind, mode, owner, time, content or target.
pub fn describe(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let what = if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).into_iter().flatten().map(|e| e.unwrap().path()));
            String::new()
        } else if meta.is_symlink() {
            format!("-> {:?}", std::fs::read_link(&path).unwrap())
        } else if meta.is_file() {
            std::fs::read(&path).map_or_else(|e| e.to_string(), |bytes| sha256(&bytes))
        } else {
            format!("special {}", meta.file_type().is_fifo())
        };
        let name = path.strip_prefix(root).unwrap().display().to_string();
        lines.push(format!("{name} {:o} {}:{} {what}", meta.mode(), meta.uid(), meta.gid()));
    }
    lines.sort();
    lines
}
