//! Who we are at a registry: what `docker login` has kept, or a program that it names.
//!
//! Docker's configuration file is read anew for each pull, so a login counts at once. Nothing of it is kept,
//! logged or put into an error.

use std::{collections::HashMap, path::Path, process::Stdio};

use base64::{Engine, prelude::BASE64_STANDARD};
use pinnace_core::limits;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::error::{PullError, PullFault};

/// The name under which Docker keeps the login of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const DOCKER_HUB: &str = "docker.io";
/// Helpers give this as the name of a user who has a token in place of a password.
const TOKEN_USER: &str = "<token>";

/// What proves who we are. Has no text form, so that it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// Name and password.
    Password { user: String, password: String },
    /// A token that the registry's token service exchanges for one of a short life.
    Refresh(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The credential for a registry, if the configuration file has one.
///
/// # Errors
/// The file is there but cannot be used, or a helper fails.
pub(super) async fn find(
    config: Option<&Path>,
    account: &str,
) -> Result<Option<Credential>, PullError> {
    let Some(path) = config else { return Ok(None) };
    let Some(config) = read(path).await? else { return Ok(None) };
    if let Some(helper) = config.helper(account) {
        return ask(helper, &key(account)).await;
    }
    let found = config.auths.iter().find(|(key, _)| host_of(key) == account);
    found.map_or(Ok(None), |(key, auth)| {
        auth.credential().map_err(|why| {
            let text = format!("the login for {key} in {} {why}", path.display());
            PullError::new(PullFault::Host, text)
        })
    })
}

async fn read(path: &Path) -> Result<Option<DockerConfig>, PullError> {
    let fault = |why: String| {
        PullError::new(PullFault::Host, format!("{} cannot be used: {why}", path.display()))
    };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error.to_string())),
    };
    let mut content = Vec::new();
    let mut bounded = file.take(limits::DOCKER_CONFIG_BYTES_MAX + 1);
    bounded.read_to_end(&mut content).await.map_err(|error| fault(error.to_string()))?;
    if content.len() as u64 > limits::DOCKER_CONFIG_BYTES_MAX {
        let max = limits::DOCKER_CONFIG_BYTES_MAX;
        return Err(fault(format!("it has more than {max} bytes (DOCKER_CONFIG_BYTES_MAX)")));
    }
    // What the parser says could quote a secret; where it stopped is enough.
    let parsed = serde_json::from_slice(&content);
    parsed
        .map(Some)
        .map_err(|error| fault(format!("it is not what Docker writes (line {})", error.line())))
}

impl DockerConfig {
    fn helper(&self, account: &str) -> Option<&str> {
        let named = self.cred_helpers.iter().find(|(key, _)| host_of(key) == account);
        let named = named.map(|(_, helper)| helper).unwrap_or(&self.creds_store);
        Some(named.as_str()).filter(|name| !name.is_empty())
    }
}

impl Auth {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Refresh(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok((!user.is_empty()).then_some(Credential::Password { user, password }));
        }
        let decoded = BASE64_STANDARD.decode(self.auth.trim_end_matches('\0'));
        let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = pair.ok_or("is not base64 of NAME:PASSWORD; log in again")?;
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Credential::Password { user: user.to_owned(), password }))
    }
}

