//! Asynchronous calls as they come in: written to disk, then answered 202 (contract section 7.1).
//!
//! The head decides whether a call is taken; its body is then read whole, within the room that the queue has
//! kept for it. What is stored is what would have gone to the function.

use std::sync::Arc;

use http::{Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use pinnace_core::limits;
use pinnace_proxy::h1::{ExchangeFailure, Framing, Inbound, Outgoing, RequestHead};
use tokio::time::{Instant, timeout};

use crate::{
    catalog::Entry,
    proxy::{
        call::{CALLER_LEFT, Calls, unknown},
        connection::refuse,
        failure::Failure,
        route,
        stamp::{self, Peer, Stamp},
    },
    queue::{Call, Callback, Room},
};

const CALLBACK_URL: &str = "X-Callback-Url";
const CALL_ID: &str = "X-Call-Id";
const FORWARDED_FOR: &str = "X-Forwarded-For";

/// What is asked of the queue.
pub enum Asynchronous {
    /// To take a call.
    Submit(Box<Submission>),
    /// To cancel the calls of this id.
    Cancel(String),
}

/// A call that is taken once its body is there.
pub struct Submission {
    entry: Arc<Entry>,
    call: Call,
    stamp: Stamp,
    room: Room,
}

/// Why a submission was not taken.
enum Missed {
    Refuse(Failure),
    Left,
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self::Refuse(failure)
    }
}

impl Calls {
    /// Decides what becomes of a request for the queue, from its head.
    pub(super) fn judge_asynchronous(
        &self,
        head: &RequestHead<'_>,
        segment: &str,
        rest: &str,
        peer: &Peer,
    ) -> Result<Asynchronous, Failure> {
        match head.method {
            "POST" => self.admit_submission(head, segment, rest, peer).map(Asynchronous::Submit),
            "DELETE" => {
                let id = percent_decode_str(segment).decode_utf8_lossy().into_owned();
                Ok(Asynchronous::Cancel(id))
            }
            other => Err(Failure::AsyncMethod(other.to_owned())),
        }
    }

    fn admit_submission(
        &self,
        head: &RequestHead<'_>,
        segment: &str,
        rest: &str,
        peer: &Peer,
    ) -> Result<Box<Submission>, Failure> {
        let entry = self.catalog.find(segment).ok_or_else(|| unknown(segment))?;
        entry.stats.started(self.worker);
        let mut target = Vec::with_capacity(rest.len() + 1);
        if !route::write_target(rest, &mut target) {
            return Err(Failure::Target(entry.id.to_string()));
        }
        let callback =
            header(head, CALLBACK_URL).map(|url| callback(url, head, peer)).transpose()?;
        let bytes_max = self.queue.body_bytes_max();
        let body_bytes = match head.framing {
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::None => 0,
            Framing::Chunked | Framing::UntilClose => bytes_max,
        };
        if body_bytes > bytes_max {
            return Err(Failure::AsyncBody { name: entry.id.to_string(), bytes_max });
        }
        let mut headers = Vec::new();
        let stamp = Stamp::queued(head, peer, &mut headers);
        let id = stamp.call_id().map(str::to_owned);
        let id = id.or_else(|| header(head, CALL_ID).map(text)).unwrap_or_default();
        let room = self.queue.reserve(&entry.id, target.len() + headers.len() + body_bytes)?;
        let call = Call {
            function: entry.id.clone(),
            id,
            method: head.method.to_owned(),
            target: text(&target),
            headers,
            callback,
            body: Vec::new(),
        };
        Ok(Box::new(Submission { entry, call, stamp, room }))
    }

