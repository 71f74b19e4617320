//! Linux sandboxes by direct system calls: images, root filesystems, namespaces, cgroups.
//!
//! Three processes share the work, and each knows as little as it can:
//!
//! - The **server** (another crate) decides what runs. It speaks to the spawner and to each init through
//!   [`channel::Channel`]s and holds nothing that it could not find again after a crash.
//! - The **spawner** is single-threaded and small, so that cloning it is cheap and safe. It alone creates
//!   namespaces. It keeps the server's listening sockets and no replica's state.
//! - Each replica's **init** is pid 1 of its sandbox. It finishes the set-up from inside, starts the
//!   function, reaps, forwards signals, and remembers what a new server must know.
//!
//! [`protocol`] is what they say to each other.

pub mod adoption;
#[cfg(feature = "allocator")]
pub mod allocator;
pub mod cgroup;
pub mod channel;
pub mod client;
mod custody;
pub mod directory;
pub mod failed;
mod filesystem;
pub mod host;
pub mod host_root;
mod ids;
pub mod images;
pub mod init;
pub mod network;
mod patience;
pub mod program_pages;
pub mod protocol;
mod rootfs;
mod seccomp;
mod slot;
mod slots;
pub mod spawner;
mod start;
pub mod sweep;
mod sys;

pub use sys::page_out;

/// Starting a program without a sandbox of its own, which is how a watchdog in one starts its function.
pub mod command {
    pub use crate::sys::{Command, expect_children, start};
}