/// The registry that a key of the file is for: keys are hosts or URLs.
fn host_of(key: &str) -> &str {
    if key == DOCKER_HUB_KEY {
        return DOCKER_HUB;
    }
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match host.split('/').next().unwrap_or(host) {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

/// What a helper knows a registry by.
fn key(account: &str) -> String {
    if account == DOCKER_HUB { DOCKER_HUB_KEY.to_owned() } else { account.to_owned() }
}

/// Runs `docker-credential-NAME get`. Only the registry's name goes in, and only over standard input.
async fn ask(name: &str, key: &str) -> Result<Option<Credential>, PullError> {
    let shown: String = name.chars().take(60).collect();
    let fault = |why: String| {
        let text = format!(
            "the credential helper docker-credential-{shown} {why}; \
             try `echo {key} | docker-credential-{shown} get`"
        );
        PullError::new(PullFault::Host, text)
    };
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        let text =
            "Docker's configuration file names a credential helper that is no program's name";
        return Err(PullError::new(PullFault::Host, text));
    }
    let program = format!("docker-credential-{name}");
    let ran = timeout(limits::CREDENTIAL_HELPER_TIME_MAX, run(&program, key)).await;
    let (succeeded, output) = match ran {
        Ok(ran) => ran.map_err(|error| fault(format!("cannot be run: {error}")))?,
        Err(_) => {
            let limit = limits::CREDENTIAL_HELPER_TIME_MAX.as_secs();
            return Err(fault(format!("took longer than {limit} s")));
        }
    };
    if output.len() as u64 > limits::CREDENTIAL_HELPER_BYTES_MAX {
        return Err(fault(format!("said more than {} bytes", limits::CREDENTIAL_HELPER_BYTES_MAX)));
    }
    if !succeeded {
        // Helpers say so in these words when they simply have none.
        let said = String::from_utf8_lossy(&output);
        let has_none = said.contains("credentials not found");
        return if has_none { Ok(None) } else { Err(fault("failed".to_owned())) };
    }
    let helped: Helped = serde_json::from_slice(&output)
        .map_err(|_| fault("did not answer with a name and a secret".to_owned()))?;
    Ok(Some(if helped.username == TOKEN_USER {
        Credential::Refresh(helped.secret)
    } else {
        Credential::Password { user: helped.username, password: helped.secret }
    }))
}

async fn run(program: &str, key: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its question is told by what it answers.
        drop(stdin.write_all(key.as_bytes()).await);
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(limits::CREDENTIAL_HELPER_BYTES_MAX + 1).read_to_end(&mut output).await?;
    }
    if output.len() as u64 > limits::CREDENTIAL_HELPER_BYTES_MAX {
        return Ok((false, output));
    }
    Ok((child.wait().await?.success(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: password.into() })
    }

    async fn found(config: &str, account: &str) -> Result<Option<Credential>, PullError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        find(Some(&path), account).await
    }

    #[tokio::test]
    async fn logins_are_found_under_every_form_of_their_registry() {
        let pair = BASE64_STANDARD.encode("me:se:cret");
        for (key, account) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("ghcr.io", "ghcr.io"),
            ("https://ghcr.io", "ghcr.io"),
            ("https://reg.example:5000/v2/", "reg.example:5000"),
        ] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"{pair}"}}}},"other":1}}"#);
            assert!(found(&config, account).await.unwrap() == password("me", "se:cret"), "{key}");
            assert!(found(&config, "elsewhere.example").await.unwrap().is_none());
        }
        let plain = r#"{"auths":{"a.example":{"username":"u","password":"p"}}}"#;
        assert!(found(plain, "a.example").await.unwrap() == password("u", "p"));
        let token = r#"{"auths":{"a.example":{"auth":"eDp5","identitytoken":"t"}}}"#;
        let refresh = Some(Credential::Refresh("t".into()));
        assert!(found(token, "a.example").await.unwrap() == refresh);
        assert!(found("{}", "a.example").await.unwrap().is_none());
        assert!(find(None, "a.example").await.unwrap().is_none());
        assert!(find(Some(Path::new("/nowhere/config.json")), "a").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn errors_quote_no_secret() {
        let secret = BASE64_STANDARD.encode("topsecret");
        let auth = format!(r#"{{"auths":{{"a.example":{{"auth":"{secret}"}}}}}}"#);
        let broken = r#"{"auths":{"a.example":{"password":"topsecret","username":}}}"#;
        let typed = r#"{"auths":{"a.example":"topsecret"}}"#;
        let helper = r#"{"credsStore":"../topsecret"}"#;
        for config in [auth.as_str(), broken, typed, helper] {
            let said = found(config, "a.example").await.err().unwrap().to_string();
            assert!(!said.contains("topsecret") && !said.contains(&secret), "{said}");
        }
    }
}
