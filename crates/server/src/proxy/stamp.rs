//! The headers that the gateway adds to a call and to its answer (contract section 6.1).

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

const CALL_ID: HeaderName = HeaderName::from_static("x-call-id");
const START_TIME: HeaderName = HeaderName::from_static("x-start-time");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const VERSION: &str = concat!("pinnace/", env!("CARGO_PKG_VERSION"));

/// Who a connection comes from, as it stands in headers.
#[derive(Debug)]
pub struct Peer(HeaderValue);

impl Peer {
    /// The other end of a connection.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(HeaderValue::from_str(&address.to_string()).expect("an address is plain text"))
    }
}

/// What a call was marked with on arrival.
#[derive(Debug)]
pub struct Stamp {
    start_time: HeaderValue,
    made_call_id: Option<HeaderValue>,
    request_type: Option<HeaderValue>,
}

impl Stamp {
    /// Marks a request on its way to a function.
    #[must_use]
    pub fn request(headers: &mut HeaderMap, peer: &Peer) -> Self {
        let start_time = unix_nanos();
        headers.append(START_TIME, start_time.clone());
        let made_call_id = (!headers.contains_key(CALL_ID)).then(|| {
            let call_id = random_id();
            headers.insert(CALL_ID, call_id.clone());
            call_id
        });
        if !headers.contains_key(TRACEPARENT) {
            headers.insert(TRACEPARENT, traceparent());
        }
        if !headers.contains_key(FORWARDED_FOR) {
            headers.insert(FORWARDED_FOR, peer.0.clone());
        }
        if !headers.contains_key(FORWARDED_HOST)
            && let Some(host) = headers.get(header::HOST).cloned()
        {
            headers.insert(FORWARDED_HOST, host);
        }
        if !headers.contains_key(header::USER_AGENT) {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(VERSION));
        }
        let request_type = headers.get(header::CONTENT_TYPE).cloned();
        Self { start_time, made_call_id, request_type }
    }

    /// Marks the answer on its way back. `has_body` is false where the status forbids one.
    pub fn answer(self, headers: &mut HeaderMap, has_body: bool) {
        if let Some(call_id) = self.made_call_id {
            headers.insert(CALL_ID, call_id);
        }
        headers.insert(START_TIME, self.start_time);
        if !headers.contains_key(SERVED_BY) {
            headers.insert(SERVED_BY, HeaderValue::from_static(VERSION));
        }
        if has_body && !headers.contains_key(header::CONTENT_TYPE) {
            let echoed = self.request_type;
            let plain = || HeaderValue::from_static("text/plain; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, echoed.unwrap_or_else(plain));
        }
    }
}

/// Marks an answer that belongs to no function.
pub fn served_by(headers: &mut HeaderMap) {
    headers.insert(SERVED_BY, HeaderValue::from_static(VERSION));
}

fn unix_nanos() -> HeaderValue {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    HeaderValue::from(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn random_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).expect("a UUID is made of hexadecimal digits and hyphens")
}

/// A new trace, not sampled (W3C Trace Context section 3.2).
fn traceparent() -> HeaderValue {
    let (mut trace, mut span) = (Uuid::encode_buffer(), Uuid::encode_buffer());
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    text.push_str(Uuid::new_v4().simple().encode_lower(&mut trace));
    text.push('-');
    text.push_str(&Uuid::new_v4().simple().encode_lower(&mut span)[..16]);
    text.push_str("-00");
    HeaderValue::try_from(text).expect("a trace is made of hexadecimal digits and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("127.0.0.1:5000".parse().unwrap())
    }

    #[test]
    fn a_call_gets_ids_and_its_answer_repeats_those_that_were_made() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("h"));
        let stamp = Stamp::request(&mut headers, &peer());
        assert_eq!(headers[CALL_ID].len(), 36);
        assert_eq!(headers[FORWARDED_HOST], "h");
        assert_eq!(headers[FORWARDED_FOR], "127.0.0.1:5000");
        assert_eq!(headers[TRACEPARENT].len(), 55);
        let mut answer = HeaderMap::new();
        stamp.answer(&mut answer, true);
        assert_eq!(answer[CALL_ID], headers[CALL_ID]);
        assert_eq!(answer[START_TIME], headers[START_TIME]);
        assert_eq!(answer[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn what_the_caller_sent_is_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-call-id", "mine"),
            ("x-start-time", "1"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-host", "example.com"),
            ("user-agent", "me"),
            ("content-type", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let stamp = Stamp::request(&mut headers, &peer());
        assert_eq!(headers[CALL_ID], "mine");
        assert_eq!(headers.get_all(START_TIME).iter().count(), 2, "a second value is added");
        assert_eq!(headers[FORWARDED_FOR], "9.9.9.9");
        assert_eq!(headers[header::USER_AGENT], "me");
        let mut answer = HeaderMap::new();
        stamp.answer(&mut answer, true);
        assert!(!answer.contains_key(CALL_ID), "the caller knows its own id");
        assert_eq!(answer[header::CONTENT_TYPE], "application/json", "the request's is echoed");
    }

    #[test]
    fn a_function_may_name_itself() {
        let stamp = Stamp::request(&mut HeaderMap::new(), &peer());
        let mut answer = HeaderMap::new();
        answer.insert(SERVED_BY, HeaderValue::from_static("me"));
        stamp.answer(&mut answer, false);
        assert_eq!(answer[SERVED_BY], "me");
        assert!(!answer.contains_key(header::CONTENT_TYPE));
    }
}
