//! Tokens for functions that check who calls them (contract section 2.3).

use std::io::Read;

use pinnace_core::limits;
use serde::Deserialize;
use ureq::http::{Request, StatusCode, header};

use super::{Gateway, Patience, answer, query};
use crate::{credentials::Credential, output::printable};

/// The realm by which a function's watchdog asks for such a token.
const REALM: &str = "IAM function invoke";

/// How tokens are asked for.
const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";

/// What a token service answers.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// What it answers to a request that it does not grant.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Denied {
    error: String,
    error_description: String,
}

/// Whether a refusal's `WWW-Authenticate` asks for a function's token. Directives stand apart by commas,
/// the watchdogs' realm without quotes.
pub fn asks_for_function_token(challenge: &str) -> bool {
    let Some((_, directives)) = challenge.split_once(' ') else { return false };
    let mut realms = directives.split(", ").filter_map(|part| part.trim().strip_prefix("realm="));
    realms.next().is_some_and(|realm| realm.trim_matches('"') == REALM)
}

impl Gateway {
    /// A token for calls of one function, in exchange for the stored one or for the password.
    ///
    /// # Errors
    /// We are nobody there, or the gateway does not grant it.
    pub fn function_token(&self, name: &str, namespace: &str) -> anyhow::Result<Credential> {
        let doing = format!("getting a token for calls of {name}");
        let audience = format!("{namespace}:{name}");
        let audience = ("audience", Some(audience.as_str()));
        let scope = ("scope", Some("function"));
        match &self.credential {
            Some(Credential::Bearer(subject)) => {
                let form = query(&[
                    audience,
                    ("grant_type", Some(TOKEN_EXCHANGE)),
                    scope,
                    ("subject_token", Some(subject)),
                    ("subject_token_type", Some(ID_TOKEN)),
                ]);
                self.token(&form, None, &doing)
            }
            Some(password) => {
                let form = query(&[audience, ("grant_type", Some(CLIENT_CREDENTIALS)), scope]);
                self.token(&form, Some(password), &doing)
            }
            None => anyhow::bail!(
                "{doing}: not logged in at {0}; run `pinnace login --gateway {0}`, or give a token with --token",
                self.address
            ),
        }
    }

    /// A token for the API, for the password.
    ///
    /// # Errors
    /// The gateway does not grant it.
    pub fn api_token(&self, doing: &str) -> anyhow::Result<Credential> {
        let form = query(&[("grant_type", Some(CLIENT_CREDENTIALS))]);
        self.token(&form, self.credential.as_ref(), doing)
    }

    /// Asks for a token by a form, which is a query here, and a password if one is to be shown.
    fn token(
        &self,
        form: &str,
        password: Option<&Credential>,
        doing: &str,
    ) -> anyhow::Result<Credential> {
        let mut request = Request::post(self.url("/oauth/token"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(password) = password {
            request = request.header(header::AUTHORIZATION, password.header()?);
        }
        let request = request.body(&form.as_bytes()[1..])?;
        let answer = self.run(request, Patience::Request, 0, doing)?;
        if answer.status() == StatusCode::BAD_REQUEST {
            let body = answer.into_body().into_reader().take(limits::ERROR_TEXT_BYTES_MAX);
            let denied: Denied = serde_json::from_reader(body).unwrap_or_default();
            let why = format!("{} {}", denied.error, denied.error_description);
            anyhow::bail!("{doing}: {} does not grant it: {}", self.address, printable(why.trim()));
        }
        if answer.status() == StatusCode::NOT_FOUND {
            anyhow::bail!("{doing}: {} has no token service", self.address);
        }
        if !answer.status().is_success() {
            return Err(answer::refused(&self.address, doing, answer));
        }
        let status = answer.status();
        let granted: Granted = self.read_of(answer, &[status], doing)?;
        Ok(Credential::Bearer(granted.access_token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        for asking in [
            "Bearer realm=IAM function invoke",
            "Bearer realm=\"IAM function invoke\"",
            "Bearer error=x, realm=IAM function invoke",
        ] {
            assert!(asks_for_function_token(asking), "{asking}");
        }
        for other in [
            "",
            "Bearer",
            "Basic realm=\"Restricted\"",
            "Bearer realm=x, realm=IAM function invoke",
        ] {
            assert!(!asks_for_function_token(other), "{other}");
        }
    }
}
