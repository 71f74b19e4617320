//! The body of the function's answer, on its way to the caller.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use pinnace_proxy::{BodyEnd, Ended, Lease, Relay};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::{Forwarder, gunzip::Gunzip, request::Outgoing};
use crate::{access::Access, answer::Broken, gate::Pass};

/// A body with the call's deadline upon it, unpacked if need be.
#[derive(Debug)]
pub struct Relayed {
    relay: Relay<End>,
    /// A frame that was looked at already.
    seen: Option<Frame<Bytes>>,
    /// Whether nothing follows it.
    ended: bool,
    deadline: Option<Deadline>,
    gunzip: Option<Box<Gunzip>>,
}

#[derive(Debug)]
struct Deadline {
    at: Instant,
    /// Made when it is waited for, which small bodies never do.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Why nothing came of a body.
#[derive(Debug)]
pub enum PeekFailure {
    /// The deadline has passed.
    ExecTimeout,
    /// The function broke off.
    Broken(Broken),
}

type Next = Option<Result<Frame<Bytes>, Broken>>;

impl Relayed {
    /// A body that must end by the deadline; `unzips` if the caller is owed the plain form.
    pub fn new(relay: Relay<End>, deadline: Option<Instant>, unzips: bool) -> Self {
        let deadline = deadline.map(|at| Deadline { at, sleep: None });
        let gunzip = unzips.then(Box::default);
        Self { relay, seen: None, ended: false, deadline, gunzip }
    }

    /// Waits for the first bytes and shows them; `None` if there are none.
    ///
    /// # Errors
    /// The body broke off before.
    pub async fn peek(&mut self) -> Result<Option<&[u8]>, PeekFailure> {
        match poll_fn(|cx| self.poll_frame(cx)).await {
            None => Ok(None),
            Some(Err(Broken::ExecTimeout)) => Err(PeekFailure::ExecTimeout),
            Some(Err(broken)) => Err(PeekFailure::Broken(broken)),
            Some(Ok(frame)) => {
                let frame = self.seen.insert(frame);
                Ok(frame.data_ref().map(Bytes::as_ref))
            }
        }
    }

    /// Waits until `max_bytes` have come, the body has ended, or `until`. If it has ended by then its length is known.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn gather(&mut self, max_bytes: usize, until: Instant) -> Result<(), PeekFailure> {
        let mut gathered = BytesMut::new();
        let work = async {
            while gathered.len() < max_bytes {
                match poll_fn(|cx| self.poll_frame(cx)).await {
                    Some(frame) => match frame?.into_data() {
                        Ok(data) => gathered.extend_from_slice(&data),
                        // Trailers, which are not passed on, end a body.
                        Err(_) => return Ok(true),
                    },
                    None => return Ok(true),
                }
            }
            Ok(false)
        };
        match timeout_at(until, work).await {
            Ok(Ok(ended)) => self.ended = ended,
            Ok(Err(Broken::ExecTimeout)) => return Err(PeekFailure::ExecTimeout),
            Ok(Err(broken)) => return Err(PeekFailure::Broken(broken)),
            Err(_) => {}
        }
        self.seen = (!gathered.is_empty()).then(|| Frame::data(gathered.freeze()));
        Ok(())
    }

    /// The next part.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(seen) = self.seen.take() {
            return Poll::Ready(Some(Ok(seen)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            let next = ready!(self.poll_relay(cx));
            let Some(gunzip) = &mut self.gunzip else { return Poll::Ready(next) };
            match gunzip.unpack(next) {
                // A part that unpacks to nothing yet.
                Some(Ok(plain)) if plain.is_empty() => {}
                unpacked => return Poll::Ready(unpacked.map(|plain| plain.map(Frame::data))),
            }
        }
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(next) = Pin::new(&mut self.relay).poll_frame(cx) {
            return Poll::Ready(next.map(|frame| frame.map_err(Broken::from)));
        }
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        let sleep = deadline.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.at)));
        sleep.as_mut().poll(cx).map(|()| Some(Err(Broken::ExecTimeout)))
    }

    /// Whether nothing more will come.
    pub fn is_end_stream(&self) -> bool {
        let ended = || self.gunzip.is_none() && self.relay.is_end_stream();
        self.seen.is_none() && (self.ended || ended())
    }

    /// What is known of its length.
    pub fn size_hint(&self) -> SizeHint {
        let seen = self.seen.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let left = match &self.gunzip {
            _ if self.ended => Some(0),
            None => self.relay.size_hint().exact(),
            Some(_) => None,
        };
        left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(seen + left))
    }
}

/// What is done when the body has ended: the connection goes back, the place is freed, the line logged.
#[derive(Debug)]
pub struct End {
    forwarder: Arc<Forwarder>,
    lease: Lease<Outgoing>,
    _pass: Pass,
    access: Access,
    call: CallEnd,
}

/// What is logged.
#[derive(Debug)]
pub enum CallEnd {
    /// An ordinary call.
    Forwarded {
        /// Its status.
        status: StatusCode,
        /// What the function said beside it, if that was its own.
        reason: Option<ReasonPhrase>,
        /// The length that the function named.
        length: Option<u64>,
    },
    /// An event stream with this status.
    Streamed(StatusCode),
}

impl End {
    /// Holds what is given back at the end.
    pub fn new(
        forwarder: &Arc<Forwarder>,
        lease: Lease<Outgoing>,
        pass: Pass,
        access: Access,
        call: CallEnd,
    ) -> Self {
        Self { forwarder: Arc::clone(forwarder), lease, _pass: pass, access, call }
    }
}

impl Ended for End {
    fn ended(self, end: BodyEnd) {
        if end.complete {
            self.forwarder.pool.give_back(self.lease);
        }
        match self.call {
            CallEnd::Forwarded { status, reason, length } => {
                let reason = reason.as_ref().map(ReasonPhrase::as_bytes);
                self.access.forwarded(status, reason, length);
            }
            CallEnd::Streamed(status) => self.access.streamed(status, end.bytes),
        }
    }
}
