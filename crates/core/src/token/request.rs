//! What is asked of the token endpoint (RFC 6749 section 4.4, RFC 8693 section 2.1).

use crate::{limits::TOKEN_AUDIENCES_MAX, name::check_label};

/// The grants that are known.
const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Kinds of tokens that are exchanged: names for what is here the same.
const TOKEN_TYPES: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:access_token",
    "urn:ietf:params:oauth:token-type:id_token",
    "urn:ietf:params:oauth:token-type:jwt",
];

/// Scope of a token for calls of functions.
const SCOPE_FUNCTION: &str = "function";

/// A request that can be understood.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Upon what a token is to be given.
    pub grant: Grant,
    /// Which.
    pub wanted: Wanted,
}

/// Upon what a token is given. It holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// A user and his password, unless these stand in the header `Authorization`.
    Credentials(Option<(String, String)>),
    /// Another token.
    Exchange(String),
}

/// Which token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One for the API.
    Api,
    /// One for calls of these functions, as patterns for `NAMESPACE:NAME`.
    Functions(Vec<String>),
}

/// Why no token is given. Its words are shown, so nothing in them comes from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no request for a token.
    #[error("{0}")]
    Request(&'static str),
    /// It is nobody that is known.
    #[error("{0}")]
    Client(&'static str),
    /// It names a grant that is not known.
    #[error(
        "grant_type is to be client_credentials or urn:ietf:params:oauth:grant-type:token-exchange"
    )]
    Grant,
    /// It names a scope that is not known.
    #[error("scope is to be function for calls of functions, and is to be left out for the API")]
    Scope,
    /// It names functions that cannot be.
    #[error("{0}")]
    Target(&'static str),
}

impl Refusal {
    /// Its code (RFC 6749 section 5.2, RFC 8693 section 2.2.2).
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Client(_) => "invalid_client",
            Self::Grant => "unsupported_grant_type",
            Self::Scope => "invalid_scope",
            Self::Target(_) => "invalid_target",
        }
    }
}

impl TokenRequest {
    /// Reads the parameters of a form. What has no value counts as left out, and what is not known is ignored, as RFC
    /// 6749 section 3.2 wants it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read(form: &[(String, String)]) -> Result<Self, Refusal> {
        let form = Form(form);
        let grant = match form.one("grant_type")? {
            None => return Err(Refusal::Request("grant_type is missing")),
            Some(CLIENT_CREDENTIALS) => Grant::Credentials(credentials(&form)?),
            Some(TOKEN_EXCHANGE) => Grant::Exchange(subject(&form)?),
            Some(_) => return Err(Refusal::Grant),
        };
        let functions = functions(&form)?;
        let wanted = match form.one("scope")? {
            None if functions.is_empty() => Wanted::Api,
            None => return Err(Refusal::Request("audience goes with scope=function")),
            Some(SCOPE_FUNCTION) if functions.is_empty() => {
                let words = "name the functions that are to be called: audience=NAMESPACE:NAME";
                return Err(Refusal::Target(words));
            }
            Some(SCOPE_FUNCTION) => Wanted::Functions(functions),
            Some(_) => return Err(Refusal::Scope),
        };
        Ok(Self { grant, wanted })
    }
}

struct Form<'a>(&'a [(String, String)]);

impl<'a> Form<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::Request("a parameter other than audience is there twice")),
        }
    }
}

fn credentials(form: &Form<'_>) -> Result<Option<(String, String)>, Refusal> {
    match (form.one("client_id")?, form.one("client_secret")?) {
        (Some(user), Some(password)) => Ok(Some((user.to_owned(), password.to_owned()))),
        // With the header, the user may stand here too.
        (_, None) => Ok(None),
        (None, Some(_)) => Err(Refusal::Request("client_secret is there, client_id is missing")),
    }
}

fn subject(form: &Form<'_>) -> Result<String, Refusal> {
    let is_known = |kind: &str| TOKEN_TYPES.contains(&kind);
    if !form.one("subject_token_type")?.is_some_and(is_known) {
        return Err(Refusal::Request(
            "subject_token_type is to be urn:ietf:params:oauth:token-type:id_token, or the same with access_token \
             or jwt",
        ));
    }
    if !form.one("requested_token_type")?.is_none_or(is_known) {
        return Err(Refusal::Request("requested_token_type names a kind that is not given"));
    }
    if form.one("actor_token")?.is_some() {
        return Err(Refusal::Request("no token is given to one who acts for another: actor_token"));
    }
    let token = form.one("subject_token")?;
    token.map(str::to_owned).ok_or(Refusal::Request("subject_token is missing"))
}

