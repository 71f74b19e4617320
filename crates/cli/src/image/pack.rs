//! A directory as a tar stream, made while it is sent: owners as numbers, modes, links, extended
//! attributes as PAX records (`SCHILY.xattr.NAME`, as GNU tar and star write them).
//!
//! A thread walks and writes into a pipe; the body is the pipe's other end. If the walk fails, so does
//! the body: a half-made archive never looks like a whole one. Device nodes and sockets are left out:
//! a sandbox has its own.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, PipeReader, PipeWriter, Read},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tar::{Builder, EntryType, Header};
use walkdir::WalkDir;

use super::SourceError;

/// Bytes of one file's extended attributes (the kernel's own limit of a list and of a value).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Names of what was left out of a directory.
#[derive(Clone, Debug, Default)]
pub struct LeftOut(Arc<Mutex<Vec<String>>>);

impl LeftOut {
    fn add(&self, name: &Path) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name.display().to_string());
    }

    /// A sentence about it, if anything was left out.
    pub fn sentence(&self) -> Option<String> {
        const SHOWN: usize = 5;
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.is_empty() {
            return None;
        }
        let more = names.len().saturating_sub(SHOWN);
        let first = names[..names.len().min(SHOWN)].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Some(format!("device nodes and sockets are left out: {first}{more}"))
    }
}

/// The stream.
pub struct Packed {
    reader: PipeReader,
    worker: Option<JoinHandle<io::Result<()>>>,
}

impl Packed {
    /// Begins to pack a directory.
    ///
    /// # Errors
    /// There is no pipe to be had.
    pub fn start(dir: &Path, left_out: LeftOut) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let dir = dir.to_owned();
        let worker = thread::spawn(move || pack(&dir, writer, &left_out));
        Ok(Self { reader, worker: Some(worker) })
    }
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match self.worker.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(0),
            Some(Ok(Err(error))) => Err(SourceError::wrap(error.to_string())),
            Some(Err(_)) => Err(SourceError::wrap("packing the directory failed".to_owned())),
        }
    }
}

fn pack(dir: &Path, writer: PipeWriter, left_out: &LeftOut) -> io::Result<()> {
    let mut packer = Packer {
        builder: Builder::new(io::BufWriter::with_capacity(64 << 10, writer)),
        linked: HashMap::new(),
        left_out,
    };
    // What is mounted below the directory (such as /proc) is no part of the image.
    let walk = WalkDir::new(dir).follow_links(false).same_file_system(true).sort_by_file_name();
    for entry in walk {
        let entry = entry.map_err(|error| io::Error::other(format!("packing {error}")))?;
        let name = entry.path().strip_prefix(dir).unwrap_or(entry.path());
        let name = if name.as_os_str().is_empty() { Path::new("./") } else { name };
        packer.entry(entry.path(), name).map_err(|error| {
            io::Error::new(error.kind(), format!("packing {}: {error}", entry.path().display()))
        })?;
    }
    io::Write::flush(&mut packer.builder.into_inner()?)
}

struct Packer<'a> {
    builder: Builder<io::BufWriter<PipeWriter>>,
    /// Files with several names, under which they are already in the archive.
    linked: HashMap<(u64, u64), PathBuf>,
    left_out: &'a LeftOut,
}

impl Packer<'_> {
    fn entry(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        if kind.is_block_device() || kind.is_char_device() || kind.is_socket() {
            self.left_out.add(name);
            return Ok(());
        }
        let mut header = header(&metadata);
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            self.attributes(path)?;
            return self.builder.append_link(&mut header, name, fs::read_link(path)?);
        }
        if kind.is_file() && metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&id) {
                header.set_entry_type(EntryType::Link);
                return self.builder.append_link(&mut header, name, first);
            }
            self.linked.insert(id, name.to_owned());
        }
        self.attributes(path)?;
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            let body = Exactly { file: File::open(path)?, left: metadata.len() };
            return self.builder.append_data(&mut header, name, body);
        }
        header.set_entry_type(if kind.is_fifo() { EntryType::Fifo } else { EntryType::Directory });
        self.builder.append_data(&mut header, name, io::empty())
    }

    /// Writes the extended attributes of the entry that follows.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let attributes = extended_attributes(path)?;
        if attributes.is_empty() {
            return Ok(());
        }
        let records = attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(records)
    }
}

