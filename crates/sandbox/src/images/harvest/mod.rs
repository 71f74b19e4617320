//! What comes out of a build: a tree that a stranger's program has written, read by the rules of an archive.
//!
//! [`Harvest`] walks a directory by descriptors, beneath its root and through no link, in the order of the names'
//! bytes, and hands what it finds to a [`Sink`]: [`LayerSink`] makes a tar of it, [`TreeSink`] a tree elsewhere. Both
//! know of a file whether it is a program, and nothing else of its mode, owner or time: so the same content is
//! the same layer. Devices, sockets and pipes are left out. What overlayfs writes for something that was removed
//! becomes a whiteout.

mod layer;
mod tree_sink;

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use pinnace_core::limits::{IMAGE_UNPACKED_BYTES_MAX, LAYER_DEPTH_MAX, LAYER_ENTRIES_MAX};
use rustix::{
    fs::{self, Dir, FileType, Mode, OFlags},
    io::Errno,
};

pub(super) use self::layer::LayerSink;
use self::tree_sink::TreeSink;
use super::{
    error::printable,
    store::Ownership,
    tree::{self, DIRECTORY},
};

/// Why a tree cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// It is too large.
    #[error("it has more than {max} {unit} ({limit})")]
    Limit {
        /// How many are possible.
        max: u64,
        /// Of what.
        unit: &'static str,
        /// The limit's name.
        limit: &'static str,
    },
    /// Directories lie in each other too deep.
    #[error("{path}: it lies more than {LAYER_DEPTH_MAX} directories deep (LAYER_DEPTH_MAX)")]
    TooDeep {
        /// Where.
        path: String,
    },
    /// A file became another one while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// Which.
        path: String,
    },
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// On what.
        path: String,
        /// What it said.
        error: io::Error,
    },
}

/// What a harvest has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Yield {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Devices, sockets and pipes, which were left out.
    pub left_out: u64,
}

/// Where a harvest goes. Paths are the image's, without a slash at the beginning; a directory comes before what it
/// holds.
pub(super) trait Sink {
    /// A directory: one of the tree, or one above it.
    fn directory(&mut self, path: &[u8], found: Option<&fs::Stat>) -> io::Result<()>;
    /// A file.
    fn file(&mut self, path: &[u8], found: &fs::Stat, content: &File) -> io::Result<()>;
    /// A symbolic link.
    fn link(&mut self, path: &[u8], target: &[u8], found: &fs::Stat) -> io::Result<()>;
    /// Something of lower layers that is no more there.
    fn removed(&mut self, path: &[u8]) -> io::Result<()>;
    /// A directory of which lower layers show nothing.
    fn opaque(&mut self, path: &[u8]) -> io::Result<()>;
}

/// A tree that is read.
pub(super) struct Harvest<'s, S> {
    root: OwnedFd,
    ownership: Ownership,
    sink: &'s mut S,
    taken: Yield,
}

/// Copies a part of a build's source to where its commands find it: `from` of the tree at `source`, empty for all, to
/// the path `to` below `root`, whose files belong to `owner` of the host then. `false` if there is no such part.
///
/// # Errors
/// It is too large, or the system refuses.
pub fn lay_out(
    source: &Path,
    from: &str,
    (root, to): (&Path, &str),
    owner: Option<(u32, u32)>,
) -> Result<bool, HarvestError> {
    let refused = |error: Errno| fault(root.as_os_str().as_encoded_bytes(), error);
    let open = fs::openat(fs::CWD, root, DIRECTORY, Mode::empty()).map_err(refused)?;
    let mut sink = TreeSink::new(open, owner);
    let mut harvest = Harvest::new(source, Ownership::Squashed, &mut sink)?;
    harvest.take(from, to)
}

impl<'s, S: Sink> Harvest<'s, S> {
    /// Reads below `root`.
    pub(super) fn new(
        root: &Path,
        ownership: Ownership,
        sink: &'s mut S,
    ) -> Result<Self, HarvestError> {
        let open = fs::openat(fs::CWD, root, DIRECTORY, Mode::empty());
        let root = open.map_err(|error| fault(root.as_os_str().as_encoded_bytes(), error))?;
        Ok(Self { root, ownership, sink, taken: Yield::default() })
    }

