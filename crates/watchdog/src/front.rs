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
    files::Files,
    fork::Forker,
    gate::{Gate, Pass},
    http_mode::Forwarder,
    lock::Lock,
    settings::Settings,
    status, target, unread,
};

/// How much longer than `exec_timeout` an answer may take at least, if `write_timeout` is no shorter: by default
/// both are the same, and the answer that the time is over would always be just too late.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// Takes every request.
#[derive(Debug)]
pub struct Front {
    work: Work,
    gate: Arc<Gate>,
    lock: Lock,
    accepting: AtomicBool,
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

/// The connection is to end without an answer.
#[derive(Debug, thiserror::Error)]
#[error("write_timeout passed before there was an answer")]
pub struct HangUp;

impl Front {
    /// For this work.
    pub fn new(work: Work, settings: &Settings, lock: Lock) -> Self {
        Self {
            work,
            gate: Gate::new(settings.max_inflight),
            lock,
            accepting: AtomicBool::new(true),
            ready_path: settings.ready_path.clone(),
            read_timeout: settings.read_timeout,
            answer_max: answer_max(settings),
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// `write_timeout` has passed: there is nobody left who waits for the answer.
    pub async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: Option<Peer>,
    ) -> Result<Response<Answer>, HangUp> {
        let started = Instant::now();
        let pass = match self.admit(&mut request) {
            Ok(pass) => pass,
            Err(answer) => {
                unread::discard(request.into_body(), self.read_timeout);
                return Ok(*answer);
            }
        };
        let call = Call { started, pass, peer };
        let mut response = match &self.work {
            Work::Forward(forwarder) => forwarder.call(request, call).await,
            Work::Fork(forker) => forker.call(request, call).await,
            Work::Files(files) => files.call(request, call).await,
        };
        let end_by = started + self.answer_max;
        match response.body().lasts() {
            true => {}
            false if Instant::now() > end_by => return Err(HangUp),
            false => response.body_mut().end_by(end_by),
        }
        Ok(response)
    }

    /// A place for the call, or the answer to a request that goes no further.
    fn admit(&self, request: &mut Request<Incoming>) -> Result<Pass, Box<Response<Answer>>> {
        if let Some(refusal) = refusal(request) {
            return Err(Box::new(refusal));
        }
        match request.uri().path() {
            "/_/health" => Err(Box::new(self.health(request.method()))),
            "/_/ready" => self.ready(request).map_err(|status| Box::new(answer::bare(status))),
            _ => self.gate.enter().ok_or_else(|| Box::new(status::over_limit(self.gate.max()))),
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
    fn ready(&self, request: &mut Request<Incoming>) -> Result<Pass, StatusCode> {
        let status = match request.method() {
            method if *method != Method::GET => StatusCode::METHOD_NOT_ALLOWED,
            _ if !self.is_healthy() => StatusCode::SERVICE_UNAVAILABLE,
            _ if self.gate.is_full() => StatusCode::TOO_MANY_REQUESTS,
            _ => match &self.ready_path {
                None => StatusCode::OK,
                Some(path) => {
                    *request.uri_mut() = Uri::from(path.clone());
                    request.headers_mut().remove(HOST);
                    return Ok(self.gate.enter_unlimited());
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

/// The answer to a request that goes no further.
fn refusal(request: &Request<Incoming>) -> Option<Response<Answer>> {
    if let Some(why) = host_fault(request) {
        return Some(status::bad_request(why));
    }
    if let Some(encoding) = request.headers().get(TRANSFER_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
    {
        return Some(status::unsupported_encoding());
    }
    let (method, uri) = (request.method(), request.uri());
    if *method == Method::CONNECT {
        return Some(status::not_found());
    }
    if let Some(expected) = request.headers().get(EXPECT)
        && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        let mut response = answer::bare(StatusCode::EXPECTATION_FAILED);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Some(response);
    }
    match uri.path() {
        "*" => Some(answer::bare(StatusCode::OK)),
        path => match target::judge(path) {
            target::Path::Clean => None,
            target::Path::Broken => Some(status::bad_request("400 Bad Request")),
            target::Path::Redirect(clean) => {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let with_page = *method == Method::GET || *method == Method::HEAD;
                Some(status::redirect(&(clean + &query), with_page))
            }
        },
    }
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
