//! Bodies of requests that are answered without them.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use pinnace_core::limits::UNREAD_BODY_BYTES_MAX;
use tokio::time::timeout;

/// Reads a body to its end in the background, up to a limit of bytes and of silence: the caller's
/// connection can then serve its next request. One with more to send finds it closed.
pub fn discard<B>(mut body: B, silence_max: Duration)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    if body.is_end_stream() || body.size_hint().lower() > UNREAD_BODY_BYTES_MAX {
        return;
    }
    tokio::spawn(async move {
        let mut bytes = 0;
        while let Ok(Some(Ok(frame))) = timeout(silence_max, body.frame()).await {
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            if bytes > UNREAD_BODY_BYTES_MAX {
                return;
            }
        }
    });
}
