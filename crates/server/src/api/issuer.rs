//! The issuer of tokens as it is found (OpenID Connect Discovery 1.0) and asked (RFC 6749, RFC 8693): open to all, functions
//! included.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use percent_encoding::percent_decode;
use pinnace_core::{
    limits::TOKEN_REQUEST_BYTES_MAX,
    token::{Claims, Grant, Refusal, TokenRequest, Wanted},
};
use serde::Serialize;
use serde_json::json;

use super::{
    Api,
    access::{Access, Given, REALM},
    json::{Most, read},
};
use crate::tokens::{self, PATH_OF_DOCUMENT, PATH_OF_KEYS, PATH_OF_TOKENS};

/// Kind of what is given in exchange (RFC 8693 section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

const FORM: &str = "application/x-www-form-urlencoded";

const REQUEST_BODY: Most =
    Most { bytes: TOKEN_REQUEST_BYTES_MAX, limit: "TOKEN_REQUEST_BYTES_MAX" };

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client, at an address of the server.
    Client,
    /// A function, at the gateway.
    Function,
}

/// The routes, for those who ask.
pub fn routes(asker: Asker) -> Router<Arc<Api>> {
    Router::new()
        .route(PATH_OF_DOCUMENT, get(document))
        .route(PATH_OF_KEYS, get(keys))
        .route(PATH_OF_TOKENS, post(token))
        .layer(Extension(asker))
}

