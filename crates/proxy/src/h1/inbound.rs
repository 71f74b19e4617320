//! A caller's connection: requests come in one after the other, answers go out.

use std::{
    future::poll_fn,
    io::{self, Write},
    task::{Context, Poll, ready},
};

use pinnace_core::limits::{
    BODY_IDLE_MAX, CONNECTION_MEMORY_KEPT, LINGER_BYTES_MAX, LINGER_TIME_MAX,
    REQUEST_HEAD_BYTES_MAX, REQUEST_HEAD_TIME_MAX, WATCHED_BYTES_MAX,
};
use tokio::time::Instant;

use super::{
    BodyFault, ExchangeFailure, Framing, HeadFault, Outgoing, RequestHead,
    body::{Decoder, Encoder, recode},
    head, scratch,
};
use crate::{Stream, h2::PREFACE, patience::Patience};

/// A caller's connection.
#[derive(Debug)]
pub struct Inbound {
    pub(super) stream: Stream,
    /// Whether no request came yet.
    is_new: bool,
    /// Received and not yet taken.
    pub(super) held: Vec<u8>,
    /// How far `held` was searched for a head's end.
    searched: usize,
    pub(super) body: Decoder,
    encoder: Encoder,
    /// What is wrong with that part of the body that came with the head.
    body_fault: Option<BodyFault>,
    pub(super) request: Current,
    /// Of an answer, what the caller has not taken yet.
    unsent: Vec<u8>,
    sent: usize,
    pub(super) patience: Patience,
    waits_since: Instant,
}

/// What is remembered of the request under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Current {
    pub is_http10: bool,
    pub is_head: bool,
    pub keeps_alive: bool,
    pub expects_continue: bool,
    pub upgrades: bool,
    /// Bytes at the beginning of what is held that are its head, where the connection is lent.
    pub lent_head: usize,
}

/// A head that was read, with its bytes, if it was there.
type Taken<C, R> = Option<Result<(Asked<C, R>, usize), HeadFault>>;

/// What came on a connection.
enum Received<T> {
    /// A whole head.
    Request(T),
    /// A part of one, now held.
    Part,
    /// The connection's end.
    End,
}

/// What is to become of a request.
#[derive(Debug)]
pub enum Asked<C, R> {
    /// It goes to an upstream: its line and its headers were written.
    Relay(C),
    /// Another HTTP server answers it, by way of [`super::Lent`].
    Lend,
    /// Its body is read whole, by [`Inbound::hold`], before anything is done. Nothing was written.
    Hold,
    /// It is answered at once, with [`Inbound::answer`].
    Refuse(R),
    /// It is the beginning of HTTP/2 ([`PREFACE`]): all that came is in [`Inbound::into_parts`].
    Multiplex,
}

