//! What a token says (RFC 7519), and what of it holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{TOKEN_CLOCK_SKEW_MAX, TOKEN_LIFE_DEFAULT};

/// The policy of whoever knows the password: everything. No name that a user may give holds a colon.
pub const POLICY_OF_ADMIN: &str = "pinnace:admin";

/// What a token says. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// Whom it is for: the same.
    pub aud: String,
    /// Whom it stands for.
    pub sub: String,
    /// When it was made.
    pub iat: u64,
    /// When it ends.
    pub exp: u64,
    /// What its bearer may do with the API; a function token has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<String>,
    /// Which functions its bearer may call; an API token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionClaims>,
}

/// Which functions, as patterns for `NAMESPACE:NAME` in which `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionClaims {
    /// Those that may be called.
    pub permissions: Vec<String>,
    /// Those that the token is for.
    pub audience: Vec<String>,
}

/// Why what a token says does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsFault {
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It says that it will be made.
    #[error("the token is not valid yet")]
    Early,
    /// It was made by somebody else, or for somebody else.
    #[error("the token has another issuer")]
    OtherIssuer,
}

impl Claims {
    /// An API token of this issuer for whoever knows the password, made now.
    #[must_use]
    pub fn of_admin(issuer: &str, subject: &str, now: Duration) -> Self {
        let now = now.as_secs();
        Self {
            iss: issuer.to_owned(),
            aud: issuer.to_owned(),
            sub: subject.to_owned(),
            iat: now,
            exp: now + TOKEN_LIFE_DEFAULT.as_secs(),
            policy: vec![POLICY_OF_ADMIN.to_owned()],
            function: None,
        }
    }

    /// A token that is given in exchange for this one: it ends no later.
    #[must_use]
    pub fn exchanged(self, now: Duration) -> Self {
        Self { iat: now.as_secs(), ..self }
    }

    /// A token for calls of these functions, in the place of this one.
    #[must_use]
    pub fn for_functions(self, functions: &[String]) -> Self {
        let (permissions, audience) = (functions.to_vec(), functions.to_vec());
        let function = Some(FunctionClaims { permissions, audience });
        Self { policy: Vec::new(), function, ..self }
    }

    /// For how many seconds it holds.
    #[must_use]
    pub fn lasts(&self, now: Duration) -> u64 {
        self.exp.saturating_sub(now.as_secs())
    }

    /// Whether it holds at this issuer, now.
    ///
    /// # Errors
    /// [`ClaimsFault`].
    pub fn check(&self, issuer: &str, now: Duration) -> Result<(), ClaimsFault> {
        if self.iss != issuer || self.aud != issuer {
            return Err(ClaimsFault::OtherIssuer);
        }
        if self.lasts(now) == 0 {
            return Err(ClaimsFault::Expired);
        }
        if self.iat > now.as_secs() + TOKEN_CLOCK_SKEW_MAX.as_secs() {
            return Err(ClaimsFault::Early);
        }
        Ok(())
    }

    /// Whether its bearer may do everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.function.is_none() && self.policy.iter().any(|policy| policy == POLICY_OF_ADMIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "http://issuer.test";

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn admin() -> Claims {
        Claims::of_admin(ISSUER, "admin", at(1000))
    }

    #[test]
    fn a_token_holds_for_its_time_at_its_issuer() {
        let life = TOKEN_LIFE_DEFAULT.as_secs();
        assert_eq!(admin().check(ISSUER, at(1000)), Ok(()));
        assert_eq!(admin().check(ISSUER, at(1000 + life - 1)), Ok(()));
        assert_eq!(admin().check(ISSUER, at(1000 + life)), Err(ClaimsFault::Expired));
        assert_eq!(admin().check("http://other.test", at(1000)), Err(ClaimsFault::OtherIssuer));
        let for_others = Claims { aud: "http://other.test".to_owned(), ..admin() };
        assert_eq!(for_others.check(ISSUER, at(1000)), Err(ClaimsFault::OtherIssuer));
        // A clock that was set back a little ends nobody's session.
        let skew = TOKEN_CLOCK_SKEW_MAX.as_secs();
        assert_eq!(admin().check(ISSUER, at(1000 - skew)), Ok(()));
        assert_eq!(admin().check(ISSUER, at(999 - skew)), Err(ClaimsFault::Early));
    }

    #[test]
    fn what_is_given_in_exchange_ends_no_later() {
        let later = admin().exchanged(at(2000));
        assert_eq!((later.iat, later.exp, later.lasts(at(2000))), (2000, admin().exp, 2600));
        assert!(later.is_admin());
    }

    #[test]
    fn a_function_token_opens_nothing_else() {
        let functions = ["openfaas-fn:env".to_owned()];
        let token = admin().for_functions(&functions);
        let FunctionClaims { permissions, audience } = token.function.clone().unwrap();
        assert_eq!((permissions, audience), (functions.to_vec(), functions.to_vec()));
        assert!(!token.is_admin() && admin().is_admin());
        let both = Claims { policy: admin().policy, ..token };
        assert!(!both.is_admin(), "functions have seen it");
        assert!(!Claims { policy: vec!["other".to_owned()], ..admin() }.is_admin());
    }

    #[test]
    fn what_a_kind_does_not_have_is_left_out() {
        let written = |claims: &Claims| serde_json::to_value(claims).unwrap();
        let api = written(&admin());
        assert_eq!(api["policy"], serde_json::json!([POLICY_OF_ADMIN]));
        assert!(api.get("function").is_none());
        assert!(written(&admin().for_functions(&[])).get("policy").is_none());
        assert_eq!(serde_json::from_value::<Claims>(api).unwrap(), admin());
    }
}
