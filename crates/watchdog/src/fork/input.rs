//! A request's body on its way into a process.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use pinnace_core::limits::UNREAD_BODY_BYTES_MAX;
use tokio::{io::AsyncWriteExt, net::unix::pipe::Sender, task::yield_now, time::timeout};

/// What came of the body together with the head: all of a small one, mostly. Nothing is waited for.
pub async fn arrived(body: &mut Incoming) -> Bytes {
    if body.is_end_stream() {
        return Bytes::new();
    }
    // The connection hands over what it has read when it runs again, which it does before this goes on.
    let frame = tokio::select! {
        biased;
        frame = body.frame() => frame,
        () = yield_now() => None,
    };
    frame.and_then(Result::ok).and_then(|frame| frame.into_data().ok()).unwrap_or_default()
}

/// Writes what has arrived into the process, then the rest of the body as it comes, and closes its input at
/// the end, when the caller is silent for too long, or gone.
///
/// What a process does not read is read all the same, up to a limit, so that the caller gets its answer
/// on a connection that stays whole.
pub async fn feed(arrived: Bytes, mut body: Incoming, stdin: Sender, silence_max: Duration) {
    let mut stdin = Some(stdin);
    let mut unread = 0;
    let mut data = arrived;
    loop {
        if !put(&mut stdin, &data).await {
            unread += data.len() as u64;
        }
        if unread > UNREAD_BODY_BYTES_MAX {
            return;
        }
        let Ok(Some(Ok(frame))) = timeout(silence_max, body.frame()).await else { return };
        data = frame.into_data().unwrap_or_default();
    }
}

/// Writes, unless the process reads no more; answers whether it did.
async fn put(stdin: &mut Option<Sender>, data: &[u8]) -> bool {
    let Some(pipe) = stdin else { return false };
    let written = pipe.write_all(data).await.is_ok();
    if !written {
        *stdin = None;
    }
    written
}
