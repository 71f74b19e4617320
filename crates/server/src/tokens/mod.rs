//! Tokens for those who call the API and functions (contract section 2.3): this server is their issuer.
//!
//! What a token says is [`pinnace_core::token`]. It is signed by the key in `issuer.key`, which is made at the first start
//! and is used by all servers of the state directory. Functions read the public half when they start, so the key changes
//! only with a start after an end, which starts them too: who moves it to `issuer.old.key` meanwhile gets a new one, and
//! the tokens of the old one hold for the rest of their time.
//!
//! The issuer's name is one for all who read tokens. It is not taken from a request: whoever chose the header `Host` would
//! choose the issuer.

mod key;

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use pinnace_core::{
    limits::{TOKEN_BYTES_MAX, TOKEN_LIFE_DEFAULT},
    token::{Claims, ClaimsFault},
};
use serde::de::DeserializeOwned;

pub use self::key::PublicKey;
use self::key::{ALGORITHM, Header, SigningKey};

/// The issuer where the operator names no URL: what functions call this server.
pub const DEFAULT_NAME: &str = "http://gateway.openfaas:8080";

/// Where the issuer is found.
pub const PATH_OF_DOCUMENT: &str = "/.well-known/openid-configuration";

/// Where its public keys are.
pub const PATH_OF_KEYS: &str = "/.well-known/jwks.json";

/// Where it is asked for tokens.
pub const PATH_OF_TOKENS: &str = "/oauth/token";

/// All of these.
pub const PATHS: [&str; 3] = [PATH_OF_DOCUMENT, PATH_OF_KEYS, PATH_OF_TOKENS];

/// The file of the key, in the state directory.
pub const KEY_FILE: &str = "issuer.key";

/// The file of the key before.
const OLD_KEY_FILE: &str = "issuer.old.key";

/// Whom tokens of the password stand for.
const SUBJECT: &str = crate::api::USER;

/// Gives tokens, and reads them.
pub struct Issuer {
    name: String,
    key: SigningKey,
    old: Option<OldKey>,
}

/// A key whose tokens may hold yet.
struct OldKey {
    key: SigningKey,
    until: Duration,
}

/// A token that was given.
pub struct Given {
    /// Its text.
    pub token: String,
    /// For how many seconds it holds.
    pub lasts: u64,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is none, or was changed, or is by somebody else.
    #[error("the token is none that this server has given")]
    Strange,
    /// What it says does not hold.
    #[error(transparent)]
    Claims(#[from] ClaimsFault),
}

impl Issuer {
    /// The issuer of a state directory, under this name or the default one. True if its key was made now.
    ///
    /// # Errors
    /// A key cannot be read or made.
    pub fn open(state_dir: &Path, name: Option<&str>) -> io::Result<(Self, bool)> {
        let path = state_dir.join(KEY_FILE);
        let in_file = |path: &Path, error: io::Error| {
            let words = format!("the key of tokens, {}, cannot be used: {error}", path.display());
            io::Error::new(error.kind(), words)
        };
        let (key, is_new) = SigningKey::open(&path).map_err(|error| in_file(&path, error))?;
        let made = fs::metadata(&path)?.modified()?;
        let until = since_epoch(made) + TOKEN_LIFE_DEFAULT;
        let old_path = state_dir.join(OLD_KEY_FILE);
        let old = SigningKey::find(&old_path).map_err(|error| in_file(&old_path, error))?;
        let old = old.map(|key| OldKey { key, until }).filter(|old| now() < old.until);
        let name = name.unwrap_or(DEFAULT_NAME).to_owned();
        Ok((Self { name, key, old }, is_new))
    }

    /// Its name: what stands in tokens, and in its own document.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The keys whose tokens may hold.
    #[must_use]
    pub fn keys(&self) -> Vec<&PublicKey> {
        self.trusted(now()).map(SigningKey::public).collect()
    }

    /// What stands in a token of somebody who knows the password.
    #[must_use]
    pub fn admin(&self) -> Claims {
        Claims::of_admin(&self.name, SUBJECT, now())
    }

    /// What stands in a token that is given for this one.
    ///
    /// # Errors
    /// It does not hold.
    pub fn exchanged(&self, token: &str) -> Result<Claims, TokenFault> {
        Ok(self.read(token)?.exchanged(now()))
    }

    /// Gives a token that says this.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn give(&self, claims: &Claims) -> io::Result<Given> {
        let token = self.key.sign(&serde_json::to_vec(claims)?)?;
        Ok(Given { token, lasts: claims.lasts(now()) })
    }

