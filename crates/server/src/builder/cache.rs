//! Which layer was made of what. An entry says nothing that could not be found out again by making the layer; it
//! leads to nothing once that layer is gone from the store.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use pinnace_core::limits::BUILD_CACHE_ENTRIES_MAX;
use pinnace_sandbox::images::{HeldLayer, ImageStore};
use rustix::fs::{CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde::Serialize;

/// Bytes of an entry: a digest.
const ENTRY_BYTES_MAX: u64 = 128;

/// Layers by what they were made of.
#[derive(Debug)]
pub struct LayerCache {
    directory: PathBuf,
}

/// All that a layer depends on.
#[derive(Debug, Serialize)]
pub struct Ingredients<'a> {
    /// What the command ran on.
    pub base: &'a str,
    /// The layer over that.
    pub below: Option<&'a str>,
    /// Digest of the source that it saw.
    pub source: &'a str,
    /// Program and arguments.
    pub run: &'a [String],
    /// What was kept.
    pub keep: &'a [String],
    /// Its variables.
    pub env: &'a [String],
    /// Where it ran.
    pub workdir: &'a str,
    /// As whom.
    pub owner: (u32, u32),
}

impl Ingredients<'_> {
    /// Their digest, as a file's name.
    pub fn key(&self) -> String {
        // It is made of texts and numbers alone.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        ImageStore::digest_of(&bytes).trim_start_matches("sha256:").to_owned()
    }
}

impl LayerCache {
    /// Opens it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The layer that was made of this, if it is still there.
    pub fn find(&self, key: &str, images: &ImageStore) -> Option<HeldLayer> {
        let path = self.directory.join(key);
        let mut diff_id = String::new();
        fs::File::open(&path).ok()?.take(ENTRY_BYTES_MAX).read_to_string(&mut diff_id).ok()?;
        let found = images.hold_layer(&diff_id)?;
        // That it was asked for keeps it from being forgotten; one that cannot be noted is forgotten sooner.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let now = Timestamps { last_access: now, last_modification: now };
        let _ = utimensat(CWD, &path, &now, rustix::fs::AtFlags::empty());
        Some(found)
    }

    /// Remembers what a layer was made of.
    pub fn remember(&self, key: &str, layer: &HeldLayer) -> io::Result<()> {
        self.forget_oldest()?;
        let unfinished = self.directory.join(format!("{key}.new"));
        fs::write(&unfinished, &layer.diff_id)?;
        fs::rename(&unfinished, self.directory.join(key))
    }

    fn forget_oldest(&self) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let found = entry.metadata()?;
            entries.push((found.mtime(), found.mtime_nsec(), entry.path()));
        }
        let surplus = (entries.len() + 1).saturating_sub(BUILD_CACHE_ENTRIES_MAX);
        entries.sort();
        for (_, _, path) in entries.into_iter().take(surplus) {
            match fs::remove_file(path) {
                // Another build was faster.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_matters_is_in_the_key() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (run, keep, env) = (words("pip install"), words("/a"), words("A=1"));
        let all = || Ingredients {
            base: "b",
            below: None,
            source: "s",
            run: &run,
            keep: &keep,
            env: &env,
            workdir: "/w",
            owner: (1, 2),
        };
        let other = words("x");
        let keys = [
            all(),
            Ingredients { base: "c", ..all() },
            Ingredients { below: Some("b"), ..all() },
            Ingredients { source: "t", ..all() },
            Ingredients { run: &other, ..all() },
            Ingredients { keep: &other, ..all() },
            Ingredients { env: &other, ..all() },
            Ingredients { workdir: "/x", ..all() },
            Ingredients { owner: (1, 3), ..all() },
        ];
        let keys: std::collections::BTreeSet<_> = keys.iter().map(Ingredients::key).collect();
        assert_eq!(keys.len(), 9);
        assert_eq!(all().key(), all().key());
    }
}
