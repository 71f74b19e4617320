//! The way of an invocation, top to bottom.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{
    body::{Body, Incoming},
    upgrade::OnUpgrade,
};
use pinnace_core::{limits, name::DEFAULT_NAMESPACE};
use pinnace_proxy::{
    BodyEnd, Ended, Lease, Relay, SendFailure, Sent,
    headers::{set_upgrade, strip_hop},
    relay::Unwatched,
    upgrade::splice,
};
use tokio::time::{Instant as Deadline, timeout_at};

use crate::{
    catalog::{Catalog, Entry},
    proxy::{
        admission::{Activate, Entered, Seat, seat, seat_at_once},
        answer::AnswerBody,
        failure::Failure,
        route,
        stamp::{Peer, Stamp},
    },
    replica::RequestBody,
};

/// What every call on one worker needs.
pub struct Calls {
    /// The functions.
    pub catalog: Arc<Catalog>,
    /// Starts replicas.
    pub activate: Arc<dyn Activate>,
    /// Longest time to a function's first byte, unless it names its own.
    pub deadline: Duration,
    /// Which worker this is.
    pub worker: usize,
}

/// A call that was admitted to its function.
struct Call {
    entered: Entered,
    worker: usize,
    started: Instant,
}

impl Calls {
    /// Answers a call of the function that `segment` names.
    pub async fn answer(
        &self,
        segment: &str,
        rest: &str,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Response<AnswerBody> {
        let started = Instant::now();
        let target = route::target(rest, request.uri().query());
        let Some(entry) = self.catalog.find(segment) else {
            return refuse(&unknown(segment));
        };
        entry.stats.started(self.worker);
        let result = match target {
            Some(target) => self.call(entry.clone(), target, request, peer, started).await,
            None => Err(Failure::Target(entry.id.to_string())),
        };
        result.unwrap_or_else(|failure| {
            entry.stats.answered(self.worker, failure.status().as_u16(), started.elapsed());
            refuse(&failure)
        })
    }

    async fn call(
        &self,
        entry: Arc<Entry>,
        target: http::Uri,
        mut request: Request<Incoming>,
        peer: &Peer,
        started: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Failure::Method(request.method().to_string()));
        }
        let name = || entry.id.to_string();
        let entered = Entered::new(entry.clone())?;
        let after = entry.deployed().spec.deadline.unwrap_or(self.deadline);
        let deadline = Deadline::from_std(started + after);

        let hop = strip_hop(request.headers_mut());
        let client_upgrade = hop.upgrade.map(|protocol| {
            set_upgrade(request.headers_mut(), protocol);
            hyper::upgrade::on(&mut request)
        });
        let stamp = Stamp::request(request.headers_mut(), peer);
        let request = outgoing(request, target);

        let seat = match seat_at_once(&entry) {
            Some(seat) => seat,
            None => timeout_at(deadline, seat(&entry, &*self.activate))
                .await
                .map_err(|_| Failure::NotReadyInTime { name: name(), after })??,
        };
        let pool = seat.replica().pool(self.worker);
        let sent = timeout_at(deadline, pool.send(request, || seat.replica().connect()))
            .await
            .map_err(|_| Failure::NoAnswerInTime { name: name(), after })?
            .map_err(|failure| describe(&failure, name()))?;

        let call = Call { entered, worker: self.worker, started };
        Ok(call.respond(sent, seat, stamp, client_upgrade))
    }
}

impl Call {
    fn respond(
        self,
        sent: Sent<RequestBody>,
        seat: Seat,
        stamp: Stamp,
        client_upgrade: Option<OnUpgrade>,
    ) -> Response<AnswerBody> {
        let Sent { mut response, lease } = sent;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return match client_upgrade {
                Some(client) => self.switch(response, seat, stamp, client),
                None => self.refuse_switch(),
            };
        }
        strip_hop(response.headers_mut());
        let has_body = status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
        stamp.answer(response.headers_mut(), has_body);
        let end = CallEnd { call: self, seat, lease, status: status.as_u16() };
        response.map(|body| {
            AnswerBody::Function(Relay::new(body, limits::BODY_IDLE_MAX, u64::MAX, end))
        })
    }

    fn refuse_switch(&self) -> Response<AnswerBody> {
        let name = self.entered.entry().id.to_string();
        let why = "it switched protocols though nobody had asked it to".to_owned();
        let failure = Failure::BrokeOff { name, why };
        self.count(failure.status().as_u16());
        refuse(&failure)
    }

    /// The call turns into two streams of bytes; it lasts until both have ended.
    fn switch(
        self,
        mut response: Response<Incoming>,
        seat: Seat,
        stamp: Stamp,
        client: OnUpgrade,
    ) -> Response<AnswerBody> {
        let upstream = hyper::upgrade::on(&mut response);
        let protocol = strip_hop(response.headers_mut()).upgrade;
        stamp.answer(response.headers_mut(), false);
        if let Some(protocol) = protocol {
            set_upgrade(response.headers_mut(), protocol);
        }
        let status = response.status().as_u16();
        tokio::spawn(async move {
            if let Err(error) = splice(client, upstream, limits::BODY_IDLE_MAX).await {
                tracing::debug!(function = %self.entered.entry().id, %error, "upgraded call ended");
            }
            self.count(status);
            drop(seat);
        });
        response.map(|_| AnswerBody::Text(http_body_util::Full::default()))
    }

    fn count(&self, status: u16) {
        self.entered.entry().stats.answered(self.worker, status, self.started.elapsed());
    }
}

/// Closes a call when the answer's body has ended, whichever way.
pub struct CallEnd {
    call: Call,
    seat: Seat,
    lease: Lease<RequestBody>,
    status: u16,
}

impl Ended for CallEnd {
    fn ended(self, end: BodyEnd) {
        if end.complete {
            self.seat.replica().pool(self.call.worker).give_back(self.lease);
        }
        self.call.count(self.status);
    }
}

impl std::fmt::Debug for CallEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallEnd({} of {})", self.status, self.call.entered.entry().id)
    }
}

/// The request as the replica gets it.
fn outgoing(request: Request<Incoming>, target: http::Uri) -> Request<RequestBody> {
    let mut request =
        request.map(|body| Relay::new(body, limits::BODY_IDLE_MAX, u64::MAX, Unwatched));
    // hyper sends the body of a GET or HEAD of unknown length only where it is told to chunk it.
    if request.body().size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    *request.uri_mut() = target;
    *request.version_mut() = Version::HTTP_11;
    if !request.headers().contains_key(header::HOST) {
        // HTTP/1.0 callers may send none; HTTP/1.1 upstreams insist on one.
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("function"));
    }
    request
}

fn unknown(segment: &str) -> Failure {
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

fn describe(failure: &SendFailure, name: String) -> Failure {
    match failure {
        failure if failure.is_from_request_body() => Failure::RequestBody(name),
        SendFailure::Connect(error) => Failure::Unreachable { name, why: error.to_string() },
        SendFailure::Exchange(error) => Failure::BrokeOff { name, why: error.to_string() },
    }
}

fn refuse(failure: &Failure) -> Response<AnswerBody> {
    let mut response = failure.response().map(AnswerBody::Text);
    crate::proxy::stamp::served_by(response.headers_mut());
    response
}
