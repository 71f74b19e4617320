//! Who we are at a gateway.
//!
//! Logins are kept where `faas-cli` keeps them, so that both see the same ones (contract section 2.1):
//! `config.yml` in `~/.openfaas`, in the directory `OPENFAAS_CONFIG` names, or in `./.openfaas` when
//! `CI=true`. Beside these, the password of a server on this host is taken from its state directory.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use pinnace_core::limits;
use serde::{Deserialize, Serialize};
use ureq::http::HeaderValue;

use crate::{gateway::Address, state_dir};

/// The user of a server's own password (design section 7).
pub const ADMIN: &str = "admin";

/// What is sent as proof. Neither form shows its secret when it is printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Base64 of `user:password`.
    Basic(String),
    /// A token.
    Bearer(String),
}

impl Credential {
    /// The credential of a user with a password.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic(STANDARD.encode(format!("{user}:{password}")))
    }

    /// The value of the `Authorization` header, marked so that nothing logs it.
    ///
    /// # Errors
    /// It holds characters that no header may hold.
    pub fn header(&self) -> anyhow::Result<HeaderValue> {
        let text = match self {
            Self::Basic(token) => format!("Basic {token}"),
            Self::Bearer(token) => format!("Bearer {token}"),
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| anyhow::anyhow!("the token holds characters that cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

/// The credential for a gateway: the flag's token, what is stored, or, on this host alone, the password
/// in the state directory.
///
/// # Errors
/// The store exists but cannot be read.
pub fn for_gateway(address: &Address, token: Option<&str>) -> anyhow::Result<Option<Credential>> {
    if let Some(token) = token.map(str::trim).filter(|token| !token.is_empty()) {
        return Ok(Some(Credential::Bearer(token.to_owned())));
    }
    if let Some(store) = Store::locate()
        && let Some(stored) = store.lookup(&address.key())?
    {
        return Ok(Some(stored));
    }
    if !address.is_loopback() {
        return Ok(None);
    }
    // Whoever else has a port of this host must not be sent the server's password.
    let ours = state_dir::default().filter(|dir| serves(dir, address));
    Ok(ours.as_deref().and_then(of_state_dir))
}

/// Whether the server of a state directory listens at this address.
fn serves(state_dir: &Path, address: &Address) -> bool {
    let Ok(listen) = fs::read_to_string(state_dir.join("run/listen")) else { return false };
    listen.parse::<SocketAddr>().is_ok_and(|listen| Some(listen.port()) == address.port())
}

/// The credential that a server keeps in its state directory, if we may read it.
pub fn of_state_dir(state_dir: &Path) -> Option<Credential> {
    let file = fs::File::open(state_dir.join("basic-auth-password")).ok()?;
    let mut password = String::new();
    file.take(limits::PASSWORD_BYTES_MAX).read_to_string(&mut password).ok()?;
    let password = password.trim();
    (!password.is_empty()).then(|| Credential::basic(ADMIN, password))
}

/// The file of stored logins.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    auths: Option<Vec<Entry>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    gateway: String,
    auth: String,
    token: String,
    /// What other clients keep beside it, such as `options`.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

impl Store {
    /// Where the environment says it is; `None` without a home directory.
    pub fn locate() -> Option<Self> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let dir = if let Some(named) = variable("OPENFAAS_CONFIG") {
            PathBuf::from(named)
        } else if variable("CI").is_some_and(|ci| ci == "true" || ci == "1") {
            PathBuf::from(".openfaas")
        } else {
            PathBuf::from(variable("HOME")?).join(".openfaas")
        };
        Some(Self::in_dir(&dir))
    }

    /// The store of a directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join("config.yml") }
    }

    /// The credential under a key.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub fn lookup(&self, key: &str) -> anyhow::Result<Option<Credential>> {
        let entries = self.load()?.auths.unwrap_or_default();
        let found = entries.into_iter().find(|entry| entry.gateway == key);
        Ok(found.and_then(|entry| match entry.auth.as_str() {
            "basic" => Some(Credential::Basic(entry.token)),
            "oauth2" => Some(Credential::Bearer(entry.token)),
            _ => None,
        }))
    }

    /// Stores a credential under a key, in place of an earlier one.
    ///
    /// # Errors
    /// The file cannot be read or written; it is then as it was.
    pub fn save(&self, key: &str, credential: &Credential) -> anyhow::Result<()> {
        let mut content = self.load()?;
        let (auth, token) = match credential {
            Credential::Basic(token) => ("basic", token),
            Credential::Bearer(token) => ("oauth2", token),
        };
        let new = Entry {
            gateway: key.to_owned(),
            auth: auth.to_owned(),
            token: token.clone(),
            ..Entry::default()
        };
        let entries = content.auths.get_or_insert_default();
        match entries.iter_mut().find(|entry| entry.gateway == key) {
            Some(entry) => *entry = new,
            None => entries.push(new),
        }
        self.replace(&content)
    }

    /// Forgets what is stored under a key; `false` if there is nothing.
    ///
    /// # Errors
    /// The file cannot be read or written; it is then as it was.
    pub fn forget(&self, key: &str) -> anyhow::Result<bool> {
        let mut content = self.load()?;
        let entries = content.auths.get_or_insert_default();
        let before = entries.len();
        entries.retain(|entry| entry.gateway != key);
        if entries.len() == before {
            return Ok(false);
        }
        self.replace(&content)?;
        Ok(true)
    }

    fn load(&self) -> anyhow::Result<Content> {
        let shown = self.path.display();
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Content::default());
            }
            Err(error) => return Err(error).context(format!("reading the logins in {shown}")),
        };
        let mut text = String::new();
        let most = limits::CREDENTIALS_FILE_BYTES_MAX;
        file.take(most + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("reading the logins in {shown}"))?;
        if text.len() as u64 > most {
            anyhow::bail!("the logins in {shown} are more than {most} bytes; it is no such file");
        }
        if text.trim().is_empty() {
            return Ok(Content::default());
        }
        // The parser's own words may quote a line, and with it a token.
        serde_saphyr::from_str(&text).map_err(|error| {
            let line = error.location().map(|at| format!(", line {}", at.line()));
            let line = line.unwrap_or_default();
            anyhow::anyhow!(
                "the logins in {shown}{line} are not understood; mend or remove the file, then run \
                 `pinnace login` again"
            )
        })
    }

    /// Writes the file beside itself and renames it: a reader sees the old or the new one.
    fn replace(&self, content: &Content) -> anyhow::Result<()> {
        // Where it is a link, the file it leads to is replaced.
        let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let doing = || format!("storing the login in {}", target.display());
        let dir = target.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(doing)?;
        let staged = dir.join(format!(".config.yml.{}", std::process::id()));
        let written =
            write_private(&staged, &rendered(content)?).and_then(|()| fs::rename(&staged, &target));
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written.with_context(doing)
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The file's text, line for line as `faas-cli` writes it.
fn rendered(content: &Content) -> anyhow::Result<String> {
    let entries = content.auths.as_deref().unwrap_or_default();
    if entries.is_empty() {
        return Ok("auths: []\n".to_owned());
    }
    let mut text = String::from("auths:\n");
    for entry in entries {
        let mut prefix = "  - ";
        let mut line = |name: &str, value: &str| {
            text.push_str(&format!("{prefix}{name}: {value}\n"));
            prefix = "    ";
        };
        line("gateway", &scalar(&entry.gateway)?);
        line("auth", &scalar(&entry.auth)?);
        line("token", &scalar(&entry.token)?);
        for (name, value) in &entry.others {
            // JSON is YAML as well.
            line(&scalar(name)?, &serde_json::to_string(value)?);
        }
    }
    Ok(text)
}

/// A string as YAML: plain where that is safe, else in JSON's quotes.
fn scalar(text: &str) -> anyhow::Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:+=~%".contains(c);
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_lowercase().as_str());
    if safe { Ok(text.to_owned()) } else { Ok(serde_json::to_string(text)?) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_dir(&dir.path().join("new/.openfaas"));
        (dir, store)
    }

    #[test]
    fn written_as_faas_cli_writes_it() {
        let (_dir, store) = store();
        let credential = Credential::basic("admin", "secret-pass");
        store.save("http://127.0.0.1:8080", &credential).unwrap();
        let text = fs::read_to_string(&store.path).unwrap();
        assert_eq!(
            text,
            "auths:\n  - gateway: http://127.0.0.1:8080\n    auth: basic\n    \
             token: YWRtaW46c2VjcmV0LXBhc3M=\n"
        );
        assert_eq!(fs::metadata(&store.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(store.lookup("http://127.0.0.1:8080").unwrap(), Some(credential));
        assert_eq!(store.lookup("http://127.0.0.1:8081").unwrap(), None);
    }

    #[test]
    fn other_logins_and_their_fields_are_kept() {
        let (_dir, store) = store();
        fs::create_dir_all(store.path.parent().unwrap()).unwrap();
        let before = "auths:\n- gateway: http://other.example:8080\n  auth: oauth2\n  \
                      token: a.b.c\n  options:\n  - name: client_id\n    value: '007'\n";
        fs::write(&store.path, before).unwrap();
        store.save("https://faas.example", &Credential::Bearer("t".into())).unwrap();
        store.save("https://faas.example", &Credential::Bearer("u".into())).unwrap();
        let text = fs::read_to_string(&store.path).unwrap();
        assert!(text.contains(r#"options: [{"name":"client_id","value":"007"}]"#), "{text}");
        let other = store.lookup("http://other.example:8080").unwrap();
        assert_eq!(other, Some(Credential::Bearer("a.b.c".into())));
        assert_eq!(text.matches("https://faas.example").count(), 1);
        assert!(store.forget("https://faas.example").unwrap());
        assert!(!store.forget("https://faas.example").unwrap());
        assert!(store.forget("http://other.example:8080").unwrap());
        assert_eq!(store.lookup("http://other.example:8080").unwrap(), None);
    }

    #[test]
    fn a_broken_store_is_named_and_its_secrets_are_not() {
        let (_dir, store) = store();
        fs::create_dir_all(store.path.parent().unwrap()).unwrap();
        fs::write(&store.path, "auths:\n  - token: [hunter2\n").unwrap();
        let said = format!("{:#}", store.lookup("x").unwrap_err());
        assert!(said.contains("config.yml") && !said.contains("hunter2"), "{said}");
        assert!(store.save("x", &Credential::Bearer("y".into())).is_err());
        assert!(fs::read_to_string(&store.path).unwrap().contains("hunter2"), "left as it was");
    }

    #[test]
    fn an_empty_file_is_an_empty_store() {
        let (_dir, store) = store();
        fs::create_dir_all(store.path.parent().unwrap()).unwrap();
        for text in ["", "\n", "auths:\n", "auths: []\n"] {
            fs::write(&store.path, text).unwrap();
            assert_eq!(store.lookup("x").unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?}", Credential::basic("admin", "hunter2"));
        assert_eq!(shown, "Basic(…)");
        let header = Credential::Bearer("hunter2".into()).header().unwrap();
        assert!(!format!("{header:?}").contains("hunter2"));
        assert!(Credential::Bearer("a\nb".into()).header().is_err());
    }

    #[test]
    fn the_password_of_this_host() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_state_dir(dir.path()), None);
        fs::write(dir.path().join("basic-auth-password"), "hunter2\n").unwrap();
        assert_eq!(of_state_dir(dir.path()), Some(Credential::basic("admin", "hunter2")));
    }
}
