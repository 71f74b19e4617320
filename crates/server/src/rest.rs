//! What a server gives back when it comes to rest: the pages of its program that only the start, deploys and removals
//! needed. Most of its memory is those, and the way of a call is a small part of them.

use std::time::Duration;

use pinnace_sandbox::program_pages;
use tokio::{sync::watch, time::timeout};

/// How long nothing has been deployed or removed when the server has come to rest.
const QUIET: Duration = Duration::from_secs(5);

/// Gives back after the start and after deploys. `changes` tells of those.
pub async fn give_back_at_rest(mut changes: watch::Receiver<()>) {
    loop {
        while timeout(QUIET, changes.changed()).await.is_ok_and(|changed| changed.is_ok()) {}
        if let Err(error) = program_pages::give_back() {
            tracing::debug!(%error, "the pages of this program that are no longer needed stay");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
