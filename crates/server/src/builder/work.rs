//! Directories that builds work in.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use pinnace_sandbox::images::remove_tree;

/// Makes them.
#[derive(Debug)]
pub struct WorkDirs {
    directory: PathBuf,
    next: AtomicU64,
}

/// One of them, which goes with all it holds.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDirs {
    /// Makes the directory that they are in, empty.
    pub fn open(directory: &Path) -> io::Result<Self> {
        remove(directory)?;
        make_private(directory)?;
        Ok(Self { directory: directory.to_owned(), next: AtomicU64::new(0) })
    }

    /// A new one.
    pub fn make(&self) -> io::Result<WorkDir> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        WorkDir::make(self.directory.join(number))
    }
}

impl WorkDir {
    /// Makes it at this path.
    pub fn make(path: PathBuf) -> io::Result<Self> {
        make_private(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A directory in it.
    pub fn subdirectory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        make_private(&path)?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let removal = move || {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "what a build has left stays until the next start");
            }
        };
        // A stranger's tree may be large, and threads that serve do not wait for it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(removal)),
            Err(_) => removal(),
        }
    }
}

/// Removes a directory with all that it holds, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot make {}: {error}", path.display()))
    })
}
