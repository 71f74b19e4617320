//! A call that has turned into two streams of bytes (WebSocket and the like).

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::scratch;
use crate::{Stream, patience::Patience};

/// One direction.
struct Way {
    unsent: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The sender has ended; the receiver is to be told.
    Ending,
    Ended,
}

/// Copies both ways until both sides have ended, or nothing comes either way for `idle_max`. An end of one
/// side is passed on as such (half-close); the other may go on sending. `from_a` and `from_b` were received
/// already.
///
/// # Errors
/// Either side broke off, or both were silent for too long.
pub async fn tunnel(
    mut a: Stream,
    from_a: Vec<u8>,
    mut b: Stream,
    from_b: Vec<u8>,
    idle_max: Duration,
) -> io::Result<()> {
    let way = |unsent| Way { unsent, sent: 0, state: State::Open };
    let (mut there, mut back) = (way(from_a), way(from_b));
    let mut patience = Patience::default();
    let mut still_since = Instant::now();
    poll_fn(|cx| {
        let mut moved = false;
        let there_ended = there.poll(cx, &mut a, &mut b, &mut moved)?;
        let back_ended = back.poll(cx, &mut b, &mut a, &mut moved)?;
        if there_ended.is_ready() && back_ended.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if moved {
            still_since = Instant::now();
        }
        ready!(patience.poll(cx, still_since + idle_max));
        let text = format!("no byte came for {idle_max:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
    .await
}

impl Way {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.unsent.len() {
                match ready!(to.poll_send(cx, &self.unsent[self.sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    size => self.sent += size,
                }
                *moved = true;
            }
            self.unsent.clear();
            self.sent = 0;
            ready!(to.poll_pushed(cx))?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(to.poll_end(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    let size = ready!(scratch::with(|scratch| {
                        let size = ready!(from.poll_receive(cx, &mut scratch.input))?;
                        self.unsent.extend_from_slice(&scratch.input[..size]);
                        Poll::Ready(io::Result::Ok(size))
                    }))?;
                    if size == 0 {
                        self.state = State::Ending;
                    }
                    *moved = true;
                }
            }
        }
    }
}
