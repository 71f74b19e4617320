//! Who may use `/system`: whoever knows the password or has a token for it, or anyone on this host where no password is
//! asked for.

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
use crate::tokens::{Issuer, TokenFault};

/// The one user of basic authentication.
pub const USER: &str = "admin";

/// What is asked for where nothing that holds is shown (contract section 2.1).
pub const REALM: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted\"");

/// The rule of access.
pub enum Access {
    /// Basic authentication with this password, or a token that was given for it (contract section 2).
    Password(Password),
    /// No password. A web page must not be able to drive the API all the same: see [`check`].
    Open,
}

/// What stands before a password, and the password.
pub struct Password(Vec<u8>);

/// What a request shows in its header `Authorization`.
pub enum Given {
    /// No such header.
    Nothing,
    /// `user:password`.
    Basic(Vec<u8>),
    /// A token.
    Bearer(String),
    /// What is none of these.
    Other,
}

/// Why a request is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    /// It shows nothing that holds.
    Unknown,
    /// It shows a token that does not hold.
    Token(TokenFault),
    /// It shows a token that is not for the API.
    Forbidden,
}

/// Lets a request through, or answers it.
///
/// Without a password, requests that a browser makes for a foreign page are refused, and so are those to
/// a name that is not loopback, which a foreign page can have resolve to it.
pub async fn check(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match refusal(&api, request.headers()) {
        None => next.run(request).await,
        Some(refused) => refused,
    }
}

/// The answer to a request that is not let in.
pub fn refusal(api: &Api, headers: &HeaderMap) -> Option<Response> {
    match &api.access {
        Access::Password(password) => {
            judge(&Given::read(headers), password, &api.issuer).err().map(Denied::into_response)
        }
        Access::Open => api.access.refuse_foreign(headers),
    }
}

fn judge(given: &Given, password: &Password, issuer: &Issuer) -> Result<(), Denied> {
    match given {
        Given::Basic(pair) if password.is(pair) => Ok(()),
        Given::Bearer(token) if !token.is_empty() => match issuer.read(token) {
            Ok(claims) if claims.is_admin() => Ok(()),
            Ok(_) => Err(Denied::Forbidden),
            Err(fault) => Err(Denied::Token(fault)),
        },
        _ => Err(Denied::Unknown),
    }
}

impl Access {
    /// The answer to a request that a web page of others makes, where nobody is asked for a password.
    pub fn refuse_foreign(&self, headers: &HeaderMap) -> Option<Response> {
        match self {
            Self::Password(_) => None,
            Self::Open => foreign(headers).map(|why| (StatusCode::FORBIDDEN, why).into_response()),
        }
    }
}

impl Password {
    /// A password of [`USER`].
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self(format!("{USER}:{password}").into_bytes())
    }

    /// Whether it is this `user:password`. Only the length can be learnt from the time this takes.
    #[must_use]
    pub fn is(&self, pair: &[u8]) -> bool {
        pair.ct_eq(&self.0).into()
    }
}

impl Given {
    /// What these headers show.
    pub fn read(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Self::Nothing };
        let Ok(text) = value.to_str() else { return Self::Other };
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest.trim().to_owned());
        }
        let pair = BASE64_STANDARD.decode(rest.trim()).ok();
        match pair.filter(|_| scheme.eq_ignore_ascii_case("basic")) {
            Some(pair) => Self::Basic(pair),
            None => Self::Other,
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        if self == Self::Forbidden {
            let words = "this token is for calls of functions; the API takes the password, or a token that was asked \
                         for without scope=function\n";
            return (StatusCode::FORBIDDEN, words).into_response();
        }
        let headers = [(header::WWW_AUTHENTICATE, REALM)];
        let mut response =
            (StatusCode::UNAUTHORIZED, headers, "invalid credentials").into_response();
        // RFC 6750 section 3.1, behind what clients look for.
        if let Self::Token(fault) = self
            && let Ok(why) =
                format!("Bearer error=\"invalid_token\", error_description=\"{fault}\"").parse()
        {
            response.headers_mut().append(header::WWW_AUTHENTICATE, why);
        }
        response
    }
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

    fn judged(headers: &HeaderMap, issuer: &Issuer) -> Result<(), Denied> {
        judge(&Given::read(headers), &Password::new("secret"), issuer)
    }

    #[test]
    fn only_the_right_password_passes() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(dir.path(), None).unwrap().0;
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let with = |value: &str| judged(&headers(&[("authorization", value)]), &issuer);
        assert_eq!(with(&basic("admin:secret")), Ok(()));
        assert_eq!(with(&basic("admin:secret").replace("Basic", "basic")), Ok(()));
        for wrong in [
            &basic("admin:wrong"),
            &basic("root:secret"),
            &basic("admin:secret2"),
            "Bearer",
            "Bearer ",
            "Basic %%%",
            "",
        ] {
            assert_eq!(with(wrong), Err(Denied::Unknown), "{wrong}");
        }
        assert_eq!(judged(&HeaderMap::new(), &issuer), Err(Denied::Unknown));
    }

    #[test]
    fn tokens_pass_that_are_for_the_api() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(dir.path(), None).unwrap().0;
        let with = |token: &str| {
            judged(&headers(&[("authorization", &format!("Bearer {token}"))]), &issuer)
        };
        let given = |claims: &pinnace_core::token::Claims| issuer.give(claims).unwrap().token;
        let admin = given(&issuer.admin());
        assert_eq!(with(&admin), Ok(()));
        let function = given(&issuer.admin().for_functions(&["*:*".to_owned()]));
        assert_eq!(with(&function), Err(Denied::Forbidden));
        let strange = with(&admin[..admin.len() - 1]).unwrap_err();
        let response = strange.into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let challenges: Vec<_> =
            response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(challenges[0], REALM);
        assert!(challenges[1].to_str().unwrap().starts_with("Bearer error=\"invalid_token\""));
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
