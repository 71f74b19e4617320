//! Pins: the image that a deploy was resolved to, which stays the deploy's own whatever its reference comes
//! to stand for, and whether a replica runs or not. A build pins the layer that only its compiler needs.

use std::{collections::HashSet, io};

use serde::{Deserialize, Serialize};

use super::{
    error::StoreError,
    record,
    store::{ImageStore, file_stem},
    stream::digest_of,
};

/// What an owner has pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PinRecord {
    owner: String,
    deploy: String,
    pub digest: String,
}

impl ImageStore {
    /// Keeps an image, or a layer that no image has, for a deploy of `owner`, durably, in place of that of an earlier
    /// deploy. It must be held by a lease until this is done.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn pin(&self, owner: &str, deploy: &str, digest: &str) -> Result<(), StoreError> {
        let [owner, deploy, digest] = [owner, deploy, digest].map(str::to_owned);
        let path = self.pin_path(&owner);
        let pin = PinRecord { owner, deploy, digest };
        if record::read::<PinRecord>(&path)?.as_ref() == Some(&pin) {
            return Ok(());
        }
        record::write(&path, &pin, self.workspace()?.path())
    }

    /// Digest of the image that is pinned for this deploy of `owner`.
    ///
    /// # Errors
    /// The pin cannot be read.
    pub fn pinned(&self, owner: &str, deploy: &str) -> Result<Option<String>, StoreError> {
        let pin: Option<PinRecord> = record::read(&self.pin_path(owner))?;
        Ok(pin.filter(|pin| pin.deploy == deploy).map(|pin| pin.digest))
    }

    /// Lets go of what `owner` has pinned.
    ///
    /// # Errors
    /// The pin cannot be removed.
    pub fn unpin(&self, owner: &str) -> Result<(), StoreError> {
        let path = self.pin_path(owner);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Lets go of what all others than `owners` have pinned: those who went while nobody looked.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn unpin_others(&self, owners: &HashSet<String>) -> Result<(), StoreError> {
        for pin in self.pins()?.into_iter().filter(|pin| !owners.contains(&pin.owner)) {
            self.unpin(&pin.owner)?;
        }
        Ok(())
    }

    pub(super) fn pins(&self) -> Result<Vec<PinRecord>, StoreError> {
        let mut pins = Vec::new();
        for name in self.names("pins", ".json")? {
            let path = self.dir().join("pins").join(format!("{}.json", file_stem(&name)));
            pins.extend(record::read::<PinRecord>(&path)?);
        }
        Ok(pins)
    }

    fn pin_path(&self, owner: &str) -> std::path::PathBuf {
        let hash = digest_of(owner.as_bytes());
        self.dir().join("pins").join(format!("{}.json", file_stem(&hash)))
    }
}
