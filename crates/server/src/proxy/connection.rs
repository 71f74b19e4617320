//! A client's connection: one request after the other, each a call of a function or the control plane's.

use std::{future::poll_fn, io, sync::Mutex, task::Poll};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pinnace_core::limits;
use pinnace_proxy::{
    Stream,
    h1::{Asked, Inbound, Lent, Outgoing},
};
use tokio::time::Instant;

use crate::proxy::{
    call::{Calls, Next},
    ending::Ear,
    failure::Failure,
    stamp::{self, Peer},
    worker::Control,
};

/// Serves a connection until either side closes it. When it is told to end the call under way is finished,
/// and no further one taken.
pub async fn serve(calls: &Calls, control: &dyn Control, mut ear: Ear, stream: Stream, peer: Peer) {
    if stream.end_when_stuck(limits::BODY_IDLE_MAX).is_err() {
        return;
    }
    let mut caller = Inbound::new(stream);
    // Kept from call to call for its memory.
    let mut request = Outgoing::default();
    let mut idle_since = Instant::now();
    loop {
        ear.idle(idle_since);
        let mut asynchronous = None;
        let asked = poll_fn(|cx| {
            let is_ending = ear.hears(cx);
            let asked = caller.poll_request(cx, &mut request, |head, out| {
                calls.judge(head, &peer, out, &mut asynchronous)
            });
            // Of a request that has only begun to arrive nothing is lost.
            if asked.is_pending() && is_ending { Poll::Ready(Ok(None)) } else { asked }
        })
        .await;
        ear.busy();
        let may_stay = !ear.has_heard();
        let mut ended = None;
        let outcome = match asked {
            Ok(None) => break,
            Ok(Some(Asked::Relay(call))) => {
                match calls.answer(call, &mut caller, &mut request, may_stay).await {
                    Next::Request(at) => ended = Some(at),
                    Next::Tunnel(tunnel) => return calls.carry(*tunnel, caller).await,
                    Next::Close => return,
                }
                Ok(())
            }
            Ok(Some(Asked::Hold)) => {
                calls.take(asynchronous, &mut caller, &mut request, may_stay).await
            }
            Ok(Some(Asked::Lend)) => lend(&mut caller, control, may_stay).await,
            Ok(Some(Asked::Refuse(failure))) => refuse(&mut caller, &failure, may_stay).await,
            Err(fault) => refuse(&mut caller, &Failure::Request(fault), false).await,
        };
        if outcome.is_err() || !may_stay || !caller.can_stay() {
            break;
        }
        idle_since = ended.unwrap_or_else(Instant::now);
        caller.finish(idle_since);
    }
    caller.close().await;
}

/// Answers a request with the sentence of a failure.
///
/// # Errors
/// The client has left.
pub async fn refuse(caller: &mut Inbound, failure: &Failure, may_stay: bool) -> io::Result<()> {
    let mut headers = Vec::new();
    failure.write_headers(&mut headers);
    stamp::platform(&mut headers);
    let sentence = failure.to_string();
    caller.answer(failure.status(), &headers, sentence.as_bytes(), may_stay).await
}

/// Has the control plane answer a request.
///
/// # Errors
/// The client has left.
async fn lend(caller: &mut Inbound, control: &dyn Control, may_stay: bool) -> io::Result<()> {
    let stays = may_stay && caller.keeps_alive();
    let (lent, returned) = Lent::new(caller);
    let returned = Mutex::new(Some(returned));
    let service = service_fn(|request: Request<Incoming>| {
        let returned = returned.lock().ok().and_then(|mut returned| returned.take());
        Box::pin(async move {
            let returned = returned.ok_or_else(|| io::Error::other("a second request was read"))?;
            let response = control.answer(request).await;
            Ok::<_, io::Error>(response.map(|body| returned.with(body)))
        })
    });
    let mut connection = http1::Builder::new()
        .keep_alive(stays)
        .max_buf_size(limits::REQUEST_HEAD_BYTES_MAX)
        .max_headers(limits::HEADERS_MAX)
        .serve_connection(TokioIo::new(lent), service);
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await.map_err(io::Error::other)
}
