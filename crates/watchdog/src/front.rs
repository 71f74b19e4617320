//! What happens to every request, whatever the mode: it is judged, probes are answered, the limit is
//! kept, and the rest goes to the mode.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::{
    answer::{self, Answer},
    auth::Guard,
    files::Files,
    fork::{Classic, Forker},
    gate::{Gate, Pass},
    http_mode::Forwarder,
    lock::Lock,
    metrics::Metrics,
    settings::{Mode, Settings},
    status, target, unread,
    worded::LastWords,
};

/// How much longer than `exec_timeout` an answer may take at least, if `write_timeout` is no shorter: by default
/// both are the same, and the answer that the time is over would always be just too late.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// Takes every request.
#[derive(Debug)]
pub struct Front {
    work: Work,
    gate: Arc<Gate>,
    guard: Option<Guard>,
    metrics: Arc<Metrics>,
    lock: Lock,
    accepting: AtomicBool,
    /// Whether `/_/ready` is a probe; in the classic watchdog it is a path of the function.
    has_ready: bool,
    ready_path: Option<PathAndQuery>,
    read_timeout: Duration,
    /// Longest time from a request's head to the end of its answer.
    answer_max: Duration,
}

/// What the mode does with a call.
#[derive(Debug)]
pub enum Work {
    /// It goes to the function's server.
    Forward(Arc<Forwarder>),
    /// It gets a process.
    Fork(Arc<Forker>),
    /// It gets a file.
    Files(Arc<Files>),
    /// It gets a process as in the classic watchdog.
    Classic(Arc<Classic>),
}

/// What kind of request it is.
enum Kind {
    /// One for the function.
    Call,
    /// The readiness question, which the function answers too: nobody is asked for a token, and no limit counts.
    Question,
}

/// What belongs to a call besides its request.
#[derive(Debug)]
pub struct Call {
    /// When its head was read.
    pub started: Instant,
    /// Its place among the calls under way.
    pub pass: Pass,
    /// Who calls; `None` over a unix socket.
    pub peer: Option<Peer>,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Ours.
    pub local: SocketAddr,
    /// The caller's.
    pub remote: SocketAddr,
}

/// Who calls, by connection.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Its addresses; `None` over a unix socket.
    pub peer: Option<Peer>,
    /// Takes the answer to what is no request, where the connection can end with it.
    pub last_words: Option<LastWords>,
}

/// The connection is to end without an answer of the server's.
#[derive(Debug, thiserror::Error)]
pub enum HangUp {
    /// There is nobody left who waits for one.
    #[error("write_timeout passed before there was an answer")]
    TooLate,
    /// It ends with words.
    #[error("the request was refused")]
    Refused,
}

