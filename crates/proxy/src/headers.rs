//! Which headers belong to one connection only, and must not travel on (RFC 9110 section 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, UPGRADE},
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a request or an answer said about its connection before that was taken off.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// The protocol it asks to switch to, or has switched to.
    pub upgrade: Option<HeaderValue>,
}

/// Takes off every header that belongs to the connection it came over, those that `Connection` names
/// among them. `Transfer-Encoding` goes too: the body's framing is made anew on the next connection.
pub fn strip_hop(headers: &mut HeaderMap) -> Hop {
    let connection = take_connection(headers);
    for name in [KEEP_ALIVE, PROXY_CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER]
    {
        headers.remove(name);
    }
    headers.remove(http::header::TRANSFER_ENCODING);
    let upgrade = headers.remove(UPGRADE).filter(|_| connection.upgrade);
    Hop { upgrade }
}

/// Puts an upgrade back on: it is meant for both ends.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

#[derive(Default)]
struct Connection {
    upgrade: bool,
}

/// Removes `Connection` and what it names. Most requests have none, or only `keep-alive`.
fn take_connection(headers: &mut HeaderMap) -> Connection {
    let mut seen = Connection::default();
    if !headers.contains_key(CONNECTION) {
        return seen;
    }
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    let tokens = values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for token in tokens.map(<[u8]>::trim_ascii) {
        if token.eq_ignore_ascii_case(b"upgrade") {
            seen.upgrade = true;
        } else if let Ok(name) = HeaderName::from_bytes(token) {
            headers.remove(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_go() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-secret", "1"),
            ("x-kept", "1"),
            ("authorization", "Basic eA=="),
        ]);
        assert_eq!(strip_hop(&mut headers), Hop::default());
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-kept"]);
    }

    #[test]
    fn a_name_counts_beside_words_that_are_no_names() {
        let mut headers = map(&[("x-secret", "1")]);
        let connection = HeaderValue::from_bytes(b"caf\xe9, X-Secret").unwrap();
        headers.insert(CONNECTION, connection);
        strip_hop(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_upgrade_counts_only_if_connection_names_it() {
        let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip_hop(&mut headers).upgrade.unwrap(), "websocket");
        assert!(headers.is_empty());
        let mut headers = map(&[("upgrade", "h2c")]);
        assert_eq!(strip_hop(&mut headers).upgrade, None);
        assert!(headers.is_empty());
    }
}
