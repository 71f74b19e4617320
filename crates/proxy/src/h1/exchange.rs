//! One request and its answer, between a caller's connection and an upstream's.
//!
//! Both bodies move at the same time and one piece at a time: what one side does not take is not read from
//! the other, so slowness passes through. All of it runs in the caller's task.

use std::{
    io,
    task::{Context, Poll, ready},
};

use pinnace_core::limits::{
    BODY_IDLE_MAX, CONNECTION_MEMORY_KEPT, PRELIMINARY_ANSWERS_MAX, RESPONSE_HEAD_BYTES_MAX,
};
use tokio::time::Instant;

use super::{
    BodyFault, Framing, HeadFault, Inbound, RequestHead, ResponseHead,
    body::{Decoder, Encoder, recode},
    head::{self, write_header, write_number},
    inbound::has_head_end,
    scratch,
};
use crate::Stream;

/// A request as it goes to the upstream. One is kept for a connection's life, for its memory.
#[derive(Debug, Default)]
pub struct Outgoing {
    pub(super) bytes: Vec<u8>,
    sent: usize,
    pub(super) has_body: bool,
    /// Whether `bytes` no longer begin with the request's head.
    moved_on: bool,
}

impl Outgoing {
    pub(super) fn restart(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > CONNECTION_MEMORY_KEPT {
            self.bytes.shrink_to(CONNECTION_MEMORY_KEPT);
        }
        self.sent = 0;
        self.has_body = false;
        self.moved_on = false;
    }

    /// Adds how the body is framed and what is switched to, and the empty line.
    pub(super) fn end_head(&mut self, head: &RequestHead<'_>) {
        write_framing(&mut self.bytes, head.framing);
        if let Some(protocol) = head.upgrade() {
            self.bytes.extend_from_slice(b"connection: upgrade\r\n");
            write_header(&mut self.bytes, b"upgrade", protocol);
        } else if head.takes_trailers() {
            // Said anew for the next connection: trailers pass.
            self.bytes.extend_from_slice(b"connection: te\r\nte: trailers\r\n");
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Whether the request can go out anew on another connection without happening twice: nothing of it was
    /// written, or it is idempotent (RFC 9110 section 9.2.2) and has no body.
    #[must_use]
    pub fn can_repeat(&self, is_idempotent: bool) -> bool {
        !self.moved_on && (self.sent == 0 || (is_idempotent && !self.has_body))
    }

    fn repeat(&mut self) {
        self.sent = 0;
    }
}

/// Says in a head how its body is framed.
pub(crate) fn write_framing(head: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => write_number(head, b"content-length", length),
    }
}

/// An answer that was passed on to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// The upstream's connection can take another request.
    Reusable,
    /// The upstream's connection is to be closed.
    Closed,
    /// Both sides have switched to another protocol. These bytes came from the upstream already.
    Switched(Vec<u8>),
}

/// Why an exchange ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeFailure {
    /// The upstream's connection ended before it had said anything.
    #[error("its connection ended before an answer began{}", said(.0))]
    Unanswered(Option<io::Error>),
    /// What it said is no answer.
    #[error("its answer cannot be passed on: {0}")]
    Answer(HeadFault),
    /// It sent preliminary answers without end.
    #[error("it sent more than {PRELIMINARY_ANSWERS_MAX} preliminary answers (1xx)")]
    Preliminary,
    /// It switched protocols though nobody had asked it to.
    #[error("it switched protocols though nobody had asked it to")]
    Switch,
    /// Its answer did not begin in time.
    #[error("its answer did not begin in time")]
    Late,
    /// The answer's body broke off.
    #[error("its answer's body broke off: {0}")]
    Body(BodyFault),
    /// Nothing moved for too long, after the answer's head was passed on.
    #[error("nothing of the bodies moved for {:?}", BODY_IDLE_MAX)]
    Silent,
    /// The caller has left.
    #[error("the caller has left")]
    CallerLeft,
    /// The caller's body is malformed or broke off.
    #[error("the request's body cannot be passed on: {0}")]
    CallerBody(BodyFault),
    /// The caller sent nothing of its body for too long.
    #[error("nothing of the request's body came for {:?}", BODY_IDLE_MAX)]
    CallerSilent,
}

