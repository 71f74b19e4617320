//! The lock file, by which health checks of the image see that the watchdog serves.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::settings::{Mode, Settings};

/// Where the lock file is, if there is to be one.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    suppressed: bool,
    makes_dir: bool,
}

impl Lock {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            path: settings.lock_dir.join(".lock"),
            suppressed: settings.suppress_lock,
            makes_dir: !matches!(settings.mode, Mode::Classic(_)),
        }
    }

    /// Makes the file, and its directory if that is missing (but for the classic watchdog, which needs it).
    pub fn put(&self) -> io::Result<()> {
        if self.suppressed {
            return Ok(());
        }
        if let Some(dir) = self.path.parent().filter(|_| self.makes_dir) {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o660).open(&self.path).map(drop)
    }

    /// Removes the file.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// Whether the function counts as healthy by it. With no file wanted there is none to look for.
    pub fn holds(&self) -> bool {
        self.suppressed || self.path.exists()
    }

    /// Whether there is to be no file.
    pub fn is_suppressed(&self) -> bool {
        self.suppressed
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
