//! A caller's connection that carries many calls at a time, and one call of it.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request, Response, StatusCode};
use pinnace_core::limits::{
    CALLER_STREAM_WINDOW_BYTES, CALLER_WINDOW_BYTES, REQUEST_HEAD_BYTES_MAX,
    RESPONSE_HEAD_BYTES_MAX, STREAM_BUFFER_BYTES_MAX, STREAM_FAULTS_MAX, STREAMS_PER_CALLER_MAX,
    UNSERVED_RESETS_MAX,
};

use super::{failed, head, inlet::Inlet, malformed, outlet::Outlet, prefixed::Prefixed};
use crate::{
    Stream,
    h1::{Framing, ResponseHead, response_head},
    stream::Layer,
};

/// What a connection begins with whose caller knows that HTTP/2 is understood (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A caller's connection.
#[derive(Debug)]
pub struct Multiplexed {
    connection: server::Connection<Prefixed, Bytes>,
}

impl Multiplexed {
    /// Begins to speak HTTP/2 over a connection, of which `early` was received already.
    ///
    /// # Errors
    /// The caller does not speak it, or has left.
    pub async fn begin(stream: Stream, early: Vec<u8>) -> io::Result<Self> {
        let mut settings = server::Builder::new();
        settings
            .max_concurrent_streams(STREAMS_PER_CALLER_MAX)
            .max_header_list_size(REQUEST_HEAD_BYTES_MAX as u32)
            .initial_window_size(CALLER_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CALLER_WINDOW_BYTES)
            .max_send_buffer_size(STREAM_BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(UNSERVED_RESETS_MAX)
            .max_local_error_reset_streams(Some(STREAM_FAULTS_MAX));
        let connection = settings.handshake(Prefixed::new(early, stream)).await.map_err(failed)?;
        Ok(Self { connection })
    }

    /// The next call, a connection of its own to whoever answers it. `None`: the connection has ended. What
    /// the calls under way send and receive moves only while this is polled.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Caller>>> {
        let next = ready!(self.connection.poll_accept(cx));
        let caller = |(request, respond)| Caller::new(request, respond);
        Poll::Ready(next.map(|next| next.map(caller).map_err(failed)))
    }

    /// Tells the caller to make no further calls here; the connection ends with those under way.
    pub fn end(&mut self) {
        self.connection.graceful_shutdown();
    }
}

/// A caller's call, as a connection.
#[derive(Debug)]
pub struct Caller {
    request: Inlet,
    respond: SendResponse<Bytes>,
    to_head: bool,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// What was written of its head.
    Head(Vec<u8>),
    Body(Outlet),
    Whole,
}

impl Caller {
    fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (parts, body) = request.into_parts();
        let mut text = Vec::new();
        let framing = head::write_request(&parts, &body, &mut text);
        Self {
            request: Inlet::new(text, body, framing),
            respond,
            to_head: parts.method == Method::HEAD,
            answer: Answer::Head(Vec::new()),
        }
    }

    /// Leaves the call unanswered, as one that may be made again.
    pub fn refuse(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
        self.answer = Answer::Whole;
    }

    /// Takes bytes of the answer's head.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Answer::Head(held) = &mut self.answer else { return Ok(0) };
        let before = held.len();
        held.extend_from_slice(bytes);
        let held = std::mem::take(held);
        let taken =
            response_head(&held, |head, size| self.send_head(head).map(|next| (next, size)))
                .map_err(malformed)?;
        match taken {
            Some(taken) => {
                let (next, size) = taken?;
                self.answer = next;
                Ok(size - before)
            }
            None if held.len() > 2 * RESPONSE_HEAD_BYTES_MAX => Err(malformed("too long a head")),
            None => {
                self.answer = Answer::Head(held);
                Ok(bytes.len())
            }
        }
    }

    /// Sends a head; answers what comes after it.
    fn send_head(&mut self, head: &ResponseHead<'_>) -> io::Result<Answer> {
        if head.status < 200 {
            if head.status == StatusCode::CONTINUE.as_u16() {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                self.respond.send_informational(go_on).map_err(failed)?;
            }
            return Ok(Answer::Head(Vec::new()));
        }
        let framing = head.framing(self.to_head);
        let is_whole = matches!(framing, Framing::None | Framing::Length(0));
        let response = head::response(head)?;
        let stream = self.respond.send_response(response, is_whole).map_err(failed)?;
        Ok(if is_whole { Answer::Whole } else { Answer::Body(Outlet::new(stream, framing)) })
    }

    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer {
            Answer::Head(_) => self.respond.poll_reset(cx).map(drop),
            Answer::Body(body) => body.poll_left(cx),
            Answer::Whole => Poll::Ready(()),
        }
    }
}

impl Layer for Caller {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match ready!(self.request.poll_receive(cx, buffer))? {
            // To have sent everything is not to have left, while there is no whole answer.
            0 => self.poll_left(cx).map(|()| Ok(0)),
            size => Poll::Ready(Ok(size)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.answer {
            Answer::Head(_) => Poll::Ready(self.take_head(bytes)),
            Answer::Body(body) => {
                let taken = ready!(body.poll_send(cx, bytes));
                if body.is_ended() {
                    self.answer = Answer::Whole;
                }
                Poll::Ready(taken)
            }
            Answer::Whole => Poll::Ready(Ok(0)),
        }
    }
}

impl Drop for Caller {
    /// An answer that was broken off must not look like one that has ended.
    fn drop(&mut self) {
        match &mut self.answer {
            Answer::Head(_) => self.respond.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(body) => body.reset(Reason::INTERNAL_ERROR),
            Answer::Whole => {}
        }
    }
}
