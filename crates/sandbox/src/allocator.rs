//! The server's allocator. It is here since to speak to it is unsafe.

use crate::sys::{self, SingleThreaded};

/// Has the allocator give memory back to the kernel as soon as it is free: it would wait ten milliseconds, and then for its
/// next work in the same place, which a server at rest has not. The way of a call frees nothing that large. Where there
/// are other threads already nothing changes.
pub fn give_back_at_once() {
    if let Ok(alone) = SingleThreaded::prove() {
        sys::purge_at_once(&alone);
    }
}
