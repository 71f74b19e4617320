//! Mode serializing: the body is read whole before the process starts, and its output is held until it
//! ends, so that a failure is a 500 and not a cut answer.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use pinnace_core::limits::HELD_OUTPUT_BYTES_MAX;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
};

use super::{Forked, Forker, overdue, until, whole};
use crate::{
    answer::Answer,
    front::Call,
    process::{Input, Pipes, Process},
    status,
};

/// Room for what most processes write.
const OUTPUT_BYTES_AT_FIRST: usize = 4 << 10;

impl Forker {
    pub(super) async fn serialize(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        let (started, peer) = (call.started, call.peer);
        let access = self.access(&request, &call);
        let deadline = self.deadline(started);
        let forked = Forked { access, deadline, _pass: call.pass };
        let (head, body) = request.into_parts();
        let mut response = match whole::read(body, self.read_timeout).await {
            Ok(input) => self.run(&head, input, forked).await,
            Err(refused) => {
                let response = refused.answer(StatusCode::INTERNAL_SERVER_ERROR, peer);
                let bytes = response.body().size_hint().exact().unwrap_or(0);
                forked.access.forked(response.status(), bytes);
                response
            }
        };
        let took = status::seconds(started.elapsed());
        response.headers_mut().insert(status::X_DURATION_SECONDS, took);
        response
    }

    async fn run(
        self: &Arc<Self>,
        head: &super::Head,
        input: Bytes,
        forked: Forked,
    ) -> Response<Answer> {
        let (process, pipes) = match self.start(head, Input::of(&input)) {
            Ok(started) => started,
            Err(why) => {
                forked.access.forked(StatusCode::INTERNAL_SERVER_ERROR, why.len() as u64);
                return failed(why);
            }
        };
        let forker = Arc::clone(self);
        let task = look_after(forker, process, pipes, input, forked);
        match tokio::spawn(task).await {
            Ok(Ok(output)) => Response::new(Answer::memory(output)),
            Ok(Err(why)) => failed(why),
            Err(error) => failed(error.to_string()),
        }
    }
}

async fn look_after(
    forker: Arc<Forker>,
    mut process: Process,
    Pipes { stdin, stdout, stderr }: Pipes,
    input: Bytes,
    forked: Forked,
) -> Result<Vec<u8>, String> {
    let mut errors = forker.errors(stderr);
    let work = async {
        let (output, ()) = tokio::join!(read(stdout), write(stdin, input));
        let output = output?;
        io::Result::Ok((output, process.wait().await?))
    };
    let (output, ended) = match until(forked.deadline, errors.beside(work)).await {
        Ok(Ok((output, status))) => (output, Ok(status)),
        Ok(Err(error)) => {
            // After an output that was too large the process is still there.
            process.kill();
            (Vec::new(), Err(error.to_string()))
        }
        Err(_) => {
            process.kill();
            (Vec::new(), overdue(process.wait().await))
        }
    };
    match forker.judge(ended) {
        Ok(()) => {
            forked.access.forked(StatusCode::OK, output.len() as u64);
            Ok(output)
        }
        Err(why) => {
            forked.access.forked(StatusCode::INTERNAL_SERVER_ERROR, why.len() as u64);
            Err(why)
        }
    }
}

/// A process need not read its input: what it leaves is dropped.
pub(super) async fn write(stdin: Option<Sender>, input: Bytes) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(&input).await;
    }
}

pub(super) async fn read(stdout: Receiver) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(OUTPUT_BYTES_AT_FIRST);
    let max = HELD_OUTPUT_BYTES_MAX as u64;
    stdout.take(max + 1).read_to_end(&mut output).await?;
    if output.len() > HELD_OUTPUT_BYTES_MAX {
        let text = format!(
            "the output is larger than {HELD_OUTPUT_BYTES_MAX} bytes, which mode=serializing holds: use \
             mode=streaming"
        );
        return Err(io::Error::other(text));
    }
    Ok(output)
}

fn failed(why: String) -> Response<Answer> {
    let mut response = Response::new(Answer::memory(why));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
