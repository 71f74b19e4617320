//! Secrets as users give them: what a name may be, and which of two values counts (contract section 4.9).

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{image::shown, limits, wire::Secret};

/// Where a function finds its secrets, one file each.
pub const DIRECTORY: &str = "/var/openfaas/secrets";

/// Longest name, in bytes: a DNS-1123 subdomain (RFC 1123 section 2.1).
pub const NAME_BYTES_MAX: usize = 253;

/// What is wrong with a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It cannot have this name.
    #[error(
        "secret name {0:?} is not valid: use 1 to {NAME_BYTES_MAX} lower-case letters, digits, '-' and '.', \
         beginning and ending with a letter or digit"
    )]
    Name(String),
    /// It has no value.
    #[error("secret {0} has no value: give value, or rawValue in base64")]
    Empty(String),
    /// Its raw value cannot be read.
    #[error("secret {0}: rawValue is not base64")]
    NotBase64(String),
    /// Its value is too large.
    #[error(
        "secret {name} has {bytes} bytes, at most {} (SECRET_BYTES_MAX)",
        limits::SECRET_BYTES_MAX
    )]
    TooLarge {
        /// Its name.
        name: String,
        /// Bytes of its value.
        bytes: usize,
    },
}

/// A secret's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub Vec<u8>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} bytes)", self.0.len())
    }
}

/// Checks a secret's name, which becomes a file's.
///
/// # Errors
/// It is no DNS-1123 subdomain.
pub fn check_name(name: &str) -> Result<(), SecretFault> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends_well = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        bytes.iter().all(|b| inner(*b)) && ends_well(bytes.first()) && ends_well(bytes.last())
    };
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(SecretFault::Name(shown(name)))
}

/// The value of a secret that is to be kept: `rawValue` if there is one, else `value`.
///
/// # Errors
/// The name is not valid, or the value is missing, no base64, or too large.
pub fn value(secret: &Secret) -> Result<Value, SecretFault> {
    let name = || secret.name.clone();
    check_name(&secret.name)?;
    let bytes = if secret.raw_value.is_empty() {
        secret.value.clone().into_bytes()
    } else {
        let decoded = BASE64_STANDARD.decode(&secret.raw_value);
        decoded.map_err(|_| SecretFault::NotBase64(name()))?
    };
    match bytes.len() {
        0 => Err(SecretFault::Empty(name())),
        bytes if bytes > limits::SECRET_BYTES_MAX => {
            Err(SecretFault::TooLarge { name: name(), bytes })
        }
        _ => Ok(Value(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<u8>, SecretFault> {
        value(&serde_json::from_str(json).unwrap()).map(|value| value.0)
    }

    #[test]
    fn names_are_those_of_files_that_cannot_climb() {
        for good in ["a", "api-key", "db.password", "0", &"a".repeat(253)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", "..data", "a/b", "A", "a_b", "-a", "a-", "a.", &"a".repeat(254)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_raw_value_counts_before_a_text() {
        assert_eq!(of(r#"{"name":"a","value":"x\n"}"#).unwrap(), b"x\n");
        assert_eq!(of(r#"{"name":"a","value":"x","rawValue":"AAE="}"#).unwrap(), [0, 1]);
        assert_eq!(
            of(r#"{"name":"a"}"#).unwrap_err().to_string(),
            "secret a has no value: give value, or rawValue in base64"
        );
        assert!(matches!(of(r#"{"name":"a","rawValue":"%"}"#), Err(SecretFault::NotBase64(_))));
    }

    #[test]
    fn a_large_value_is_refused() {
        let secret =
            |bytes| Secret { name: "a".to_owned(), value: "x".repeat(bytes), ..Secret::default() };
        assert!(value(&secret(limits::SECRET_BYTES_MAX)).is_ok());
        let error = value(&secret(limits::SECRET_BYTES_MAX + 1)).unwrap_err().to_string();
        assert!(error.contains("1048577 bytes") && error.contains("SECRET_BYTES_MAX"), "{error}");
    }

    #[test]
    fn a_value_is_shown_to_nobody() {
        assert_eq!(format!("{:?}", Value(b"hush".to_vec())), "Value(4 bytes)");
    }
}