    /// Takes what lies at the path `from`, to the path `to`; the directories above that are made. `false` if
    /// nothing is there.
    pub(super) fn take(&mut self, from: &str, to: &str) -> Result<bool, HarvestError> {
        let from = from.trim_matches('/').as_bytes();
        let to = to.trim_matches('/').as_bytes();
        let (above, name) = split(from);
        let opened = match tree::open_beneath(&self.root, above, DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            opened => opened.map_err(|error| fault(above, error))?,
        };
        let name = if name.is_empty() { b"." } else { name };
        let Some(found) = tree::look(&opened, name).map_err(|error| fault(from, error))? else {
            return Ok(false);
        };
        for (at, _) in to.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.sink.directory(&to[..at], None).map_err(|error| io_fault(&to[..at], error))?;
        }
        self.entry(&opened, name, &found, to, 0)?;
        Ok(true)
    }

    /// What was taken.
    pub(super) fn taken(&self) -> Yield {
        self.taken
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        found: &fs::Stat,
        to: &[u8],
        depth: usize,
    ) -> Result<(), HarvestError> {
        self.count(found)?;
        let system = |error: Errno| fault(to, error);
        let taken = match tree::file_type(found) {
            FileType::Directory => return self.directory(dir, name, (to, found), depth),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = File::from(tree::open_beneath(dir, name, flags).map_err(system)?);
                self.sink.file(to, found, &file)
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).map_err(system)?;
                self.sink.link(to, target.as_bytes(), found)
            }
            _ if tree::is_whiteout(found) => self.sink.removed(to),
            _ => {
                self.taken.left_out += 1;
                Ok(())
            }
        };
        taken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => HarvestError::Changed { path: printable(to) },
            _ => io_fault(to, error),
        })
    }

    fn directory(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        (to, found): (&[u8], &fs::Stat),
        depth: usize,
    ) -> Result<(), HarvestError> {
        if depth == LAYER_DEPTH_MAX {
            return Err(HarvestError::TooDeep { path: printable(to) });
        }
        let system = |error: Errno| fault(to, error);
        self.sink.directory(to, Some(found)).map_err(|error| io_fault(to, error))?;
        let inner = tree::open_beneath(dir, name, DIRECTORY).map_err(system)?;
        if self.is_opaque(&inner).map_err(system)? {
            self.sink.opaque(to).map_err(|error| io_fault(to, error))?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&inner).map_err(system)? {
            let name = entry.map_err(system)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
            if names.len() as u64 > LAYER_ENTRIES_MAX {
                return Err(too_many());
            }
        }
        names.sort_unstable();
        for name in names {
            let to = joined(to, &name);
            if let Some(found) = tree::look(&inner, &name).map_err(|error| fault(&to, error))? {
                self.entry(&inner, &name, &found, &to, depth + 1)?;
            }
        }
        Ok(())
    }

    fn is_opaque(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        let mut value = [0u8; 1];
        match fs::fgetxattr(directory, self.ownership.opaque_xattr(), &mut value) {
            Ok(_) => Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, found: &fs::Stat) -> Result<(), HarvestError> {
        self.taken.entries += 1;
        if self.taken.entries > LAYER_ENTRIES_MAX {
            return Err(too_many());
        }
        if tree::file_type(found) == FileType::RegularFile {
            self.taken.bytes = self.taken.bytes.saturating_add(size(found));
        }
        if self.taken.bytes > IMAGE_UNPACKED_BYTES_MAX {
            let (max, limit) = (IMAGE_UNPACKED_BYTES_MAX, "IMAGE_UNPACKED_BYTES_MAX");
            return Err(HarvestError::Limit { max, unit: "bytes", limit });
        }
        Ok(())
    }
}

fn too_many() -> HarvestError {
    HarvestError::Limit { max: LAYER_ENTRIES_MAX, unit: "entries", limit: "LAYER_ENTRIES_MAX" }
}

/// Whether somebody may execute it, which is all that a layer knows of its mode.
fn is_program(found: &fs::Stat) -> bool {
    found.st_mode & 0o111 != 0
}

