//! The way of an invocation, top to bottom.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use pinnace_core::{limits, name::DEFAULT_NAMESPACE};
use pinnace_proxy::{
    Stream,
    h1::{Answered, Asked, Exchange, ExchangeFailure, Inbound, Outgoing, RequestHead, tunnel},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    catalog::{Catalog, Entry},
    metrics::Requests,
    proxy::{
        admission::{Activate, Entered, Seat, seat, seat_at_once},
        connection::refuse,
        failure::Failure,
        route::{self, Route},
        stamp::{Peer, Stamp},
        submission::Asynchronous,
        sweeping::Sweeping,
    },
    queue::AsyncQueue,
    replica::Replica,
};

/// Wait before a replica that refused a connection, or the next one, is tried.
const CONNECT_RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What every call on one worker needs.
pub struct Calls {
    /// The functions.
    pub catalog: Arc<Catalog>,
    /// Starts replicas.
    pub activate: Arc<dyn Activate>,
    /// Takes asynchronous calls.
    pub queue: Arc<AsyncQueue>,
    /// Counts those.
    pub requests: Arc<Requests>,
    /// Longest time to a function's first byte, unless it names its own.
    pub deadline: Duration,
    /// Which worker this is.
    pub worker: usize,
    /// When its idle connections are looked through.
    pub sweeping: Sweeping,
}

/// A call that was admitted to its function.
#[derive(Debug)]
pub struct Call {
    entered: Entered,
    started: Instant,
    after: Duration,
    stamp: Stamp,
    is_idempotent: bool,
}

/// How a call was passed on.
enum Passed {
    /// The answer has ended, at this time.
    Whole(Instant),
    /// It has turned into two streams of bytes.
    Switched(Switched),
}

/// The function's side of a call that has turned into two streams of bytes.
struct Switched {
    seat: Seat,
    stream: Stream,
    /// What came from it already.
    early: Vec<u8>,
}

/// A call that has turned into two streams of bytes.
pub struct Tunnel {
    call: Call,
    upstream: Switched,
}

/// What becomes of a caller's connection after a call.
pub enum Next {
    /// It was answered, at this time; another request may come.
    Request(Instant),
    /// It belongs to a tunnel.
    Tunnel(Box<Tunnel>),
    /// The caller may still read what was answered; nothing more is asked.
    End,
    /// Nothing more can be said over it.
    Close,
}

/// Why a call was not passed on to its end.
enum Broken {
    /// No byte of an answer was sent.
    Refuse(Failure),
    /// The answer broke off; it had this status.
    Cut(u16),
    /// The caller has left before an answer began.
    Left,
}

/// How calls are counted whose caller left before an answer began; servers agree on no other number.
pub(super) const CALLER_LEFT: u16 = 499;

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Refuse(failure)
    }
}

impl Calls {
    /// Decides what becomes of a request, from its head; writes the head of one that goes to a function, or
    /// what is asked of the queue, for [`Asked::Hold`].
    pub fn judge(
        &self,
        head: &RequestHead<'_>,
        peer: &Peer,
        out: &mut Vec<u8>,
        asynchronous: &mut Option<Asynchronous>,
    ) -> Asked<Call, Failure> {
        let (segment, rest) = match Route::of(head.target) {
            Route::Function { segment, rest } => (segment, rest),
            Route::Async { segment, rest } => {
                let started = Instant::now();
                return match self.judge_asynchronous(head, segment, rest, peer) {
                    Ok(asked) => {
                        *asynchronous = Some(asked);
                        Asked::Hold
                    }
                    Err(failure) => {
                        let status = failure.status().as_u16();
                        self.count_asynchronous(head.method, status, started);
                        Asked::Refuse(failure)
                    }
                };
            }
            Route::Control if peer.function.is_some() && !route::is_issuer(head.target) => {
                return Asked::Refuse(Failure::NotAtGateway);
            }
            Route::Control => return Asked::Lend,
        };
        if let Some(from) = &peer.function {
            let caller = from.caller.as_ref();
            let (function, replica) = (caller.map(|c| &c.function), caller.map(|c| &c.replica));
            tracing::debug!(caller = ?function, ?replica, called = segment, "a function calls");
        }
        let Some(entry) = self.catalog.find(segment) else {
            return Asked::Refuse(unknown(segment));
        };
        let started = Instant::now();
        entry.stats.started(self.worker);
        let admitted = self.admit(entry.clone(), started, head, rest, peer, out);
        admitted.map_or_else(
            |failure| {
                let status = failure.status().as_u16();
                entry.stats.answered(self.worker, status, started.elapsed());
                Asked::Refuse(failure)
            },
            Asked::Relay,
        )
    }

