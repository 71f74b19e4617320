//! Digests: how content is named.

use std::fmt;

use crate::image::shown;

/// A way to make a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// The one that everybody uses.
    Sha256,
    /// The other one that the image specification registers.
    Sha512,
}

/// A digest that was checked to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no digest: write sha256: and 64, or sha512: and 128 of 0-9 and a-f")]
pub struct DigestFault {
    text: String,
}

impl Algorithm {
    /// Its name, which stands before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Digest {
    /// Reads a digest.
    ///
    /// # Errors
    /// It is none, or of another algorithm.
    pub fn parse(text: &str) -> Result<Self, DigestFault> {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        [Algorithm::Sha256, Algorithm::Sha512]
            .into_iter()
            .find(|algorithm| {
                let hex = text.strip_prefix(algorithm.name()).and_then(|s| s.strip_prefix(':'));
                hex.is_some_and(|hex| {
                    hex.len() == algorithm.hex_digits() && hex.bytes().all(is_hex)
                })
            })
            .map(|algorithm| Self { algorithm, text: text.to_owned() })
            .ok_or_else(|| DigestFault { text: shown(text) })
    }

    /// The digest whose bytes these are. They are as many as the algorithm makes.
    #[must_use]
    pub fn of_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let start = format!("{}:", algorithm.name());
        let text = bytes.iter().fold(start, |text, byte| format!("{text}{byte:02x}"));
        Self { algorithm, text }
    }

    /// How it was made.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What stands behind the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_of_two_algorithms_and_have_one_form() {
        let (short, long) = ("ab".repeat(32), "01".repeat(64));
        let digest = Digest::parse(&format!("sha256:{short}")).unwrap();
        assert_eq!((digest.algorithm(), digest.hex()), (Algorithm::Sha256, short.as_str()));
        let digest = Digest::parse(&format!("sha512:{long}")).unwrap();
        assert_eq!((digest.algorithm(), digest.hex()), (Algorithm::Sha512, long.as_str()));
        assert_eq!(Digest::of_bytes(Algorithm::Sha512, &[1; 64]), digest);
        for bad in [
            String::new(),
            short.clone(),
            format!("sha256:{long}"),
            format!("sha512:{short}"),
            format!("sha256:{}", short.to_uppercase()),
            format!("md5:{short}"),
            format!("sha256:{short} "),
            "sha256:../../../../etc/passwd".to_owned(),
            "x".repeat(100_000),
        ] {
            let said = Digest::parse(&bad).unwrap_err().to_string();
            assert!(said.contains("is no digest") && said.len() < 400, "{said}");
        }
    }
}
