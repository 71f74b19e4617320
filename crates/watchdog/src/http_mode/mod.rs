//! Mode http: the function is a server of its own, started once, and calls are handed on to it.
//!
//! Main path: [`Forwarder::call`] puts the request in order, sends it over the pool of connections to the
//! function, and hands the answer on as it comes. Event streams and tunnels go through [`streams`]: they
//! have no `exec_timeout`.

mod function;
mod gunzip;
mod relayed;
mod request;
mod streams;

use std::{error::Error as _, io, sync::Arc, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, ext::ReasonPhrase};
use pinnace_core::limits;
use pinnace_proxy::{Pool, Relay, RelayError, SendFailure, Sent, Stream, relay::Unwatched};
use tokio::time::{Instant, timeout_at};

pub use self::{function::Function, relayed::Relayed};
use self::{
    relayed::{CallEnd, PeekFailure},
    request::Outgoing,
};
use crate::{
    access::Access,
    answer::{self, Answer},
    dial, framing,
    front::Call,
    journal::Journal,
    settings::{Settings, Upstream},
    spelling, status,
};

/// Hands calls on to the function's server.
#[derive(Debug)]
pub struct Forwarder {
    pool: Pool<Outgoing>,
    upstream: Upstream,
    exec_timeout: Option<Duration>,
    read_timeout: Duration,
    buffer_body: bool,
    log_call_id: bool,
    journal: Journal,
}

impl Forwarder {
    /// To this upstream.
    pub fn new(upstream: Upstream, settings: &Settings, journal: &Journal) -> Self {
        let idle_max = limits::IDLE_CONNECTIONS_PER_REPLICA_MAX;
        Self {
            pool: Pool::new(idle_max, limits::IDLE_CONNECTION_KEPT).title_case_headers(),
            upstream,
            exec_timeout: settings.exec_timeout,
            read_timeout: settings.read_timeout,
            buffer_body: settings.buffer_body,
            log_call_id: settings.log_call_id,
            journal: journal.clone(),
        }
    }

