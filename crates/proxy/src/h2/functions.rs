//! Connections to a function that speaks HTTP/2, and one call over one of them.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use pinnace_core::limits::{
    CALLS_PER_FUNCTION_CONNECTION_MAX, FUNCTION_STREAM_WINDOW_BYTES, FUNCTION_WINDOW_BYTES,
    RESPONSE_HEAD_BYTES_MAX, STREAM_BUFFER_BYTES_MAX, STREAMS_PER_FUNCTION_CONNECTION_MAX,
};
use tokio::time::Instant;

use super::{failed, head, inlet::Inlet, malformed, outlet::Outlet};
use crate::{
    Stream,
    h1::{Framing, request_head},
    stream::Layer,
};

/// Connections of one worker to one upstream, each with calls or lately used. Its lock is never contended.
#[derive(Debug)]
pub struct Lines {
    lines: Mutex<Vec<Line>>,
    count_max: usize,
    kept: Duration,
}

#[derive(Debug)]
struct Line {
    sender: SendRequest<Bytes>,
    /// Held by each call on it too.
    calls: Arc<()>,
    calls_left: u32,
    used: Instant,
}

impl Line {
    fn calls(&self) -> usize {
        Arc::strong_count(&self.calls) - 1
    }

    fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        let most = STREAMS_PER_FUNCTION_CONNECTION_MAX.min(self.sender.current_max_send_streams());
        self.calls() < most && self.calls_left > 0 && self.is_open()
    }

    fn call(&mut self, now: Instant) -> Stream {
        self.used = now;
        self.calls_left -= 1;
        Stream::Layered(Box::new(Call {
            sender: self.sender.clone(),
            to_head: false,
            request: Request::Head,
            answer: Answer::NotAsked,
            _on_line: self.calls.clone(),
        }))
    }
}

impl Lines {
    /// Keeps at most `count_max` connections, each without calls for at most `kept`.
    #[must_use]
    pub fn new(count_max: usize, kept: Duration) -> Self {
        Self { lines: Mutex::default(), count_max, kept }
    }

    /// A call over a connection that has room for it.
    pub fn take(&self, now: Instant) -> Option<Stream> {
        self.lines().iter_mut().find(|line| line.has_room()).map(|line| line.call(now))
    }

    /// A call over a new connection; the task that moves its frames belongs to this thread.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn open(&self, stream: Stream, now: Instant) -> io::Result<Stream> {
        let mut settings = client::Builder::new();
        settings
            .enable_push(false)
            .max_header_list_size(RESPONSE_HEAD_BYTES_MAX as u32)
            .initial_window_size(FUNCTION_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(FUNCTION_WINDOW_BYTES)
            .max_send_buffer_size(STREAM_BUFFER_BYTES_MAX);
        let (sender, connection) = settings.handshake(stream).await.map_err(failed)?;
        // It ends with the last call when nobody keeps it; its error is the calls', who have it too.
        tokio::spawn(connection);
        let calls_left = CALLS_PER_FUNCTION_CONNECTION_MAX;
        let mut line = Line { sender, calls: Arc::default(), calls_left, used: now };
        let call = line.call(now);
        let mut lines = self.lines();
        // The calls on one keep it by themselves.
        lines.retain(|line| line.calls_left > 0);
        if lines.len() < self.count_max {
            lines.push(line);
        }
        Ok(call)
    }

    /// Closes connections that were unused for too long, and forgets those that the upstream has closed; answers
    /// how many stay.
    pub fn sweep(&self, now: Instant) -> usize {
        let mut lines = self.lines();
        lines.retain_mut(|line| {
            if line.calls() > 0 {
                line.used = now;
            }
            now.saturating_duration_since(line.used) < self.kept && line.is_open()
        });
        lines.len()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of a function, as a connection. Dropped before its answer's end it tells the function that the caller
/// has left.
#[derive(Debug)]
struct Call {
    sender: SendRequest<Bytes>,
    to_head: bool,
    request: Request,
    answer: Answer,
    _on_line: Arc<()>,
}

#[derive(Debug)]
enum Request {
    Head,
    Body(Outlet),
    Whole,
}

#[derive(Debug)]
enum Answer {
    NotAsked,
    Head(ResponseFuture),
    Message(Inlet),
}

impl Call {
    /// Sends the request's head, which is written in one go.
    fn send_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shown = request_head(bytes, |head, size| {
            let framing = head.framing;
            head::request(head).map(|request| (request, framing, size))
        });
        let shown = shown.map_err(malformed)?.ok_or_else(|| malformed("no whole head"))?;
        let (request, framing, size) = shown?;
        self.to_head = request.method() == http::Method::HEAD;
        let is_whole = matches!(framing, Framing::None | Framing::Length(0));
        let (answer, body) = self.sender.send_request(request, is_whole).map_err(failed)?;
        self.answer = Answer::Head(answer);
        self.request = match is_whole {
            true => Request::Whole,
            false => Request::Body(Outlet::new(body, framing)),
        };
        Ok(size)
    }
}

impl Layer for Call {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.answer {
                // Whoever asks has failed to send, or waits for room to.
                Answer::NotAsked => return self.sender.poll_ready(cx).map(|_| Ok(0)),
                Answer::Head(answer) => {
                    let answer = ready!(Pin::new(answer).poll(cx)).map_err(failed)?;
                    let (parts, body) = answer.into_parts();
                    let mut text = Vec::new();
                    let framing = head::write_response(&parts, &body, self.to_head, &mut text)?;
                    self.answer = Answer::Message(Inlet::new(text, body, framing));
                }
                Answer::Message(message) => return message.poll_receive(cx, buffer),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.request {
            Request::Head => {
                ready!(self.sender.poll_ready(cx)).map_err(failed)?;
                Poll::Ready(self.send_head(bytes))
            }
            Request::Body(body) => body.poll_send(cx, bytes),
            Request::Whole => Poll::Ready(Ok(0)),
        }
    }
}
