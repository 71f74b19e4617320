//! The files of a slot's directory that the spawner makes; see [`crate::protocol`].

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use pinnace_core::Exit;

use crate::{
    channel::{Channel, Listener},
    failed::Doing as _,
};

/// Names of the files that are made.
const MADE: [&str; 4] = ["pid", "address", "exit.json", "init.sock"];

/// Bytes of exit.json; a longer one is not what an init writes.
const EXIT_BYTES_MAX: u64 = 4096;

/// Those of which the init needs a descriptor.
#[derive(Debug)]
pub(crate) struct Files {
    /// Where servers reach the init.
    pub(crate) control: Listener,
    /// exit.json.
    pub(crate) exit_file: OwnedFd,
}

impl Files {
    /// Makes them, which shows that the directory is used.
    pub(crate) fn make(dir: &Path) -> io::Result<Self> {
        let exit_file = new_file(dir, "exit.json").map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                io::Error::new(error.kind(), format!("its directory {} is in use", dir.display()))
            }
            _ => error,
        })?;
        match Channel::listen(&dir.join("init.sock")) {
            Ok(control) => Ok(Self { control, exit_file: exit_file.into() }),
            Err(error) => {
                clear(dir);
                Err(error).doing(|| format!("listen in {}", dir.display()))?
            }
        }
    }
}

/// Writes down what a later server finds the init by.
pub(crate) fn write_pid(dir: &Path, pid: i32, start_time: u64) -> io::Result<()> {
    new_file(dir, "pid")?.write_all(format!("{pid} {start_time}\n").as_bytes())
}

/// Writes down by which address the gateway knows the slot.
pub(crate) fn write_address(dir: &Path, address: Ipv4Addr) -> io::Result<()> {
    new_file(dir, "address")?.write_all(address.to_string().as_bytes())
}

/// What is written down of how a replica ended, if it is.
#[must_use]
pub fn exit(dir: &Path) -> Option<Exit> {
    let mut text = Vec::new();
    let file = fs::File::open(dir.join("exit.json")).ok()?;
    file.take(EXIT_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Removes them.
pub(crate) fn clear(dir: &Path) {
    for name in MADE {
        // Missing where the making did not get so far.
        let _ = fs::remove_file(dir.join(name));
    }
}

fn new_file(dir: &Path, name: &str) -> io::Result<fs::File> {
    let path = dir.join(name);
    let made = fs::File::options().write(true).create_new(true).mode(0o600).open(&path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        made => Ok(made.doing(|| format!("make {}", path.display()))?),
    }
}
