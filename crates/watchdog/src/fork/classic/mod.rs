//! The classic watchdog (contract section 8.5): a process for each call, its output held until it ends.
//!
//! It differs from mode serializing in its words, statuses and log lines, and in that the process's errors are a part
//! of the answer unless `combine_output` says otherwise.

mod debug;
pub mod marshal;

use std::{io, process::ExitStatus, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE,
    request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    time::Instant,
};

use super::{
    Errors, overdue,
    serializing::{read, write},
    until, whole,
};
use crate::{
    answer::{self, Answer},
    cgi::Variables,
    framing::Asked,
    front::Call,
    gate::Pass,
    journal::{Journal, Source},
    process::{Input, Process, Program},
    settings::{ClassicSettings, LogSettings, Settings},
    sniff, spelling, status, unread,
};

/// A process's errors, where they are no part of the answer: every line with its prefix, of any length.
const ERROR_LINES: LogSettings = LogSettings { prefix: true, line_bytes_max: None };

/// Starts a process for each call, as the classic watchdog does.
#[derive(Debug)]
pub struct Classic {
    program: Program,
    settings: ClassicSettings,
    exec_timeout: Option<Duration>,
    read_timeout: Duration,
    journal: Journal,
}

/// A process on its way.
struct Started {
    process: Process,
    stdin: Option<Sender>,
    output: Receiver,
    /// `None` if they are in the output.
    errors: Option<Errors>,
}

/// What came of a process.
enum Ended {
    /// It has answered.
    Well(Vec<u8>),
    /// It failed, with these words, after this output.
    Badly(String, Vec<u8>),
    /// `exec_timeout` has passed.
    Late,
}

impl Classic {
    /// Of this program.
    pub fn new(
        program: Program,
        own: ClassicSettings,
        settings: &Settings,
        journal: &Journal,
    ) -> Self {
        Self {
            program,
            settings: own,
            exec_timeout: settings.exec_timeout,
            read_timeout: settings.read_timeout,
            journal: journal.clone(),
        }
    }

    /// A call.
    pub async fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        if !is_served(request.method()) {
            unread::discard(request.into_body(), self.read_timeout);
            return answer::bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Call { started, pass, peer } = call;
        let asked = Asked::by(request.method(), request.version(), peer);
        let (head, body) = request.into_parts();
        if self.settings.debugs_headers {
            debug::headers("in", &head.headers, &self.journal).await;
        }
        self.journal.say(format_args!("Forking fprocess."));
        let length = body.size_hint().exact();
        let input = match whole::read(body, self.read_timeout).await {
            Ok(input) => input,
            Err(refused) => {
                return line_ended(refused.answer(StatusCode::BAD_REQUEST, peer)).await;
            }
        };
        let input = match self.settings.marshals {
            true => marshal::request(&head.headers, &input).into(),
            false => input,
        };
        let ended = match self.start(&head, length, &input) {
            Ok(process) => self.look_after(process, input, started, pass).await,
            Err(why) => Ended::Badly(why, Vec::new()),
        };
        let mut response = self.answer(ended, &head.headers, started).await;
        asked.frame(&mut response);
        response
    }

    fn start(&self, head: &Parts, length: Option<u64>, input: &Bytes) -> Result<Started, String> {
        let variables = match self.settings.tells_cgi {
            true => Variables::of_classic(head, length),
            false => Variables::default(),
        };
        if self.settings.debugs_writes && self.settings.tells_cgi {
            debug::target(&head.uri, &self.journal);
        }
        let input = Input::of(input);
        if self.settings.combines_output {
            let (process, pipes) = self.program.start_combined(&variables, input)?;
            return Ok(Started { process, stdin: pipes.stdin, output: pipes.output, errors: None });
        }
        let (process, pipes) = self.program.start(&variables, input)?;
        let errors = Some(Errors::of(pipes.stderr, ERROR_LINES, &self.journal));
        Ok(Started { process, stdin: pipes.stdin, output: pipes.stdout, errors })
    }

