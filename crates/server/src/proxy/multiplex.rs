//! A client's connection that carries many requests at a time (HTTP/2): each goes the way of any other, as a
//! connection of its own.
//!
//! The connection has a place like all, and each request under way another, since it may need a connection to a
//! replica; one of a function counts among its connections to the gateway too. A request that finds none is left
//! undone, in a way that tells the client so.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use pinnace_core::limits::{LINGER_TIME_MAX, REQUEST_HEAD_TIME_MAX};
use pinnace_proxy::{
    Stream,
    h1::{Inbound, Outgoing},
    h2::{Caller, Multiplexed},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::proxy::{
    call::Next,
    connection::{Desk, answer},
    ending::Ear,
    gateway::FromFunction,
    stamp::Peer,
};

/// Serves a connection of which `early` was received already, until either side ends it. When it is told to end
/// the calls under way are finished, and no further ones taken.
pub async fn serve(desk: &Desk, mut ear: Ear, stream: Stream, early: Vec<u8>, peer: Peer) {
    ear.idle(Instant::now());
    let begun = tokio::select! {
        begun = timeout(REQUEST_HEAD_TIME_MAX, Multiplexed::begin(stream, early)) => begun,
        () = poll_fn(|cx| heard(&mut ear, cx)) => return,
    };
    let Ok(Ok(mut connection)) = begun else { return };
    let peer = Arc::new(peer);
    let mut calls = JoinSet::new();
    let mut idle_since = Instant::now();
    let mut ends_by = None;
    loop {
        if calls.is_empty() {
            ear.idle(idle_since);
        } else {
            ear.busy();
        }
        let until = ends_by.unwrap_or(idle_since + REQUEST_HEAD_TIME_MAX);
        tokio::select! {
            call = poll_fn(|cx| connection.poll_call(cx)) => match call {
                Some(Ok(call)) => match Place::take(desk, &peer) {
                    Some(place) => {
                        drop(calls.spawn(one(desk.clone(), peer.clone(), call, place)));
                    }
                    None => call.refuse(),
                },
                Some(Err(error)) => {
                    tracing::debug!(%error, "a connection broke off");
                    break;
                }
                None => break,
            },
            Some(_) = calls.join_next() => {
                idle_since = Instant::now();
                ends_by = ends_by.map(|_| idle_since + LINGER_TIME_MAX);
            }
            () = poll_fn(|cx| heard(&mut ear, cx)), if ends_by.is_none() => {
                connection.end();
                ends_by = Some(Instant::now() + LINGER_TIME_MAX);
            }
            () = sleep_until(until), if calls.is_empty() => {
                if ends_by.is_some() {
                    break;
                }
                connection.end();
                ends_by = Some(Instant::now() + LINGER_TIME_MAX);
            }
        }
    }
    // The connection is gone for them, which ends them; each is counted.
    drop(connection);
    while calls.join_next().await.is_some() {}
}

fn heard(ear: &mut Ear, cx: &mut Context<'_>) -> Poll<()> {
    if ear.hears(cx) { Poll::Ready(()) } else { Poll::Pending }
}

/// A request's place.
struct Place {
    _place: OwnedSemaphorePermit,
    _among_the_functions: Option<FromFunction>,
}

impl Place {
    fn take(desk: &Desk, peer: &Peer) -> Option<Self> {
        let place = desk.shared.places[desk.calls.worker].clone().try_acquire_owned().ok()?;
        let function = match &peer.function {
            Some(function) => Some(function.another()?),
            None => None,
        };
        Some(Self { _place: place, _among_the_functions: function })
    }
}

/// Answers one request.
async fn one(desk: Desk, peer: Arc<Peer>, call: Caller, place: Place) {
    let mut caller = Inbound::new(Stream::Layered(Box::new(call)));
    let mut request = Outgoing::default();
    let mut asynchronous = None;
    let asked = poll_fn(|cx| {
        caller.poll_request(cx, &mut request, |head, out| {
            desk.calls.judge(head, &peer, out, &mut asynchronous)
        })
    });
    let asked = match asked.await {
        Ok(None) => return,
        Ok(Some(asked)) => Ok(asked),
        Err(fault) => Err(fault),
    };
    let asked = (asked, asynchronous);
    let next = answer(&desk, &peer, asked, &mut caller, &mut request, true).await;
    if matches!(next, Next::Request(_) | Next::End) {
        // Some clients take a request that is reset for one without an answer, even if that was whole.
        caller.close().await;
    }
    drop(place);
}
