//! The headers that the gateway adds to a call and to its answer (contract section 6.1).

use std::{
    cell::RefCell,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pinnace_core::network::Reach;
use pinnace_proxy::h1::{RequestHead, ResponseHead, write_header, write_number};
use uuid::Uuid;

use super::{gateway::FromFunction, route};

const CALL_ID: &[u8] = b"X-Call-Id";
const START_TIME: &[u8] = b"X-Start-Time";
const SERVED_BY: &[u8] = b"X-Served-By";
const FORWARDED_FOR: &[u8] = b"X-Forwarded-For";
const FORWARDED_HOST: &[u8] = b"X-Forwarded-Host";
const TRACEPARENT: &[u8] = b"traceparent";
const USER_AGENT: &[u8] = b"User-Agent";
const CONTENT_TYPE: &[u8] = b"Content-Type";
const DATE: &[u8] = b"Date";
const HOST: &[u8] = b"Host";

const VERSION: &str = concat!("pinnace/", env!("CARGO_PKG_VERSION"));

/// How the content types of gRPC begin.
const GRPC: &[u8] = b"application/grpc";

/// Who delivers asynchronous calls and their callbacks.
pub const QUEUE_AGENT: &str = concat!("pinnace-queue/", env!("CARGO_PKG_VERSION"));

/// Characters of a call id: a UUID with hyphens.
const CALL_ID_CHARS: usize = 36;

/// Who a connection comes from.
#[derive(Debug)]
pub struct Peer {
    /// As it stands in headers.
    address: String,
    /// Which function, if it came by the gateway.
    pub function: Option<FromFunction>,
    is_own: bool,
    is_here: bool,
}

impl Peer {
    /// The other end of a connection.
    #[must_use]
    pub fn new(address: SocketAddr, function: Option<FromFunction>) -> Self {
        let is_here = address.ip().to_canonical().is_loopback();
        Self { address: address.to_string(), function, is_own: false, is_here }
    }

    /// The platform itself, which calls for somebody who has left.
    #[must_use]
    pub fn own(address: SocketAddr) -> Self {
        Self { address: address.to_string(), function: None, is_own: true, is_here: false }
    }

    /// How far the platform goes for it. One that another program forwards may be anywhere.
    #[must_use]
    pub fn reach(&self, is_forwarded: bool) -> Reach {
        match &self.function {
            // Headers of a function's answer ask for what is asked for in the platform's name.
            None if self.is_own => Reach::Gateway,
            None if self.is_here && !is_forwarded => Reach::Host,
            None => Reach::Elsewhere,
            Some(function) => match &function.caller {
                Some(caller) => Reach::of_function(caller.network),
                None => Reach::Gateway,
            },
        }
    }

    /// Whether it comes from outside: neither from a function nor from the platform itself.
    #[must_use]
    pub fn is_client(&self) -> bool {
        self.function.is_none() && !self.is_own
    }
}

/// What a call was marked with on arrival.
#[derive(Debug)]
pub struct Stamp {
    started: Duration,
    made_call_id: Option<[u8; CALL_ID_CHARS]>,
    request_type: Option<Vec<u8>>,
}

/// Which of the headers that the gateway would add are there already.
#[derive(Default)]
struct Seen<'b> {
    call_id: bool,
    traceparent: bool,
    forwarded_for: bool,
    forwarded_host: bool,
    user_agent: bool,
    host: Option<&'b [u8]>,
    content_type: Option<&'b [u8]>,
}

impl<'b> Seen<'b> {
    fn note(&mut self, name: &str, value: &'b [u8]) {
        let is = |known: &[u8]| name.as_bytes().eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(HOST) => self.host = Some(value),
            9 if is(CALL_ID) => self.call_id = true,
            10 if is(USER_AGENT) => self.user_agent = true,
            11 if is(TRACEPARENT) => self.traceparent = true,
            12 if is(CONTENT_TYPE) => self.content_type = Some(value),
            15 if is(FORWARDED_FOR) => self.forwarded_for = true,
            16 if is(FORWARDED_HOST) => self.forwarded_host = true,
            _ => {}
        }
    }
}

impl Stamp {
    /// Writes the headers of a request on its way to a function: its own, and what they lack.
    #[must_use]
    pub fn request(head: &RequestHead<'_>, peer: &Peer, out: &mut Vec<u8>) -> Self {
        Self::write(head, peer, VERSION, out)
    }

