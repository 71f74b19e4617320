//! Who may call the function, by tokens of the platform (contract section 8.6).
//!
//! At the start the issuer's document and its keys are fetched (`fetch`, `keys`); an issuer that cannot be reached
//! ends the watchdog, since a function that was to be guarded must not serve unguarded. Each call then shows a token
//! that one of the keys has signed (`token`) and that names this function.

mod fetch;
pub mod keys;
pub mod token;

use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;

use self::{keys::Keys, token::Function};
use crate::{
    answer::{self, Answer},
    journal::Journal,
    status,
};

/// Where the platform is found from within its network.
const AUTHORITY: &str = "http://gateway.openfaas:8080/.well-known/openid-configuration";
/// The same for `jwt_auth_local`.
const LOCAL_AUTHORITY: &str = "http://127.0.0.1:8000/.well-known/openid-configuration";
/// Where Kubernetes tells a pod its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

const X_AUTH_SECONDS: HeaderName = HeaderName::from_static("x-auth-seconds");
const REALM: HeaderValue = HeaderValue::from_static("Bearer realm=IAM function invoke");

/// How calls are to be judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// Whether the issuer is on this machine.
    pub local: bool,
    /// Whether the log tells of keys and tokens' issuers.
    pub debug: bool,
    /// `OPENFAAS_NAME`.
    pub name: Option<String>,
    /// `OPENFAAS_NAMESPACE`.
    pub namespace: Option<String>,
}

/// Lets calls in.
#[derive(Debug)]
pub struct Guard {
    issuer: String,
    keys: Keys,
    /// `NAMESPACE:NAME`, as permissions name the function.
    function: String,
    debug: bool,
    journal: Journal,
}

#[derive(Debug, Deserialize)]
struct Discovery {
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    jwks_uri: String,
}

/// Why a call is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Denied {
    /// No token, or none that counts: 401 with these words.
    Unknown(String),
    /// A good token of somebody who may not: 403.
    Forbidden,
}

impl Guard {
    /// Fetches the issuer's keys.
    ///
    /// # Errors
    /// The function's name is not known, or the issuer does not answer as one.
    pub async fn start(settings: &AuthSettings, journal: &Journal) -> Result<Self, String> {
        let function = function(settings)?;
        let authority = if settings.local { LOCAL_AUTHORITY } else { AUTHORITY };
        let discovery: Discovery = fetch::document(authority, "config").await?;
        let keys = Keys::read(&fetch::document(&discovery.jwks_uri, "keyset").await?);
        let debug = settings.debug;
        if debug {
            let (issuer, uri) = (&discovery.issuer, &discovery.jwks_uri);
            journal.say(format_args!("[JWT Auth] Issuer: {issuer}\tJWKS URI: {uri}"));
            keys.ids().for_each(|id| journal.say(format_args!("[JWT Auth] Key: {id}")));
        }
        Ok(Self { issuer: discovery.issuer, keys, function, debug, journal: journal.clone() })
    }

    /// Lets a call pass, which then says how long that took; or answers it.
    pub fn check(&self, request: &mut Request<Incoming>) -> Result<(), Box<Response<Answer>>> {
        let begun = Instant::now();
        match self.judge(request.headers(), SystemTime::now()) {
            Ok(()) => {
                let took = status::seconds(begun.elapsed());
                request.headers_mut().insert(X_AUTH_SECONDS, took);
                Ok(())
            }
            Err(denied) => {
                let response = denied.answer();
                self.journal.say(format_args!(
                    "{} {} - {} ACCESS DENIED - ({}ms)",
                    request.method(),
                    request.uri().path(),
                    response.status().as_u16(),
                    begun.elapsed().as_millis()
                ));
                Err(Box::new(response))
            }
        }
    }

