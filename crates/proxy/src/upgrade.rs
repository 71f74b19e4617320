//! A call that turns into two streams of bytes (WebSocket and the like).

use std::{io, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes read in one go in each direction.
const CHUNK_BYTES: usize = 16 << 10;

/// Copies both ways until both sides have ended, or nothing comes either way for `idle_max`.
///
/// An end of one side is passed on as such (half-close); the other may go on sending.
///
/// # Errors
/// Either side broke off, or both were silent for too long.
pub async fn splice(client: OnUpgrade, upstream: OnUpgrade, idle_max: Duration) -> io::Result<()> {
    let (client, upstream) = tokio::try_join!(client, upstream).map_err(io::Error::other)?;
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
    let heard = tokio::sync::Notify::new();
    let both = async {
        tokio::try_join!(
            copy(client_read, upstream_write, &heard),
            copy(upstream_read, client_write, &heard),
        )
    };
    tokio::select! {
        ended = both => ended.map(|_| ()),
        () = silence(&heard, idle_max) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no byte came for {idle_max:?}")))
        }
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    heard: &tokio::sync::Notify,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        heard.notify_one();
        to.write_all(&chunk[..read]).await?;
        to.flush().await?;
    }
}

async fn silence(heard: &tokio::sync::Notify, idle_max: Duration) {
    while tokio::time::timeout(idle_max, heard.notified()).await.is_ok() {}
}