fn header(metadata: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

fn extended_attributes(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut buffer = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => length,
        // A filesystem without them.
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    for name in buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(text) = std::str::from_utf8(name) else { continue };
        let mut value = vec![0; XATTR_BYTES_MAX];
        match rustix::fs::lgetxattr(path, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Removed meanwhile, or for privileged eyes only.
            Err(
                rustix::io::Errno::NODATA | rustix::io::Errno::PERM | rustix::io::Errno::ACCESS,
            ) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        attributes.push((format!("SCHILY.xattr.{text}"), value));
    }
    attributes.sort();
    Ok(attributes)
}

/// Exactly as many bytes of a file as its header says, though it grow or shrink meanwhile.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    };

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Seen {
        name: String,
        kind: EntryType,
        mode: u32,
        link: String,
        body: String,
        xattrs: Vec<(String, String)>,
    }

    fn seen(dir: &Path, left_out: &LeftOut) -> Vec<Seen> {
        let packed = Packed::start(dir, left_out.clone()).unwrap();
        let mut archive = tar::Archive::new(packed);
        let mut all = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let xattrs = entry.pax_extensions().unwrap().into_iter().flatten().map(|record| {
                let record = record.unwrap();
                let value = String::from_utf8_lossy(record.value_bytes()).into_owned();
                (record.key().unwrap().to_owned(), value)
            });
            let xattrs = xattrs.filter(|(key, _)| key.starts_with("SCHILY.xattr.user.")).collect();
            let mut body = String::new();
            entry.read_to_string(&mut body).unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            assert_eq!(
                entry.header().uid().unwrap(),
                u64::from(rustix::process::getuid().as_raw())
            );
            assert_eq!(entry.header().username().unwrap(), Some(""));
            all.push(Seen {
                name: entry.path().unwrap().display().to_string(),
                kind: entry.header().entry_type(),
                mode: entry.header().mode().unwrap(),
                link: link.unwrap_or_default(),
                body,
                xattrs,
            });
        }
        all
    }

    #[test]
    fn a_tree_of_every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
        fs::create_dir(root.join("d".repeat(90))).unwrap();
        fs::write(root.join(&long), "long").unwrap();
        fs::write(root.join("a"), "hello").unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(root.join("a"), root.join("b")).unwrap();
        symlink("../x", root.join("s")).unwrap();
        let _socket = UnixListener::bind(root.join("sock")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let can_xattr = rustix::fs::setxattr(root.join("a"), "user.note", b"hi", flags).is_ok();
        let left_out = LeftOut::default();
        let all = seen(root, &left_out);
        let find = |name: &str| all.iter().find(|seen| seen.name == name).unwrap();
        assert_eq!(all[0].kind, EntryType::Directory, "the root comes first: {all:?}");
        let a = find("a");
        assert_eq!((a.kind, a.mode, a.body.as_str()), (EntryType::Regular, 0o4751, "hello"));
        let expected = [("SCHILY.xattr.user.note".to_owned(), "hi".to_owned())];
        assert_eq!(a.xattrs, if can_xattr { &expected[..] } else { &[] });
        assert_eq!((find("b").kind, find("b").link.as_str()), (EntryType::Link, "a"));
        assert_eq!((find("s").kind, find("s").link.as_str()), (EntryType::Symlink, "../x"));
        assert_eq!(find(&long).body, "long");
        assert_eq!(all.len(), 6, "{all:?}");
        let said = left_out.sentence().unwrap();
        assert_eq!(said, "device nodes and sockets are left out: sock");
    }

    #[test]
    fn a_walk_that_fails_fails_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let mut packed = Packed::start(&dir.path().join("none"), LeftOut::default()).unwrap();
        let error = packed.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        assert!(
            error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<SourceError>)
        );
    }

    #[test]
    fn a_reader_that_leaves_ends_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("big"), vec![1; 1 << 20]).unwrap();
        let mut packed = Packed::start(dir.path(), LeftOut::default()).unwrap();
        let worker = packed.worker.take().unwrap();
        drop(packed);
        assert_eq!(worker.join().unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
