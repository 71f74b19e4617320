//! Bodies that are too large for the database: a file each, synced before its call is added.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use super::{LedgerError, writer::Change};

/// The directory of bodies.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    folder: PathBuf,
}

impl Bodies {
    /// Opens the directory, and makes it if it is missing.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }

    fn write(&self, number: u64, body: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.path(number))?;
        file.write_all(body)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()
    }

    /// Reads a body.
    pub(super) fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(number))
    }

    /// Removes a body; that there is none is no error.
    pub(super) fn remove(&self, number: u64) {
        let removed = fs::remove_file(self.path(number));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(number, %error, "the body of a call that has ended cannot be removed");
        }
    }

    /// Removes what belongs to no call: the server died before it was added, or after it had ended.
    pub(super) fn sweep(&self, known: &HashSet<u64>) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|number| !known.contains(number)) {
                self.remove(number);
            }
        }
        Ok(())
    }

    /// Starts the thread that writes bodies. It hands each call on when its body is on disk.
    pub(super) fn start(self, writer: mpsc::Sender<Change>) -> io::Result<mpsc::Sender<Change>> {
        let (sender, calls) = mpsc::channel();
        thread::Builder::new().name("queue-bodies".to_owned()).spawn(move || {
            for change in calls {
                self.hand_on(change, &writer);
            }
        })?;
        Ok(sender)
    }

    fn hand_on(&self, change: Change, writer: &mpsc::Sender<Change>) {
        let Change::Add(mut added) = change else { return drop(writer.send(change)) };
        let body = std::mem::take(&mut added.call.body);
        match self.write(added.number, &body) {
            Ok(()) => drop(writer.send(Change::Add(added))),
            Err(error) => {
                self.remove(added.number);
                let text = format!("could not keep a body of {} bytes: {error}", body.len());
                let _ = added.done.send(Err(LedgerError::Database(text)));
            }
        }
    }
}