    /// Does what is asked of the queue, and answers.
    ///
    /// # Errors
    /// The caller has left.
    pub(super) async fn take(
        &self,
        asked: Option<Asynchronous>,
        caller: &mut Inbound,
        request: &mut Outgoing,
        may_stay: bool,
    ) -> std::io::Result<()> {
        let begun = Instant::now();
        let (method, done) = match asked {
            Some(Asynchronous::Submit(submission)) => {
                ("POST", self.submit(*submission, caller, request).await)
            }
            Some(Asynchronous::Cancel(id)) => ("DELETE", self.cancel(id, caller, request).await),
            None => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        };
        let status = match &done {
            Ok(_) => StatusCode::ACCEPTED.as_u16(),
            Err(Missed::Refuse(failure)) => failure.status().as_u16(),
            Err(Missed::Left) => CALLER_LEFT,
        };
        self.count_asynchronous(method, status, begun);
        match done {
            Ok(headers) => caller.answer(StatusCode::ACCEPTED, &headers, b"", may_stay).await,
            Err(Missed::Refuse(failure)) => refuse(caller, &failure, may_stay).await,
            Err(Missed::Left) => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Counts a request for the queue.
    pub(super) fn count_asynchronous(&self, method: &str, status: u16, begun: Instant) {
        let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        let took = begun.elapsed();
        self.requests.answered(route::ASYNC_PREFIX, &method, status, took);
    }

    /// Answers the headers of the 202.
    async fn submit(
        &self,
        submission: Submission,
        caller: &mut Inbound,
        request: &mut Outgoing,
    ) -> Result<Vec<u8>, Missed> {
        let Submission { entry, mut call, stamp, room } = submission;
        let name = || entry.id.to_string();
        let bytes_max = self.queue.body_bytes_max();
        let body = timeout(limits::ASYNC_BODY_TIME_MAX, caller.hold(request, bytes_max)).await;
        let body = body.map_err(|_| Failure::AsyncBodySlow(name()))?;
        let body = body.map_err(|failure| missed(name(), &failure))?;
        call.body = body.ok_or_else(|| Failure::AsyncBody { name: name(), bytes_max })?;
        self.queue.submit(call, None, room).await.map_err(Failure::Enqueue)?;
        let mut headers = Vec::new();
        stamp.accepted(&mut headers);
        Ok(headers)
    }

    async fn cancel(
        &self,
        id: String,
        caller: &mut Inbound,
        request: &mut Outgoing,
    ) -> Result<Vec<u8>, Missed> {
        // A body means nothing here; one that is there closes the connection.
        caller.hold(request, 0).await.map_err(|failure| missed(id.clone(), &failure))?;
        if !self.queue.cancel(&id).await.map_err(Failure::Enqueue)? {
            return Err(Failure::UnknownCall(id.chars().take(64).collect()).into());
        }
        let mut headers = Vec::new();
        stamp::platform(&mut headers);
        Ok(headers)
    }
}

fn missed(name: String, failure: &ExchangeFailure) -> Missed {
    match failure {
        ExchangeFailure::CallerBody(fault) => Failure::RequestBody { name, fault: *fault }.into(),
        ExchangeFailure::CallerSilent => Failure::RequestBodySlow(name).into(),
        _ => Missed::Left,
    }
}

fn header<'b>(head: &RequestHead<'b>, name: &str) -> Option<&'b [u8]> {
    head.passing().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A callback that whoever asks for it may have.
fn callback(url: &[u8], head: &RequestHead<'_>, peer: &Peer) -> Result<Callback, Failure> {
    let reach = peer.reach(header(head, FORWARDED_FOR).is_some());
    let callback = Callback { url: callback_url(url)?, reach };
    if !callback.stays_within_reach() {
        return Err(Failure::Callback(
            "the function that asks reaches no network (`--network none`): give it one, or name \
             http://gateway:8080/function/NAME",
        ));
    }
    Ok(callback)
}

/// A callback's URL that can be called.
fn callback_url(value: &[u8]) -> Result<String, Failure> {
    let bad = |why: &'static str| Failure::Callback(why);
    if value.len() > limits::CALLBACK_URL_BYTES_MAX {
        return Err(bad("it is too long (CALLBACK_URL_BYTES_MAX)"));
    }
    let url = std::str::from_utf8(value).map_err(|_| bad("it is no text"))?;
    let uri: Uri = url.parse().map_err(|_| bad("it is no URL"))?;
    // A port that is no number is parsed by nobody until it is asked for.
    let host = uri.authority().map(|authority| authority.as_str().rsplit(['@', ']']).next());
    let names_port = host.flatten().is_some_and(|host| host.contains(':'));
    if names_port && uri.port_u16().is_none() {
        return Err(bad("its port is no number up to 65535"));
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => {
            Ok(url.to_owned())
        }
        _ => Err(bad("give one that begins with http:// or https:// and a host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_urls_with_a_host() {
        for good in ["http://h:9000/cb", "https://user:pw@h/", "HTTP://h", "http://[::1]:1/a?b"] {
            assert!(callback_url(good.as_bytes()).is_ok(), "{good}");
        }
        let long = format!("http://h/{}", "a".repeat(limits::CALLBACK_URL_BYTES_MAX));
        for bad in
            ["", "h", "/cb", "ftp://h/", "http://", "http:///a", "http://h:x/", "\u{1}", &long]
        {
            assert!(callback_url(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(callback_url(b"http://h/\xff").is_err());
    }
}
