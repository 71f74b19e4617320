//! A harvest as the tar of a layer, the same for the same content.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use pinnace_core::build::SOURCE_DATE_EPOCH;
use rustix::fs::Stat;
use sha2::{Digest as _, Sha256};

use super::{Sink, is_program, size};
use crate::images::stream::digest_name;

/// Writes a layer.
pub(crate) struct LayerSink<W: Write> {
    tar: tar::Builder<Hashing<W>>,
    /// Whose everything at and below `own` is.
    owner: (u32, u32),
    own: Vec<u8>,
    /// Whether owners, modes and times are those of the tree: a layer of the store that goes elsewhere.
    exact: bool,
    /// Directories that were written, the last of each depth.
    written: Vec<Vec<u8>>,
}

/// Hashes what is written.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> LayerSink<W> {
    /// Writes to `inner`. What lies at or below the path `own`, or not above it, belongs to `owner`; the directories
    /// above belong to root, as in every image.
    pub(crate) fn new(inner: W, own: &str, owner: (u32, u32)) -> Self {
        let mut tar = tar::Builder::new(Hashing { inner, hasher: Sha256::new() });
        tar.mode(tar::HeaderMode::Deterministic);
        let own = own.trim_matches('/').as_bytes().to_vec();
        Self { tar, owner, own, exact: false, written: Vec::new() }
    }

    /// The same, with owners, modes and times as the tree has them.
    pub(crate) fn exact(inner: W) -> Self {
        Self { exact: true, ..Self::new(inner, "", (0, 0)) }
    }

    /// The layer's diff_id, with all of it written.
    pub(crate) fn finish(self) -> io::Result<String> {
        let mut hashing = self.tar.into_inner()?;
        hashing.inner.flush()?;
        Ok(digest_name(hashing.hasher))
    }

    fn header(
        &self,
        path: &[u8],
        kind: tar::EntryType,
        (mode, bytes): (u32, u64),
        found: Option<&Stat>,
    ) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes);
        header.set_mtime(SOURCE_DATE_EPOCH);
        let is_above = self.own.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        let (uid, gid) = if is_above { (0, 0) } else { self.owner };
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        if let Some(found) = found.filter(|_| self.exact) {
            header.set_mode(found.st_mode & 0o7777);
            header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
            header.set_uid(found.st_uid.into());
            header.set_gid(found.st_gid.into());
        }
        header
    }

    fn empty(&mut self, path: &[u8]) -> io::Result<()> {
        let mut header = self.header(path, tar::EntryType::Regular, (0o644, 0), None);
        // What it marks has no owner.
        header.set_uid(0);
        header.set_gid(0);
        self.tar.append_data(&mut header, as_path(path), io::empty())
    }
}

impl<W: Write> Sink for LayerSink<W> {
    fn directory(&mut self, path: &[u8], found: Option<&Stat>) -> io::Result<()> {
        // Two parts of a layer have the directories above them in common.
        if path.is_empty() || self.written.iter().any(|written| written == path) {
            return Ok(());
        }
        self.written.retain(|written| {
            path.strip_prefix(written.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        });
        self.written.push(path.to_vec());
        let mut header = self.header(path, tar::EntryType::Directory, (0o755, 0), found);
        let name = [path, b"/"].concat();
        self.tar.append_data(&mut header, as_path(&name), io::empty())
    }

    fn file(&mut self, path: &[u8], found: &Stat, content: &File) -> io::Result<()> {
        let (mode, bytes) = (if is_program(found) { 0o755 } else { 0o644 }, size(found));
        let mut header = self.header(path, tar::EntryType::Regular, (mode, bytes), Some(found));
        let mut content = Exactly { inner: content, left: bytes };
        self.tar.append_data(&mut header, as_path(path), &mut content)
    }

    fn link(&mut self, path: &[u8], target: &[u8], found: &Stat) -> io::Result<()> {
        let mut header = self.header(path, tar::EntryType::Symlink, (0o777, 0), Some(found));
        self.tar.append_link(&mut header, as_path(path), as_path(target))
    }

    fn removed(&mut self, path: &[u8]) -> io::Result<()> {
        let (above, name) = super::split(path);
        self.empty(&super::joined(above, &[b".wh.", name].concat()))
    }

    fn opaque(&mut self, path: &[u8]) -> io::Result<()> {
        self.empty(&super::joined(path, b".wh..wh..opq"))
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// So many bytes of a file: an end before them is an error, and what comes behind them is not read.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}