fn said(error: &Option<io::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

/// One request and its answer. `write_head` writes those lines of the answer's head that stand between its
/// status and its end: the headers that pass, and what the caller of this adds.
#[derive(Debug)]
pub struct Exchange<'a, W> {
    caller: &'a mut Inbound,
    upstream: &'a mut Stream,
    request: &'a mut Outgoing,
    answer_by: Instant,
    write_head: W,
    upstream_takes_no_more: Option<io::Error>,
    answer: Answer,
    preliminary: u32,
    /// Whether the caller's connection may stay after this exchange; told in the answer's head.
    may_stay: bool,
    /// Whether the request's body is what is waited for.
    awaits_body: bool,
    /// Whether something moved since the silence was last measured, and since when nothing did.
    moved: bool,
    still_since: Instant,
}

#[derive(Debug)]
enum Answer {
    /// What came of its head, without any 1xx before it.
    Head(Vec<u8>),
    Body {
        status: u16,
        decoder: Decoder,
        encoder: Encoder,
        upstream_stays: bool,
    },
    Switched(Vec<u8>),
}

impl<'a, W: FnMut(&ResponseHead<'_>, &mut Vec<u8>)> Exchange<'a, W> {
    /// An exchange from the beginning of the request, whose answer must begin by `answer_by`.
    pub fn new(
        caller: &'a mut Inbound,
        upstream: &'a mut Stream,
        request: &'a mut Outgoing,
        answer_by: Instant,
        may_stay: bool,
        write_head: W,
    ) -> Self {
        request.repeat();
        Self {
            caller,
            upstream,
            request,
            answer_by,
            write_head,
            upstream_takes_no_more: None,
            answer: Answer::Head(Vec::new()),
            preliminary: 0,
            may_stay,
            awaits_body: false,
            moved: true,
            still_since: answer_by,
        }
    }

    /// The status of the answer, once its head was passed on.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match &self.answer {
            Answer::Head(_) => None,
            Answer::Body { status, .. } => Some(*status),
            Answer::Switched(_) => Some(101),
        }
    }

    /// Moves both bodies on.
    ///
    /// # Errors
    /// One of the two sides failed; where the answer's head was passed on already, the caller's connection
    /// must be closed.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, ExchangeFailure>> {
        self.awaits_body = false;
        let _ = self.poll_upload(cx)?;
        if let Poll::Ready(answered) = self.poll_download(cx)? {
            return Poll::Ready(Ok(answered));
        }
        self.poll_silence(cx).map(Err)
    }

    /// Sends the request; ready when all of it was sent, or the upstream takes no more of it.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeFailure>> {
        while self.upstream_takes_no_more.is_none() {
            while self.request.sent < self.request.bytes.len() {
                match ready!(self.upstream.poll_send(cx, &self.request.bytes[self.request.sent..]))
                {
                    Ok(size) => self.request.sent += size,
                    Err(error) => {
                        // It may have answered before: that is read first.
                        self.upstream_takes_no_more = Some(error);
                        return Poll::Ready(Ok(()));
                    }
                }
                self.moved = true;
            }
            if self.caller.body.is_ended() {
                break;
            }
            self.tell_to_continue(cx)?;
            self.request.bytes.clear();
            self.request.sent = 0;
            self.request.moved_on = true;
            self.awaits_body = true;
            ready!(self.caller.poll_body(cx, &mut self.request.bytes))?;
            self.awaits_body = false;
            self.moved = true;
        }
        if self.caller.poll_left(cx).is_ready() {
            return Poll::Ready(Err(ExchangeFailure::CallerLeft));
        }
        Poll::Ready(Ok(()))
    }

    fn tell_to_continue(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeFailure> {
        if self.status().is_some() {
            self.caller.request.expects_continue = false;
        }
        self.caller.tell_to_continue(cx)
    }

    /// Passes the answer on.
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, ExchangeFailure>> {
        loop {
            ready!(self.caller.poll_sent(cx)).map_err(|_| ExchangeFailure::CallerLeft)?;
            if let Some(answered) = self.answered(&[]) {
                return Poll::Ready(Ok(answered));
            }
            let answered = scratch::with(|scratch| {
                let received = ready!(self.upstream.poll_receive(cx, &mut scratch.input));
                self.moved = true;
                let size = match received {
                    Ok(size @ 1..) => size,
                    Ok(_) => return Poll::Ready(self.upstream_ended(cx, None)),
                    Err(error) => return Poll::Ready(self.upstream_ended(cx, Some(error))),
                };
                Poll::Ready(self.take(cx, &scratch.input[..size], &mut scratch.output))
            });
            if let Some(answered) = ready!(answered)? {
                return Poll::Ready(Ok(answered));
            }
        }
    }

    /// Takes bytes of the answer.
    fn take(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Option<Answered>, ExchangeFailure> {
        let mut rest = input;
        let whole;
        let is_head = matches!(self.answer, Answer::Head(_));
        if let Answer::Head(held) = &mut self.answer {
            if !held.is_empty() {
                let from = held.len().saturating_sub(3);
                held.extend_from_slice(input);
                // A head that comes in small pieces is read once it is whole.
                if held.len() <= RESPONSE_HEAD_BYTES_MAX && !has_head_end(&held[from..]) {
                    return Ok(None);
                }
                whole = std::mem::take(held);
                rest = &whole;
            }
            let Some(size) = self.take_heads(rest, output)? else { return Ok(None) };
            rest = &rest[size..];
        }
        let mut left = rest;
        match &mut self.answer {
            Answer::Body { decoder, encoder, .. } => {
                match recode(decoder, *encoder, rest, output) {
                    Ok(used) => left = &rest[used..],
                    Err(fault) => return Err(self.broken(cx, fault, is_head, output)),
                }
            }
            Answer::Switched(early) => early.extend_from_slice(rest),
            Answer::Head(_) => {}
        }
        self.caller.send(cx, output).map_err(|_| ExchangeFailure::CallerLeft)?;
        match self.caller.poll_sent(cx) {
            Poll::Ready(Ok(())) => Ok(self.answered(left)),
            Poll::Ready(Err(_)) => Err(ExchangeFailure::CallerLeft),
            Poll::Pending => {
                self.note_excess(left);
                Ok(None)
            }
        }
    }

    /// What a malformed body means: nothing of its answer was sent yet if its head came with it, else what was
    /// good of it is sent.
    fn broken(
        &mut self,
        cx: &mut Context<'_>,
        fault: BodyFault,
        is_head: bool,
        good: &[u8],
    ) -> ExchangeFailure {
        if is_head {
            self.answer = Answer::Head(Vec::new());
        } else if self.caller.send(cx, good).is_err() {
            return ExchangeFailure::CallerLeft;
        }
        ExchangeFailure::Body(fault)
    }

    /// Takes heads until one is final; answers how many bytes they take. What is no whole head is held.
    fn take_heads(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<Option<usize>, ExchangeFailure> {
        let mut taken = 0;
        loop {
            let shown = head::response(&input[taken..], |head, size| {
                self.take_head(head, output).map(|is_final| (is_final, size))
            });
            match shown.map_err(ExchangeFailure::Answer)? {
                Some(shown) => {
                    let (is_final, size) = shown?;
                    taken += size;
                    if is_final {
                        return Ok(Some(taken));
                    }
                }
                None if input.len() - taken > RESPONSE_HEAD_BYTES_MAX => {
                    let fault = HeadFault::TooLarge(RESPONSE_HEAD_BYTES_MAX);
                    return Err(ExchangeFailure::Answer(fault));
                }
                None => {
                    self.answer = Answer::Head(input[taken..].to_vec());
                    return Ok(None);
                }
            }
        }
    }

    /// Writes an answer's head for the caller. False for one that another follows (RFC 9110 section 15.2).
    fn take_head(
        &mut self,
        head: &ResponseHead<'_>,
        output: &mut Vec<u8>,
    ) -> Result<bool, ExchangeFailure> {
        if head.status == 101 {
            if !self.caller.request.upgrades {
                return Err(ExchangeFailure::Switch);
            }
            self.begin_head(head, output);
            output.extend_from_slice(b"connection: upgrade\r\n");
            if let Some(protocol) = head.upgrade() {
                write_header(output, b"upgrade", protocol);
            }
            output.extend_from_slice(b"\r\n");
            self.answer = Answer::Switched(Vec::new());
            return Ok(true);
        }
        if head.status < 200 {
            self.preliminary += 1;
            return match self.preliminary > PRELIMINARY_ANSWERS_MAX {
                true => Err(ExchangeFailure::Preliminary),
                false => Ok(false),
            };
        }
        let framing = head.framing(self.caller.request.is_head);
        // A caller of HTTP/1.0 knows no chunks: the connection's end tells it of the body's.
        let to_caller = match framing {
            Framing::Chunked | Framing::UntilClose if self.caller.request.is_http10 => {
                Framing::UntilClose
            }
            Framing::UntilClose => Framing::Chunked,
            same => same,
        };
        let stays =
            self.may_stay && self.caller.request.keeps_alive && to_caller != Framing::UntilClose;
        self.caller.request.keeps_alive = stays;
        self.begin_head(head, output);
        match (to_caller, head.length()) {
            // An answer to HEAD, or one that says "unchanged", names the length that it does not have.
            (Framing::None, Some(length)) if head.status != 204 => {
                write_framing(output, Framing::Length(length));
            }
            _ => write_framing(output, to_caller),
        }
        self.caller.write_connection(output, stays);
        output.extend_from_slice(b"\r\n");
        let upstream_stays = head.keeps_alive() && framing != Framing::UntilClose;
        let (status, decoder) = (head.status, Decoder::new(framing));
        self.answer =
            Answer::Body { status, decoder, encoder: Encoder::new(to_caller), upstream_stays };
        Ok(true)
    }

    fn begin_head(&mut self, head: &ResponseHead<'_>, output: &mut Vec<u8>) {
        output.extend_from_slice(b"HTTP/1.1 ");
        output.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
        output.push(b' ');
        output.extend_from_slice(head.reason.as_bytes());
        output.extend_from_slice(b"\r\n");
        (self.write_head)(head, output);
    }

    /// Bytes behind an answer: nobody asked for them, so its connection is not used again.
    fn note_excess(&mut self, left: &[u8]) {
        if let Answer::Body { upstream_stays, .. } = &mut self.answer {
            *upstream_stays &= left.is_empty();
        }
    }

    /// Whether all of the answer has been passed on.
    fn answered(&mut self, left: &[u8]) -> Option<Answered> {
        self.note_excess(left);
        match &mut self.answer {
            Answer::Switched(early) => Some(Answered::Switched(std::mem::take(early))),
            Answer::Body { decoder, upstream_stays, .. } if decoder.is_ended() => {
                let request_is_sent = self.request.sent == self.request.bytes.len()
                    && self.caller.body.is_ended()
                    && self.upstream_takes_no_more.is_none();
                let reusable = *upstream_stays && request_is_sent;
                Some(if reusable { Answered::Reusable } else { Answered::Closed })
            }
            _ => None,
        }
    }

    fn upstream_ended(
        &mut self,
        cx: &mut Context<'_>,
        error: Option<io::Error>,
    ) -> Result<Option<Answered>, ExchangeFailure> {
        match &mut self.answer {
            Answer::Head(held) if held.is_empty() => {
                let error = self.upstream_takes_no_more.take().or(error);
                Err(ExchangeFailure::Unanswered(error))
            }
            Answer::Head(_) => Err(ExchangeFailure::Answer(HeadFault::Short)),
            Answer::Body { decoder, encoder, .. } => {
                if error.is_some() {
                    return Err(ExchangeFailure::Body(BodyFault::Short));
                }
                decoder.end().map_err(ExchangeFailure::Body)?;
                let mut end = Vec::new();
                encoder.end(&[], &mut end);
                self.caller.send(cx, &end).map_err(|_| ExchangeFailure::CallerLeft)?;
                Ok(None)
            }
            Answer::Switched(_) => Ok(None),
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeFailure> {
        let begun = self.status().is_some();
        if self.caller.is_behind() {
            // The kernel ends a connection whose other end takes nothing; it alone sees slow progress.
            return Poll::Pending;
        }
        if !begun && !self.awaits_body {
            // The usual wait, for the function: no clock is read.
            let late = self.caller.patience.poll(cx, self.answer_by);
            return late.map(|()| ExchangeFailure::Late);
        }
        if std::mem::take(&mut self.moved) {
            self.still_since = Instant::now();
        }
        let silent = self.still_since + BODY_IDLE_MAX;
        let until = if begun { silent } else { silent.min(self.answer_by) };
        ready!(self.caller.patience.poll(cx, until));
        Poll::Ready(match begun {
            true => ExchangeFailure::Silent,
            false if until == self.answer_by => ExchangeFailure::Late,
            false => ExchangeFailure::CallerSilent,
        })
    }
}
