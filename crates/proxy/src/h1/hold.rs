//! Reading a request's body whole, where nothing can be done before it is there.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use pinnace_core::limits::BODY_IDLE_MAX;
use tokio::time::Instant;

use super::{ExchangeFailure, Inbound, Outgoing};

impl Inbound {
    /// Reads the body of a request that was judged [`super::Asked::Hold`] to its end. `None`: it has more than
    /// so many bytes; what is left of it is unread.
    ///
    /// # Errors
    /// The caller has left or is silent, or the body is malformed.
    pub async fn hold(
        &mut self,
        request: &mut Outgoing,
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, ExchangeFailure> {
        let mut bytes = std::mem::take(&mut request.bytes);
        let mut until = Instant::now() + BODY_IDLE_MAX;
        loop {
            if bytes.len() > bytes_max {
                return Ok(None);
            }
            if self.body.is_ended() {
                return Ok(Some(bytes));
            }
            poll_fn(|cx| self.poll_held(cx, &mut bytes, until)).await?;
            until = Instant::now() + BODY_IDLE_MAX;
        }
    }

    fn poll_held(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Vec<u8>,
        until: Instant,
    ) -> Poll<Result<(), ExchangeFailure>> {
        self.tell_to_continue(cx)?;
        match self.poll_body(cx, bytes) {
            Poll::Pending => {
                self.patience.poll(cx, until).map(|()| Err(ExchangeFailure::CallerSilent))
            }
            ready => ready,
        }
    }

    /// Tells a caller that waits for it to send the body.
    pub(super) fn tell_to_continue(&mut self, cx: &mut Context<'_>) -> Result<(), ExchangeFailure> {
        let waits = std::mem::take(&mut self.request.expects_continue);
        if waits && self.held.is_empty() {
            let sent = self.send(cx, b"HTTP/1.1 100 Continue\r\n\r\n");
            sent.map_err(|_| ExchangeFailure::CallerLeft)?;
        }
        Ok(())
    }
}
