//! Secrets of builds, sealed for this server with nacl/box by who asks for the build (contract section 14.5).

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use crypto_box::{Nonce, SalsaBox, SecretKey, aead::Aead as _};
use pinnace_core::{build::PublicKey, limits::BUILD_SECRETS_BYTES_MAX, secret};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;

use super::work::WorkDir;
use crate::key_file;

const ALGORITHM: &str = "nacl/box";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Characters of a key that name it.
const KEY_ID_CHARACTERS: usize = 8;

/// The key that secrets are sealed for.
pub struct SealingKey(SecretKey);

#[derive(Deserialize)]
struct Sealed {
    version: String,
    algorithm: String,
    #[serde(default)]
    key_id: String,
    public_key: String,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
}

impl SealingKey {
    /// Reads it from its file, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let make = || {
            let mut key = vec![0; KEY_BYTES];
            let filled = SystemRandom::new().fill(&mut key);
            filled.map_err(|_| io::Error::other("the system gives no random numbers"))?;
            Ok(key)
        };
        let (key, _) = key_file::read_or_make(path, KEY_BYTES, make)?;
        let key: [u8; KEY_BYTES] = key.try_into().map_err(|_| {
            io::Error::other(format!("{} holds no key of {KEY_BYTES} bytes", path.display()))
        })?;
        Ok(Self(SecretKey::from(key)))
    }

    /// What others seal with.
    pub fn public(&self) -> PublicKey {
        let public_key = BASE64_STANDARD.encode(self.0.public_key().as_bytes());
        let key_id = public_key[..KEY_ID_CHARACTERS].to_owned();
        PublicKey { key_id, algorithm: ALGORITHM, public_key }
    }

    /// Opens sealed secrets. The error is a sentence.
    pub fn open_all(&self, text: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let sealed: Sealed = serde_saphyr::from_str(text)
            .map_err(|_| "com.openfaas.secrets is no YAML of sealed secrets".to_owned())?;
        if sealed.version != "v1" || sealed.algorithm != ALGORITHM {
            return Err(format!(
                "com.openfaas.secrets is sealed by version {:?}, algorithm {:?}; v1 and {ALGORITHM} are known",
                sealed.version, sealed.algorithm
            ));
        }
        let own = self.public();
        if !sealed.key_id.is_empty() && sealed.key_id != own.key_id {
            return Err(format!(
                "com.openfaas.secrets is sealed for the key {:?}, and this builder's is {:?}: fetch it anew from \
                 /publickey",
                sealed.key_id, own.key_id
            ));
        }
        let ephemeral = BASE64_STANDARD.decode(&sealed.public_key).ok();
        let ephemeral: Option<[u8; KEY_BYTES]> = ephemeral.and_then(|key| key.try_into().ok());
        let ephemeral =
            ephemeral.ok_or("com.openfaas.secrets: `public_key` is no key in base64")?;
        let opener = SalsaBox::new(&ephemeral.into(), &self.0);
        let mut opened = BTreeMap::new();
        let mut bytes = 0;
        for (name, sealed) in sealed.secrets {
            secret::check_name(&name).map_err(|fault| format!("com.openfaas.secrets: {fault}"))?;
            let value = open(&opener, &sealed).ok_or_else(|| {
                format!("com.openfaas.secrets: {name} does not open: it was sealed for another key or changed")
            })?;
            bytes += value.len();
            opened.insert(name, value);
        }
        if bytes > BUILD_SECRETS_BYTES_MAX {
            return Err(format!(
                "com.openfaas.secrets: {bytes} bytes of secrets, at most {BUILD_SECRETS_BYTES_MAX} \
                 (BUILD_SECRETS_BYTES_MAX)"
            ));
        }
        Ok(opened)
    }
}

fn open(opener: &SalsaBox, sealed: &str) -> Option<Vec<u8>> {
    let sealed = BASE64_STANDARD.decode(sealed).ok()?;
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    opener.decrypt(Nonce::from_slice(nonce), sealed).ok()
}

/// Writes secrets to files that a build's commands may read, in a directory of their own below `parent`.
pub fn show(secrets: &BTreeMap<String, Vec<u8>>, parent: &Path) -> io::Result<Shown> {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    // Closed to others on the host; what is bound in is the directory within.
    let outer = WorkDir::make(parent.join(unique))?;
    let seen = outer.path().join("seen");
    DirBuilder::new().mode(0o755).create(&seen)?;
    fs::set_permissions(&seen, Permissions::from_mode(0o755))?;
    for (name, value) in secrets {
        let path = seen.join(name);
        let mut file = File::options().write(true).create_new(true).mode(0o444).open(&path)?;
        file.write_all(value)?;
        fs::set_permissions(&path, Permissions::from_mode(0o444))?;
    }
    Ok(Shown { seen, _outer: outer })
}

/// Secrets as files, which go with this.
#[derive(Debug)]
pub struct Shown {
    seen: PathBuf,
    _outer: WorkDir,
}

impl std::ops::Deref for Shown {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &SealingKey, name: &str, value: &[u8]) -> String {
        let ephemeral = SecretKey::from([7; KEY_BYTES]);
        let nonce = [9; NONCE_BYTES];
        let sealer = SalsaBox::new(&key.0.public_key(), &ephemeral);
        let mut text = nonce.to_vec();
        text.extend(sealer.encrypt(Nonce::from_slice(&nonce), value).unwrap());
        format!(
            "version: v1\nalgorithm: nacl/box\nkey_id: {}\npublic_key: {}\nsecrets:\n  {name}: {}\n",
            key.public().key_id,
            BASE64_STANDARD.encode(ephemeral.public_key().as_bytes()),
            BASE64_STANDARD.encode(text),
        )
    }

    #[test]
    fn what_is_sealed_for_this_key_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = SealingKey::open(&path).unwrap();
        let again = SealingKey::open(&path).unwrap();
        assert_eq!(key.public(), again.public());
        let text = sealed(&key, "token", b"value");
        assert_eq!(again.open_all(&text).unwrap()["token"], b"value");
        let shown = show(&again.open_all(&text).unwrap(), dir.path()).unwrap();
        assert_eq!(fs::read(shown.join("token")).unwrap(), b"value");
    }

    #[test]
    fn what_is_not_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = SealingKey::open(&dir.path().join("key")).unwrap();
        let other = SealingKey::open(&dir.path().join("other")).unwrap();
        let good = sealed(&key, "token", b"value");
        let foreign =
            sealed(&other, "token", b"value").replace(&other.public().key_id, &key.public().key_id);
        for (text, word) in [
            ("a: [", "is no YAML"),
            (&good.replace("v1", "v2"), "v1 and nacl/box are known"),
            (&good.replace(&key.public().key_id, "AAAAAAAA"), "fetch it anew"),
            (&foreign, "does not open"),
            (&sealed(&key, "../token", b"value"), "com.openfaas.secrets: "),
        ] {
            let said = key.open_all(text).unwrap_err();
            assert!(said.contains(word), "{said}");
        }
    }
}
