//! The body of an answer, whatever it comes from.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pinnace_proxy::RelayError;
use tokio::{sync::mpsc, time::Instant};

use crate::{files::FileBody, http_mode::Relayed, metrics::Counted};

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    from: From,
    /// When the last part must have been handed on.
    end_by: Option<Instant>,
    /// Whether it is meant to last, so that no limit of time holds for it.
    lasts: bool,
    /// Counts the call when this is dropped.
    counted: Option<Counted>,
}

#[derive(Debug)]
enum From {
    Memory(Option<Bytes>),
    Function(Box<Relayed>),
    Process(Output),
    File(FileBody),
}

/// Why an answer breaks off, which its receiver sees as an early end of the connection.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The function's server failed.
    #[error(transparent)]
    Function(#[from] RelayError),
    /// The function's server sent what is not gzip, or too much of it.
    #[error("the function's gzip body cannot be read: {0}")]
    Gzip(io::Error),
    /// `exec_timeout` has passed.
    #[error("exec_timeout has passed")]
    ExecTimeout,
    /// `write_timeout` has passed.
    #[error("write_timeout has passed")]
    WriteTimeout,
    /// A file cannot be read to its end.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
}

/// A part of a process's output.
pub type Part = Result<Bytes, Broken>;

/// The output of a process, handed over one part at a time.
#[derive(Debug)]
pub struct Output {
    first: Option<Bytes>,
    second: Option<Part>,
    rest: mpsc::Receiver<Part>,
}

impl Answer {
    /// Bytes that are there.
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        From::Memory(Some(bytes.into()).filter(|bytes| !bytes.is_empty())).into()
    }

    /// No bytes.
    pub fn empty() -> Self {
        From::Memory(None).into()
    }

    /// What the function's server sends.
    pub fn function(body: Relayed) -> Self {
        From::Function(Box::new(body)).into()
    }

    /// What a process writes: what it has written, then the rest.
    pub fn process(first: Bytes, second: Option<Part>, rest: mpsc::Receiver<Part>) -> Self {
        From::Process(Output { first: Some(first), second, rest }).into()
    }

    /// A part of a file.
    pub fn file(body: FileBody) -> Self {
        From::File(body).into()
    }

    /// Lifts the limits of time: it is an event stream or the beginning of a tunnel.
    pub fn lasting(mut self) -> Self {
        self.lasts = true;
        self
    }

    /// Whether it is meant to last.
    pub fn lasts(&self) -> bool {
        self.lasts
    }

    /// The call that counts once this has been sent.
    pub fn count(&mut self, counted: Counted) {
        self.counted = Some(counted);
    }

    /// Breaks the answer off if it has not ended by then.
    pub fn end_by(&mut self, at: Instant) {
        self.end_by = Some(at);
    }
}

impl std::convert::From<From> for Answer {
    fn from(from: From) -> Self {
        Self { from, end_by: None, lasts: false, counted: None }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let next = match &mut this.from {
            From::Memory(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            From::Function(body) => ready!(body.poll_frame(cx)),
            From::Process(output) => ready!(output.poll_frame(cx)),
            From::File(file) => ready!(file.poll_frame(cx)),
        };
        // As the originals: a part that comes too late is what breaks the answer off, not the clock alone.
        match (&next, this.end_by) {
            (Some(_), Some(end)) if Instant::now() > end => {
                Poll::Ready(Some(Err(Broken::WriteTimeout)))
            }
            _ => Poll::Ready(next),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Memory(bytes) => bytes.is_none(),
            From::Function(body) => body.is_end_stream(),
            From::Process(_) => false,
            From::File(file) => file.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Memory(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            From::Function(body) => body.size_hint(),
            From::Process(_) => SizeHint::default(),
            From::File(file) => SizeHint::with_exact(file.left()),
        }
    }
}

impl Output {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(second) = self.second.take() {
            return Poll::Ready(Some(second.map(Frame::data)));
        }
        self.rest.poll_recv(cx).map(|next| next.map(|part| part.map(Frame::data)))
    }
}

/// An answer with no body.
pub fn bare(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    *response.status_mut() = status;
    response
}

/// An answer of plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::memory(body));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// An answer of plain text to a fault of the caller, as Go's `http.Error` makes it.
pub fn error(status: StatusCode, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = text(status, body);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}
