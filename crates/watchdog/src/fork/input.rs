//! A request's body on its way into a process.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use pinnace_core::limits::UNREAD_BODY_BYTES_MAX;
use tokio::{io::AsyncWriteExt, process::ChildStdin, time::timeout};

/// Writes the body into the process as it comes, and closes its input at the end, when the caller is
/// silent for too long, or gone.
///
/// What a process does not read is read all the same, up to a limit, so that the caller gets its answer
/// on a connection that stays whole.
pub async fn feed(mut body: Incoming, stdin: ChildStdin, silence_max: Duration) {
    let mut stdin = Some(stdin);
    let mut unread = 0;
    while let Ok(Some(Ok(frame))) = timeout(silence_max, body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        if let Some(pipe) = &mut stdin {
            if pipe.write_all(&data).await.is_ok() {
                continue;
            }
            stdin = None;
        }
        unread += data.len() as u64;
        if unread > UNREAD_BODY_BYTES_MAX {
            return;
        }
    }
}