impl Front {
    /// For this work; `guard` says who may call.
    pub fn new(work: Work, settings: &Settings, lock: Lock, guard: Option<Guard>) -> Self {
        Self {
            work,
            gate: Gate::new(settings.max_inflight),
            guard,
            metrics: Arc::default(),
            lock,
            has_ready: !matches!(settings.mode, Mode::Classic(_)),
            accepting: AtomicBool::new(true),
            ready_path: settings.ready_path.clone(),
            read_timeout: settings.read_timeout,
            answer_max: answer_max(settings),
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// [`HangUp`].
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Response<Answer>, HangUp> {
        let (started, peer) = (Instant::now(), caller.peer);
        if let Some(refused) = refused(&request) {
            return refused.answer(request, &caller, self.read_timeout);
        }
        match self.kind(&mut request) {
            Ok(Kind::Call) => {
                let mut counted = self.metrics.begin(request.method(), started);
                let mut response = self.answer_call(request, started, peer).await;
                counted.answered(response.status());
                response.body_mut().count(counted);
                self.in_time(response, started)
            }
            Ok(Kind::Question) => {
                let call = Call { started, pass: self.gate.enter_unlimited(), peer };
                self.in_time(self.work(request, call).await, started)
            }
            Err(answer) => {
                unread::discard(request.into_body(), self.read_timeout);
                Ok(*answer)
            }
        }
    }

    async fn answer_call(
        &self,
        mut request: Request<Incoming>,
        started: Instant,
        peer: Option<Peer>,
    ) -> Response<Answer> {
        let admitted = match self.gate.enter() {
            None => Err(Box::new(status::over_limit(self.gate.max()))),
            Some(pass) => match self.guard.as_ref().map(|guard| guard.check(&mut request)) {
                Some(Err(denied)) => Err(denied),
                Some(Ok(())) | None => Ok(pass),
            },
        };
        match admitted {
            Ok(pass) => self.work(request, Call { started, pass, peer }).await,
            Err(answer) => {
                unread::discard(request.into_body(), self.read_timeout);
                *answer
            }
        }
    }

    async fn work(&self, request: Request<Incoming>, call: Call) -> Response<Answer> {
        match &self.work {
            Work::Forward(forwarder) => forwarder.call(request, call).await,
            Work::Fork(forker) => forker.call(request, call).await,
            Work::Files(files) => files.call(request, call).await,
            Work::Classic(classic) => classic.call(request, call).await,
        }
    }

    fn in_time(
        &self,
        mut response: Response<Answer>,
        started: Instant,
    ) -> Result<Response<Answer>, HangUp> {
        let end_by = started + self.answer_max;
        match response.body().lasts() {
            true => {}
            false if Instant::now() > end_by => return Err(HangUp::TooLate),
            false => response.body_mut().end_by(end_by),
        }
        Ok(response)
    }

    /// What kind of request it is, or the answer to one that goes no further.
    fn kind(&self, request: &mut Request<Incoming>) -> Result<Kind, Box<Response<Answer>>> {
        if let Some(answer) = by_rule(request) {
            return Err(Box::new(answer));
        }
        match request.uri().path() {
            "/_/health" => Err(Box::new(self.health(request.method()))),
            "/_/ready" if self.has_ready => {
                self.ready(request).map_err(|status| Box::new(answer::bare(status)))
            }
            _ => Ok(Kind::Call),
        }
    }

    /// From now on the probes say that nothing new should come.
    pub fn stop_accepting(&self) {
        self.accepting.store(false, Ordering::Relaxed);
    }

    /// The calls under way.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What is counted of calls.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The lock file.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    fn is_healthy(&self) -> bool {
        self.accepting.load(Ordering::Relaxed) && self.lock.holds()
    }

    fn health(&self, method: &Method) -> Response<Answer> {
        match method {
            _ if *method != Method::GET => answer::bare(StatusCode::METHOD_NOT_ALLOWED),
            _ if self.is_healthy() => answer::text(StatusCode::OK, "OK"),
            _ => answer::bare(StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The answer, or the question to the function that finds it.
    fn ready(&self, request: &mut Request<Incoming>) -> Result<Kind, StatusCode> {
        let status = match request.method() {
            method if *method != Method::GET => StatusCode::METHOD_NOT_ALLOWED,
            _ if !self.is_healthy() => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.gate.is_full() => StatusCode::TOO_MANY_REQUESTS,
            _ => match &self.ready_path {
                None => StatusCode::OK,
                Some(path) => {
                    *request.uri_mut() = Uri::from(path.clone());
                    request.headers_mut().remove(HOST);
                    return Ok(Kind::Question);
                }
            },
        };
        Err(status)
    }
}

fn answer_max(settings: &Settings) -> Duration {
    let write = settings.write_timeout;
    match settings.exec_timeout {
        Some(exec) if exec <= write => write.max(exec.saturating_add(LAST_WORD_MAX)),
        _ => write,
    }
}

/// Why a request cannot be served by anybody: it is no HTTP.
#[derive(Debug, Clone, Copy)]
struct Refused {
    status: StatusCode,
    words: &'static str,
}

impl Refused {
    /// Answers it, which ends the connection.
    fn answer(
        self,
        request: Request<Incoming>,
        caller: &Caller,
        read_timeout: Duration,
    ) -> Result<Response<Answer>, HangUp> {
        if let Some(last_words) = &caller.last_words {
            last_words.set(&self.status.to_string(), self.words);
            return Err(HangUp::Refused);
        }
        unread::discard(request.into_body(), read_timeout);
        Ok(status::refused(self.status, self.words))
    }
}

fn refused(request: &Request<Incoming>) -> Option<Refused> {
    let bad = |words| Some(Refused { status: StatusCode::BAD_REQUEST, words });
    if let Some(words) = host_fault(request) {
        return bad(words);
    }
    let encoding = request.headers().get(TRANSFER_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let words = "Unsupported transfer encoding";
        return Some(Refused { status: StatusCode::NOT_IMPLEMENTED, words });
    }
    let (method, path) = (request.method(), request.uri().path());
    let is_path = path.starts_with('/') && target::is_sound(path);
    if *method != Method::CONNECT && path != "*" && !is_path {
        return bad("400 Bad Request");
    }
    None
}

/// The answer that the rules of HTTP have for a request.
fn by_rule(request: &Request<Incoming>) -> Option<Response<Answer>> {
    if *request.method() == Method::CONNECT {
        return Some(status::not_found());
    }
    if let Some(expected) = request.headers().get(EXPECT)
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        let mut response = answer::bare(StatusCode::EXPECTATION_FAILED);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Some(response);
    }
    (request.uri().path() == "*").then(|| answer::bare(StatusCode::OK))
}

fn host_fault(request: &Request<Incoming>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("400 Bad Request"),
        (None, None) if request.version() >= Version::HTTP_11 => {
            Some("400 Bad Request: missing required Host header")
        }
        (Some(host), None) if !target::is_host(host.as_bytes()) => {
            Some("400 Bad Request: malformed Host header")
        }
        _ => None,
    }
}
