//! The layers that come from no image: the mount points under every root, and the made-up root of image
//! `host`.
//!
//! A function of image `host` runs the host's own programs. It sees the host's /usr (mounted by the
//! spawner, read-only) and, of the rest, only what programs there need to start: links into /usr, a
//! made-up user list, and copies of the linker's cache, Debian's alternatives, certificates and the
//! time zone. Nothing else of /etc, and nothing of /root, /home or /var.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::failed::Doing as _;

/// The layers, ready for use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot {
    /// Mount points only; the lowest layer of every root.
    pub skeleton: PathBuf,
    /// What image `host` has beside /usr; above the skeleton.
    pub host: PathBuf,
}

/// Where things are mounted or written in every sandbox.
const MOUNT_POINTS: [&str; 11] = [
    "proc",
    "sys",
    "dev",
    "tmp",
    "etc",
    "run",
    "usr",
    "root",
    ".pinnace",
    "var/openfaas/secrets",
    "var/tmp",
];

/// Files that others are bound over in every sandbox.
const MOUNT_FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// Directories that are links into /usr on a host whose /usr is merged, and mounts elsewhere.
const SYSTEM_DIRECTORIES: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What is copied from the host's /etc, where it is there.
const COPIED: [&str; 9] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/pki",
    "/etc/ssl/certs",
];

/// Files that say who and what is there, to programs that ask the C library.
const MADE_UP: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         app:x:1000:1000:app:/tmp:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\napp:x:1000:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    ("etc/host.conf", "multi on\n"),
    ("etc/os-release", "NAME=\"Pinnace host image\"\nID=pinnace-host\n"),
];

/// Bytes of one file that is copied; the greatest of them is the linker's cache.
const COPIED_FILE_BYTES_MAX: u64 = 16 << 20;

/// Entries that are copied in all.
const COPIED_ENTRIES_MAX: usize = 10_000;

/// Bytes that are copied in all, but for the last file.
const COPIED_BYTES_MAX: u64 = 64 << 20;

/// Makes the layers below `dir`, or finds them there from an earlier start; nothing is written then, so that a
/// full disk keeps nobody from starting.
///
/// They are named after their content, so that a sandbox that still runs keeps the one it has.
///
/// # Errors
/// With the file they are about.
pub fn prepare(dir: &Path) -> io::Result<HostRoot> {
    let mut skeleton = Layer::default();
    MOUNT_POINTS.iter().for_each(|point| skeleton.directory(point));
    MOUNT_FILES.iter().for_each(|file| skeleton.file(file, Vec::new(), 0o644));
    let skeleton = skeleton.made(dir, "skeleton")?;
    let host = host_layer()?.made(dir, "host")?;
    Ok(HostRoot { skeleton, host })
}

/// Directories of the host that are bound into image `host`.
#[must_use]
pub fn bound_directories() -> Vec<PathBuf> {
    let unmerged = SYSTEM_DIRECTORIES
        .iter()
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()));
    [&"/usr"].into_iter().chain(unmerged).map(PathBuf::from).collect()
}

fn host_layer() -> io::Result<Layer> {
    let mut layer = Layer::default();
    for path in SYSTEM_DIRECTORIES {
        match fs::read_link(path) {
            Ok(target) => layer.link(path, target),
            Err(_) if Path::new(path).is_dir() => layer.directory(path),
            Err(_) => {}
        }
    }
    layer.directory("usr");
    for (path, content) in MADE_UP {
        layer.file(path, content.into(), 0o644);
    }
    for path in COPIED {
        layer.copy(Path::new(path))?;
    }
    for path in java_settings() {
        layer.copy(&path)?;
    }
    Ok(layer)
}

/// Where Debian keeps what a Java runtime does not start without, a directory for each version.
fn java_settings() -> Vec<PathBuf> {
    let entries = fs::read_dir("/etc").into_iter().flatten().flatten();
    let is_java = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"java-"))
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_java).collect();
    found.sort();
    found
}

/// What a layer has, by path. Everything belongs to this user, and everybody may read it.
#[derive(Debug, Default)]
struct Layer {
    entries: BTreeMap<PathBuf, Entry>,
    file_bytes: u64,
}

#[derive(Debug)]
enum Entry {
    Directory,
    Link(PathBuf),
    File { content: Vec<u8>, mode: u32 },
}

impl Layer {
    fn directory(&mut self, path: impl AsRef<Path>) {
        self.add(path.as_ref(), Entry::Directory);
    }

    fn link(&mut self, path: impl AsRef<Path>, target: PathBuf) {
        self.add(path.as_ref(), Entry::Link(target));
    }

    fn file(&mut self, path: impl AsRef<Path>, content: Vec<u8>, mode: u32) {
        self.file_bytes += content.len() as u64;
        self.add(path.as_ref(), Entry::File { content, mode });
    }

