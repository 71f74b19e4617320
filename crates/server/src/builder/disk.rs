//! What a build may fill of the disk. A command that writes without end is found out while it runs.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use pinnace_core::limits::{
    BUILD_DISK_BYTES_MAX, BUILD_DISK_ENTRIES_MAX, BUILD_DISK_FREE_MIN, BUILD_DISK_LOOK,
};
use pinnace_sandbox::images::measure;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

/// A walk through what was written takes at most one part in so many of the time.
const WALK_SHARE: u32 = 10;

/// Looks at a directory until it holds too much or the disk is nearly full; then says so.
pub async fn overflow(directory: PathBuf) -> String {
    let mut next_walk = Instant::now();
    loop {
        sleep(BUILD_DISK_LOOK).await;
        let is_due = next_walk <= Instant::now();
        let (path, begun) = (directory.clone(), Instant::now());
        match spawn_blocking(move || look(&path, is_due)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(reason))) => return reason,
            Ok(Err(error)) => return format!("what it has written cannot be looked at: {error}"),
            // The runtime is ending.
            Err(_) => std::future::pending().await,
        }
        if is_due {
            next_walk = Instant::now() + (begun.elapsed() * WALK_SHARE).max(Duration::from_secs(1));
        }
    }
}

fn look(directory: &Path, walks: bool) -> io::Result<Option<String>> {
    let disk = rustix::fs::statvfs(directory)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < BUILD_DISK_FREE_MIN {
        return Ok(Some(format!(
            "less than {} MiB are left on the disk of the state directory (BUILD_DISK_FREE_MIN)",
            BUILD_DISK_FREE_MIN >> 20
        )));
    }
    if !walks {
        return Ok(None);
    }
    let (entries, bytes) = measure(directory, BUILD_DISK_ENTRIES_MAX, BUILD_DISK_BYTES_MAX)?;
    if bytes > BUILD_DISK_BYTES_MAX {
        let most = BUILD_DISK_BYTES_MAX >> 20;
        return Ok(Some(format!("it has written more than {most} MiB (BUILD_DISK_BYTES_MAX)")));
    }
    if entries > BUILD_DISK_ENTRIES_MAX {
        let most = BUILD_DISK_ENTRIES_MAX;
        return Ok(Some(format!("it has made more than {most} files (BUILD_DISK_ENTRIES_MAX)")));
    }
    Ok(None)
}
