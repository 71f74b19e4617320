//! `meta.json`: where a template came from (contract section 12.2).

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

const FILE: &str = "meta.json";

/// Where a template came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The URL of its repository.
    pub repository: String,
    /// The branch or tag that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ref_name: Option<String>,
    /// The commit.
    pub sha: String,
    /// When it was written here.
    #[serde(default)]
    pub written_at: String,
}

impl Origin {
    /// Of a template that is written now.
    pub fn now(repository: &str, ref_name: Option<&str>, sha: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            ref_name: ref_name.map(str::to_owned),
            sha: sha.to_owned(),
            written_at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        }
    }

    /// Writes it into a template's folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(FILE);
        fs::write(&path, serde_json::to_vec(self)?)
            .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_faas_cli_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        Origin::now("https://x/y.git", Some("1.0"), "abc").write(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let start =
            r#"{"repository":"https://x/y.git","ref_name":"1.0","sha":"abc","written_at":"2"#;
        assert!(text.starts_with(start) && text.ends_with("Z\"}"), "{text}");
        assert_eq!(serde_json::from_str::<Origin>(&text).unwrap().sha, "abc");
    }
}
