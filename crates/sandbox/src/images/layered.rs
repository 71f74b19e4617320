//! Reads small files of an image as they will appear in its overlay, without mounting one.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use pinnace_core::limits::LAYER_LINKS_FOLLOWED_MAX;
use rustix::{
    fs::{self, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    store::Ownership,
    tree::{self, DIRECTORY},
};

/// The layers of an image, looked through from the highest down.
pub(super) struct Layered {
    /// Highest first.
    layers: Vec<OwnedFd>,
    ownership: Ownership,
}

/// What a name stands for in the merged tree.
enum Found {
    Nothing,
    /// A directory, and the layers that make it up.
    Directory(Vec<usize>),
    /// A file, and its layer.
    File(usize),
    /// A symbolic link, and its target.
    Link(Vec<u8>),
}

impl Layered {
    /// Opens layers, given lowest first.
    pub(super) fn open(
        layers: &[PathBuf],
        ownership: Ownership,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let open = |path: &PathBuf| {
            fs::openat(fs::CWD, path, DIRECTORY, Mode::empty())
                .map_err(|errno| (path.clone(), errno.into()))
        };
        Ok(Self { layers: layers.iter().rev().map(open).collect::<Result<_, _>>()?, ownership })
    }

    /// The content of a regular file of at most `bytes_max` bytes, `None` if there is none at `path`.
    /// Symbolic links lead where they lead inside the image.
    pub(super) fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((layer, path)) = self.find(path)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = tree::open_beneath(&self.layers[layer], &path, flags)?;
        if tree::file_type(&fs::fstat(&fd)?) != FileType::RegularFile {
            return Ok(None);
        }
        let mut content = Vec::new();
        File::from(fd).take(bytes_max + 1).read_to_end(&mut content)?;
        if content.len() as u64 > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {bytes_max} bytes"),
            ));
        }
        Ok(Some(content))
    }

    /// The layer and the path there of the file that `path` leads to.
    fn find(&self, path: &Path) -> Result<Option<(usize, Vec<u8>)>, Errno> {
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let mut todo: VecDeque<Vec<u8>> = names(bytes);
        // The directories gone through, each with the layers that make it up.
        let mut above: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                above.pop();
                continue;
            }
            let mut full = above.last().map_or_else(Vec::new, |(path, _)| path.clone());
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(&name);
            let all: Vec<usize> = (0..self.layers.len()).collect();
            let among = above.last().map_or(&all, |(_, layers)| layers);
            match self.look(&full, among)? {
                Found::Directory(layers) => above.push((full, layers)),
                Found::File(layer) if todo.is_empty() => return Ok(Some((layer, full))),
                Found::Nothing | Found::File(_) => return Ok(None),
                Found::Link(target) => {
                    links += 1;
                    if links > LAYER_LINKS_FOLLOWED_MAX {
                        return Ok(None);
                    }
                    if target.starts_with(b"/") {
                        above.clear();
                    }
                    let mut next = names(&target);
                    next.append(&mut todo);
                    todo = next;
                }
            }
        }
        Ok(None)
    }

    /// What `path`, whose parents are directories, stands for in these layers.
    fn look(&self, path: &[u8], among: &[usize]) -> Result<Found, Errno> {
        let mut directory = Vec::new();
        for &layer in among {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match tree::open_beneath(&self.layers[layer], path, flags) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            let stat = fs::fstat(&fd)?;
            match tree::file_type(&stat) {
                FileType::Directory => {
                    directory.push(layer);
                    if self.is_opaque(layer, path)? {
                        break;
                    }
                }
                _ if !directory.is_empty() || tree::is_whiteout(&stat) => break,
                FileType::Symlink => return self.link(layer, path),
                _ => return Ok(Found::File(layer)),
            }
        }
        Ok(if directory.is_empty() { Found::Nothing } else { Found::Directory(directory) })
    }

    fn link(&self, layer: usize, path: &[u8]) -> Result<Found, Errno> {
        let target = fs::readlinkat(&self.layers[layer], path, Vec::new())?;
        Ok(Found::Link(target.into_bytes()))
    }

    fn is_opaque(&self, layer: usize, path: &[u8]) -> Result<bool, Errno> {
        let fd = tree::open_beneath(&self.layers[layer], path, DIRECTORY)?;
        let mut value = [0u8; 1];
        match fs::fgetxattr(&fd, self.ownership.opaque_xattr(), &mut value) {
            Ok(_) => Ok(value == *b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

fn names(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Image {
        _dir: tempfile::TempDir,
        layers: Vec<PathBuf>,
    }

    impl Image {
        fn new(layers: usize) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let paths: Vec<PathBuf> =
                (0..layers).map(|n| temp.path().join(n.to_string())).collect();
            for path in &paths {
                std::fs::create_dir(path).unwrap();
            }
            Self { _dir: temp, layers: paths }
        }

        fn file(&self, layer: usize, path: &str, text: &str) {
            let path = self.layers[layer].join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn whiteout(&self, layer: usize, path: &str) {
            let path = self.layers[layer].join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::mknodat(fs::CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }

        fn read(&self, path: &str) -> Option<String> {
            let layered = Layered::open(&self.layers, Ownership::Squashed).unwrap();
            layered.read(Path::new(path), 100).unwrap().map(|text| String::from_utf8(text).unwrap())
        }
    }

    #[test]
    fn the_highest_layer_wins_and_whiteouts_hide() {
        let image = Image::new(3);
        image.file(0, "etc/passwd", "low");
        image.file(0, "etc/group", "group");
        image.file(1, "etc/passwd", "high");
        assert_eq!(image.read("/etc/passwd").as_deref(), Some("high"));
        image.whiteout(2, "etc/passwd");
        assert_eq!(image.read("/etc/passwd"), None);
        assert_eq!(image.read("/etc/group").as_deref(), Some("group"));
        assert_eq!(image.read("/etc"), None);
        assert_eq!(image.read("/etc/passwd/x"), None);
    }

    #[test]
    fn opaque_directories_and_replaced_ones_hide() {
        let image = Image::new(3);
        image.file(0, "etc/passwd", "low");
        image.file(1, "etc/other", "x");
        let etc = image.layers[1].join("etc");
        fs::setxattr(etc, "user.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
        assert_eq!(image.read("/etc/passwd"), None);
        image.file(0, "opt/a", "low");
        image.file(1, "opt", "file");
        image.file(2, "opt/b", "high");
        assert_eq!(image.read("/opt/a"), None);
        assert_eq!(image.read("/opt/b").as_deref(), Some("high"));
    }

    #[test]
    fn links_lead_within_the_image() {
        let image = Image::new(2);
        image.file(0, "usr/etc/passwd", "mine");
        std::fs::create_dir(image.layers[1].join("etc")).unwrap();
        symlink("../../../usr/etc/passwd", image.layers[1].join("etc/passwd")).unwrap();
        assert_eq!(image.read("/etc/passwd").as_deref(), Some("mine"));
        symlink("/usr/etc", image.layers[0].join("config")).unwrap();
        assert_eq!(image.read("/config/passwd").as_deref(), Some("mine"));
        symlink("loop", image.layers[0].join("loop")).unwrap();
        assert_eq!(image.read("/loop/x"), None);
        symlink("/etc/hostname", image.layers[0].join("outside")).unwrap();
        assert_eq!(image.read("/outside"), None);
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let image = Image::new(1);
        image.file(0, "big", &"x".repeat(101));
        let layered = Layered::open(&image.layers, Ownership::Squashed).unwrap();
        assert!(layered.read(Path::new("/big"), 100).is_err());
        assert!(layered.read(Path::new("/big"), 101).unwrap().is_some());
        fs::mknodat(fs::CWD, image.layers[0].join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(image.read("/pipe"), None);
    }
}
