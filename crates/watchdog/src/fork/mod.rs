//! Modes streaming and serializing, and the classic watchdog: a process for each call.
//!
//! A task of its own looks after each process, so that a caller who leaves does not take the process with
//! it: its output is closed, it may finish what it does, and `exec_timeout` bounds it as before.
//!
//! A call lasts until its process has ended and its output was closed by all who hold it, so that a job in the
//! background may write the answer. `exec_timeout` bounds that too, unlike in the original, and ends all that
//! is still in the process's group. A job that holds no output outlives its call, as in the original, where
//! functions answer early in this way: it stays until it ends or the replica does, its errors are logged, and
//! what bounds such jobs is the sandbox's limit of processes.

pub mod classic;
mod errors;
mod input;
mod serializing;
mod streaming;
mod whole;

use std::{io, os::fd::OwnedFd, process::ExitStatus, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE, request::Parts as Head,
};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

pub use self::classic::Classic;
use self::errors::Errors;
use crate::{
    access::Access,
    answer::Answer,
    cgi::Variables,
    framing::Asked,
    front::Call,
    gate::Pass,
    journal::{Journal, Source},
    lines,
    process::{Input, Pipes, Process, Program},
    settings::{LogSettings, Settings},
    spelling,
};

/// Starts a process for each call.
#[derive(Debug)]
pub struct Forker {
    program: Program,
    holds_output: bool,
    exec_timeout: Option<Duration>,
    read_timeout: Duration,
    content_type: HeaderValue,
    logs: LogSettings,
    journal: Journal,
}

/// What a call needs besides its process.
#[derive(Debug)]
struct Forked {
    access: Access,
    deadline: Option<Instant>,
    _pass: Pass,
}

impl Forker {
    /// Of this program; `holds_output` for serializing mode.
    pub fn new(
        program: Program,
        holds_output: bool,
        settings: &Settings,
        journal: &Journal,
    ) -> Self {
        Self {
            program,
            holds_output,
            exec_timeout: settings.exec_timeout,
            read_timeout: settings.read_timeout,
            content_type: settings.content_type.clone(),
            logs: settings.logs,
            journal: journal.clone(),
        }
    }

    /// A call.
    pub async fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        let asked = Asked::by(request.method(), request.version(), call.peer);
        let mut response = match self.holds_output {
            true => self.serialize(request, call).await,
            false => self.stream(request, call).await,
        };
        response.headers_mut().entry(CONTENT_TYPE).or_insert_with(|| self.content_type.clone());
        asked.frame(&mut response);
        response
    }

    fn access(&self, request: &Request<Incoming>, call: &Call) -> Access {
        let line = (request.method(), request.uri(), request.headers());
        Access::new(&self.journal, line, call.started, false)
    }

    fn start(&self, head: &Head, input: Input<'_>) -> Result<(Process, Pipes), String> {
        let variables = Variables::of(&head.method, &head.uri, &head.headers);
        let started = self.program.start(&variables, input);
        started.inspect_err(|why| self.journal.say(format_args!("{why}")))
    }

    fn errors(&self, stderr: OwnedFd) -> Errors {
        lines::announce(Source::Err, &self.journal);
        Errors::of(stderr, self.logs, &self.journal)
    }

    fn deadline(&self, started: Instant) -> Option<Instant> {
        self.exec_timeout.map(|limit| started + limit)
    }

    /// Says in the log how a process ended if it failed, and whether it did.
    fn judge(&self, ended: Result<ExitStatus, String>) -> Result<(), String> {
        let how = match ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => spelling::exit(status),
            Err(why) => why,
        };
        self.journal.say(format_args!("{how}"));
        Err(how)
    }
}

/// Runs `work` until the deadline; then ends the process with all that it has started.
async fn until<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, ExecTimeout> {
    match deadline {
        Some(at) => timeout_at(at, work).await.map_err(|_| ExecTimeout),
        None => Ok(work.await),
    }
}

/// How a process ended that was killed at the deadline. One that had ended well by then has left a job behind
/// that held the output, and the output is not whole.
fn overdue(ended: io::Result<ExitStatus>) -> Result<ExitStatus, String> {
    match ended {
        Ok(status) if status.success() => Err("context deadline exceeded".to_owned()),
        ended => ended.map_err(|error| error.to_string()),
    }
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy)]
struct ExecTimeout;

/// Status of a call in the log.
fn logged_status(result: &Result<(), String>) -> StatusCode {
    match result {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