/// GET `/.well-known/openid-configuration`. The issuer's name is the same for all; the rest is where it was asked.
async fn document(
    State(api): State<Arc<Api>>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let base = base(&api, asker, host).unwrap_or_else(|| api.issuer.name().to_owned());
    Json(json!({
        "issuer": api.issuer.name(),
        "jwks_uri": format!("{base}{PATH_OF_KEYS}"),
        "token_endpoint": format!("{base}{PATH_OF_TOKENS}"),
        "grant_types_supported": [
            "client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange",
        ],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
        "scopes_supported": ["function"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
    .into_response()
}

/// Where whoever asks this host reaches this server.
fn base(api: &Api, asker: Asker, host: Option<&str>) -> Option<String> {
    let (external_url, has_tls) = match asker {
        Asker::Client => (api.external_url.as_deref(), api.has_tls),
        Asker::Function => (None, false),
    };
    external_url.map(str::to_owned).or_else(|| url_of_host(host?, has_tls))
}

fn url_of_host(host: &str, has_tls: bool) -> Option<String> {
    let is_fit = host.parse::<Authority>().is_ok() && !host.contains('@');
    let scheme = if has_tls { "https" } else { "http" };
    is_fit.then(|| format!("{scheme}://{host}"))
}

/// GET `/.well-known/jwks.json`.
async fn keys(State(api): State<Arc<Api>>) -> Response {
    Json(json!({ "keys": api.issuer.keys() })).into_response()
}

/// What is answered to a request that is granted.
#[derive(Serialize)]
struct Granted {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    issued_token_type: &'static str,
}

/// POST `/oauth/token`.
async fn token(
    State(api): State<Arc<Api>>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let (Asker::Client, Some(refused)) = (asker, api.access.refuse_foreign(&headers)) {
        return refused;
    }
    let body = match read(body, REQUEST_BODY).await {
        Ok(body) => body,
        Err(error) => return refused(error.status(), "invalid_request", error.text()),
    };
    let by_header = headers.contains_key(header::AUTHORIZATION);
    match grant(&api, asker, &headers, &body) {
        Ok(claims) => granted(&api, &claims),
        // RFC 6749 section 5.2.
        Err(refusal @ Refusal::Client(_)) if by_header => {
            let mut response =
                refused(StatusCode::UNAUTHORIZED, refusal.code(), &refusal.to_string());
            response.headers_mut().insert(header::WWW_AUTHENTICATE, REALM);
            response
        }
        Err(refusal) => refused(StatusCode::BAD_REQUEST, refusal.code(), &refusal.to_string()),
    }
}

/// What the token that is asked for is to say.
fn grant(api: &Api, asker: Asker, headers: &HeaderMap, body: &[u8]) -> Result<Claims, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default();
    if !kind.trim().eq_ignore_ascii_case(FORM) {
        return Err(Refusal::Request("send a form: application/x-www-form-urlencoded"));
    }
    let form: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
    let TokenRequest { grant, wanted } = TokenRequest::read(&form)?;
    let claims = match grant {
        Grant::Credentials(in_form) => {
            judge(&api.access, asker, headers, in_form)?;
            api.issuer.admin()
        }
        Grant::Exchange(subject) => exchanged(api, &subject)?,
    };
    Ok(match wanted {
        Wanted::Api => claims,
        Wanted::Functions(functions) => claims.for_functions(&functions),
    })
}

/// Whether whoever asks has shown that he may use the API.
fn judge(
    access: &Access,
    asker: Asker,
    headers: &HeaderMap,
    in_form: Option<(String, String)>,
) -> Result<(), Refusal> {
    let Access::Password(password) = access else {
        // Who may use the API without a password gets its tokens so too. Functions may not.
        let words = "without a password functions get tokens in exchange for others alone";
        return if asker == Asker::Client { Ok(()) } else { Err(Refusal::Client(words)) };
    };
    let is_right = match (Given::read(headers), in_form) {
        (Given::Nothing, None) => {
            return Err(Refusal::Client("client_id and client_secret are missing"));
        }
        (Given::Nothing, Some((user, secret))) => {
            password.is(format!("{user}:{secret}").as_bytes())
        }
        (_, Some(_)) => {
            let words = "the password is in the header Authorization and in the form: give it once";
            return Err(Refusal::Request(words));
        }
        (Given::Basic(pair), None) => {
            // RFC 6749 section 2.3.1 has both parts encoded, of which many clients know nothing.
            let spaced: Vec<u8> =
                pair.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            let decoded: Vec<u8> = percent_decode(&spaced).collect();
            password.is(&pair) | password.is(&decoded)
        }
        (Given::Bearer(_) | Given::Other, None) => false,
    };
    if is_right { Ok(()) } else { Err(Refusal::Client("the user or the password is wrong")) }
}

/// What stands in a token for this one. That of a function says nothing of its bearer, who may be any function that
/// was called with it.
fn exchanged(api: &Api, subject: &str) -> Result<Claims, Refusal> {
    let claims = api.issuer.exchanged(subject).map_err(|fault| {
        tracing::debug!(%fault, "a token is not exchanged");
        Refusal::Request("subject_token is no token of this server, or has expired")
    })?;
    if !claims.is_admin() {
        return Err(Refusal::Request(
            "subject_token is for calls of functions and is not exchanged",
        ));
    }
    Ok(claims)
}

fn granted(api: &Api, claims: &Claims) -> Response {
    let tokens::Given { token, lasts } = match api.issuer.give(claims) {
        Ok(given) => given,
        Err(error) => {
            tracing::error!(%error, "no token can be given");
            let words = "the server cannot sign tokens; its log says why";
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "server_error", words);
        }
    };
    let granted = Granted {
        access_token: token,
        token_type: "Bearer",
        expires_in: lasts,
        scope: claims.function.is_some().then_some("function"),
        issued_token_type: ACCESS_TOKEN,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(granted)).into_response()
}

fn refused(status: StatusCode, code: &str, words: &str) -> Response {
    let body = Json(json!({ "error": code, "error_description": words }));
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_none_is_not_repeated() {
        let url = |host| url_of_host(host, false);
        assert_eq!(url("gateway:8080").unwrap(), "http://gateway:8080");
        assert_eq!(url("[::1]:1").unwrap(), "http://[::1]:1");
        assert_eq!(url_of_host("h", true).unwrap(), "https://h");
        for bad in ["", "a b", "h/path", "user@h", "h?x", "\"h"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_header_is_taken_as_sent_or_encoded_and_given_once() {
        use base64::{Engine, prelude::BASE64_STANDARD};

        use super::super::access::Password;

        let access = Access::Password(Password::new("a b=%c"));
        let headers = |text: &str| {
            let basic = format!("Basic {}", BASE64_STANDARD.encode(text));
            HeaderMap::from_iter([(header::AUTHORIZATION, basic.parse().unwrap())])
        };
        let judged = |text: &str, form: Option<(&str, &str)>| {
            let form = form.map(|(user, secret)| (user.to_owned(), secret.to_owned()));
            judge(&access, Asker::Client, &headers(text), form).map_err(Refusal::code)
        };
        assert_eq!(judged("admin:a b=%c", None), Ok(()));
        assert_eq!(judged("admin:a+b%3D%25c", None), Ok(()));
        assert_eq!(judged("admin:a b", None), Err("invalid_client"));
        assert_eq!(judged("admin:a b=%c", Some(("admin", "a b=%c"))), Err("invalid_request"));
        let judged = |asker| judge(&Access::Open, asker, &HeaderMap::new(), None);
        assert_eq!(judged(Asker::Client), Ok(()));
        assert_eq!(judged(Asker::Function).map_err(Refusal::code), Err("invalid_client"));
    }
}
