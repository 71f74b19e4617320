//! A token (RFC 7519): three parts, the second of which says who may do what until when.
//!
//! Pure: keys and time are given. Faults have the words of the library that OpenFaaS uses, which reach the caller
//! and which people look for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{
    DecodeError, Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Algorithm, Keys, SignatureFault};

/// How far the issuer's clock may differ from ours.
const LEEWAY: Duration = Duration::from_secs(1);

/// As Go reads it, which cares nothing for the unused bits of the last letter.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What a token says.
#[derive(Debug, Default, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: Option<String>,
    #[serde(default)]
    aud: Audience,
    exp: Option<f64>,
    nbf: Option<f64>,
    /// Which functions its bearer may call.
    #[serde(default)]
    pub function: Function,
}

/// Which functions, as patterns for `NAMESPACE:NAME`.
#[derive(Debug, Default, Deserialize)]
pub struct Function {
    /// Those that may be called.
    #[serde(default, deserialize_with = "none_is_empty")]
    pub permissions: Vec<String>,
    /// Those that the token is for; empty for all.
    #[serde(default, deserialize_with = "none_is_empty")]
    pub audience: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Audience {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

/// Why a token does not count.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no token.
    #[error("token is malformed: {0}")]
    Malformed(String),
    /// Nobody knows how to check it.
    #[error("token is unverifiable: {0}")]
    Unverifiable(String),
    /// Its signature is not the issuer's.
    #[error("token signature is invalid: {0}")]
    Signature(#[from] SignatureFault),
    /// It is the issuer's, and is not for here or not for now.
    #[error("token has invalid claims: {0}")]
    Claims(String),
}

/// Reads a token and checks signature, times, issuer and audience; the issuer is the audience too.
///
/// # Errors
/// [`Fault`].
pub fn verify(text: &[u8], keys: &Keys, issuer: &str, now: SystemTime) -> Result<Claims, Fault> {
    let mut parts = text.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        let words = "token contains an invalid number of segments";
        return Err(Fault::Malformed(words.to_owned()));
    };
    let signed = &text[..header.len() + 1 + payload.len()];
    let header: Value = json(header, "header")?;
    let claims: Claims = json(payload, "claim")?;
    let algorithm = match header.get("alg").and_then(Value::as_str) {
        None => Err("signing method (alg) is unspecified"),
        Some(name) => Algorithm::named(name).ok_or("signing method (alg) is unavailable"),
    };
    let algorithm = algorithm.map_err(|words| Fault::Unverifiable(words.to_owned()))?;
    let signature = decode(signature, "signature")?;
    let id = header.get("kid").and_then(Value::as_str);
    let key = id.and_then(|id| keys.find(id)).ok_or_else(|| {
        let id = id.unwrap_or("<nil>");
        Fault::Unverifiable(format!("error while executing keyfunc: invalid kid: {id}"))
    })?;
    key.verify(algorithm, signed, &signature)?;
    claims.check(issuer, now)?;
    Ok(claims)
}

impl Claims {
    fn check(&self, issuer: &str, now: SystemTime) -> Result<(), Fault> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (now, leeway) = (since_epoch.as_secs_f64(), LEEWAY.as_secs_f64());
        let mut faults = Vec::new();
        if self.exp.is_some_and(|end| now >= end + leeway) {
            faults.push("token is expired");
        }
        if self.nbf.is_some_and(|begin| now < begin - leeway) {
            faults.push("token is not valid yet");
        }
        if self.aud.is_missing() {
            faults.push("token is missing required claim: aud claim is required");
        } else if !self.aud.names(issuer) {
            faults.push("token has invalid audience");
        }
        match self.iss.as_deref() {
            None | Some("") => {
                faults.push("token is missing required claim: iss claim is required");
            }
            Some(named) if named != issuer => faults.push("token has invalid issuer"),
            Some(_) => {}
        }
        if faults.is_empty() { Ok(()) } else { Err(Fault::Claims(faults.join(", "))) }
    }
}

impl Audience {
    fn is_missing(&self) -> bool {
        match self {
            Self::None => true,
            Self::One(one) => one.is_empty(),
            Self::Many(many) => many.iter().all(String::is_empty),
        }
    }

    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == wanted,
            Self::Many(many) => many.iter().any(|one| one == wanted),
        }
    }
}

fn json<T: for<'a> Deserialize<'a>>(part: &[u8], name: &str) -> Result<T, Fault> {
    serde_json::from_slice(&decode(part, name)?)
        .map_err(|error| Fault::Malformed(format!("could not JSON decode {name}: {error}")))
}