    /// Adds it, and the directories above it.
    fn add(&mut self, path: &Path, entry: Entry) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            self.entries.entry(above.to_owned()).or_insert(Entry::Directory);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Copies what is there on the host; what cannot be read by this user, is too large, or is no file, link or
    /// directory, is left out.
    fn copy(&mut self, path: &Path) -> io::Result<()> {
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
        if self.entries.len() >= COPIED_ENTRIES_MAX || self.file_bytes > COPIED_BYTES_MAX {
            let most = format!("{COPIED_ENTRIES_MAX} entries or {COPIED_BYTES_MAX} bytes");
            let text = format!("up to {} there are more than {most} to copy", path.display());
            return Err(io::Error::other(text));
        }
        if found.is_dir() {
            self.directory(path);
            let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
            for entry in entries.flatten() {
                self.copy(&entry.path())?;
            }
        } else if found.is_symlink() {
            let leads_to = fs::canonicalize(path).unwrap_or_default();
            // A sandbox has nothing at the end of other links.
            if leads_to.starts_with("/usr") || COPIED.iter().any(|from| leads_to.starts_with(from))
            {
                self.link(path, fs::read_link(path)?);
            }
        } else if found.is_file() && found.len() <= COPIED_FILE_BYTES_MAX {
            let mode = found.permissions().mode();
            // What only root may read is not for functions.
            if mode & 0o004 != 0
                && let Ok(content) = fs::read(path)
            {
                self.file(path, content, 0o644 | (mode & 0o111));
            }
        }
        Ok(())
    }

    /// Its place below `dir`: it is there, or is made beside it and moved.
    fn made(&self, dir: &Path, name: &str) -> io::Result<PathBuf> {
        let place = dir.join(format!("{name}-{}", self.digest()));
        if place.is_dir() {
            return Ok(place);
        }
        create_directories(dir)?;
        let making = dir.join(format!("{name}.making"));
        // There is one only if a server was killed just here.
        let _ = fs::remove_dir_all(&making);
        let made = self.write(&making).and_then(|()| fs::rename(&making, &place));
        let _ = fs::remove_dir_all(&making);
        made.doing(|| format!("make {}", place.display()))?;
        Ok(place)
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        create_directories(root)?;
        for (path, entry) in &self.entries {
            let path = root.join(path);
            match entry {
                Entry::Directory => create_directories(&path)?,
                Entry::Link(target) => {
                    symlink(target, &path).doing(|| format!("make {}", path.display()))?;
                }
                Entry::File { content, mode } => write_file(&path, content, *mode)?,
            }
        }
        Ok(())
    }

    /// A short name for everything in it.
    fn digest(&self) -> String {
        const BYTES: usize = 8;
        let mut hash = Sha256::new();
        for (path, entry) in &self.entries {
            let (mode, content) = match entry {
                Entry::Directory => (0o040_755, [].as_slice()),
                Entry::Link(target) => (0o120_777, target.as_os_str().as_encoded_bytes()),
                Entry::File { content, mode } => (0o100_000 | mode, content.as_slice()),
            };
            for part in [path.as_os_str().as_encoded_bytes(), &mode.to_le_bytes(), content] {
                hash.update(part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A file that anybody may read, whatever this process's umask is. It is on its disk: the name of its layer
/// must say what is in it also after the machine has failed.
fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let write = || {
        let mut file = fs::File::create_new(path)?;
        file.write_all(content)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if content.is_empty() { Ok(()) } else { file.sync_all() }
    };
    Ok(write().doing(|| format!("make {}", path.display()))?)
}

/// Directories that anybody may enter, whatever this process's umask is.
fn create_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directories(parent)?;
    }
    fs::create_dir(path).doing(|| format!("make {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .doing(|| format!("make {}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_made_once_and_hold_nothing_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = prepare(dir.path()).unwrap();
        assert_eq!(prepare(dir.path()).unwrap(), made);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing half-made is left");
        for point in MOUNT_POINTS {
            let mode = fs::metadata(made.skeleton.join(point)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{point}");
        }
        assert!(fs::read_to_string(made.host.join("etc/passwd")).unwrap().contains("nobody"));
        for private in ["etc/shadow", "etc/ssl/private", "etc/ssh", "root", "home", "var"] {
            assert!(!made.host.join(private).exists(), "{private}");
        }
    }

    #[test]
    fn what_is_there_is_found_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let made = prepare(dir.path()).unwrap();
        // Root may write where the mode forbids it, but not make a directory where a file is.
        for name in ["skeleton.making", "host.making"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(prepare(dir.path()).unwrap(), made);
    }

    #[test]
    fn usr_is_always_bound() {
        assert_eq!(bound_directories()[0], Path::new("/usr"));
    }
}
