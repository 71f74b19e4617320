//! Descriptors that tasks wait on.

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

/// A descriptor that tasks can wait on. What is passed must keep the one descriptor it owns for life, as
/// an `OwnedFd` does.
///
/// # Errors
/// The runtime cannot wait on it.
pub fn watched<T: AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // `AsyncFd::register` in its place is unsafe for the promise above, and this crate has no unsafe code.
    #[expect(deprecated, reason = "every caller passes a type that owns one descriptor for life")]
    AsyncFd::new(descriptor)
}
