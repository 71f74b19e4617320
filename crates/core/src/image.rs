//! Images as a function sees them: the reference a user writes, and the configuration that decides what
//! runs.

mod reference;

use serde::{Deserialize, Serialize};

use reference::EXAMPLE;
pub(crate) use reference::shown;
pub use reference::{BadReference, Reference, is_repository, is_tag, stored_name};

/// The reference that stands for the host's own programs instead of an image.
pub const HOST: &str = "host";

/// Whether a reference stands for the host's own programs: faas-cli adds `:latest` to an image of a stack file that
/// has no tag (contract section 12.1).
#[must_use]
pub fn is_host(reference: &str) -> bool {
    reference.strip_prefix(HOST).is_some_and(|tag| matches!(tag, "" | ":latest"))
}

/// Which of OpenFaaS's watchdogs (contract section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchdogKind {
    /// `of-watchdog`.
    Of,
    /// The classic one: a process for each call.
    Classic,
}

impl WatchdogKind {
    /// Its name in our watchdog's variable `watchdog_kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Of => "of",
            Self::Classic => "classic",
        }
    }
}

/// What an image says about its process (OCI image-spec `config.md`), with the user already resolved to
/// numbers against the image's own /etc/passwd and /etc/group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Words after the entrypoint, or the whole command.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Environment, `NAME=VALUE` each.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory, empty for `/`.
    #[serde(default)]
    pub working_dir: String,
    /// Who the process runs as.
    #[serde(default)]
    pub user: User,
    /// The lowest TCP port that the image exposes, if it exposes one.
    #[serde(default)]
    pub exposed_port: Option<u16>,
    /// The signal that asks it to stop, as a number.
    #[serde(default)]
    pub stop_signal: Option<i32>,
}

/// Numeric identity of a process inside its sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// A reference with a tag: `latest` if it has neither tag nor digest, and else as it was typed.
#[must_use]
pub fn with_default_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || last.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Longest image reference accepted, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 512;

/// A text is no image reference: what it is and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is no image reference: {why}; write it as {EXAMPLE}")]
pub struct BadForm {
    /// Its beginning.
    shown: String,
    why: String,
}

/// Checks that a reference is written with the characters that references are made of.
///
/// # Errors
/// It is not; the error names the first thing that is wrong.
pub fn check_form(text: &str) -> Result<(), BadForm> {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || "-._/:@+".contains(*c);
    let why = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > REFERENCE_BYTES_MAX {
        format!("it has more than {REFERENCE_BYTES_MAX} bytes")
    } else if text.contains("://") {
        "it is a URL; leave out what stands up to ://".to_owned()
    } else if let Some(odd) = text.chars().find(|c| !allowed(c)) {
        format!("it has {odd:?} in it, and only letters, digits and -._/:@+ may be")
    } else if let Some(first) = text.chars().next().filter(|c| !c.is_ascii_alphanumeric()) {
        format!("it begins with {first:?}, and only a letter or digit may be first")
    } else {
        return Ok(());
    };
    Err(BadForm { shown: shown(text), why })
}

/// Whether a reference is written with the characters that references are made of.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    check_form(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_default_to_latest() {
        assert_eq!(with_default_tag("alpine"), "alpine:latest");
        assert_eq!(with_default_tag("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(with_default_tag("a/b:1"), "a/b:1");
        assert_eq!(with_default_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn references_have_no_odd_characters() {
        assert!(is_reference("ghcr.io/a/b-c_d:1.0@sha256:ab"));
        for (bad, why) in [
            ("", "empty"),
            ("../x", "begins with '.'"),
            ("/abs", "begins with '/'"),
            ("a b", "' ' in it"),
            ("a\nb", "'\\n' in it"),
            ("é", "'é' in it"),
            ("https://ghcr.io/a", "a URL"),
            (&"a".repeat(600), "more than 512 bytes"),
        ] {
            let said = check_form(bad).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains(EXAMPLE), "{bad}: {said}");
            assert!(!is_reference(bad) && said.len() < 300, "{said}");
        }
        assert!(check_form("a b").unwrap_err().to_string().starts_with("\"a b\" is no image"));
    }
}
