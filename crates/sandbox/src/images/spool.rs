//! The files of an archive, put aside on disk until all of it has come.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use pinnace_core::limits::{ARCHIVE_ENTRIES_MAX, ARCHIVE_NAME_BYTES_MAX, IMAGE_JSON_BYTES_MAX};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{
    entries::{Entries, Entry, Kind},
    error::{LoadError, StoreError, printable},
    stream::{digest_name, is_sha256_hex},
};

const WHAT: &str = "the archive";
/// Links from one name of an archive to the next.
const LINKS_MAX: usize = 16;

/// An archive's files by name.
pub(super) struct Spool {
    dir: PathBuf,
    files: HashMap<String, Blob>,
    links: HashMap<String, String>,
    count: usize,
}

/// A file of an archive.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    /// Where it is now.
    pub path: PathBuf,
    /// Its digest, `sha256:…`.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

impl Spool {
    /// Spools a whole archive into `dir`, which must be empty.
    pub(super) fn read(archive: impl Read, dir: &Path) -> Result<Self, LoadError> {
        let mut spool =
            Self { dir: dir.to_owned(), files: HashMap::new(), links: HashMap::new(), count: 0 };
        let mut entries = Entries::new(archive, WHAT);
        while let Some(entry) = entries.next()? {
            spool.take(&entry, &mut entries)?;
        }
        let (_, marked) = entries.finish()?;
        if marked { Ok(spool) } else { Err(LoadError::Truncated(WHAT.into())) }
    }

    /// The file of this name, links followed.
    pub(super) fn get(&self, name: &str) -> Option<&Blob> {
        let mut name = normal(name);
        for _ in 0..LINKS_MAX {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return self.files.get(&name),
            }
        }
        None
    }

    /// The file of this name, which `by` says there is.
    pub(super) fn need(&self, name: &str, by: &str) -> Result<&Blob, LoadError> {
        self.get(name).ok_or_else(|| LoadError::Missing {
            name: printable(name.as_bytes()),
            by: by.to_owned(),
        })
    }

    fn take<R: Read>(&mut self, entry: &Entry, body: &mut Entries<R>) -> Result<(), LoadError> {
        self.count += 1;
        if self.count > ARCHIVE_ENTRIES_MAX {
            return Err(LoadError::Limit {
                what: WHAT.into(),
                max: ARCHIVE_ENTRIES_MAX as u64,
                unit: "files (a root directory must be loaded as such)",
                limit: "ARCHIVE_ENTRIES_MAX",
            });
        }
        let name = normal(name_text(&entry.path)?);
        match entry.kind {
            Kind::File => {
                let blob = self.store(&name, body)?;
                self.links.remove(&name);
                self.files.insert(name, blob);
            }
            // A symbolic link counts from where it stands, a hard link from the top.
            Kind::Symlink => {
                let above = name.rsplit_once('/').map_or("", |(above, _)| above);
                let target = normal(&format!("{above}/{}", name_text(&entry.link)?));
                self.links.insert(name, target);
            }
            Kind::HardLink => {
                self.links.insert(name, normal(name_text(&entry.link)?));
            }
            Kind::Directory | Kind::Device | Kind::Fifo | Kind::Unknown => {}
        }
        Ok(())
    }

    fn store<R: Read>(&self, name: &str, body: &mut Entries<R>) -> Result<Blob, LoadError> {
        let path = self.dir.join(self.count.to_string());
        let mut file = File::create(&path).map_err(StoreError::io("make", &path))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        let mut bytes = 0;
        loop {
            match body.read(&mut buffer)? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    file.write_all(&buffer[..read]).map_err(StoreError::io("write", &path))?;
                    bytes += read as u64;
                }
            }
        }
        let blob = Blob { path, digest: digest_name(hasher), bytes };
        if let Some(hex) = name.strip_prefix("blobs/sha256/") {
            blob.check_digest(name, &format!("sha256:{hex}"))?;
        }
        Ok(blob)
    }
}

