//! Blobs: sent as they lie on disk, in one piece of memory at a time (end-2, end-10).

use std::{io, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use pinnace_core::distribution::{ByteRange, Digest, Repository};
use tokio::task::spawn_blocking;

use super::{Answer, Asked, CONTENT_DIGEST, Refusal, value};
use crate::distribution::Blob;

/// Bytes of a blob that are read at once.
const PIECE_BYTES: u64 = 64 << 10;

/// GET, HEAD `/v2/NAME/blobs/DIGEST`.
pub(super) async fn get(asked: Asked, repository: Repository, digest: Digest) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_DIGEST, value(digest.as_str())?);
    let blob = asked.blocking(move |store| store.blob(&repository, &digest)).await?;
    let range = ByteRange::read(asked.header(header::RANGE), blob.bytes);
    let (status, first, bytes) = match range {
        ByteRange::Whole => (StatusCode::OK, 0, blob.bytes),
        ByteRange::Part { first, last } => {
            let part = format!("bytes {first}-{last}/{}", blob.bytes);
            headers.insert(header::CONTENT_RANGE, value(&part)?);
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        ByteRange::Beyond => {
            let range = value(&format!("bytes */{}", blob.bytes))?;
            return Err(Refusal::beyond(blob.bytes).with(header::CONTENT_RANGE, range));
        }
    };
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let body = match asked.head.method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(pieces(Arc::new(blob), first, bytes)),
    };
    Ok((status, headers, body).into_response())
}

/// DELETE `/v2/NAME/blobs/DIGEST`.
pub(super) async fn delete(asked: Asked, repository: Repository, digest: Digest) -> Answer {
    asked.blocking(move |store| store.remove_blob(&repository, &digest)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// So many bytes of a blob, from a byte on. The next piece is read when the last one was taken.
fn pieces(blob: Arc<Blob>, first: u64, bytes: u64) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold((blob, first, bytes), |(blob, from, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let reading = blob.clone();
        let piece = spawn_blocking(move || {
            let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
            let read = reading.read_at(&mut piece, from)?;
            piece.truncate(read);
            io::Result::Ok(piece)
        });
        let piece = piece.await.map_err(io::Error::other)??;
        if piece.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a blob has become shorter"));
        }
        let read = piece.len() as u64;
        Ok(Some((Bytes::from(piece), (blob, from + read, left - read))))
    })
}