    /// What a token says, if it holds.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub fn read(&self, token: &str) -> Result<Claims, TokenFault> {
        self.read_at(token, now())
    }

    fn read_at(&self, token: &str, now: Duration) -> Result<Claims, TokenFault> {
        let claims = self.signed(token, now).ok_or(TokenFault::Strange)?;
        claims.check(&self.name, now)?;
        Ok(claims)
    }

    fn signed(&self, token: &str, now: Duration) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (text, signature) = token.rsplit_once('.')?;
        let (header, payload) = text.split_once('.')?;
        let header: Header = part(header)?;
        let key = self.trusted(now).find(|key| key.public().kid == header.kid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if header.alg != ALGORITHM || !key.has_signed(text, &signature) {
            return None;
        }
        part(payload)
    }

    fn trusted(&self, now: Duration) -> impl Iterator<Item = &SigningKey> {
        let old = self.old.iter().filter(move |old| now < old.until).map(|old| &old.key);
        std::iter::once(&self.key).chain(old)
    }
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn now() -> Duration {
    since_epoch(SystemTime::now())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(dir: &Path) -> Issuer {
        Issuer::open(dir, None).unwrap().0
    }

    #[test]
    fn a_token_is_read_by_every_server_of_the_directory_and_no_other() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, is_new) = Issuer::open(dir.path(), None).unwrap();
        assert!(is_new);
        let Given { token, lasts } = first.give(&first.admin()).unwrap();
        assert!(lasts > TOKEN_LIFE_DEFAULT.as_secs() - 5);
        let (second, is_new) = Issuer::open(dir.path(), None).unwrap();
        assert!(!is_new);
        assert_eq!(second.keys(), first.keys());
        let claims = second.read(&token).unwrap();
        assert_eq!((&*claims.sub, &*claims.iss), ("admin", DEFAULT_NAME));
        assert_eq!(issuer(other.path()).read(&token), Err(TokenFault::Strange));
        let renamed = Issuer::open(dir.path(), Some("https://faas.example")).unwrap().0;
        let other_issuer = TokenFault::Claims(ClaimsFault::OtherIssuer);
        assert_eq!(renamed.read(&token), Err(other_issuer));
    }

    #[test]
    fn what_was_changed_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = issuer(dir.path());
        let token = issuer.give(&issuer.admin()).unwrap().token;
        let parts: Vec<&str> = token.split('.').collect();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let kid = &issuer.keys()[0].kid;
        let header = |alg: &str| encode(&format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#));
        let mut claims = issuer.admin();
        claims.sub = "root".to_owned();
        let payload = encode(&serde_json::to_string(&claims).unwrap());
        for bad in [
            String::new(),
            "a.b.c".to_owned(),
            parts[..2].join("."),
            format!("{token}x"),
            format!("{token}."),
            format!("{}.{payload}.{}", parts[0], parts[2]),
            format!("{}.{}.", header("none"), parts[1]),
            format!("{}.{}.{}", header("HS256"), parts[1], parts[2]),
            format!("{}.{}.{}", encode(r#"{"alg":"ES256","kid":"x"}"#), parts[1], parts[2]),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert_eq!(issuer.read(&bad), Err(TokenFault::Strange), "{bad}");
        }
        assert!(issuer.read(&token).is_ok());
    }

    #[test]
    fn a_token_ends() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = issuer(dir.path());
        let claims = issuer.admin();
        let token = issuer.give(&claims).unwrap().token;
        let at = |second| issuer.read_at(&token, Duration::from_secs(second));
        assert!(at(claims.exp - 1).is_ok());
        assert_eq!(at(claims.exp), Err(ClaimsFault::Expired.into()));
    }

    #[test]
    fn tokens_of_a_key_that_was_put_aside_hold_for_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let old = issuer(dir.path());
        let token = old.give(&old.admin()).unwrap().token;
        fs::rename(dir.path().join(KEY_FILE), dir.path().join(OLD_KEY_FILE)).unwrap();
        let new = issuer(dir.path());
        assert_eq!(new.keys()[1..], old.keys()[..]);
        assert!(new.read(&token).is_ok());
        assert!(old.read(&new.give(&new.admin()).unwrap().token).is_err());
        let file = fs::File::open(dir.path().join(KEY_FILE)).unwrap();
        file.set_modified(SystemTime::now() - TOKEN_LIFE_DEFAULT).unwrap();
        let later = issuer(dir.path());
        assert_eq!(later.keys(), new.keys()[..1]);
        assert_eq!(later.read(&token), Err(TokenFault::Strange));
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "x").unwrap();
        let said = Issuer::open(dir.path(), None).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("issuer.key, cannot be used: it holds no key"), "{said}");
    }
}
