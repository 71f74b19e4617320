//! One line of the access log (contract section 8.3).

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header::USER_AGENT};
use tokio::time::Instant;

use crate::{journal::Journal, spelling};

/// What is known of a call when it begins; the line is written when it ends.
#[derive(Debug)]
pub struct Access {
    journal: Journal,
    method: Method,
    target: Uri,
    started: Instant,
    call_id: CallId,
    quiet: bool,
}

#[derive(Debug)]
enum CallId {
    NotLogged,
    Logged(Option<HeaderValue>),
}

impl Access {
    /// Notes a call. Those of kubelet's probes are not logged.
    pub fn new(
        journal: &Journal,
        (method, target, headers): (&Method, &Uri, &HeaderMap),
        started: Instant,
        log_call_id: bool,
    ) -> Self {
        let probe = |agent: &HeaderValue| agent.as_bytes().starts_with(b"kube-probe");
        let call_id = match log_call_id {
            true => CallId::Logged(headers.get("x-call-id").cloned()),
            false => CallId::NotLogged,
        };
        Self {
            journal: journal.clone(),
            method: method.clone(),
            target: target.clone(),
            started,
            call_id,
            quiet: headers.get(USER_AGENT).is_some_and(probe),
        }
    }

    /// A call of http mode; `reason` is what the function's server said beside the status.
    pub fn forwarded(&self, status: StatusCode, reason: Option<&[u8]>, length: Option<u64>) {
        let reason = reason.map(String::from_utf8_lossy);
        let reason = reason.as_deref().or(status.canonical_reason()).unwrap_or_default();
        let size = spelling::size(length);
        self.say(format_args!("{} {reason} - ContentLength: {size}", status.as_u16()));
    }

    /// A call of a forking mode.
    pub fn forked(&self, status: StatusCode, bytes: u64) {
        let size = spelling::size(Some(bytes));
        self.say(format_args!("{} - ContentLength: {size}", status.as_u16()));
    }

    /// An event stream or a tunnel.
    pub fn streamed(&self, status: StatusCode, bytes: u64) {
        let size = spelling::size(Some(bytes));
        self.say(format_args!("{} - Bytes: {size}", status.as_u16()));
    }

    fn say(&self, outcome: std::fmt::Arguments<'_>) {
        if self.quiet {
            return;
        }
        let (method, took) = (&self.method, self.started.elapsed().as_secs_f64());
        let target = self.target.path_and_query().map_or("/", |target| target.as_str());
        match &self.call_id {
            CallId::NotLogged => {
                self.journal.say(format_args!("{method} {target} - {outcome} ({took:.4}s)"));
            }
            CallId::Logged(id) => {
                let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("none");
                self.journal.say(format_args!("{method} {target} - {outcome} ({took:.4}s) [{id}]"));
            }
        }
    }
}
