//! What the server writes into a replica's directory, so that a later server knows whose it is.

use std::{fs, io, path::Path};

use pinnace_core::FunctionRef;
use pinnace_sandbox::protocol::SlotSpec;
use serde::{Deserialize, Serialize};

const FILE: &str = "replica.json";

/// Bytes of a record; a larger file is none.
const BYTES_MAX: u64 = 64 << 10;

/// Whose replica it is, and how it is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
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

    /// Writes it. It need not survive a power cut: neither does the replica.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join(FILE), serde_json::to_vec(self)?)
    }

    /// Notes that a replica has another slot than was written.
    ///
    /// # Errors
    /// The record cannot be read or written.
    pub fn move_to(dir: &Path, slot: &SlotSpec) -> io::Result<()> {
        Self { slot: slot.clone(), ..Self::read(dir)? }.write(dir)
    }

    /// Reads the record in a replica's directory.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        if fs::metadata(&path)?.len() > BYTES_MAX {
            return Err(io::Error::other("the record is too large to be one"));
        }
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}