    /// In a task of its own: a caller who leaves does not take the process along.
    async fn look_after(
        self: &Arc<Self>,
        process: Started,
        input: Bytes,
        started: Instant,
        pass: Pass,
    ) -> Ended {
        let deadline = self.exec_timeout.map(|limit| started + limit);
        let classic = Arc::clone(self);
        let task = async move {
            let ended = run(process, input, deadline).await;
            if matches!(ended, Ended::Late) {
                let command = classic.program.words().join(" ");
                classic.journal.say(format_args!("Killing process: {command}"));
            }
            drop(pass);
            ended
        };
        let ended = tokio::spawn(task).await;
        ended.unwrap_or_else(|error| Ended::Badly(error.to_string(), Vec::new()))
    }

    async fn answer(&self, ended: Ended, asked: &HeaderMap, started: Instant) -> Response<Answer> {
        match ended {
            Ended::Well(output) => self.answer_well(output, asked, started).await,
            Ended::Badly(why, output) => {
                if self.settings.debugs_writes {
                    debug::failure(&why, &output, &self.journal);
                }
                let text = [why.as_bytes(), b"\n", &output].concat();
                guessed(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
            Ended::Late => guessed(StatusCode::REQUEST_TIMEOUT, "Killed process.\n".into()),
        }
    }

    async fn answer_well(
        &self,
        output: Vec<u8>,
        asked: &HeaderMap,
        started: Instant,
    ) -> Response<Answer> {
        let (took, bytes) = (started.elapsed(), output.len());
        if self.settings.debugs_writes {
            self.journal.pass(Source::Out, &output).await;
        }
        let own = self.settings.content_type.as_ref();
        let named = own.or(asked.get(CONTENT_TYPE).filter(|named| !named.is_empty())).cloned();
        let mut response = guessed(StatusCode::OK, output);
        let headers = response.headers_mut();
        if let Some(named) = named {
            headers.insert(CONTENT_TYPE, named);
        }
        headers.insert(status::X_DURATION_SECONDS, status::seconds(took));
        if self.settings.debugs_headers {
            debug::headers("out", headers, &self.journal).await;
        }
        let seconds = took.as_secs_f64();
        match self.settings.debugs_writes {
            true => self.journal.say(format_args!("Duration: {seconds:.6}s")),
            false => {
                self.journal.say(format_args!("Wrote {bytes} Bytes - Duration: {seconds:.6}s"));
            }
        }
        response
    }
}

async fn run(started: Started, input: Bytes, deadline: Option<Instant>) -> Ended {
    let Started { mut process, stdin, output, errors } = started;
    let work = async {
        let (output, ()) = tokio::join!(read(output), write(stdin, input));
        let output = output?;
        io::Result::Ok((output, process.wait().await?))
    };
    let done = match errors {
        Some(mut errors) => until(deadline, errors.beside(work)).await,
        None => until(deadline, work).await,
    };
    match done {
        Ok(Ok((output, status))) => judge(output, status),
        Ok(Err(error)) => {
            // After an output that was too large the process is still there.
            process.kill();
            Ended::Badly(error.to_string(), Vec::new())
        }
        Err(_) => {
            process.kill();
            // Nobody is left but the dead to be waited for; how they ended is known.
            let _ = overdue(process.wait().await);
            Ended::Late
        }
    }
}

fn judge(output: Vec<u8>, status: ExitStatus) -> Ended {
    match status.success() {
        true => Ended::Well(output),
        false => Ended::Badly(spelling::exit(status), output),
    }
}

fn is_served(method: &Method) -> bool {
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
}

/// An answer whose type is guessed from its beginning; one without a body has none.
fn guessed(status: StatusCode, body: Vec<u8>) -> Response<Answer> {
    let guess = sniff::content_type(&body);
    let is_empty = body.is_empty();
    let mut response = Response::new(Answer::memory(body));
    *response.status_mut() = status;
    if !is_empty {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(guess));
    }
    response
}

/// The words of a refusal end in a line feed here.
async fn line_ended(refusal: Response<Answer>) -> Response<Answer> {
    use http_body_util::BodyExt;
    let (mut parts, body) = refusal.into_parts();
    let text = body.collect().await.map(|text| text.to_bytes().to_vec()).unwrap_or_default();
    let text = [text.trim_ascii_end(), b"\n"].concat();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    parts.headers.insert(CONTENT_TYPE, plain);
    Response::from_parts(parts, Answer::memory(text))
}