    fn admit(
        &self,
        entry: Arc<Entry>,
        started: Instant,
        head: &RequestHead<'_>,
        rest: &str,
        peer: &Peer,
        out: &mut Vec<u8>,
    ) -> Result<Call, Failure> {
        if matches!(head.method, "CONNECT" | "TRACE") {
            return Err(Failure::Method(head.method.to_owned()));
        }
        out.extend_from_slice(head.method.as_bytes());
        out.push(b' ');
        if !route::write_target(rest, out) {
            return Err(Failure::Target(entry.id.to_string()));
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let after = entry.deadline().unwrap_or(self.deadline).min(limits::CALL_DEADLINE_MAX);
        let entered = Entered::new(entry)?;
        let stamp = Stamp::request(head, peer, out);
        let is_idempotent = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        Ok(Call { entered, started, after, stamp, is_idempotent })
    }

    /// Answers a call.
    pub async fn answer(
        &self,
        call: Call,
        caller: &mut Inbound,
        request: &mut Outgoing,
        may_stay: bool,
    ) -> Next {
        match self.pass(&call, caller, request, may_stay).await {
            Ok(Passed::Whole(ended)) => Next::Request(ended),
            Ok(Passed::Switched(upstream)) => Next::Tunnel(Box::new(Tunnel { call, upstream })),
            Err(Broken::Refuse(failure)) => {
                let ended = Instant::now();
                self.count(&call, failure.status().as_u16(), ended);
                drop(call);
                match refuse(caller, &failure, may_stay).await {
                    Ok(()) => Next::Request(ended),
                    Err(_) => Next::Close,
                }
            }
            Err(Broken::Cut(status)) => self.close(&call, status),
            Err(Broken::Left) => self.close(&call, CALLER_LEFT),
        }
    }

    fn close(&self, call: &Call, status: u16) -> Next {
        self.count(call, status, Instant::now());
        Next::Close
    }

    /// Copies both ways until both sides of a call that has switched protocols are done.
    pub async fn carry(&self, tunnelled: Tunnel, caller: Inbound) {
        let Tunnel { call, upstream: Switched { seat, stream, early } } = tunnelled;
        let (client, sent) = caller.into_parts();
        let ended = tunnel(client, sent, stream, early, limits::TUNNEL_IDLE_MAX).await;
        if let Err(error) = ended {
            tracing::debug!(function = %call.entry().id, %error, "upgraded call ended");
        }
        drop(seat);
        self.count(&call, 101, Instant::now());
    }

    /// Finds a replica and passes the call to it, and the answer back.
    async fn pass(
        &self,
        call: &Call,
        caller: &mut Inbound,
        request: &mut Outgoing,
        may_stay: bool,
    ) -> Result<Passed, Broken> {
        let mut seat = self.seat(call, caller).await?;
        let mut connection = match call.goes_over_h2(seat.replica()) {
            true => None,
            false => seat.replica().idle(self.worker).take(call.started),
        };
        loop {
            let is_reused = connection.is_some();
            let mut upstream = match connection.take() {
                Some(upstream) => upstream,
                None => {
                    let connected;
                    (seat, connected) = self.connect(call, caller, seat).await?;
                    connected
                }
            };
            let mut exchange = Exchange::new(
                caller,
                &mut upstream,
                request,
                call.deadline(),
                may_stay,
                |head, out| {
                    call.stamp.answer(head, out);
                },
            );
            let outcome = poll_fn(|cx| exchange.poll(cx)).await;
            let status = exchange.status();
            match outcome {
                Ok(Answered::Switched(early)) => {
                    return Ok(Passed::Switched(Switched { seat, stream: upstream, early }));
                }
                Ok(answered) => {
                    let ended = Instant::now();
                    if answered == Answered::Reusable {
                        seat.replica().idle(self.worker).put(upstream, ended);
                        self.sweeping.resume();
                    }
                    self.count(call, status.unwrap_or_default(), ended);
                    return Ok(Passed::Whole(ended));
                }
                // One more try, on a new connection: this one had gone stale.
                Err(ExchangeFailure::Unanswered(_))
                    if is_reused && request.can_repeat(call.is_idempotent) => {}
                Err(failure) => {
                    if let Some(status) = status {
                        tracing::debug!(function = %call.entry().id, %failure, "an answer broke off");
                        return Err(Broken::Cut(status));
                    }
                    return Err(call.describe(failure));
                }
            }
        }
    }

    async fn seat(&self, call: &Call, caller: &mut Inbound) -> Result<Seat, Broken> {
        let entry = call.entry();
        if let Some(seat) = seat_at_once(entry) {
            return Ok(seat);
        }
        let waiting = timeout_at(call.deadline(), seat(entry, &*self.activate));
        let waited = caller.while_here(waiting).await.map_err(|_| Broken::Left)?;
        let (name, after) = (|| entry.id.to_string(), call.after);
        Ok(waited.map_err(|_| Failure::NotReadyInTime { name: name(), after })??)
    }

    /// A new connection. A replica that refuses it may be about to end: the call then takes another seat, or
    /// waits in the queue.
    async fn connect(
        &self,
        call: &Call,
        caller: &mut Inbound,
        mut seat: Seat,
    ) -> Result<(Seat, Stream), Broken> {
        let (name, after) = (|| call.entry().id.to_string(), call.after);
        let give_up = (Instant::now() + limits::CONNECT_RETRY_TIME_MAX).min(call.deadline());
        loop {
            let connecting = timeout_at(call.deadline(), self.reach(call, seat.replica()));
            let connected = caller.while_here(connecting).await.map_err(|_| Broken::Left)?;
            let why = match connected {
                Ok(Ok(stream)) => return Ok((seat, stream)),
                Ok(Err(why)) => why.to_string(),
                Err(_) => return Err(Failure::NoAnswerInTime { name: name(), after }.into()),
            };
            drop(seat);
            if Instant::now() + CONNECT_RETRY_PAUSE >= give_up {
                return Err(Failure::Unreachable { name: name(), why }.into());
            }
            let pause = sleep(CONNECT_RETRY_PAUSE);
            caller.while_here(pause).await.map_err(|_| Broken::Left)?;
            seat = self.seat(call, caller).await?;
        }
    }

    async fn reach(&self, call: &Call, replica: &Replica) -> io::Result<Stream> {
        if !call.goes_over_h2(replica) {
            return replica.connect().await;
        }
        let line = replica.open_line(self.worker).await;
        self.sweeping.resume();
        line
    }

    fn count(&self, call: &Call, status: u16, ended: Instant) {
        let took = ended.saturating_duration_since(call.started);
        call.entry().stats.answered(self.worker, status, took);
    }
}

impl Call {
    fn entry(&self) -> &Arc<Entry> {
        self.entered.entry()
    }

    fn deadline(&self) -> Instant {
        self.started + self.after
    }

    fn goes_over_h2(&self, replica: &Replica) -> bool {
        replica.speaks_h2c() || self.stamp.is_grpc()
    }

    fn describe(&self, failure: ExchangeFailure) -> Broken {
        let name = self.entry().id.to_string();
        Broken::Refuse(match failure {
            ExchangeFailure::CallerLeft => return Broken::Left,
            ExchangeFailure::Late => Failure::NoAnswerInTime { name, after: self.after },
            ExchangeFailure::CallerBody(fault) => Failure::RequestBody { name, fault },
            ExchangeFailure::CallerSilent => Failure::RequestBodySlow(name),
            failure => Failure::BrokeOff { name, why: failure.to_string() },
        })
    }
}

/// What is said of a segment that names no function.
pub(super) fn unknown(segment: &str) -> Failure {
    if segment.is_empty() {
        return Failure::NameMissing;
    }
    // The name is shown, but a hostile one may be long.
    let shown: String = segment.chars().take(128).collect();
    Failure::Unknown(if shown.contains('.') {
        shown
    } else {
        format!("{shown}.{DEFAULT_NAMESPACE}")
    })
}
