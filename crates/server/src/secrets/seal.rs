//! The seal on secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key in a file of mode 0600.
//!
//! A sealed value is bound to its name and namespace, so that nobody who can write to the database makes one
//! secret pass for another. The key protects copies of the database, such as backups; whoever can read the
//! state directory can read the key.

use std::{io, path::Path};

use pinnace_core::secret::Value;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};

use crate::key_file;

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// First byte of a sealed value: how it was sealed.
const FORM: u8 = 1;

/// What seals values and opens them.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    /// Reads the key from its file, or makes one. True if it was made.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds no key.
    pub fn open(path: &Path) -> io::Result<(Self, bool)> {
        let random = SystemRandom::new();
        let (bytes, is_new) = key_file::read_or_make(path, KEY_BYTES, || make(&random))?;
        let not_a_key =
            |_| io::Error::other(format!("it does not hold the {KEY_BYTES} bytes of a key"));
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(not_a_key)?;
        Ok((Self { key: LessSafeKey::new(key), random }, is_new))
    }

    /// Seals a value.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn close(&self, namespace: &str, name: &str, value: &Value) -> io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let mut content = value.0.clone();
        let bound_to = Aad::from(label(namespace, name));
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound_to, &mut content)
            .map_err(failed)?;
        Ok([&[FORM][..], &nonce, &content].concat())
    }

    /// The value under a seal, `None` if it was not sealed by this key for this name.
    #[must_use]
    pub fn value(&self, namespace: &str, name: &str, sealed: &[u8]) -> Option<Value> {
        let sealed = sealed.strip_prefix(&[FORM])?;
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut content = content.to_vec();
        let bound_to = Aad::from(label(namespace, name));
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let bytes = self.key.open_in_place(nonce, bound_to, &mut content).ok()?.len();
        content.truncate(bytes);
        Some(Value(content))
    }
}

/// The library gives no reasons, so as not to tell attackers any.
fn failed(_: Unspecified) -> io::Error {
    io::Error::other("the cryptographic library failed")
}

/// Neither part can hold a slash.
fn label(namespace: &str, name: &str) -> Vec<u8> {
    format!("{namespace}/{name}").into_bytes()
}

fn make(random: &SystemRandom) -> io::Result<Vec<u8>> {
    let mut key = vec![0; KEY_BYTES];
    random.fill(&mut key).map_err(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value(text.as_bytes().to_vec())
    }

    #[test]
    fn a_sealed_value_is_opened_by_its_key_and_name_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        let (seal, is_new) = Seal::open(&path).unwrap();
        assert!(is_new);
        let sealed = seal.close("ns", "a", &text("hush")).unwrap();
        assert!(!sealed.windows(4).any(|four| four == b"hush"));
        let (again, is_new) = Seal::open(&path).unwrap();
        assert!(!is_new);
        assert_eq!(again.value("ns", "a", &sealed), Some(text("hush")));
        assert_eq!(again.value("ns", "b", &sealed), None);
        assert_eq!(again.value("other", "a", &sealed), None);
        let (other, _) = Seal::open(&dir.path().join("other.key")).unwrap();
        assert_eq!(other.value("ns", "a", &sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(again.value("ns", "a", &sealed[..cut]), None);
        }
    }

    #[test]
    fn equal_values_look_different() {
        let dir = tempfile::tempdir().unwrap();
        let (seal, _) = Seal::open(&dir.path().join("secrets.key")).unwrap();
        let sealed = || seal.close("ns", "a", &text("hush")).unwrap();
        assert_ne!(sealed(), sealed());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.key");
        for bytes in [0, 31, 33] {
            std::fs::write(&path, vec![0; bytes]).unwrap();
            assert!(Seal::open(&path).is_err(), "{bytes}");
        }
    }
}