fn decode(part: &[u8], name: &str) -> Result<Vec<u8>, Fault> {
    BASE64.decode(part).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            // What is left behind the last four letters is too little.
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => part.len() / 4 * 4,
        };
        Fault::Malformed(format!(
            "could not base64 decode {name}: illegal base64 data at input byte {at}"
        ))
    })
}

fn none_is_empty<'de, D: serde::Deserializer<'de>>(list: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(list)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use serde_json::json;

    use super::{super::keys::Document, *};

    const ISSUER: &str = "http://issuer.test";

    struct Signer {
        pair: EcdsaKeyPair,
        random: SystemRandom,
    }

    impl Signer {
        fn new() -> (Self, Keys) {
            let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let made = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(how, made.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref().to_vec();
            let part = |range| URL_SAFE_NO_PAD.encode(&point[range]);
            let key = json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": part(1..33), "y": part(33..65)});
            let keys: Document = serde_json::from_value(json!({ "keys": [key] })).unwrap();
            (Self { pair, random }, Keys::read(&keys))
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let text = format!("{}.{}", part(header), part(claims));
            let signature = self.pair.sign(&self.random, text.as_bytes()).unwrap();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn es256_tokens_are_checked() {
        let (signer, keys) = Signer::new();
        let header = json!({"alg": "ES256", "kid": "k"});
        let mut claims = json!({
            "iss": ISSUER, "aud": ISSUER, "exp": 1000, "nbf": 500, "function": {"permissions": ["*"]},
        });
        let token = signer.sign(&header, &claims);
        let verify = |token: &str, now| verify(token.as_bytes(), &keys, ISSUER, at(now));
        assert_eq!(verify(&token, 700).unwrap().function.permissions, ["*"]);
        assert!(verify(&token, 1000).is_ok() && verify(&token, 499).is_ok());
        let fault = |token: &str, now| verify(token, now).unwrap_err().to_string();
        assert_eq!(fault(&token, 1001), "token has invalid claims: token is expired");
        assert_eq!(fault(&token, 498), "token has invalid claims: token is not valid yet");
        claims["aud"] = json!(["http://other.test"]);
        claims["iss"] = json!("http://other.test");
        assert_eq!(
            fault(&signer.sign(&header, &claims), 700),
            "token has invalid claims: token has invalid audience, token has invalid issuer"
        );
        let other = Signer::new().0.sign(&header, &json!({"iss": ISSUER, "aud": ISSUER}));
        let wrong = "token signature is invalid: crypto/ecdsa: verification error";
        assert_eq!(fault(&other, 700), wrong);
    }

    #[test]
    fn the_keys_kind_decides_what_a_token_may_say_of_its_algorithm() {
        let (signer, keys) = Signer::new();
        let claims = json!({"iss": ISSUER, "aud": ISSUER});
        let fault = |header: Value| {
            let token = signer.sign(&header, &claims);
            verify(token.as_bytes(), &keys, ISSUER, at(0)).unwrap_err().to_string()
        };
        for unavailable in ["none", "HS256", "made-up"] {
            let words = "token is unverifiable: signing method (alg) is unavailable";
            assert_eq!(fault(json!({"alg": unavailable, "kid": "k"})), words);
        }
        assert_eq!(
            fault(json!({"alg": "RS256", "kid": "k"})),
            "token signature is invalid: key is of invalid type: RSA verify expects *rsa.PublicKey"
        );
        assert_eq!(
            fault(json!({"kid": "k"})),
            "token is unverifiable: signing method (alg) is unspecified"
        );
        assert_eq!(
            fault(json!({"alg": "ES256"})),
            "token is unverifiable: error while executing keyfunc: invalid kid: <nil>"
        );
    }

    #[test]
    fn what_is_no_token_is_named() {
        let (_, keys) = Signer::new();
        let fault =
            |text: &str| verify(text.as_bytes(), &keys, ISSUER, at(0)).unwrap_err().to_string();
        let segments = "token is malformed: token contains an invalid number of segments";
        assert_eq!(fault("abc"), segments);
        assert_eq!(fault("a.b.c.d"), segments);
        let at_byte = |at: usize| {
            format!(
                "token is malformed: could not base64 decode header: illegal base64 data at input byte {at}"
            )
        };
        assert_eq!(fault("a.b.c"), at_byte(0));
        assert_eq!(fault("abcd!.b.c"), at_byte(4));
        assert!(fault("YQ.YQ.YQ").starts_with("token is malformed: could not JSON decode header:"));
    }
}
