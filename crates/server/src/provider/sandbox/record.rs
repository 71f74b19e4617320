//! What the server writes into the directory of a replica's slot, so that a later server knows whose it is.

use std::{
    collections::BTreeSet, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path,
};

use pinnace_core::FunctionRef;
use pinnace_sandbox::protocol::SlotSpec;
use serde::{Deserialize, Serialize};

const FILE: &str = "replica.json";

/// Bytes of a record; a larger file is none.
const BYTES_MAX: u64 = 64 << 10;

/// How many of the slots with directories there have a replica.
pub fn replicas_in(slots: &Path) -> usize {
    let entries = fs::read_dir(slots).into_iter().flatten().flatten();
    let has_replica = |dir: &Path| fs::metadata(dir.join(FILE)).is_ok_and(|file| file.len() > 0);
    entries.filter(|entry| has_replica(&entry.path())).count()
}

/// Whose replica it is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub replica: String,
    /// Name of the function.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The deploy it belongs to.
    pub revision: u64,
    /// First deploy of the function, which tells it from an earlier one of the same name.
    #[serde(default)]
    pub created_at: String,
    /// How it is reached.
    pub door: Door,
    /// Its memory limit, in bytes.
    pub memory_bytes: u64,
    /// Its slot: the name of its control group, and its ids on the host.
    pub slot: SlotSpec,
    /// Digest of the image it runs on, `None` for `host`. The layers stay as long as it runs.
    pub image: Option<String>,
    /// Names of the secrets that it sees.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
}

/// How a replica is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Over the unix socket in its directory, where our watchdog listens.
    Socket,
    /// Over TCP, to this port inside.
    Port(u16),
}

impl Record {
    /// The function.
    ///
    /// # Errors
    /// The record names none.
    pub fn function(&self) -> io::Result<FunctionRef> {
        FunctionRef::new(&self.name, &self.namespace).map_err(io::Error::other)
    }

    /// Makes the file that it is written to, empty.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn make(dir: &Path) -> io::Result<()> {
        let mut new = fs::File::options();
        new.write(true).create_new(true).mode(0o600).open(dir.join(FILE)).map(drop)
    }

    /// Writes it, once. It need not survive a power cut: neither does the replica.
    ///
    /// # Errors
    /// The file is missing or cannot be written.
    pub fn write(&self) -> io::Result<()> {
        let mut file = fs::File::options().write(true).open(self.slot.dir.join(FILE))?;
        file.write_all(&serde_json::to_vec(self)?)
    }

    /// Removes it: a replica that is to end is for no later server to take over.
    pub fn remove(dir: &Path) {
        // A disk that takes nothing more has a later server end it again.
        let _ = fs::remove_file(dir.join(FILE));
    }

    /// Reads the record in a slot's directory.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path)?.len() > BYTES_MAX {
            return Err(io::Error::other("the record is too large to be one"));
        }
        let mut record: Self = serde_json::from_slice(&fs::read(path)?)?;
        // The state directory may have been moved.
        dir.clone_into(&mut record.slot.dir);
        Ok(record)
    }
}
