//! The answer to a registry's challenge (RFC 9110 section 11; distribution `auth/token`).
//!
//! A registry that wants to know who we are says so with 401 and a challenge. `Basic` is answered with name
//! and password; `Bearer` with a token that a service, which the challenge names, gives for one repository.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_auth::parser::ChallengeParser;
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pinnace_core::limits;
use serde::Deserialize;

use super::{
    client::{Answer, Client},
    credentials::Credential,
    error::{PullError, PullFault},
    source::PlainHosts,
};

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password.
    Basic,
    /// A token of this service.
    Bearer { realm: String, service: String, scope: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Challenge {
    /// The challenge of a 401 that we can answer best: a token is worth less to a thief than a password.
    pub(super) fn of(answer: &Answer) -> Option<Self> {
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let mut best = None;
        for text in headers.iter().filter_map(|value| value.to_str().ok()) {
            match Self::parse(text) {
                Some(bearer @ Self::Bearer { .. }) => return Some(bearer),
                other => best = best.or(other),
            }
        }
        best
    }

    fn parse(text: &str) -> Option<Self> {
        let mut best = None;
        for challenge in ChallengeParser::new(text) {
            let challenge = challenge.ok()?;
            let param = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let service = param("service").unwrap_or_default();
                return Some(Self::Bearer {
                    realm: param("realm")?,
                    service,
                    scope: param("scope"),
                });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                best = Some(Self::Basic);
            }
        }
        best
    }
}

/// Who asks, and for what.
pub(super) struct Asker<'a> {
    pub client: &'a Client,
    /// The registry, as errors name it.
    pub registry: &'a str,
    /// The repository to be read.
    pub repository: &'a str,
    pub credential: Option<&'a Credential>,
    pub plain: &'a PlainHosts,
    /// Whether the registry itself is spoken to without TLS.
    pub is_plain: bool,
}

impl Asker<'_> {
    /// The value of `Authorization` that answers a challenge.
    pub(super) async fn answer(&self, challenge: &Challenge) -> Result<HeaderValue, PullError> {
        match challenge {
            Challenge::Basic => match self.credential {
                Some(Credential::Password { user, password }) => basic(user, password),
                _ => Err(self.unknown()),
            },
            Challenge::Bearer { realm, service, scope } => {
                let scope = scope.clone();
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository));
                let token = self.token(realm, service, &scope).await?;
                secret(format!("Bearer {token}"))
            }
        }
    }

    fn unknown(&self) -> PullError {
        let registry = self.registry;
        let text = format!(
            "{registry} wants to know who asks: run `docker login {registry}` as the user that Pinnace \
             runs as, or put Docker's configuration file where DOCKER_CONFIG says"
        );
        PullError::new(PullFault::Denied, text)
    }

    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, PullError> {
        let request = self.token_request(realm, service, scope)?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = self.client.send(request).await?;
        let status = answer.status();
        let what = format!("the answer of the token service {host}");
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(PullError::passing(format!("{what} is {status}"), None));
        }
        if !status.is_success() {
            let text = match self.credential {
                Some(_) => {
                    format!("{what} is {status}: it does not take the login for {}", self.registry)
                }
                None => return Err(self.unknown()),
            };
            return Err(PullError::new(PullFault::Denied, text));
        }
        let body = answer.into_body().all(limits::REGISTRY_TOKEN_BYTES_MAX, &what).await?;
        let parsed = serde_json::from_slice::<TokenAnswer>(&body).ok();
        let parsed = parsed.map(|a| if a.token.is_empty() { a.access_token } else { a.token });
        parsed
            .filter(|token| !token.is_empty())
            .ok_or_else(|| PullError::registry(format!("{what} holds no token")))
    }

    fn token_request(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
    ) -> Result<Request<Full<Bytes>>, PullError> {
        let bad =
            || PullError::registry(format!("{} names no usable token service", self.registry));
        let what = format!("the token service of {}", self.registry);
        let url: Uri = realm.parse().map_err(|_| bad())?;
        self.plain.check(&url, &what)?;
        if !self.is_plain && url.scheme_str() != Some("https") {
            let text = format!("{what} is not encrypted although the registry is; it is not asked");
            return Err(PullError::registry(text));
        }
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let asked = format!("service={}&scope={}", encoded(service), encoded(scope));
        let request = match self.credential {
            Some(Credential::Refresh(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=pinnace&{asked}&refresh_token={}",
                    encoded(token)
                );
                Request::builder()
                    .method(Method::POST)
                    .uri(url)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Full::from(form))
            }
            credential => {
                let joint = if url.query().is_some() { '&' } else { '?' };
                let mut request = Request::get(format!("{url}{joint}{asked}"));
                if let Some(Credential::Password { user, password }) = credential {
                    request = request.header(header::AUTHORIZATION, basic(user, password)?);
                }
                request.body(Full::default())
            }
        };
        request.map_err(|_| bad())
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, PullError> {
    secret(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
}

/// A header value that is never shown.
fn secret(text: String) -> Result<HeaderValue, PullError> {
    let value = HeaderValue::try_from(text);
    let mut value =
        value.map_err(|_| PullError::registry("the token is not what a header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood_as_registries_write_them() {
        let bearer = |realm: &str, service: &str, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.into(),
                scope: scope.map(str::to_owned),
            })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#;
        let scope = Some("repository:library/alpine:pull");
        let hub_found = bearer("https://auth.docker.io/token", "registry.docker.io", scope);
        assert_eq!(Challenge::parse(hub), hub_found);
        assert_eq!(Challenge::parse(r#"BASIC realm="x, y""#), Some(Challenge::Basic));
        let both = r#"Basic realm="x", Bearer realm="https://a/t""#;
        assert_eq!(Challenge::parse(both), bearer("https://a/t", "", None));
        for none in ["", "Digest realm=x", "Bearer service=x", "Bearer realm=\"unended"] {
            assert_eq!(Challenge::parse(none), None, "{none}");
        }
    }
}
