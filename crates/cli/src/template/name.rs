//! A template's name, which becomes a folder's.

use std::{fmt, str::FromStr};

/// A name, perhaps with the version that it is pinned to: `python3-http`, `python3-http@1.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateName {
    name: String,
    pin: Option<String>,
}

impl TemplateName {
    /// The name alone.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that it is pinned to.
    pub fn pin(&self) -> Option<&str> {
        self.pin.as_deref()
    }

    /// The same template, pinned to a version or to none.
    ///
    /// # Errors
    /// The version cannot be part of a folder's name.
    pub fn pinned(&self, pin: Option<&str>) -> Result<Self, String> {
        let pin = pin.map(|pin| checked(pin, "a template's version")).transpose()?;
        Ok(Self { name: self.name.clone(), pin })
    }
}

impl FromStr for TemplateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pin) = match text.split_once('@') {
            Some((name, pin)) => (name, Some(pin)),
            None => (text, None),
        };
        // A stack file may write the name of the file.
        let name = if name == "Dockerfile" { super::DOCKERFILE } else { name };
        Self { name: checked(name, "a template's name")?, pin: None }.pinned(pin)
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pin {
            Some(pin) => write!(f, "{}@{pin}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Both come from strangers' files, and become one folder's name.
fn checked(text: &str, what: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins_well && text.len() <= 128 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not {what}: it has letters, digits, dots, dashes and underscores"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions() {
        let name: TemplateName = "python3-http@sha-1a2b".parse().unwrap();
        assert_eq!((name.name(), name.pin()), ("python3-http", Some("sha-1a2b")));
        assert_eq!(name.to_string(), "python3-http@sha-1a2b");
        assert_eq!("Dockerfile".parse::<TemplateName>().unwrap().name(), "dockerfile");
        assert_eq!(name.pinned(None).unwrap().to_string(), "python3-http");
    }

    #[test]
    fn what_would_be_another_folder_is_no_name() {
        for text in ["", "..", ".git", "a/b", "-x", "a@", "a@../b", "a@b@c", "a b", "@x"] {
            assert!(text.parse::<TemplateName>().is_err(), "{text:?}");
        }
    }
}