    /// Writes the headers of a request that goes to a function later.
    #[must_use]
    pub fn queued(head: &RequestHead<'_>, peer: &Peer, out: &mut Vec<u8>) -> Self {
        Self::write(head, peer, QUEUE_AGENT, out)
    }

    /// The call id, if it was made here.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        self.made_call_id.as_ref().and_then(|id| std::str::from_utf8(id).ok())
    }

    /// Writes the headers of the answer that says that a call was taken.
    pub fn accepted(&self, out: &mut Vec<u8>) {
        if let Some(call_id) = &self.made_call_id {
            write_header(out, CALL_ID, call_id);
        }
        write_number(out, START_TIME, nanos(self.started));
        platform(out);
    }

    fn write(head: &RequestHead<'_>, peer: &Peer, agent: &str, out: &mut Vec<u8>) -> Self {
        let mut seen = Seen::default();
        let authority = route::authority(head.target).map(str::as_bytes);
        for (name, value) in head.passing() {
            let value = match authority {
                Some(authority) if name.as_bytes().eq_ignore_ascii_case(HOST) => authority,
                _ => value,
            };
            seen.note(name, value);
            write_header(out, name.as_bytes(), value);
        }
        let started = since_epoch();
        write_number(out, START_TIME, nanos(started));
        let made_call_id = (!seen.call_id).then(|| {
            let call_id = random_id();
            write_header(out, CALL_ID, &call_id);
            call_id
        });
        if !seen.traceparent {
            write_header(out, TRACEPARENT, &traceparent());
        }
        if !seen.forwarded_for {
            write_header(out, FORWARDED_FOR, peer.address.as_bytes());
        }
        match seen.host {
            Some(host) if !seen.forwarded_host => write_header(out, FORWARDED_HOST, host),
            Some(_) => {}
            // HTTP/1.0 callers may send none; HTTP/1.1 upstreams insist on one.
            None => write_header(out, HOST, b"function"),
        }
        if !seen.user_agent {
            write_header(out, USER_AGENT, agent.as_bytes());
        }
        Self { started, made_call_id, request_type: seen.content_type.map(<[u8]>::to_vec) }
    }

    /// Whether the request is a call of gRPC, which goes over HTTP/2 alone. That of gRPC-Web does not.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        let rest = self.request_type.as_deref().and_then(|kind| kind.strip_prefix(GRPC));
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
    }

    /// Writes the headers of the answer on its way back.
    pub fn answer(&self, head: &ResponseHead<'_>, out: &mut Vec<u8>) {
        let (mut has_type, mut has_date, mut is_named) = (false, false, false);
        for (name, value) in head.passing() {
            let is = |known: &[u8]| name.as_bytes().eq_ignore_ascii_case(known);
            match name.len() {
                4 if is(DATE) => has_date = true,
                9 if is(CALL_ID) && self.made_call_id.is_some() => continue,
                11 if is(SERVED_BY) => is_named = true,
                12 if is(START_TIME) => continue,
                12 if is(CONTENT_TYPE) => has_type = true,
                _ => {}
            }
            write_header(out, name.as_bytes(), value);
        }
        if let Some(call_id) = &self.made_call_id {
            write_header(out, CALL_ID, call_id);
        }
        write_number(out, START_TIME, nanos(self.started));
        if !is_named {
            write_header(out, SERVED_BY, VERSION.as_bytes());
        }
        if !has_type && head.may_have_body(false) {
            let plain = b"text/plain; charset=utf-8".as_slice();
            write_header(out, CONTENT_TYPE, self.request_type.as_deref().unwrap_or(plain));
        }
        if !has_date {
            write_date(out);
        }
    }
}

/// Marks an answer that belongs to no function.
pub fn platform(out: &mut Vec<u8>) {
    write_header(out, SERVED_BY, VERSION.as_bytes());
    write_date(out);
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A clock that shows more than 64 bits is cut off.
fn nanos(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes when an answer was made (RFC 9110 section 6.6.1). The text is made once a second.
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = since_epoch().as_secs();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now {
            *second = now;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        }
        write_header(out, DATE, text.as_bytes());
    });
}

fn random_id() -> [u8; CALL_ID_CHARS] {
    let mut id = [0; CALL_ID_CHARS];
    Uuid::new_v4().hyphenated().encode_lower(&mut id);
    id
}

