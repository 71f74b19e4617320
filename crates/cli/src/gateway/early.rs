//! A server may answer before it has read the whole body, and then close: 413 for an image too large.
//!
//! Writing on fails from then on, but the answer is already here, unread. This transport notes the failed
//! write instead of failing the call, the body ends, and the answer is read as usual. Source: RFC 9112
//! section 9.5 (a client that sees the connection close while it sends should read the answer).

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

/// Whether the server stopped reading; shared by the transport that sees it and the body it ends.
#[derive(Clone, Debug, Default)]
pub struct Stopped(Arc<AtomicBool>);

impl Stopped {
    /// Forgets what an earlier request met.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Wraps the transports that another connector makes.
#[derive(Debug)]
pub struct EarlyAnswer(pub Stopped);

impl<In: Transport> Connector<In> for EarlyAnswer {
    type Out = Patient<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Patient { inner, stopped: self.0.clone(), unseen: false }))
    }
}

/// A transport whose failed writes are no errors yet.
#[derive(Debug)]
pub struct Patient<T> {
    inner: T,
    stopped: Stopped,
    /// Whether input that was read may still be shown a second time.
    unseen: bool,
}

impl<T: Transport> Transport for Patient<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.stopped.is_set() {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(Error::Io(error)) if is_closed(&error) => {
                self.stopped.0.store(true, Ordering::Relaxed);
                Ok(())
            }
            other => other,
        }
    }

    /// Whoever waits for `100 Continue` looks at a final answer and leaves it; whoever reads the answer
    /// next must find it here and not wait for more. So input that was left is shown once again.
    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.unseen && !self.inner.buffers().input().is_empty() {
            self.unseen = false;
            return Ok(true);
        }
        self.unseen = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.stopped.is_set() && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// A body that ends when the server stops reading.
pub struct Body<R> {
    inner: R,
    stopped: Stopped,
}

impl<R> Body<R> {
    /// A body of a request whose transport shares `stopped`.
    pub fn new(inner: R, stopped: Stopped) -> Self {
        Self { inner, stopped }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stopped.is_set() { Ok(0) } else { self.inner.read(buffer) }
    }
}
