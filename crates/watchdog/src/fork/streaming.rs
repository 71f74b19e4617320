//! Mode streaming: what the process writes is the answer, as it comes.
//!
//! The head waits for the first byte: until then a process that cannot be started, or is ended by
//! `exec_timeout`, can still be told from one that works. Later it cannot, and the answer breaks off. A
//! process that fails of its own accord has answered all the same (200), as the original has it.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Instant, timeout_at},
};

use super::{Errors, Forked, Forker, input, logged_status, overdue, until};
use crate::{
    answer::{self, Answer, Broken, Part},
    framing,
    front::Call,
    process::{Input, Process},
    status,
};

/// Bytes read in one go at first, and once a process has shown that it writes much.
const CHUNK_BYTES: usize = 8 << 10;
const LARGE_CHUNK_BYTES: usize = 64 << 10;
/// How long the beginning of an answer is held in case it is all of it, where the gateway asks.
const HELD_FOR: Duration = Duration::from_millis(1);
/// How much of it is held beyond the first part.
const HELD_BYTES_MAX: usize = 2 << 10;

impl Forker {
    pub(super) async fn stream(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        let access = self.access(&request, &call);
        let held_for = if call.peer.is_some() { framing::HELD_FOR } else { HELD_FOR };
        let (head, mut body) = request.into_parts();
        let arrived = input::arrived(&mut body).await;
        let input = match body.is_end_stream() {
            true => Input::of(&arrived),
            false => Input::Open,
        };
        let (process, pipes) = match self.start(&head, input) {
            Ok(started) => started,
            Err(why) => {
                access.forked(StatusCode::INTERNAL_SERVER_ERROR, 0);
                return answer::text(StatusCode::INTERNAL_SERVER_ERROR, why + "\n");
            }
        };
        let errors = self.errors(pipes.stderr);
        if let Some(stdin) = pipes.stdin {
            tokio::spawn(input::feed(arrived, body, stdin, self.read_timeout));
        }
        // One part waits here while the next is read: enough to keep both ends busy.
        let (sender, mut parts) = channel(1);
        let deadline = self.deadline(call.started);
        let forked = Forked { access, deadline, _pass: call.pass };
        tokio::spawn(look_after(Arc::clone(self), process, errors, pipes.stdout, sender, forked));
        match parts.recv().await {
            Some(Ok(first)) => Response::new(whole_or_begun(first, parts, held_for).await),
            Some(Err(_)) => status::silent_timeout(self.exec_timeout.unwrap_or_default()),
            None => Response::new(Answer::empty()),
        }
    }
}

/// Most processes end right after their output, and their answer goes out as one piece that has a length.
async fn whole_or_begun(first: Bytes, mut parts: Receiver<Part>, held_for: Duration) -> Answer {
    let (mut held, until) = (first, Instant::now() + held_for);
    loop {
        match timeout_at(until, parts.recv()).await {
            Ok(None) => return Answer::memory(held),
            Ok(Some(Ok(part))) if held.len() + part.len() <= HELD_BYTES_MAX => {
                held = [held, part].concat().into();
            }
            Ok(next) => return Answer::process(held, next, parts),
            Err(_) => return Answer::process(held, None, parts),
        }
    }
}

async fn look_after(
    forker: Arc<Forker>,
    mut process: Process,
    mut errors: Errors,
    stdout: pipe::Receiver,
    parts: Sender<Part>,
    forked: Forked,
) {
    let mut bytes = 0;
    let work = async {
        copy(stdout, &parts, &mut bytes).await;
        process.wait().await
    };
    let ended = match until(forked.deadline, errors.beside(work)).await {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => {
            process.kill();
            // A receiver that is gone needs no telling.
            let _ = parts.send(Err(Broken::ExecTimeout)).await;
            overdue(process.wait().await)
        }
    };
    drop(parts);
    let result = forker.judge(ended);
    forked.access.forked(logged_status(&result), bytes);
}

/// Hands on what the process writes until it closes its output, or the caller is gone.
async fn copy(mut stdout: pipe::Receiver, parts: &Sender<Part>, bytes: &mut u64) {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
    let mut chunk_bytes = CHUNK_BYTES;
    loop {
        buffer.reserve(chunk_bytes);
        let read = tokio::select! {
            read = stdout.read_buf(&mut buffer) => read.unwrap_or(0),
            () = parts.closed() => return,
        };
        if read == 0 {
            return;
        }
        if read >= chunk_bytes {
            chunk_bytes = LARGE_CHUNK_BYTES;
        }
        *bytes += read as u64;
        if parts.send(Ok(buffer.split().freeze())).await.is_err() {
            return;
        }
    }
}
