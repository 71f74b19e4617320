//! Fetching one blob, from where an earlier try stopped.
//!
//! What has come lies in the store's `partial/`. Before a try goes on, all of that is read and hashed, so
//! that what is checked at the end is what the file holds. A blob with another digest than its own is thrown
//! away; if it had been begun by an earlier pull, it is fetched once more from its first byte.

use std::{io, path::Path};

use http::{StatusCode, header};
use pinnace_core::{limits, retry::Tries};
use pinnace_sandbox::images::RemoteBlob;
use sha2::{Digest, Sha256};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};

use super::{
    client::Answer,
    error::{PullError, PullFault},
    progress::Teller,
    repository::{Part, Repository, wait_or_give_up},
};

/// Bytes read at once of what has come before.
const READ_BYTES: usize = 128 << 10;

/// A blob on its way.
struct Partial<'a> {
    file: File,
    path: &'a Path,
    bytes: u64,
    hasher: Sha256,
    teller: &'a Teller,
}

/// Fetches a blob to `path`. Nobody else may write there meanwhile.
pub(super) async fn fetch(
    repository: &Repository<'_>,
    blob: &RemoteBlob,
    path: &Path,
    teller: &Teller,
) -> Result<(), PullError> {
    let mut partial = Partial::open(path, teller).await?;
    let mut has_earlier = partial.bytes > 0;
    let mut tries = Tries::default();
    loop {
        let before = partial.bytes;
        let more = more(repository, blob, &mut partial).await;
        partial.flush().await?;
        match more {
            Ok(()) if partial.digest() == blob.digest => return Ok(()),
            Ok(()) => {
                partial.restart().await?;
                if !std::mem::take(&mut has_earlier) {
                    return Err(partial.lie(repository, blob));
                }
            }
            Err(error) => {
                if partial.bytes >= before + limits::REGISTRY_WINDOW_BYTES_MIN {
                    tries.on_progress();
                }
                wait_or_give_up(error, &mut tries).await?;
            }
        }
    }
}

/// Fetches what is missing in one go.
async fn more(
    repository: &Repository<'_>,
    blob: &RemoteBlob,
    partial: &mut Partial<'_>,
) -> Result<(), PullError> {
    if partial.bytes > blob.bytes {
        partial.restart().await?;
    }
    if partial.bytes == blob.bytes {
        return Ok(());
    }
    let what = format!("the layer {}", blob.digest);
    let answer = repository.get(&Part::Blob(&blob.digest, partial.bytes), &what).await?;
    if !continues(&answer, partial.bytes) {
        partial.restart().await?;
    }
    let server = repository.server();
    let left = blob.bytes - partial.bytes;
    let length = answer.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return Err(PullError::passing(
            format!("{server} cannot go on in the middle of {what}"),
            None,
        ));
    }
    if let Some(length) = length.filter(|length| *length != left) {
        let text =
            format!("{server} would send {length} bytes of {what}, of which {left} are missing");
        return Err(PullError::registry(text));
    }
    let mut body = answer.into_body();
    while let Some(piece) = body.next().await? {
        if partial.bytes + piece.len() as u64 > blob.bytes {
            partial.restart().await?;
            let text = format!("{server} sends more than the {} bytes of {what}", blob.bytes);
            return Err(PullError::registry(text));
        }
        partial.write(&piece).await?;
    }
    if partial.bytes < blob.bytes {
        let text = format!("{server} sent {} of the {} bytes of {what}", partial.bytes, blob.bytes);
        return Err(PullError::passing(text, None));
    }
    Ok(())
}

/// Whether an answer goes on where we are; one that begins anew is as good.
fn continues(answer: &Answer, bytes: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    answer.status() == StatusCode::PARTIAL_CONTENT
        && start.is_some_and(|start| start.parse() == Ok(bytes))
}

impl<'a> Partial<'a> {
    async fn open(path: &'a Path, teller: &'a Teller) -> Result<Self, PullError> {
        let mut how = OpenOptions::new();
        let file = how.read(true).append(true).create(true).mode(0o600).open(path).await;
        let file = file.map_err(|error| host("open", path, &error))?;
        let mut partial = Self { file, path, bytes: 0, hasher: Sha256::new(), teller };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = partial.file.read(&mut buffer).await;
            match read.map_err(|error| host("read", path, &error))? {
                0 => return Ok(partial),
                read => partial.count(&buffer[..read]),
            }
        }
    }

    fn count(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        self.teller.change(|progress| progress.bytes += piece.len() as u64);
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), PullError> {
        let written = self.file.write_all(piece).await;
        written.map_err(|error| host("write", self.path, &error))?;
        self.count(piece);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PullError> {
        self.file.flush().await.map_err(|error| host("write", self.path, &error))
    }

    /// Forgets all that has come.
    async fn restart(&mut self) -> Result<(), PullError> {
        self.flush().await?;
        let emptied = async {
            self.file.set_len(0).await?;
            self.file.rewind().await
        };
        emptied.await.map_err(|error| host("write", self.path, &error))?;
        self.teller.change(|progress| progress.bytes = progress.bytes.saturating_sub(self.bytes));
        self.bytes = 0;
        self.hasher = Sha256::new();
        Ok(())
    }

    fn digest(&self) -> String {
        hex_digest(self.hasher.clone())
    }

    fn lie(&self, repository: &Repository<'_>, blob: &RemoteBlob) -> PullError {
        PullError::registry(format!(
            "{} sent something else than the layer {}: its digest is another",
            repository.server(),
            blob.digest
        ))
    }
}

/// A digest as images write it.
pub(super) fn hex_digest(hasher: Sha256) -> String {
    hasher.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn host(doing: &str, path: &Path, error: &io::Error) -> PullError {
    PullError::new(PullFault::Host, format!("could not {doing} {}: {error}", path.display()))
}