impl Inbound {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            is_new: true,
            held: Vec::new(),
            searched: 0,
            body: Decoder::new(Framing::None),
            encoder: Encoder::Plain,
            body_fault: None,
            request: Current::default(),
            unsent: Vec::new(),
            sent: 0,
            patience: Patience::default(),
            waits_since: Instant::now(),
        }
    }

    /// Waits for the next request and has `judge` decide on it; for [`Asked::Relay`] that writes the
    /// request's line and those headers that go on, without the empty line at the end. `None`: the caller
    /// has closed, or sent nothing for too long.
    ///
    /// # Errors
    /// What came is no request; answer it, and close.
    pub fn poll_request<C, R>(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        mut judge: impl FnMut(&RequestHead<'_>, &mut Vec<u8>) -> Asked<C, R>,
    ) -> Poll<Result<Option<Asked<C, R>>, HeadFault>> {
        let outcome = ready!(self.poll_next(cx, out, &mut judge));
        if outcome.is_err() {
            // Whatever else comes is not understood.
            self.body = Decoder::new(Framing::UntilClose);
            self.request = Current::default();
        }
        Poll::Ready(outcome)
    }

    fn poll_next<C, R>(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&RequestHead<'_>, &mut Vec<u8>) -> Asked<C, R>,
    ) -> Poll<Result<Option<Asked<C, R>>, HeadFault>> {
        loop {
            if self.searched < self.held.len()
                && let Some(asked) = self.take_held(out, judge)?
            {
                return Poll::Ready(Ok(Some(asked)));
            }
            let is_idle = self.held.is_empty();
            match self.poll_input(cx, out, judge)? {
                Poll::Ready(Received::Request(asked)) => return Poll::Ready(Ok(Some(asked))),
                Poll::Ready(Received::Part) => {}
                Poll::Ready(Received::End) if is_idle => return Poll::Ready(Ok(None)),
                Poll::Ready(Received::End) => return Poll::Ready(Err(HeadFault::Short)),
                Poll::Pending => {
                    ready!(self.patience.poll(cx, self.waits_since + REQUEST_HEAD_TIME_MAX));
                    return Poll::Ready(if is_idle { Ok(None) } else { Err(HeadFault::Slow) });
                }
            }
        }
    }

    /// Receives once. Most requests come whole, and are read where they are.
    fn poll_input<C, R>(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&RequestHead<'_>, &mut Vec<u8>) -> Asked<C, R>,
    ) -> Poll<Result<Received<Asked<C, R>>, HeadFault>> {
        scratch::with(|scratch| {
            let Ok(size @ 1..) = ready!(self.stream.poll_receive(cx, &mut scratch.input)) else {
                return Poll::Ready(Ok(Received::End));
            };
            let mut input = &scratch.input[..size];
            if self.held.is_empty() {
                input = without_empty_lines(input);
                if let Some(asked) = self.take(input, out, judge)? {
                    return Poll::Ready(Ok(Received::Request(asked)));
                }
                self.searched = input.len();
            }
            self.held.extend_from_slice(input);
            Poll::Ready(Ok(Received::Part))
        })
    }

    /// Whether this connection could take another request, as far as the caller and the request under way
    /// go.
    #[must_use]
    pub fn can_stay(&self) -> bool {
        self.request.keeps_alive && self.body.is_ended()
    }

    /// Ends the request under way: from `now` on the next one is waited for.
    pub fn finish(&mut self, now: Instant) {
        self.waits_since = now;
        self.is_new = false;
        for memory in [&mut self.held, &mut self.unsent] {
            if memory.capacity() > CONNECTION_MEMORY_KEPT {
                memory.shrink_to(CONNECTION_MEMORY_KEPT);
            }
        }
    }

    /// Whether something of an answer waits for the caller to take it.
    pub(super) fn is_behind(&self) -> bool {
        self.sent < self.unsent.len()
    }

    /// Whether the caller would send another request after the one under way.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.request.keeps_alive
    }

    /// A head that had come in pieces, or came together with an earlier request.
    fn take_held<C, R>(
        &mut self,
        out: &mut Outgoing,
        judge: &mut impl FnMut(&RequestHead<'_>, &mut Vec<u8>) -> Asked<C, R>,
    ) -> Result<Option<Asked<C, R>>, HeadFault> {
        // Looking for the end first keeps a head that comes byte by byte from being read as often.
        let from = self.searched.saturating_sub(3);
        let begins = self.searched == 0;
        self.searched = self.held.len();
        if begins || has_head_end(&self.held[from..]) {
            let mut held = std::mem::take(&mut self.held);
            held.drain(..held.len() - without_empty_lines(&held).len());
            self.searched = held.len();
            if let Some(asked) = self.take(&held, out, judge)? {
                return Ok(Some(asked));
            }
            self.held = held;
        }
        if self.held.len() > REQUEST_HEAD_BYTES_MAX {
            return Err(HeadFault::TooLarge(REQUEST_HEAD_BYTES_MAX));
        }
        Ok(None)
    }

    /// Reads a request from `input`; what is left of it is held.
    fn take<C, R>(
        &mut self,
        input: &[u8],
        out: &mut Outgoing,
        judge: &mut impl FnMut(&RequestHead<'_>, &mut Vec<u8>) -> Asked<C, R>,
    ) -> Result<Option<Asked<C, R>>, HeadFault> {
        out.restart();
        let taken = head::request(input, |head, size| {
            if size > REQUEST_HEAD_BYTES_MAX {
                return Err(HeadFault::TooLarge(REQUEST_HEAD_BYTES_MAX));
            }
            let asked = judge(head, &mut out.bytes);
            self.request = Current {
                is_http10: head.is_http10,
                is_head: head.method == "HEAD",
                keeps_alive: head.keeps_alive(),
                expects_continue: head.expects_continue,
                upgrades: head.upgrade().is_some(),
                lent_head: size,
            };
            self.body = Decoder::new(head.framing);
            self.encoder = match asked {
                Asked::Hold => Encoder::Plain,
                _ => Encoder::new(head.framing),
            };
            if let Asked::Relay(_) = asked {
                out.end_head(head);
            }
            Ok((asked, size))
        });
        let is_new = self.is_new;
        let taken = taken.or_else(|fault| match is_new {
            true => beginning(fault, input),
            false => Err(fault),
        })?;
        let Some(taken) = taken else { return Ok(None) };
        let (asked, size) = taken?;
        let mut used = 0;
        if matches!(asked, Asked::Lend) {
            // The other server may tell the end of an answer to HTTP/1.0 by closing.
            self.request.keeps_alive &= !self.request.is_http10;
        } else {
            out.has_body = !self.body.is_ended();
            let body = recode(&mut self.body, self.encoder, &input[size..], &mut out.bytes);
            // Told when the body is read on, to whoever does that.
            self.body_fault = body.err();
            used = size + body.unwrap_or(0);
        }
        self.held.extend_from_slice(&input[used..]);
        self.searched = 0;
        Ok(Some(asked))
    }

    /// Reads on in the request's body and writes it anew.
    ///
    /// # Errors
    /// The caller has left, or the body is malformed.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut Vec<u8>,
    ) -> Poll<Result<(), ExchangeFailure>> {
        if let Some(fault) = self.body_fault.take() {
            return Poll::Ready(Err(ExchangeFailure::CallerBody(fault)));
        }
        if !self.held.is_empty() {
            let used = recode(&mut self.body, self.encoder, &self.held, output)
                .map_err(ExchangeFailure::CallerBody)?;
            self.held.drain(..used);
            return Poll::Ready(Ok(()));
        }
        scratch::with(|scratch| {
            let received = ready!(self.stream.poll_receive(cx, &mut scratch.input));
            let size = received.map_err(|_| ExchangeFailure::CallerLeft)?;
            if size == 0 {
                let fault = self.body.end().err().unwrap_or(BodyFault::Short);
                return Poll::Ready(Err(ExchangeFailure::CallerBody(fault)));
            }
            let used = recode(&mut self.body, self.encoder, &scratch.input[..size], output)
                .map_err(ExchangeFailure::CallerBody)?;
            self.held.extend_from_slice(&scratch.input[used..size]);
            Poll::Ready(Ok(()))
        })
    }

    /// Watches for the caller's leaving while its whole request is there. Further requests that come
    /// meanwhile are held, up to a limit.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.body.is_ended() && self.held.len() < WATCHED_BYTES_MAX {
            let left = scratch::with(|scratch| {
                match ready!(self.stream.poll_receive(cx, &mut scratch.input)) {
                    Ok(size @ 1..) => {
                        self.held.extend_from_slice(&scratch.input[..size]);
                        Poll::Ready(false)
                    }
                    Ok(0) | Err(_) => Poll::Ready(true),
                }
            });
            if ready!(left) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Waits for `work` as long as the caller is there.
    ///
    /// # Errors
    /// It has left.
    pub async fn while_here<F: Future>(&mut self, work: F) -> Result<F::Output, ExchangeFailure> {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_left(cx).map(|()| Err(ExchangeFailure::CallerLeft)),
        })
        .await
    }

    /// Sends bytes of an answer, or keeps what does not go at once.
    ///
    /// # Errors
    /// The caller has left.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while self.unsent.is_empty() && done < bytes.len() {
            match self.stream.poll_send(cx, &bytes[done..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(size)) => done += size,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(&bytes[done..]);
        Ok(())
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// The caller has left.
    pub(super) fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            match ready!(self.stream.poll_send(cx, &self.unsent[self.sent..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(size) => self.sent += size,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        self.stream.poll_pushed(cx)
    }

    /// Answers the request under way by itself: `headers` are whole lines. The connection stays only if
    /// `stays`, and if the whole request was received.
    ///
    /// # Errors
    /// The caller has left.
    pub async fn answer(
        &mut self,
        status: http::StatusCode,
        headers: &[u8],
        body: &[u8],
        stays: bool,
    ) -> io::Result<()> {
        let stays = stays && self.can_stay();
        self.request.keeps_alive = stays;
        let mut head = Vec::with_capacity(256 + headers.len() + body.len());
        let reason = status.canonical_reason().unwrap_or_default();
        // Writing to memory cannot fail.
        let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", status.as_str());
        head.extend_from_slice(headers);
        let _ = write!(head, "content-length: {}\r\n", body.len());
        self.write_connection(&mut head, stays);
        head.extend_from_slice(b"\r\n");
        if !self.request.is_head {
            head.extend_from_slice(body);
        }
        let until = Instant::now() + BODY_IDLE_MAX;
        poll_fn(|cx| self.poll_all(cx, &mut head, until)).await
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Vec<u8>,
        until: Instant,
    ) -> Poll<io::Result<()>> {
        self.send(cx, &std::mem::take(bytes))?;
        match self.poll_sent(cx) {
            Poll::Pending => {
                self.patience.poll(cx, until).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            ready => ready,
        }
    }

    /// Says in an answer's head whether the connection stays, where that is not understood.
    pub(super) fn write_connection(&self, head: &mut Vec<u8>, stays: bool) {
        match (stays, self.request.is_http10) {
            (false, _) => head.extend_from_slice(b"connection: close\r\n"),
            (true, true) => head.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, false) => {}
        }
    }

    /// Closes: says so, and takes for a moment what the caller still sends, for a connection that is closed
    /// with unread bytes takes the answer with it (RFC 9112 section 9.6).
    pub async fn close(mut self) {
        let until = Instant::now() + LINGER_TIME_MAX;
        let mut taken = 0;
        poll_fn(|cx| {
            if ready!(self.stream.poll_end(cx)).is_err() || self.body.is_ended() {
                return Poll::Ready(());
            }
            loop {
                let read = scratch::with(|s| self.stream.poll_receive(cx, &mut s.input));
                match read {
                    Poll::Ready(Ok(size @ 1..)) if taken + size <= LINGER_BYTES_MAX => {
                        taken += size;
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.patience.poll(cx, until),
                }
            }
        })
        .await;
    }

    /// Closes within an answer. A caller of HTTP/1.0, to whom the connection's end is the answer's, must not take
    /// it for that.
    pub fn break_off(self) {
        if self.request.is_http10 {
            self.stream.break_off();
        }
    }

    /// Splits a connection that becomes a stream of bytes: itself, and what came on it already.
    #[must_use]
    pub fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.held)
    }
}

/// What looks like a broken request at a connection's beginning may be a caller that speaks HTTP/2 without asking first.
///
/// # Errors
/// It is broken.
fn beginning<C, R>(fault: HeadFault, input: &[u8]) -> Result<Taken<C, R>, HeadFault> {
    match fault {
        HeadFault::Malformed(httparse::Error::Version) if input.starts_with(PREFACE) => {
            Ok(Some(Ok((Asked::Multiplex, 0))))
        }
        HeadFault::Malformed(httparse::Error::Version) if PREFACE.starts_with(input) => Ok(None),
        fault => Err(fault),
    }
}

/// Empty lines before a request are passed over (RFC 9112 section 2.2).
fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    &bytes[begin.unwrap_or(bytes.len())..]
}

/// Whether a head ends within these bytes: an empty line.
pub(super) fn has_head_end(bytes: &[u8]) -> bool {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.any(|(at, _)| matches!(&bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_end_a_head() {
        assert!(has_head_end(b"a: b\r\n\r\n"));
        assert!(has_head_end(b"\n\n"));
        assert!(!has_head_end(b"a: b\r\n"));
        assert!(!has_head_end(b"\r\n\r"));
    }
}
