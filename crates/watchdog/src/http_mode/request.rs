//! How a request and its answer look on the other side. Pure.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::{
        ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RANGE,
        TRAILER, TRANSFER_ENCODING, USER_AGENT,
    },
    request::Parts,
    uri::PathAndQuery,
};
use http_body::{Body, Frame, SizeHint};
use pinnace_proxy::{Relay, RelayError, relay::Unwatched};
use tokio::runtime::Handle;

use super::relayed::{PeekFailure, Relayed};
use crate::{settings::Upstream, sniff, unread};

/// A request's body on its way to the function. The default has none.
#[derive(Debug)]
pub enum Outgoing {
    /// As it comes.
    Relayed(Relay<Unwatched>),
    /// Held whole; `None` for none, or once it is sent.
    Whole(Option<Bytes>),
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::Whole(None)
    }
}

/// How long a caller may pause in a body that nobody wants any more.
const UNREAD_SILENCE_MAX: Duration = Duration::from_secs(5);

/// What the function did not take, because it was not there or had answered before, is read all the same.
impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Self::Relayed(relay) = self
            && !relay.is_end_stream()
            && Handle::try_current().is_ok()
        {
            unread::discard(std::mem::take(relay), UNREAD_SILENCE_MAX);
        }
    }
}

impl Outgoing {
    /// How it will be framed.
    pub fn framing(&self) -> Framing {
        match self {
            Self::Relayed(_) => Framing::Chunks,
            Self::Whole(Some(bytes)) => Framing::Length(bytes.len()),
            Self::Whole(None) => Framing::None,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match self.get_mut() {
            Self::Relayed(relay) => Pin::new(relay).poll_frame(cx),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Relayed(relay) => relay.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Relayed(relay) => relay.size_hint(),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
        }
    }
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// In chunks, as the original sends every body.
    Chunks,
    /// By its length, in bytes.
    Length(usize),
}

/// Makes the request what the function is to see. Returns whether gzip was asked for in the caller's
/// stead, who is then owed the plain body.
pub fn put_in_order(parts: &mut Parts, upstream: &Upstream, framing: Framing) -> bool {
    parts.version = Version::HTTP_11;
    put_target_in_order(&mut parts.uri, &upstream.base_path);
    let headers = &mut parts.headers;
    put_host_in_order(headers, upstream);
    headers.remove(TRAILER);
    frame(headers, &parts.method, framing);
    match headers.get(USER_AGENT) {
        None => drop(headers.insert(USER_AGENT, HeaderValue::from_static("Go-http-client/1.1"))),
        Some(agent) if agent.is_empty() => drop(headers.remove(USER_AGENT)),
        Some(_) => {}
    }
    let asks = !headers.contains_key(ACCEPT_ENCODING)
        && !headers.contains_key(RANGE)
        && parts.method != Method::HEAD;
    if asks {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    asks
}

/// A missing or empty Host is the upstream's.
pub fn put_host_in_order(headers: &mut HeaderMap, upstream: &Upstream) {
    if headers.get(HOST).is_none_or(HeaderValue::is_empty) {
        headers.insert(HOST, upstream.authority.clone());
    }
}

/// Path and query as they came, behind the path of `upstream_url`.
pub fn put_target_in_order(uri: &mut Uri, base_path: &str) {
    if base_path.is_empty() && uri.authority().is_none() {
        return;
    }
    let own = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if let Ok(target) = format!("{base_path}{own}").parse::<PathAndQuery>() {
        *uri = Uri::from(target);
    }
}

/// Says in the headers how the body is framed.
pub fn frame(headers: &mut HeaderMap, method: &Method, framing: Framing) {
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    let expects_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    match framing {
        Framing::None if expects_body => drop(headers.insert(CONTENT_LENGTH, 0.into())),
        Framing::None => {}
        Framing::Chunks => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Framing::Length(bytes) => drop(headers.insert(CONTENT_LENGTH, bytes.into())),
    }
}

/// Takes off what belongs to the connection to the function.
pub fn put_answer_in_order(headers: &mut HeaderMap, unzips: bool) {
    headers.remove(CONNECTION);
    if headers.remove(TRANSFER_ENCODING).is_some() {
        // It says nothing then (RFC 9112 section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    headers.remove(TRAILER);
    if unzips {
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
    }
}

/// Whether the body is gzip.
pub fn is_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// The length that the answer names.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Sets a missing Content-Type by the first bytes of the body, for which it waits.
///
/// # Errors
/// The body broke off before its first byte.
pub async fn guess_type(headers: &mut HeaderMap, body: &mut Relayed) -> Result<(), PeekFailure> {
    if headers.contains_key(CONTENT_TYPE)
        || headers.get(CONTENT_ENCODING).is_some_and(|value| !value.is_empty())
        || body.is_end_stream()
    {
        return Ok(());
    }
    if let Some(first) = body.peek().await? {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(sniff::content_type(first)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::settings::Place;

    fn upstream(base_path: &str) -> Upstream {
        Upstream {
            authority: HeaderValue::from_static("127.0.0.1:3000"),
            place: Place::Named("127.0.0.1".into(), 3000),
            base_path: base_path.into(),
        }
    }

    fn ordered(method: &str, target: &str, headers: &[(&str, &str)], framing: Framing) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        put_in_order(&mut parts, &upstream(""), framing);
        parts
    }

    #[test]
    fn what_is_missing_is_added_and_the_rest_passes() {
        let parts = ordered(
            "GET",
            "/a%2Fb?x=1",
            &[("connection", "x-hop"), ("te", "trailers")],
            Framing::None,
        );
        assert_eq!(parts.uri, "/a%2Fb?x=1");
        assert_eq!(parts.headers["host"], "127.0.0.1:3000");
        assert_eq!(parts.headers["user-agent"], "Go-http-client/1.1");
        assert_eq!(parts.headers["accept-encoding"], "gzip");
        assert_eq!(parts.headers["connection"], "x-hop");
        assert_eq!(parts.headers["te"], "trailers");
        assert!(!parts.headers.contains_key("content-length"));
        let parts =
            ordered("GET", "/", &[("range", "bytes=0-"), ("user-agent", "")], Framing::None);
        assert!(!parts.headers.contains_key("accept-encoding"));
        assert!(!parts.headers.contains_key("user-agent"));
        assert!(!ordered("HEAD", "/", &[], Framing::None).headers.contains_key("accept-encoding"));
    }

    #[test]
    fn bodies_are_framed_anew() {
        let given = &[("content-length", "5"), ("trailer", "x-t")];
        let parts = ordered("POST", "/", given, Framing::Chunks);
        assert_eq!(parts.headers["transfer-encoding"], "chunked");
        assert!(!parts.headers.contains_key("content-length"));
        assert!(!parts.headers.contains_key("trailer"));
        assert_eq!(ordered("POST", "/", given, Framing::Length(5)).headers["content-length"], "5");
        assert_eq!(ordered("PUT", "/", &[], Framing::None).headers["content-length"], "0");
        assert!(
            !ordered("DELETE", "/", given, Framing::None).headers.contains_key("content-length")
        );
    }

    #[test]
    fn the_path_of_upstream_url_comes_first() {
        let target = |base: &str, uri: &'static str| {
            let mut uri = Uri::from_static(uri);
            put_target_in_order(&mut uri, base);
            uri.to_string()
        };
        assert_eq!(target("/base", "/x?y=1"), "/base/x?y=1");
        assert_eq!(target("/", "/x"), "//x");
        assert_eq!(target("", "http://other.test/x?y=1"), "/x?y=1");
        assert_eq!(target("", "/x"), "/x");
    }

    #[test]
    fn answers_lose_what_belongs_to_the_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (CONNECTION, "close"),
            (TRANSFER_ENCODING, "chunked"),
            (CONTENT_ENCODING, "gzip"),
            (CONTENT_LENGTH, "25"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert!(is_gzip(&headers));
        assert_eq!(length(&headers), Some(25));
        let mut plain = headers.clone();
        put_answer_in_order(&mut plain, true);
        assert!(plain.is_empty());
        put_answer_in_order(&mut headers, false);
        assert_eq!(
            headers.keys().collect::<Vec<_>>(),
            [CONTENT_ENCODING],
            "chunks say more than a length"
        );
        let mut whole = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("5"))]);
        put_answer_in_order(&mut whole, false);
        assert_eq!(length(&whole), Some(5));
    }
}
