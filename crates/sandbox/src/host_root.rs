//! The layers that come from no image: the mount points under every root, and the made-up root of image
//! `host`.
//!
//! A function of image `host` runs the host's own programs. It sees the host's /usr (mounted by the
//! spawner, read-only) and, of the rest, only what programs there need to start: links into /usr, a
//! made-up user list, and copies of the linker's cache, Debian's alternatives, certificates and the
//! time zone. Nothing else of /etc, and nothing of /root, /home or /var.

use std::{
    fs, io,
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

/// Makes the layers below `dir`, or finds them there from an earlier start.
///
/// The host's part is named after its content, so that a sandbox that still runs keeps the one it has.
///
/// # Errors
/// With the file they are about.
pub fn prepare(dir: &Path) -> io::Result<HostRoot> {
    let skeleton = build(dir, "skeleton", |root| {
        MOUNT_POINTS.iter().try_for_each(|point| create_directories(&root.join(point)))?;
        MOUNT_FILES.iter().try_for_each(|file| write_file(&root.join(file), b"", 0o644))
    })?;
    let host = build(dir, "host", host_layer)?;
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

/// Builds a layer beside its place and moves it there under the digest of its content.
fn build(
    dir: &Path,
    name: &str,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    create_directories(dir)?;
    let making = dir.join(format!("{name}.making"));
    // There is one only if a server was killed just here.
    let _ = fs::remove_dir_all(&making);
    let made = (|| {
        create_directories(&making)?;
        fill(&making)?;
        let place = dir.join(format!("{name}-{}", digest(&making)?));
        if place.is_dir() {
            return Ok(place);
        }
        fs::rename(&making, &place).doing(|| format!("make {}", place.display()))?;
        Ok(place)
    })();
    let _ = fs::remove_dir_all(&making);
    made
}

fn host_layer(root: &Path) -> io::Result<()> {
    for path in SYSTEM_DIRECTORIES {
        let inside = root.join(path.trim_start_matches('/'));
        match fs::read_link(path) {
            Ok(target) => {
                symlink(target, &inside).doing(|| format!("make {}", inside.display()))?;
            }
            Err(_) if Path::new(path).is_dir() => create_directories(&inside)?,
            Err(_) => {}
        }
    }
    create_directories(&root.join("usr"))?;
    create_directories(&root.join("etc"))?;
    for (path, content) in MADE_UP {
        write_file(&root.join(path), content.as_bytes(), 0o644)?;
    }
    let mut left = COPIED_ENTRIES_MAX;
    for path in COPIED {
        let inside = root.join(path.trim_start_matches('/'));
        create_directories(inside.parent().unwrap_or(root))?;
        copy(Path::new(path), &inside, &mut left)?;
    }
    Ok(())
}

/// Copies what is there; what cannot be read by this user, or is no file, link or directory, is left
/// out.
fn copy(from: &Path, to: &Path, left: &mut usize) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(from) else { return Ok(()) };
    if *left == 0 {
        let text = format!("has more than {COPIED_ENTRIES_MAX} entries with all below it");
        return Err(io::Error::other(format!("{} {text}", from.display())));
    }
    *left -= 1;
    if found.is_dir() {
        create_directories(to)?;
        let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
        for entry in entries.flatten() {
            copy(&entry.path(), &to.join(entry.file_name()), left)?;
        }
    } else if found.is_symlink() {
        copy_link(from, to)?;
    } else if found.is_file() && found.len() <= COPIED_FILE_BYTES_MAX {
        copy_file(from, found.permissions().mode(), to)?;
    }
    Ok(())
}

fn copy_link(from: &Path, to: &Path) -> io::Result<()> {
    let target = fs::read_link(from)?;
    let leads_to = fs::canonicalize(from).unwrap_or_default();
    // A sandbox has nothing at the end of other links.
    if leads_to.starts_with("/usr") || COPIED.iter().any(|copied| leads_to.starts_with(copied)) {
        symlink(target, to).doing(|| format!("make {}", to.display()))?;
    }
    Ok(())
}

fn copy_file(from: &Path, mode: u32, to: &Path) -> io::Result<()> {
    // What only root may read is not for functions.
    if mode & 0o004 == 0 {
        return Ok(());
    }
    match fs::read(from) {
        Ok(content) => write_file(to, &content, 0o644 | (mode & 0o111)),
        Err(_) => Ok(()),
    }
}

/// A file that anybody may read, whatever this process's umask is.
fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let doing = || format!("make {}", path.display());
    fs::write(path, content).doing(doing)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(doing)?)
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

/// A short name for everything below a directory: paths, links and contents.
fn digest(root: &Path) -> io::Result<String> {
    const BYTES: usize = 8;
    let mut hash = Sha256::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(&directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_encoded_bytes();
            let found = fs::symlink_metadata(&path)?;
            let content = if found.is_dir() {
                todo.push(path.clone());
                Vec::new()
            } else if found.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path)?
            };
            for part in [name, &found.permissions().mode().to_le_bytes(), &content] {
                hash.update(part.len().to_le_bytes());
                hash.update(part);
            }
        }
    }
    Ok(hash.finalize().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect())
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
    fn usr_is_always_bound() {
        assert_eq!(bound_directories()[0], Path::new("/usr"));
    }
}