    fn judge(&self, headers: &HeaderMap, now: SystemTime) -> Result<(), Denied> {
        let shown = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        let text = shown.strip_prefix(b"Bearer ").unwrap_or(shown);
        if text.is_empty() {
            let words = "Bearer must be present in Authorization header";
            return Err(Denied::Unknown(words.to_owned()));
        }
        let claims = token::verify(text, &self.keys, &self.issuer, now)
            .map_err(|fault| Denied::Unknown(format!("failed to parse JWT token: {fault}")))?;
        if self.debug {
            let issuer = claims.iss.as_deref().unwrap_or_default();
            self.journal.say(format_args!("[JWT Auth] Token: issuer: {issuer}"));
        }
        match is_permitted(&claims.function, &self.function) {
            true => Ok(()),
            false => Err(Denied::Forbidden),
        }
    }
}

impl Denied {
    fn answer(self) -> Response<Answer> {
        let mut response = match self {
            Self::Unknown(words) => {
                let mut response = answer::error(StatusCode::UNAUTHORIZED, words + "\n");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, REALM);
                response
            }
            Self::Forbidden => answer::error(StatusCode::FORBIDDEN, "insufficient permissions\n"),
        };
        let headers = response.headers_mut();
        headers.insert(status::X_OPENFAAS_INTERNAL, status::FROM_MIDDLEWARE);
        response
    }
}

fn function(settings: &AuthSettings) -> Result<String, String> {
    let namespace = match &settings.namespace {
        Some(namespace) => namespace.clone(),
        None => std::fs::read_to_string(NAMESPACE_FILE)
            .map_err(|error| {
                let why = crate::spelling::failure(&error);
                format!(
                    "failed to get function namespace: open {NAMESPACE_FILE}: {why} \
                     (OPENFAAS_NAMESPACE is not set either)"
                )
            })?
            .trim()
            .to_owned(),
    };
    let name = settings
        .name
        .as_ref()
        .filter(|name| !name.is_empty())
        .ok_or("failed to get function name: env variable 'OPENFAAS_NAME' not set")?;
    Ok(format!("{namespace}:{name}"))
}

/// A token may be bound to functions by its audience too; one that names none is not.
fn is_permitted(claims: &Function, function: &str) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, function));
    (claims.audience.is_empty() || any(&claims.audience)) && any(&claims.permissions)
}

/// Whether the whole of `text` is what `pattern` says; `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_speak_of_the_whole_name() {
        for (pattern, text, holds) in [
            ("*", "ns:fn", true),
            ("ns:fn", "ns:fn", true),
            ("ns:*", "ns:fn", true),
            ("*:fn", "ns:fn", true),
            ("n*:f*n", "ns:fxxn", true),
            ("ns:env", "ns:env-admin", false),
            ("s:fn", "ns:fn", false),
            ("ns:*x", "ns:fn", false),
            ("*fn*fn", "ns:fn", false),
            ("", "ns:fn", false),
            ("ns.fn", "ns:fn", false),
        ] {
            assert_eq!(matches(pattern, text), holds, "{pattern} for {text}");
        }
    }

    #[test]
    fn an_audience_narrows_permissions() {
        let claims = |permissions: &[&str], audience: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
            Function { permissions: owned(permissions), audience: owned(audience) }
        };
        assert!(is_permitted(&claims(&["*"], &[]), "ns:fn"));
        assert!(is_permitted(&claims(&["*"], &["ns:fn"]), "ns:fn"));
        assert!(!is_permitted(&claims(&["*"], &["ns:other"]), "ns:fn"));
        assert!(!is_permitted(&claims(&[], &["ns:fn"]), "ns:fn"));
    }

    #[test]
    fn a_function_must_know_its_name() {
        let settings = |name: Option<&str>| AuthSettings {
            local: true,
            debug: false,
            name: name.map(str::to_owned),
            namespace: Some("ns".to_owned()),
        };
        assert_eq!(function(&settings(Some("fn"))).unwrap(), "ns:fn");
        assert!(function(&settings(None)).unwrap_err().contains("'OPENFAAS_NAME' not set"));
        assert!(function(&settings(Some(""))).is_err());
    }
}