/// A new trace, not sampled (W3C Trace Context section 3.2).
fn traceparent() -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let mut span = [0; 32];
    Uuid::new_v4().simple().encode_lower(&mut text[3..35]);
    Uuid::new_v4().simple().encode_lower(&mut span);
    text[36..52].copy_from_slice(&span[..16]);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pinnace_proxy::h1;

    use super::*;

    /// What stands in written lines: lower-case name to values.
    fn read(lines: &[u8]) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for line in std::str::from_utf8(lines).unwrap().lines() {
            let (name, value) = line.split_once(": ").unwrap();
            found.entry(name.to_lowercase()).or_default().push(value.to_owned());
        }
        found
    }

    fn stamped(headers: &str) -> (Stamp, BTreeMap<String, Vec<String>>) {
        let head = format!("POST / HTTP/1.0\r\n{headers}\r\n");
        let mut out = Vec::new();
        let peer = Peer::new("127.0.0.1:5000".parse().unwrap(), None);
        let stamp =
            h1::with_request_head(head.as_bytes(), |head| Stamp::request(head, &peer, &mut out));
        (stamp.unwrap(), read(&out))
    }

    fn answered(stamp: &Stamp, head: &str) -> BTreeMap<String, Vec<String>> {
        let mut out = Vec::new();
        let head = format!("HTTP/1.1 {head}\r\n");
        h1::with_response_head(head.as_bytes(), |head| stamp.answer(head, &mut out)).unwrap();
        read(&out)
    }

    #[test]
    fn a_call_gets_ids_and_its_answer_repeats_those_that_were_made() {
        let (stamp, call) = stamped("Host: h\r\n");
        assert_eq!(call["x-call-id"][0].len(), 36);
        assert_eq!(call["x-forwarded-host"], ["h"]);
        assert_eq!(call["x-forwarded-for"], ["127.0.0.1:5000"]);
        assert_eq!(call["traceparent"][0].len(), 55);
        let answer = answered(&stamp, "200 OK\r\nX-Call-Id: theirs\r\nX-Start-Time: 1\r\n");
        assert_eq!(answer["x-call-id"], call["x-call-id"]);
        assert_eq!(answer["x-start-time"], call["x-start-time"]);
        assert_eq!(answer["content-type"], ["text/plain; charset=utf-8"]);
        assert_eq!(answer["date"][0].len(), 29);
    }

    #[test]
    fn what_the_caller_sent_is_kept() {
        let (stamp, call) = stamped(
            "x-call-id: mine\r\nx-start-time: 1\r\nx-forwarded-for: 9.9.9.9\r\nuser-agent: me\r\n\
             x-forwarded-host: example.com\r\nContent-Type: application/json\r\n",
        );
        assert_eq!(call["x-call-id"], ["mine"]);
        assert_eq!(call["x-start-time"].len(), 2, "a second value is added");
        assert_eq!(call["x-forwarded-for"], ["9.9.9.9"]);
        assert_eq!(call["user-agent"], ["me"]);
        assert_eq!(call["host"], ["function"]);
        let answer = answered(&stamp, "200 OK\r\n");
        assert!(!answer.contains_key("x-call-id"), "the caller knows its own id");
        assert_eq!(answer["content-type"], ["application/json"], "the request's is echoed");
    }

    #[test]
    fn a_whole_urls_host_counts_more_than_the_header() {
        let head = "GET http://right/function/a HTTP/1.1\r\nHost: wrong\r\n\r\n";
        let (mut out, peer) = (Vec::new(), Peer::new("127.0.0.1:5000".parse().unwrap(), None));
        h1::with_request_head(head.as_bytes(), |head| Stamp::request(head, &peer, &mut out))
            .unwrap();
        let call = read(&out);
        assert_eq!((&*call["host"][0], &*call["x-forwarded-host"][0]), ("right", "right"));
    }

    #[test]
    fn calls_of_grpc_are_told_by_their_type() {
        let is_grpc = |kind: &str| stamped(&format!("Content-Type: {kind}\r\n")).0.is_grpc();
        assert!(is_grpc("application/grpc") && is_grpc("application/grpc+proto"));
        assert!(!is_grpc("application/grpc-web+proto") && !is_grpc("application/json"));
    }

    #[test]
    fn a_function_may_name_itself() {
        let (stamp, _) = stamped("");
        let answer = answered(&stamp, "204 No Content\r\nX-Served-By: me\r\nDate: today\r\n");
        assert_eq!(answer["x-served-by"], ["me"]);
        assert_eq!(answer["date"], ["today"]);
        assert!(!answer.contains_key("content-type"));
    }
}
