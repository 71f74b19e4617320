//! A file, or a part of one, as a body.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, ReadBuf};

use crate::answer::Broken;

/// Bytes read in one go.
const CHUNK_BYTES: u64 = 64 << 10;

/// Bytes of a file that are still to be sent.
#[derive(Debug)]
pub struct FileBody {
    file: tokio::fs::File,
    left: u64,
    chunk: BytesMut,
}

impl FileBody {
    /// `bytes` bytes of a file, from the byte `from` on.
    pub fn new(mut file: File, from: u64, bytes: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(from))?;
        Ok(Self { file: tokio::fs::File::from_std(file), left: bytes, chunk: BytesMut::new() })
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether all was sent.
    pub fn is_end(&self) -> bool {
        self.left == 0
    }

    /// The next part.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(self.left.min(CHUNK_BYTES)).unwrap_or(usize::MAX);
        self.chunk.resize(wanted, 0);
        let mut buffer = ReadBuf::new(&mut self.chunk);
        let read = ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer));
        let filled = buffer.filled().len();
        Poll::Ready(Some(match read {
            Err(error) => Err(error.into()),
            // The file has become shorter.
            Ok(()) if filled == 0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(()) => {
                self.left -= filled as u64;
                Ok(Frame::data(self.chunk.split_to(filled).freeze()))
            }
        }))
    }
}
