//! A caller's connection as another HTTP server sees it: one request long.
//!
//! That server reads the request as it was sent, writes its answer, and then sees the connection's end;
//! the connection itself goes on.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Inbound;

/// A connection that is lent for one request.
#[derive(Debug)]
pub struct Lent<'a> {
    caller: &'a mut Inbound,
    head_left: usize,
    answered: Arc<AtomicBool>,
    /// Whether all of the answer has been written.
    is_written: bool,
}

/// Goes with the answer's body, and is dropped when all of that was handed over; what the other server still
/// holds of it is out after its next flush.
#[derive(Debug)]
pub struct Returned(Arc<AtomicBool>);

/// An answer's body that gives the connection back when it is done with.
#[derive(Debug)]
pub struct LentBody<B> {
    body: B,
    _returned: Returned,
}

impl Returned {
    /// Binds this to the answer's body.
    pub fn with<B>(self, body: B) -> LentBody<B> {
        LentBody { body, _returned: self }
    }
}

impl<B: Body + Unpin> Body for LentBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl<'a> Lent<'a> {
    /// Lends a connection whose request was judged [`super::Asked::Lend`]; the second value is to be dropped
    /// together with the answer's body.
    pub fn new(caller: &'a mut Inbound) -> (Self, Returned) {
        let answered = Arc::new(AtomicBool::new(false));
        let head_left = caller.request.lent_head;
        let lent = Self { caller, head_left, answered: answered.clone(), is_written: false };
        (lent, Returned(answered))
    }

    /// Hands over held bytes that belong to the request: its head as it is, of its body what belongs to it.
    fn give_held(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let size = self.caller.held.len().min(buf.remaining());
        let size = if self.head_left > 0 {
            let size = size.min(self.head_left);
            self.head_left -= size;
            size
        } else {
            measure(self.caller, size)?
        };
        buf.put_slice(&self.caller.held[..size]);
        self.caller.held.drain(..size);
        Ok(())
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_written {
            return Poll::Ready(Ok(()));
        }
        // A caller that leaves is an end too: the answer has nowhere to go.
        self.caller.poll_left(cx).map(Ok)
    }
}

/// How many of the first `size` held bytes belong to the request's body.
fn measure(caller: &mut Inbound, size: usize) -> io::Result<usize> {
    let mut used = 0;
    while used < size && !caller.body.is_ended() {
        let step = caller.body.decode(&caller.held[used..size]);
        used += step.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?.consumed;
    }
    Ok(used)
}

impl AsyncRead for Lent<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head_left == 0 && this.caller.body.is_ended() {
            return this.poll_end(cx);
        }
        if this.caller.held.is_empty() {
            let from = buf.filled().len();
            let read = ready!(this.caller.stream.poll_receive(cx, buf.initialize_unfilled()))?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            let received = &buf.initialized()[from..from + read];
            this.caller.held.extend_from_slice(received);
        }
        Poll::Ready(this.give_held(buf))
    }
}

impl AsyncWrite for Lent<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().caller.stream.poll_send(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Asked for when nothing is left to write. The other server runs in this task, and is to read on.
        if !this.is_written && this.answered.load(Ordering::Acquire) {
            this.is_written = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
