//! Who may use `/system`: whoever knows the password, or anyone on this host where none is asked for.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;

use super::Api;

/// The one user of basic authentication.
pub const USER: &str = "admin";

/// The rule of access.
pub enum Access {
    /// Basic authentication with this password (contract section 2.1).
    Password(String),
    /// No password. A web page must not be able to drive the API all the same: see [`check`].
    Open,
}

/// Lets a request through, or answers it.
///
/// Without a password, requests that a browser makes for a foreign page are refused, and so are those to
/// a name that is not loopback, which a foreign page can have resolve to it.
pub async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let allowed = match &api.access {
        Access::Password(password) => has_password(request.headers(), password),
        Access::Open => {
            if let Some(why) = foreign(request.headers()) {
                return (StatusCode::FORBIDDEN, why).into_response();
            }
            true
        }
    };
    if allowed {
        return next.run(request).await;
    }
    let realm = HeaderValue::from_static("Basic realm=\"Restricted\"");
    let headers = [(header::WWW_AUTHENTICATE, realm)];
    (StatusCode::UNAUTHORIZED, headers, "invalid credentials").into_response()
}

fn has_password(headers: &HeaderMap, password: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|text| text.split_once(' ')) else { return false };
    if !given.0.eq_ignore_ascii_case("basic") {
        return false;
    }
    let Ok(given) = BASE64_STANDARD.decode(given.1.trim()) else { return false };
    let expected = format!("{USER}:{password}");
    // Only the length can be learnt from the time this takes.
    given.ct_eq(expected.as_bytes()).into()
}

fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::HOST).is_some_and(|host| !is_loopback(host)) {
        return Some(
            "without a password /system answers only to loopback names, such as 127.0.0.1; \
             start with authentication to use others\n",
        );
    }
    let origin = headers.get(header::ORIGIN).map(HeaderValue::to_str);
    let own = |origin: &str| {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        text(header::HOST).is_some_and(|own| own.eq_ignore_ascii_case(host))
    };
    let is_foreign_origin = origin.is_some_and(|origin| !origin.is_ok_and(own));
    let site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    (is_foreign_origin || site).then_some(
        "without a password /system answers no web page of another origin; \
         start with authentication to use it from a browser\n",
    )
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_right_password_passes() {
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let with = |value: &str| has_password(&headers(&[("authorization", value)]), "secret");
        assert!(with(&basic("admin:secret")));
        assert!(with(&basic("admin:secret").replace("Basic", "basic")));
        for wrong in [
            &basic("admin:wrong"),
            &basic("root:secret"),
            &basic("admin:secret2"),
            "Bearer",
            "Bearer ",
            "Basic %%%",
            "",
        ] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!has_password(&HeaderMap::new(), "secret"));
    }

    #[test]
    fn web_pages_of_others_are_refused() {
        let refused = |pairs| foreign(&headers(pairs)).is_some();
        assert!(!refused(&[("host", "127.0.0.1:8080")]));
        assert!(!refused(&[("host", "[::1]:8080")]));
        assert!(!refused(&[("host", "localhost")]));
        assert!(!refused(&[("host", "localhost:8080"), ("origin", "http://localhost:8080")]));
        assert!(refused(&[("host", "evil.example:8080")]));
        assert!(refused(&[("host", "127.0.0.1.evil.example")]));
        assert!(refused(&[("host", "localhost:8080"), ("origin", "http://evil.example")]));
        assert!(refused(&[("host", "localhost:8080"), ("origin", "null")]));
        assert!(refused(&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")]));
    }
}
