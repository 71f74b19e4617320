//! A body on its way through: one frame at a time, with a limit on silence and, if wished, on size.
//!
//! No channel stands between the two ends, so slowness of one is felt by the other. The timer runs only
//! while the receiver waits for the sender: small bodies never see it, and a receiver that takes its
//! time is not taken for a silent sender.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

/// Is told once how a body ended.
pub trait Ended: Send + Unpin {
    /// `complete` is false if either side broke off before the body's end.
    fn ended(self, end: BodyEnd);
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyEnd {
    /// Whether the last byte was handed on.
    pub complete: bool,
    /// Bytes handed on.
    pub bytes: u64,
}

/// For bodies whose end nobody waits for.
#[derive(Debug)]
pub struct Unwatched;

impl Ended for Unwatched {
    fn ended(self, _: BodyEnd) {}
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The sender failed.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("no byte of the body came for {0:?}")]
    Silent(Duration),
    /// More came than is allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
}

/// A body that is passed on. The default is an empty one that nobody watches.
#[derive(Debug)]
pub struct Relay<E: Ended> {
    inner: Option<Incoming>,
    idle_max: Duration,
    bytes_max: u64,
    bytes: u64,
    silence: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    ended: Option<E>,
}

impl<E: Ended> Relay<E> {
    /// Passes `inner` on; breaks it off when nothing comes for `idle_max`, or more than `bytes_max`.
    pub fn new(inner: Incoming, idle_max: Duration, bytes_max: u64, ended: E) -> Self {
        let inner = Some(inner);
        let ended = Some(ended);
        Self { inner, idle_max, bytes_max, bytes: 0, silence: None, waiting: false, ended }
    }

    /// Bytes handed on so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn end(&mut self, complete: bool) {
        if let Some(ended) = self.ended.take() {
            ended.ended(BodyEnd { complete, bytes: self.bytes });
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<RelayError> {
        let idle_max = self.idle_max;
        match &mut self.silence {
            None => self.silence = Some(Box::pin(sleep(idle_max))),
            Some(silence) if !self.waiting => silence.as_mut().reset(after(idle_max)),
            Some(_) => {}
        }
        self.waiting = true;
        let Some(silence) = &mut self.silence else { return Poll::Pending };
        silence.as_mut().poll(cx).map(|()| RelayError::Silent(idle_max))
    }
}

/// The end of a wait that begins now. One that is too long to be counted ends in a year or so.
fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + Duration::from_secs(1 << 25))
}

impl<E: Ended> Default for Relay<E> {
    fn default() -> Self {
        let idle_max = Duration::MAX;
        let (inner, silence, ended) = (None, None, None);
        Self { inner, idle_max, bytes_max: 0, bytes: 0, silence, waiting: false, ended }
    }
}

impl<E: Ended> Body for Relay<E> {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(next) = Pin::new(inner).poll_frame(cx) else {
            let silent = std::task::ready!(this.poll_silence(cx));
            this.end(false);
            return Poll::Ready(Some(Err(silent)));
        };
        this.waiting = false;
        match next {
            Some(Ok(frame)) => {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.bytes > this.bytes_max {
                    this.end(false);
                    return Poll::Ready(Some(Err(RelayError::TooLarge(this.bytes_max))));
                }
                if this.is_end_stream() {
                    this.end(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.end(false);
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.end(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<E: Ended> Drop for Relay<E> {
    fn drop(&mut self) {
        // An empty body is never polled: its end is the body's end all the same.
        let complete = self.is_end_stream();
        self.end(complete);
    }
}