fn size(found: &fs::Stat) -> u64 {
    u64::try_from(found.st_size).unwrap_or(0)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn joined(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

fn fault(path: &[u8], error: Errno) -> HarvestError {
    io_fault(path, error.into())
}

fn io_fault(path: &[u8], error: io::Error) -> HarvestError {
    HarvestError::Io { path: printable(path), error }
}

/// Counts what a directory holds, without following links, until one of the limits is passed: entries, and bytes on
/// the disk. For a tree that changes meanwhile.
///
/// # Errors
/// It cannot be read.
pub fn measure(root: &Path, entries_max: u64, bytes_max: u64) -> io::Result<(u64, u64)> {
    let (mut entries, mut bytes) = (0, 0);
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let Ok(listed) = std::fs::read_dir(&directory) else { continue };
        for entry in listed {
            // What goes away meanwhile counts no more.
            let Ok(entry) = entry else { continue };
            let Ok(found) = entry.metadata() else { continue };
            entries += 1;
            bytes += std::os::unix::fs::MetadataExt::blocks(&found) * 512;
            if found.is_dir() {
                todo.push(entry.path());
            }
            if entries > entries_max || bytes > bytes_max {
                return Ok((entries, bytes));
            }
        }
    }
    Ok((entries, bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// The entries of the layer that these paths of a tree make.
    fn layer(root: &Path, paths: &[&str]) -> (Vec<String>, String) {
        let mut bytes = Vec::new();
        let mut sink = LayerSink::new(&mut bytes, "/home/app", (1000, 1001));
        let mut harvest = Harvest::new(root, Ownership::Squashed, &mut sink).unwrap();
        for path in paths {
            harvest.take(path, path).unwrap();
        }
        let digest = sink.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            format!(
                "{} {:o} {}:{} {}",
                entry.path().unwrap().display(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap()
            )
        });
        (entries.collect(), digest)
    }

    fn tree(reversed: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("home/app");
        std::fs::create_dir_all(&app).unwrap();
        let mut names = ["a/x", "a.b", "b/y/z"];
        if reversed {
            names.reverse();
        }
        for name in names {
            let path = app.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, name).unwrap();
            let mode = if reversed { 0o4711 } else { 0o755 };
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("../../../../etc/passwd", app.join("link")).unwrap();
        dir
    }

    #[test]
    fn the_same_content_is_the_same_layer() {
        let (one, two) = (tree(false), tree(true));
        let (entries, digest) = layer(one.path(), &["/home/app"]);
        assert_eq!(layer(two.path(), &["/home/app"]), (entries.clone(), digest));
        assert_eq!(
            entries,
            [
                "home/ 755 0:0 315532800",
                "home/app/ 755 1000:1001 315532800",
                "home/app/a/ 755 1000:1001 315532800",
                "home/app/a/x 755 1000:1001 315532800",
                "home/app/a.b 755 1000:1001 315532800",
                "home/app/b/ 755 1000:1001 315532800",
                "home/app/b/y/ 755 1000:1001 315532800",
                "home/app/b/y/z 755 1000:1001 315532800",
                "home/app/link 777 1000:1001 315532800",
            ]
        );
    }

    #[test]
    fn parts_have_the_directories_above_them_once() {
        let tree = tree(false);
        let (entries, _) = layer(tree.path(), &["/home/app/a", "/home/app/b/y"]);
        let names: Vec<_> = entries.iter().filter_map(|entry| entry.split(' ').next()).collect();
        assert_eq!(
            names,
            [
                "home/",
                "home/app/",
                "home/app/a/",
                "home/app/a/x",
                "home/app/b/",
                "home/app/b/y/",
                "home/app/b/y/z"
            ]
        );
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(outside.join("deep")).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("../outside", root.join("way")).unwrap();
        let mut sink = LayerSink::new(Vec::new(), "", (0, 0));
        let mut harvest = Harvest::new(&root, Ownership::Squashed, &mut sink).unwrap();
        for path in ["way/secret", "way/deep", "../outside/secret", "nothing"] {
            assert!(!harvest.take(path, path).is_ok_and(|found| found), "{path}");
        }
        assert!(harvest.take("way", "way").unwrap(), "it is taken as a link");
        symlink(&outside, dir.path().join("linked-root")).unwrap();
        assert!(
            Harvest::new(&dir.path().join("linked-root"), Ownership::Squashed, &mut sink).is_err()
        );
    }

    #[test]
    fn what_overlayfs_has_marked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("part");
        std::fs::create_dir(&part).unwrap();
        fs::setxattr(&part, "user.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
        fs::mknodat(fs::CWD, part.join("gone"), FileType::CharacterDevice, Mode::empty(), 0)
            .unwrap();
        fs::mknodat(fs::CWD, part.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (entries, _) = layer(dir.path(), &["part"]);
        let names: Vec<_> = entries.iter().filter_map(|entry| entry.split(' ').next()).collect();
        assert_eq!(names, ["part/", "part/.wh..wh..opq", "part/.wh.gone"]);
    }

    #[test]
    fn a_source_is_laid_out_without_what_its_modes_say() {
        let tree = tree(true);
        let to = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(to.path().join("work")).unwrap();
        assert!(lay_out(tree.path(), "home/app/b", (to.path(), "/work/b"), None).unwrap());
        assert!(!lay_out(tree.path(), "home/none", (to.path(), "/work/none"), None).unwrap());
        let made = to.path().join("work/b/y/z");
        let mode = std::fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!((std::fs::read(&made).unwrap(), mode & 0o7777), (b"b/y/z".to_vec(), 0o755));
    }

    #[test]
    fn depth_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d/".repeat(LAYER_DEPTH_MAX + 2))).unwrap();
        let mut sink = LayerSink::new(Vec::new(), "", (0, 0));
        let mut harvest = Harvest::new(dir.path(), Ownership::Squashed, &mut sink).unwrap();
        assert!(matches!(harvest.take("d", "d"), Err(HarvestError::TooDeep { .. })));
    }
}