    /// A call.
    pub async fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        if streams::is_wanted(request.headers()) {
            return self.stream(request, call).await;
        }
        let (mut parts, incoming) = request.into_parts();
        let line = (&parts.method, &parts.uri, &parts.headers);
        let access = Access::new(&self.journal, line, call.started, self.log_call_id);
        let deadline = self.limit(&parts.headers).map(|limit| call.started + limit);
        let body = match self.body(incoming).await {
            Ok(body) => body,
            Err(refused) => return refused.answer(&call),
        };
        let unzips = request::put_in_order(&mut parts, &self.upstream, body.framing());
        let sent = self.pool.send(Request::from_parts(parts, body), || self.connect());
        let sent = match deadline {
            Some(at) => timeout_at(at, sent).await,
            None => Ok(sent.await),
        };
        match sent {
            Ok(Ok(sent)) => self.hand_on(sent, call, access, deadline, unzips).await,
            Ok(Err(failure)) => self.send_failed(&failure, &call),
            Err(_) => self.too_slow(&call),
        }
    }

    /// Whether the function's server accepts connections.
    pub async fn is_reachable(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Waits until the function's server accepts a connection, and keeps that for the first call.
    pub async fn wait_reachable(&self) {
        let mut pause = Duration::from_millis(1);
        loop {
            match self.connect().await {
                // A connection that cannot be kept has shown what it was to show.
                Ok(stream) => return drop(self.pool.adopt(stream).await),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Closes connections that nobody used for a while.
    pub fn sweep(&self) {
        self.pool.sweep(std::time::Instant::now());
    }

    /// Closes the connections to the function that no call uses, and keeps none from now on.
    pub fn close(&self) {
        self.pool.close();
    }

    /// How long this call may take: `exec_timeout`, or less if its caller asks for less.
    fn limit(&self, headers: &HeaderMap) -> Option<Duration> {
        let asked = headers.get("x-timeout").and_then(|value| value.to_str().ok());
        let asked = asked.and_then(pinnace_core::duration::parse_go);
        let asked = asked.filter(|asked| !asked.is_zero());
        match (self.exec_timeout, asked) {
            (Some(limit), Some(asked)) => Some(limit.min(asked)),
            (limit, asked) => limit.or(asked),
        }
    }

    async fn body(&self, incoming: Incoming) -> Result<Outgoing, Refused> {
        if incoming.is_end_stream() {
            return Ok(Outgoing::default());
        }
        if !self.buffer_body {
            let relay = Relay::new(incoming, self.read_timeout, u64::MAX, Unwatched);
            return Ok(Outgoing::Relayed(relay));
        }
        let whole = Limited::new(incoming, limits::HELD_BODY_BYTES_MAX).collect();
        match tokio::time::timeout(self.read_timeout, whole).await {
            Ok(Ok(whole)) => Ok(Outgoing::Whole(Some(whole.to_bytes()))),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge),
            Ok(Err(_)) => Err(Refused::Broken),
            Err(_) => Err(Refused::TooSlow),
        }
    }

    async fn connect(&self) -> io::Result<Stream> {
        dial::connect(&self.upstream.place).await
    }

    async fn hand_on(
        self: &Arc<Self>,
        sent: Sent<Outgoing>,
        call: Call,
        access: Access,
        deadline: Option<Instant>,
        unzips: bool,
    ) -> Response<Answer> {
        let started = call.started;
        let (mut parts, incoming) = sent.response.into_parts();
        parts.version = Version::HTTP_11;
        let reason = parts.extensions.remove::<ReasonPhrase>();
        let unzips = unzips && request::is_gzip(&parts.headers);
        request::put_answer_in_order(&mut parts.headers, unzips);
        let took = status::seconds(started.elapsed());
        parts.headers.insert(status::X_DURATION_SECONDS, took);
        let length = request::length(&parts.headers);
        let end = CallEnd::Forwarded { status: parts.status, reason, length };
        let end = relayed::End::new(self, sent.lease, call.pass, access, end);
        let relay = Relay::new(incoming, limits::TUNNEL_IDLE_MAX, u64::MAX, end);
        let mut body = Relayed::new(relay, deadline, unzips);
        if let Err(failure) = request::guess_type(&mut parts.headers, &mut body).await {
            return self.broken_before_head(&failure, started);
        }
        if call.peer.is_some() && body.size_hint().exact().is_none() {
            let until = Instant::now() + framing::HELD_FOR;
            if let Err(failure) = body.gather(framing::COUNTED_RELAYED_BYTES, until).await {
                return self.broken_before_head(&failure, started);
            }
        }
        Response::from_parts(parts, Answer::function(body))
    }

    fn send_failed(&self, failure: &SendFailure, call: &Call) -> Response<Answer> {
        if failure.is_from_request_body() {
            return Refused::by(failure).answer(call);
        }
        let words = match failure {
            SendFailure::Connect(error) => {
                let upstream = self.upstream.authority.to_str().unwrap_or_default();
                format!("dial tcp {upstream}: connect: {}", spelling::failure(error))
            }
            SendFailure::Exchange(error) if error.is_incomplete_message() => "EOF".to_owned(),
            SendFailure::Exchange(error) => error.to_string(),
        };
        self.journal.say(format_args!("Upstream HTTP request error: {words}"));
        status::failed_call(StatusCode::INTERNAL_SERVER_ERROR, call.started.elapsed())
    }

    fn too_slow(&self, call: &Call) -> Response<Answer> {
        self.tell_timeout();
        status::failed_call(StatusCode::GATEWAY_TIMEOUT, call.started.elapsed())
    }

    fn broken_before_head(&self, failure: &PeekFailure, started: Instant) -> Response<Answer> {
        let status = match failure {
            PeekFailure::ExecTimeout => {
                self.tell_timeout();
                StatusCode::GATEWAY_TIMEOUT
            }
            PeekFailure::Broken(why) => {
                self.journal.say(format_args!("Upstream HTTP request error: {why}"));
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        status::failed_call(status, started.elapsed())
    }

    fn tell_timeout(&self) {
        let limit = spelling::duration(self.exec_timeout.unwrap_or_default());
        self.journal.say(format_args!("Upstream HTTP killed due to exec_timeout: {limit}"));
    }
}

/// Why a request's body was not handed on.
#[derive(Debug, Clone, Copy)]
enum Refused {
    TooLarge,
    TooSlow,
    Broken,
}

impl Refused {
    /// Why the body of a call failed while it was sent.
    fn by(failure: &SendFailure) -> Self {
        let SendFailure::Exchange(error) = failure else { return Self::Broken };
        let source = error.source().and_then(|source| source.downcast_ref::<RelayError>());
        if matches!(source, Some(RelayError::Silent(_))) { Self::TooSlow } else { Self::Broken }
    }

    fn answer(self, call: &Call) -> Response<Answer> {
        match self {
            Self::TooLarge => {
                let max = limits::HELD_BODY_BYTES_MAX;
                let text = format!(
                    "the body is larger than {max} bytes, which http_buffer_req_body holds\n"
                );
                answer::error(StatusCode::PAYLOAD_TOO_LARGE, text)
            }
            // The caller took longer than read_timeout, or is gone, or sent what is no body.
            Self::TooSlow | Self::Broken => {
                let status = match self {
                    Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                let mut response = status::failed_call(status, call.started.elapsed());
                let close = header::HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
                response
            }
        }
    }
}
