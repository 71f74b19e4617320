//! Which headers go on, and which the platform adds: a request, and behind it the answer.

use http::{HeaderMap, HeaderName, HeaderValue};
use pinnace_proxy::{h1::head, headers::strip_hop};
use pinnace_server::proxy::{
    route,
    stamp::{Peer, Stamp},
};

use crate::plain::Head;

/// What the platform may add to a request.
const ADDED: [&str; 7] = [
    "host",
    "traceparent",
    "user-agent",
    "x-call-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-start-time",
];

/// What the platform may add to an answer.
const ADDED_TO_ANSWER: [&str; 5] =
    ["content-type", "date", "x-call-id", "x-served-by", "x-start-time"];

/// Nothing of one connection passes to the next, nothing else is lost or changed, and what is the platform's to say is
/// said once, by the platform.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let taken = head::request(bytes, |request, size| {
        let mut written = Vec::new();
        let peer = Peer::new(([192, 0, 2, 1], 5).into(), None);
        let stamp = Stamp::request(request, &peer, &mut written);
        let authority = route::authority(request.target).map(str::to_owned);
        (stamp, written, authority, size)
    });
    let Ok(Some((stamp, written, authority, size))) = taken else { return };
    let request = Head::read(&bytes[..size]);
    check_request(&request, authority.as_deref().map(str::as_bytes), &written, &stamp);
    check_map(&request);
    check_answer(&bytes[size..], &stamp);
}

/// A head of headers that were written, which the next server takes.
fn whole(line: &str, written: &[u8]) -> Vec<u8> {
    [line.as_bytes(), b"\r\n", written, b"\r\n"].concat()
}

/// Whether a header goes on. The words of `Connection` that stand for no header are none; who asks a server for its
/// leave to send the body asks this one.
fn passes(head: &Head<'_>, name: &str) -> bool {
    let is_asked = |value: &&[u8]| value.eq_ignore_ascii_case(b"100-continue");
    match name {
        "host" | "close" => true,
        "expect" => !head.all(name).iter().any(is_asked) && !head.is_hop(name),
        _ => !head.is_hop(name),
    }
}

fn check_request(request: &Head<'_>, authority: Option<&[u8]>, written: &[u8], stamp: &Stamp) {
    let text = whole("POST / HTTP/1.1", written);
    let is_taken = head::request(&text, |_, size| size);
    assert_eq!(is_taken, Ok(Some(text.len())), "the function's server takes it");
    let written = Head::read(&text);
    let kept: Vec<_> = request
        .headers
        .iter()
        .filter(|(name, _)| passes(request, name))
        .map(|(name, value)| match authority {
            Some(authority) if name == "host" => (name.clone(), authority),
            _ => (name.clone(), *value),
        })
        .collect();
    let (same, added) = written.headers.split_at(kept.len());
    assert_eq!(same, kept, "what goes on");
    check_added(added, &kept, &ADDED, &["x-start-time"]);
    assert_eq!(written.all("host").len(), 1);
    for name in ADDED {
        assert!(!written.all(name).is_empty() || name == "x-forwarded-host", "{name} is missing");
    }
    let made = stamp.call_id().map(str::as_bytes);
    assert!(made.is_none_or(|id| written.all("x-call-id") == [id]), "the call's id");
}

/// Each is added once, and only where it was not there; but for what is added in any case.
fn check_added(
    added: &[(String, &[u8])],
    kept: &[(String, &[u8])],
    may_be: &[&str],
    always: &[&str],
) {
    for (at, (name, _)) in added.iter().enumerate() {
        assert!(may_be.contains(&&**name), "{name} was added");
        assert!(added[..at].iter().all(|(other, _)| other != name), "{name} was added twice");
        let was_there = kept.iter().any(|(other, _)| other == name);
        assert!(!was_there || always.contains(&&**name), "{name} was there");
    }
}

fn check_answer(bytes: &[u8], stamp: &Stamp) {
    let taken = head::response(bytes, |answer, size| {
        let mut written = Vec::new();
        stamp.answer(answer, &mut written);
        (written, answer.status, size)
    });
    let Ok(Some((written, status, size))) = taken else { return };
    let text = whole(&format!("HTTP/1.1 {status} x"), &written);
    let is_taken = head::response(&text, |_, size| size);
    assert_eq!(is_taken, Ok(Some(text.len())), "the caller takes it");
    let (answer, written) = (Head::read(&bytes[..size]), Head::read(&text));
    let is_ours =
        |name: &str| name == "x-start-time" || (name == "x-call-id" && stamp.call_id().is_some());
    let kept: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| passes(&answer, name) && !is_ours(name))
        .cloned()
        .collect();
    let (same, added) = written.headers.split_at(kept.len());
    assert_eq!(same, kept, "what goes back");
    check_added(added, &kept, &ADDED_TO_ANSWER, &[]);
    let [started] = written.all("x-start-time")[..] else { panic!("one start time") };
    assert!(started.iter().all(u8::is_ascii_digit));
    if let Some(id) = stamp.call_id() {
        assert_eq!(written.all("x-call-id"), [id.as_bytes()]);
    }
    assert!(!written.all("x-served-by").is_empty() && !written.all("date").is_empty());
}

/// The watchdog's way of the same: no header of the connection stays, and every other does.
fn check_map(request: &Head<'_>) {
    let mut map = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else { return };
        map.append(name, value);
    }
    let before = map.clone();
    strip_hop(&mut map);
    for name in before.keys() {
        // A body's length is told from its framing, not from here; what a caller calls its host's is not used.
        let is_either = ["content-length", "host", "close"].contains(&name.as_str());
        let stays = map.contains_key(name);
        assert!(is_either || stays != request.is_hop(name.as_str()), "{name} stays: {stays}");
    }
}
