//! A client's connection: one request after the other, each a call of a function or the control plane's.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, Mutex},
    task::Poll,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pinnace_core::limits;
use pinnace_proxy::{
    Stream,
    h1::{Asked, HeadFault, Inbound, Lent, Outgoing},
};
use tokio::time::Instant;

use crate::proxy::{
    call::{Call, Calls, Next},
    ending::Ear,
    failure::Failure,
    multiplex,
    stamp::{self, Peer},
    submission::Asynchronous,
    worker::{Control, Shared},
};

/// What all connections of a worker are served with.
#[derive(Clone)]
pub struct Desk {
    /// The way of calls.
    pub calls: Arc<Calls>,
    /// What all workers share.
    pub shared: Arc<Shared>,
}

/// Serves a connection until either side closes it. When it is told to end the call under way is finished,
/// and no further one taken.
pub async fn serve(desk: &Desk, mut ear: Ear, stream: Stream, peer: Peer) {
    if stream.end_when_stuck(limits::BODY_IDLE_MAX).is_err() {
        return;
    }
    let stream = match &desk.shared.certificate {
        // Functions call from within this host, the platform from within this process.
        Some(certificate) if peer.is_client() => {
            match Box::pin(certificate.accept(&mut ear, stream)).await {
                Some(stream) => stream,
                None => return,
            }
        }
        _ => stream,
    };
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
                desk.calls.judge(head, &peer, out, &mut asynchronous)
            });
            // Of a request that has only begun to arrive nothing is lost.
            if asked.is_pending() && is_ending { Poll::Ready(Ok(None)) } else { asked }
        })
        .await;
        ear.busy();
        let may_stay = !ear.has_heard();
        let asked = match asked {
            Ok(None) => break,
            Ok(Some(Asked::Multiplex)) => {
                let (stream, early) = caller.into_parts();
                return Box::pin(multiplex::serve(desk, ear, stream, early, peer)).await;
            }
            Ok(Some(asked)) => Ok(asked),
            Err(fault) => Err(fault),
        };
        let asked = (asked, asynchronous);
        match answer(desk, &peer, asked, &mut caller, &mut request, may_stay).await {
            Next::Request(ended) if may_stay && caller.can_stay() => {
                idle_since = ended;
                caller.finish(ended);
            }
            Next::Request(_) | Next::End => break,
            Next::Tunnel(tunnel) => return desk.calls.carry(*tunnel, caller).await,
            Next::Close => return caller.break_off(),
        }
    }
    caller.close().await;
}

/// Answers a request, or what should have been one. Beside it comes what is asked of the queue.
pub async fn answer(
    desk: &Desk,
    peer: &Peer,
    (asked, asynchronous): (Result<Asked<Call, Failure>, HeadFault>, Option<Asynchronous>),
    caller: &mut Inbound,
    request: &mut Outgoing,
    may_stay: bool,
) -> Next {
    let outcome = match asked {
        Ok(Asked::Relay(call)) => return desk.calls.answer(call, caller, request, may_stay).await,
        Ok(Asked::Hold) => desk.calls.take(asynchronous, caller, request, may_stay).await,
        Ok(Asked::Lend) => {
            lend(caller, &*desk.shared.control, peer.function.is_some(), may_stay).await
        }
        Ok(Asked::Refuse(failure)) => refuse(caller, &failure, may_stay).await,
        Ok(Asked::Multiplex) => return Next::Close,
        Err(fault) => refuse(caller, &Failure::Request(fault), false).await,
    };
    outcome.map_or(Next::End, |()| Next::Request(Instant::now()))
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
async fn lend(
    caller: &mut Inbound,
    control: &dyn Control,
    by_function: bool,
    may_stay: bool,
) -> io::Result<()> {
    let stays = may_stay && caller.keeps_alive();
    let (lent, returned) = Lent::new(caller);
    let returned = Mutex::new(Some(returned));
    let service = service_fn(|request: Request<Incoming>| {
        let returned = returned.lock().ok().and_then(|mut returned| returned.take());
        Box::pin(async move {
            let returned = returned.ok_or_else(|| io::Error::other("a second request was read"))?;
            let response = control.answer(request, by_function).await;
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
