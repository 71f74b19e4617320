//! Event streams and tunnels: calls that may last, and so have no `exec_timeout`.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{ACCEPT, CONNECTION, TRAILER, UPGRADE},
};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use pinnace_core::limits::TUNNEL_IDLE_MAX;
use pinnace_proxy::{Relay, Sent, headers, relay::Unwatched, upgrade};

use super::{
    Forwarder,
    relayed::{CallEnd, End, Relayed},
    request::{self, Framing, Outgoing},
};
use crate::{
    access::Access,
    answer::{self, Answer},
    front::Call,
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether a call is one of these: it accepts events or lines of JSON, or asks for another protocol.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    contains(headers, ACCEPT, "text/event-stream")
        || contains(headers, ACCEPT, "application/x-ndjson")
        || (headers.contains_key(UPGRADE) && contains(headers, CONNECTION, "upgrade"))
}

fn contains(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let holds = |value: &HeaderValue| {
        value
            .as_bytes()
            .windows(wanted.len())
            .any(|part| part.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    headers.get_all(name).iter().any(holds)
}

impl Forwarder {
    /// A call of this kind.
    pub(super) async fn stream(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        let client = hyper::upgrade::on(&mut request);
        let (mut parts, incoming) = request.into_parts();
        let line = (&parts.method, &parts.uri, &parts.headers);
        let access = Access::new(&self.journal, line, call.started, self.log_call_id);
        let trailer = parts.headers.get(TRAILER).cloned();
        let hop = headers::strip_hop(&mut parts.headers);
        add_forwarded_for(&mut parts.headers, &call);
        let (body, framing) = match incoming.is_end_stream() {
            true => (Outgoing::default(), Framing::None),
            false => {
                let relay = Relay::new(incoming, TUNNEL_IDLE_MAX, u64::MAX, Unwatched);
                (Outgoing::Relayed(relay), Framing::Chunks)
            }
        };
        request::put_in_order(&mut parts, &self.upstream, framing);
        if let Some(trailer) = trailer {
            parts.headers.insert(TRAILER, trailer);
        }
        let client = hop.upgrade.map(|protocol| {
            headers::set_upgrade(&mut parts.headers, protocol);
            client
        });
        let sent = self.pool.send(Request::from_parts(parts, body), || self.connect()).await;
        match sent {
            Err(failure) => self.send_failed(&failure, &call),
            Ok(sent) if sent.response.status() == StatusCode::SWITCHING_PROTOCOLS => match client {
                Some(client) => tunnel(sent, client, call, access),
                None => {
                    self.journal.say(format_args!(
                        "Upstream HTTP request error: 101 without a request to switch protocols"
                    ));
                    answer::bare(StatusCode::BAD_GATEWAY)
                }
            },
            Ok(sent) => self.hand_on_events(sent, call, access).await,
        }
    }

    async fn hand_on_events(
        self: &Arc<Self>,
        sent: Sent<Outgoing>,
        call: Call,
        access: Access,
    ) -> Response<Answer> {
        let started = call.started;
        let (mut parts, incoming) = sent.response.into_parts();
        parts.version = Version::HTTP_11;
        let trailer = parts.headers.get(TRAILER).cloned();
        headers::strip_hop(&mut parts.headers);
        if let Some(trailer) = trailer {
            parts.headers.insert(TRAILER, trailer);
        }
        let end = CallEnd::Streamed(parts.status);
        let end = End::new(self, sent.lease, call.pass, access, end);
        let relay = Relay::new(incoming, TUNNEL_IDLE_MAX, u64::MAX, end);
        let mut body = Relayed::new(relay, None, false);
        if let Err(failure) = request::guess_type(&mut parts.headers, &mut body).await {
            return self.broken_before_head(&failure, started);
        }
        Response::from_parts(parts, Answer::function(body).lasting())
    }
}

/// Answers 101 and copies both ways until both ends are done.
fn tunnel(
    mut sent: Sent<Outgoing>,
    client: OnUpgrade,
    call: Call,
    access: Access,
) -> Response<Answer> {
    let function = hyper::upgrade::on(&mut sent.response);
    let (mut parts, _) = sent.response.into_parts();
    let said = parts.headers.get(CONNECTION).cloned();
    if let Some(protocol) = headers::strip_hop(&mut parts.headers).upgrade {
        headers::set_upgrade(&mut parts.headers, protocol);
    }
    // The word as the function wrote it: some clients compare it.
    if let Some(said) = said {
        parts.headers.insert(CONNECTION, said);
    }
    tokio::spawn(async move {
        // How a tunnel ends is its two ends' affair.
        let _ = upgrade::splice(client, function, TUNNEL_IDLE_MAX).await;
        access.streamed(StatusCode::SWITCHING_PROTOCOLS, 0);
        drop((sent.lease, call.pass));
    });
    Response::from_parts(parts, Answer::empty().lasting())
}

/// Adds the caller's address. Over a unix socket the gateway has done that.
fn add_forwarded_for(headers: &mut HeaderMap, call: &Call) {
    let Some(peer) = call.peer else { return };
    let known = headers.get(X_FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let address = peer.remote.ip().to_canonical();
    let all = match known {
        Some(known) => format!("{known}, {address}"),
        None => address.to_string(),
    };
    if let Ok(all) = HeaderValue::try_from(all) {
        headers.insert(X_FORWARDED_FOR, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_calls_last() {
        let wanted = |pairs: &[(&'static str, &'static str)]| {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            is_wanted(&pairs.iter().map(pair).collect())
        };
        assert!(wanted(&[("accept", "text/html, Text/Event-Stream;q=0.5")]));
        assert!(wanted(&[("accept", "text/plain, application/x-ndjson;q=0.9")]));
        assert!(wanted(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!wanted(&[("connection", "keep-alive"), ("upgrade", "h2c")]));
        assert!(!wanted(&[("accept", "*/*")]));
    }
}
