//! The small JSON files of the store.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use pinnace_core::{
    image::{ImageConfig, WatchdogKind},
    limits::IMAGE_JSON_BYTES_MAX,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::error::StoreError;

/// A reference and what it stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    /// The reference.
    pub reference: String,
    /// The image's digest.
    pub digest: String,
    /// RFC 3339 time of the load.
    pub loaded_at: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    /// What it runs.
    pub config: ImageConfig,
    /// Its layers' diff_ids, lowest first.
    pub layers: Vec<String>,
    /// The watchdog it starts with.
    pub watchdog: Option<String>,
    /// Which one that is, if it is known.
    #[serde(default)]
    pub watchdog_kind: Option<WatchdogKind>,
    /// Its configuration as it was hashed, if it was built here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Whether it stands on the host's own programs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_host: bool,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// Bytes of its files.
    pub size_bytes: u64,
}

/// Reads a record; `None` if there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(IMAGE_JSON_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(StoreError::io("read", path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::BadRecord { path: path.to_owned(), reason: error.to_string() })
}

/// Writes a record for good: whole under its name or not at all, whenever the power fails. `scratch` is a
/// directory on the same file system.
pub(super) fn write<T: Serialize>(
    path: &Path,
    record: &T,
    scratch: &Path,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record).map_err(|error| StoreError::BadRecord {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    write_bytes(path, &bytes, scratch)
}

/// Writes a file for good, as [`write`] does.
pub(super) fn write_bytes(path: &Path, bytes: &[u8], scratch: &Path) -> Result<(), StoreError> {
    let temporary = scratch.join("record");
    let put = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    put().map_err(StoreError::io("write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))
}
