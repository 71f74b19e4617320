//! A key that tokens are signed with: ECDSA on P-256 with SHA-256, `ES256` (RFC 7518 section 3.4).

use std::{io, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::key_file;

/// The algorithm's name.
pub(super) const ALGORITHM: &str = "ES256";

/// Bytes of a key's file, in PKCS#8.
const FILE_BYTES_MAX: usize = 1024;

/// Bytes of a public key: a mark, and two coordinates.
const COORDINATE_BYTES: usize = 32;

/// A key.
pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: PublicKey,
}

/// The half of a key that everybody may know, as it is published (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    alg: &'static str,
    /// Its id: its thumbprint, by which the same key has the same one after each start.
    pub kid: String,
    x: String,
    y: String,
}

/// A token's first part.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: Option<String>,
    pub(super) kid: String,
}

impl SigningKey {
    /// The key of a file, made now if there is none. True if it was.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds no key.
    pub(super) fn open(path: &Path) -> io::Result<(Self, bool)> {
        let random = SystemRandom::new();
        let make = || {
            let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
            Ok(made.map_err(|_| no_random())?.as_ref().to_vec())
        };
        let (bytes, is_new) = key_file::read_or_make(path, FILE_BYTES_MAX, make)?;
        Ok((Self::parse(&bytes)?, is_new))
    }

    /// The key of a file, if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or holds no key.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        let bytes = key_file::read(path, FILE_BYTES_MAX)?;
        bytes.map(|bytes| Self::parse(&bytes)).transpose()
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes, &random);
        let pair = pair.map_err(|why| {
            io::Error::other(format!("it holds no key of P-256 in PKCS#8 (DER): {why}"))
        })?;
        let public = PublicKey::new(pair.public_key().as_ref());
        Ok(Self { pair, random, public })
    }

    /// What may be known of it.
    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A token with this payload.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub(super) fn sign(&self, payload: &[u8]) -> io::Result<String> {
        let header = Header {
            alg: ALGORITHM.to_owned(),
            typ: Some("JWT".to_owned()),
            kid: self.public.kid.clone(),
        };
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", encode(&serde_json::to_vec(&header)?), encode(payload));
        let signed = self.pair.sign(&self.random, text.as_bytes()).map_err(|_| no_random())?;
        Ok(format!("{text}.{}", encode(signed.as_ref())))
    }

    /// Whether it has signed this text.
    pub(super) fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key());
        key.verify(text.as_bytes(), signature).is_ok()
    }
}

impl PublicKey {
    /// Of a point, uncompressed (SEC 1 section 2.3.3).
    fn new(point: &[u8]) -> Self {
        let (x, y) = point[1..].split_at(COORDINATE_BYTES);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        // The members and their order are fixed (RFC 7638 section 3.2).
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()));
        Self { kty: "EC", crv: "P-256", purpose: "sig", alg: ALGORITHM, kid, x, y }
    }
}

fn no_random() -> io::Error {
    io::Error::other("the kernel gives no random numbers")
}