impl Blob {
    /// Checks the content against the digest that names it.
    pub(super) fn check_digest(&self, what: &str, expected: &str) -> Result<(), LoadError> {
        if self.digest == expected {
            return Ok(());
        }
        Err(LoadError::Digest {
            what: printable(what.as_bytes()),
            expected: printable(expected.as_bytes()),
            found: self.digest.clone(),
        })
    }

    /// The content of a small file.
    pub(super) fn content(&self, what: &str) -> Result<Vec<u8>, LoadError> {
        if self.bytes > IMAGE_JSON_BYTES_MAX {
            return Err(LoadError::Limit {
                what: printable(what.as_bytes()),
                max: IMAGE_JSON_BYTES_MAX,
                unit: "bytes",
                limit: "IMAGE_JSON_BYTES_MAX",
            });
        }
        Ok(std::fs::read(&self.path).map_err(StoreError::io("read", &self.path))?)
    }

    /// The content of a small JSON file.
    pub(super) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, LoadError> {
        parse(&self.content(what)?, what)
    }
}

/// Parses JSON; errors call it `what`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, LoadError> {
    serde_json::from_slice(bytes)
        .map_err(|source| LoadError::Json { what: printable(what.as_bytes()), source })
}

/// The digest that a file's name promises: 64 hexadecimal digits, whatever stands before and behind.
pub(super) fn digest_in_name(name: &str) -> Option<String> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_prefix("sha256:").unwrap_or(last).split('.').next()?;
    is_sha256_hex(hex).then(|| format!("sha256:{hex}"))
}

fn name_text(name: &[u8]) -> Result<&str, LoadError> {
    if name.len() > ARCHIVE_NAME_BYTES_MAX {
        return Err(LoadError::Limit {
            what: format!("{WHAT}: the name `{}`", printable(name)),
            max: ARCHIVE_NAME_BYTES_MAX as u64,
            unit: "bytes (a root directory must be loaded as such)",
            limit: "ARCHIVE_NAME_BYTES_MAX",
        });
    }
    str::from_utf8(name).map_err(|_| {
        LoadError::unusable(WHAT, format!("the name `{}` is no text", printable(name)))
    })
}

/// A name without `.` and `..`. Names are keys only; no path on disk is made of them.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_keys() {
        assert_eq!(normal("./a//b/../c"), "a/c");
        assert_eq!(normal("../../etc"), "etc");
        assert_eq!(normal("/"), "");
    }

    #[test]
    fn names_promise_digests() {
        let hex = "ab".repeat(32);
        let digest = Some(format!("sha256:{hex}"));
        for name in ["HEX.json", "sha256:HEX", "HEX.tar.gz", "blobs/sha256/HEX", "HEX"] {
            assert_eq!(digest_in_name(&name.replace("HEX", &hex)), digest, "{name}");
        }
        for name in ["config.json", "layer.tar", "HEX/layer.tar", "xHEX"] {
            assert_eq!(digest_in_name(&name.replace("HEX", &hex)), None, "{name}");
        }
    }

    #[test]
    fn links_are_followed_and_end() {
        let temp = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header.clone(), "one/layer.tar", &b"x"[..]).unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder.append_link(&mut header.clone(), "two/layer.tar", "../one/layer.tar").unwrap();
        builder.append_link(&mut header.clone(), "loop", "loop").unwrap();
        header.set_entry_type(tar::EntryType::Link);
        builder.append_link(&mut header, "three", "two/layer.tar").unwrap();
        let bytes = builder.into_inner().unwrap();
        let spool = Spool::read(&bytes[..], temp.path()).unwrap();
        assert_eq!(spool.get("./two/layer.tar").unwrap().bytes, 1);
        assert_eq!(spool.get("three").unwrap().bytes, 1);
        assert!(spool.get("loop").is_none());
        assert!(spool.need("four", "manifest.json").unwrap_err().to_string().contains("four"));
    }
}
