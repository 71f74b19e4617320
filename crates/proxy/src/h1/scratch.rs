//! Buffers that all connections of a thread share: they stay in the processor's cache, and a connection
//! that waits holds none. Nothing stays in them from one poll to the next.

use std::cell::RefCell;

/// Bytes read in one go.
const INPUT_BYTES: usize = 64 << 10;

/// What was just received, and what is about to be sent.
pub struct Scratch {
    /// Received.
    pub input: Box<[u8]>,
    /// To be sent; empty at the start.
    pub output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; INPUT_BYTES].into(),
        output: Vec::with_capacity(INPUT_BYTES),
    });
}

/// Borrows this thread's buffers. It must not be called within itself.
pub fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.output.clear();
        work(scratch)
    })
}
