//! A body as HTTP/1.1 has it, sent over a stream of HTTP/2.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use pinnace_core::limits::BODY_IDLE_MAX;
use tokio::time::Instant;

use super::{failed, head, malformed};
use crate::{
    h1::{Decoder, Framing},
    patience::Patience,
};

/// A body on its way out.
#[derive(Debug)]
pub struct Outlet {
    stream: SendStream<Bytes>,
    decoder: Decoder,
    patience: Patience,
    /// Until when the other end may leave its window closed.
    stuck_at: Option<Instant>,
}

impl Outlet {
    /// At a body's beginning; `framing` is how its bytes are framed.
    pub fn new(stream: SendStream<Bytes>, framing: Framing) -> Self {
        let decoder = Decoder::new(framing);
        Self { stream, decoder, patience: Patience::default(), stuck_at: None }
    }

    /// Whether all of the body was sent.
    pub fn is_ended(&self) -> bool {
        self.decoder.is_ended()
    }

    /// Sends what the other end's window lets through.
    ///
    /// # Errors
    /// The stream was reset, its connection failed, the window stayed closed for too long, or the bytes are no
    /// body.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while taken < bytes.len() && !self.decoder.is_ended() {
            let left = &bytes[taken..];
            // What stands around the data goes without a window, byte by byte.
            let room = match self.decoder.awaits_data() {
                false => 1,
                true => match self.poll_room(cx, left.len()) {
                    Poll::Pending if taken > 0 => break,
                    room => ready!(room)?.min(left.len()),
                },
            };
            let step = self.decoder.decode(&left[..room]).map_err(malformed)?;
            taken += step.consumed;
            self.pass(&left[step.data])?;
        }
        Poll::Ready(Ok(taken))
    }

    /// Sends data, and the body's end if this was the last.
    fn pass(&mut self, data: &[u8]) -> io::Result<()> {
        let is_ended = self.decoder.is_ended();
        let trailer = self.decoder.trailer();
        let ends_here = is_ended && trailer.is_empty();
        if !data.is_empty() || ends_here {
            let data = Bytes::copy_from_slice(data);
            self.stream.send_data(data, ends_here).map_err(failed)?;
        }
        if is_ended && !trailer.is_empty() {
            let fields = head::fields(trailer)?;
            self.stream.send_trailers(fields).map_err(failed)?;
        }
        Ok(())
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.stream.reserve_capacity(wanted);
        loop {
            let room = self.stream.capacity();
            if room > 0 {
                self.stuck_at = None;
                return Poll::Ready(Ok(room));
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failed(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Poll::Pending => {
                    let now = Instant::now();
                    let stuck_at = *self.stuck_at.get_or_insert_with(|| now + BODY_IDLE_MAX);
                    ready!(self.patience.poll(cx, stuck_at));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
    }

    /// Ready once the other end has reset the stream, or its connection is gone.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    /// Breaks the body off.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }
}