fn functions(form: &Form<'_>) -> Result<Vec<String>, Refusal> {
    let functions: Vec<String> = form.all("audience").map(str::to_owned).collect();
    // Those without a value count too.
    let named = form.0.iter().filter(|(name, _)| name == "audience");
    if named.count() > TOKEN_AUDIENCES_MAX {
        let words = "audience is there more often than it may be (TOKEN_AUDIENCES_MAX)";
        return Err(Refusal::Target(words));
    }
    if !functions.iter().all(|function| is_pattern(function)) {
        let words = "audience is to be NAMESPACE:NAME, either of which may be *";
        return Err(Refusal::Target(words));
    }
    Ok(functions)
}

/// Whether it is `NAMESPACE:NAME`, where `*` stands for any of either.
fn is_pattern(text: &str) -> bool {
    let is_part = |part: &str| part == "*" || check_label("name", part).is_ok();
    text.split_once(':').is_some_and(|(namespace, name)| is_part(namespace) && is_part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: &[(&str, &str)]) -> Result<TokenRequest, Refusal> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        TokenRequest::read(&form.iter().map(owned).collect::<Vec<_>>())
    }

    fn code(form: &[(&str, &str)]) -> &'static str {
        read(form).map(|_| ()).unwrap_err().code()
    }

    const LOGIN: [(&str, &str); 3] =
        [("grant_type", CLIENT_CREDENTIALS), ("client_id", "admin"), ("client_secret", "pw")];
    const EXCHANGE: [(&str, &str); 3] = [
        ("grant_type", TOKEN_EXCHANGE),
        ("subject_token", "a.b.c"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
    ];

    fn with<'a>(
        form: &[(&'a str, &'a str)],
        more: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        [form, more].concat()
    }

    #[test]
    fn what_go_clients_send_is_understood() {
        let credentials = Grant::Credentials(Some(("admin".to_owned(), "pw".to_owned())));
        let api = TokenRequest { grant: credentials, wanted: Wanted::Api };
        assert!(read(&LOGIN) == Ok(api.clone()));
        // They send what they have no value for, and what nobody asks for.
        assert!(read(&with(&LOGIN, &[("scope", ""), ("audience", ""), ("x", "y")])) == Ok(api));
        let one = [("audience", "openfaas-fn:env"), ("scope", "function")];
        let functions = Wanted::Functions(vec!["openfaas-fn:env".to_owned()]);
        let grant = Grant::Exchange("a.b.c".to_owned());
        assert!(read(&with(&EXCHANGE, &one)) == Ok(TokenRequest { grant, wanted: functions }));
        let header_alone = read(&[("grant_type", CLIENT_CREDENTIALS), ("client_id", "admin")]);
        assert!(header_alone.unwrap().grant == Grant::Credentials(None));
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(code(&[]), "invalid_request");
        assert_eq!(code(&[("grant_type", "password")]), "unsupported_grant_type");
        for bad in [
            with(&LOGIN, &[("client_id", "other")]),
            vec![("grant_type", CLIENT_CREDENTIALS), ("client_secret", "pw")],
            with(&LOGIN, &[("audience", "openfaas-fn:env")]),
            EXCHANGE[..2].to_vec(),
            vec![EXCHANGE[0], EXCHANGE[2]],
            with(&EXCHANGE, &[("requested_token_type", "urn:x")]),
            with(&EXCHANGE, &[("actor_token", "d.e.f")]),
            vec![EXCHANGE[0], EXCHANGE[1], ("subject_token_type", "urn:x")],
        ] {
            assert_eq!(code(&bad), "invalid_request", "{bad:?}");
        }
        assert_eq!(code(&with(&LOGIN, &[("scope", "openid")])), "invalid_scope");
        assert_eq!(code(&with(&LOGIN, &[("scope", "function")])), "invalid_target");
    }

    #[test]
    fn functions_are_named_with_their_namespace() {
        let asked = |audience| with(&LOGIN, &[("scope", "function"), ("audience", audience)]);
        for good in ["ns:fn", "*:*", "ns:*", "*:fn"] {
            assert!(read(&asked(good)).is_ok(), "{good}");
        }
        for bad in ["fn", "*", "ns:", ":fn", "ns:f*", "ns:a:b", "NS:fn", "ns:fn.x", "ns/fn"] {
            assert_eq!(code(&asked(bad)), "invalid_target", "{bad}");
        }
        let many = vec![("audience", "ns:fn"); TOKEN_AUDIENCES_MAX + 1];
        let many = with(&with(&LOGIN, &[("scope", "function")]), &many);
        assert_eq!(code(&many), "invalid_target");
        assert!(read(&many[..many.len() - 1]).is_ok());
    }

    #[test]
    fn words_can_be_sent() {
        let all = [Refusal::Grant, Refusal::Scope].map(|refusal| refusal.to_string());
        let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ';
        assert!(all.iter().all(|text| text.chars().all(allowed)), "{all:?}");
    }
}
