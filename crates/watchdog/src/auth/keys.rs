//! The issuer's public keys (RFC 7517).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

/// Most keys that are kept; an issuer that rotates its keys has two or three.
const KEYS_MAX: usize = 100;

/// A key set as it is sent.
#[derive(Debug, Deserialize)]
pub struct Document {
    #[serde(default)]
    keys: Vec<Sent>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    #[serde(default)]
    kid: String,
    #[serde(default)]
    kty: String,
    #[serde(default)]
    crv: String,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys that can be used here.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

/// A public key.
#[derive(Debug)]
pub struct Key {
    id: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a signature does not count, in the words that OpenFaaS's library has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The key is of another kind than the token's algorithm.
    #[error("key is of invalid type: {0}")]
    OtherKind(&'static str),
    /// It is not the key's.
    #[error("{0}: verification error")]
    Wrong(&'static str),
}

impl Keys {
    /// Those of a document; a key of a kind that is not known is left out, as if its id were not known.
    pub fn read(document: &Document) -> Self {
        Self(document.keys.iter().take(KEYS_MAX).filter_map(Key::read).collect())
    }

    /// The key of this id.
    pub fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }
}

impl Key {
    fn read(sent: &Sent) -> Option<Self> {
        let bytes = |part: &Option<String>| URL_SAFE_NO_PAD.decode(part.as_ref()?).ok();
        let point = || {
            let (x, y) = (bytes(&sent.x)?, bytes(&sent.y)?);
            Some([&[4], x.as_slice(), y.as_slice()].concat())
        };
        let kind = match (sent.kty.as_str(), sent.crv.as_str()) {
            ("RSA", _) => Kind::Rsa { modulus: bytes(&sent.n)?, exponent: bytes(&sent.e)? },
            ("EC", "P-256") => Kind::P256(point()?),
            ("EC", "P-384") => Kind::P384(point()?),
            ("OKP", "Ed25519") => Kind::Ed25519(bytes(&sent.x)?),
            _ => return None,
        };
        Some(Self { id: sent.kid.clone(), kind })
    }

    /// Whether it has signed `text` by this algorithm. The algorithm is the token's word, so the key's kind decides
    /// whether it may be used at all.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(
        &self,
        algorithm: Algorithm,
        text: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureFault> {
        let words = algorithm.words();
        let checked = match (&self.kind, algorithm) {
            (Kind::Rsa { modulus, exponent }, Algorithm::Rsa(parameters)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, text, signature)
            }
            (Kind::P256(point), Algorithm::Es256) => {
                let how = &signature::ECDSA_P256_SHA256_FIXED;
                UnparsedPublicKey::new(how, point).verify(text, signature)
            }
            (Kind::P384(point), Algorithm::Es384) => {
                let how = &signature::ECDSA_P384_SHA384_FIXED;
                UnparsedPublicKey::new(how, point).verify(text, signature)
            }
            (Kind::Ed25519(key), Algorithm::EdDsa) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(text, signature)
            }
            _ => return Err(SignatureFault::OtherKind(words.wanted)),
        };
        checked.map_err(|_| SignatureFault::Wrong(words.library))
    }
}

/// How a token is signed (RFC 7518). Algorithms with a shared secret, and none, are none of these.
#[derive(Debug, Clone, Copy)]
pub enum Algorithm {
    /// RS256 to PS512.
    Rsa(&'static signature::RsaParameters),
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

struct Words {
    library: &'static str,
    wanted: &'static str,
}

impl Algorithm {
    /// By its name in a token.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    fn words(self) -> Words {
        match self {
            Self::Rsa(_) => {
                Words { library: "crypto/rsa", wanted: "RSA verify expects *rsa.PublicKey" }
            }
            Self::Es256 | Self::Es384 => {
                Words { library: "crypto/ecdsa", wanted: "ECDSA verify expects *ecdsa.PublicKey" }
            }
            Self::EdDsa => {
                Words { library: "ed25519", wanted: "Ed25519 verify expects ed25519.PublicKey" }
            }
        }
    }
}
