//! What the API says of the registry beside the distribution API. OpenFaaS has no such thing; the names are ours.

use serde::{Deserialize, Serialize};

use super::{Digest, Repository, Tag, Wanted};

/// What is in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryListing {
    /// Tags with what they stand for, and manifests that nothing leads to.
    pub images: Vec<RegistryImage>,
    /// Whether there are more than are listed.
    pub has_more: bool,
}

/// What a tag stands for, or a manifest that no tag and no other manifest leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryImage {
    /// The repository.
    pub repository: String,
    /// The tag, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
    /// What it is.
    pub media_type: String,
    /// Bytes of the manifest and of all that it is made of.
    pub size_bytes: u64,
    /// RFC 3339 time of its latest push.
    pub pushed_at: String,
}

/// What a collection of the registry's garbage removed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryGarbage {
    /// Whether nothing was removed.
    pub is_dry: bool,
    /// Manifests that nothing led to.
    pub manifests: usize,
    /// Blobs that no manifest refers to.
    pub blobs: usize,
    /// Uploads that nobody went on with.
    pub uploads: usize,
    /// Bytes of these blobs and uploads.
    pub bytes: u64,
    /// Blobs that no manifest refers to and that stay, since they are young.
    pub young_blobs: usize,
    /// Their bytes.
    pub young_bytes: u64,
}

impl RegistryImage {
    /// The reference, without the server's name.
    #[must_use]
    pub fn reference(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository),
            None => format!("{}@{}", self.repository, self.digest),
        }
    }
}

/// Reads a reference without a server's name: `NAME`, which means its tag `latest`, `NAME:TAG` or `NAME@DIGEST`.
#[must_use]
pub fn local_reference(text: &str) -> Option<(Repository, Wanted)> {
    if let Some((name, digest)) = text.split_once('@') {
        return Some((Repository::parse(name)?, Wanted::Digest(Digest::parse(digest).ok()?)));
    }
    let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
    Some((Repository::parse(name)?, Wanted::Tag(Tag::parse(tag)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_without_a_server() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let read =
            |text: &str| local_reference(text).map(|(name, wanted)| format!("{name} {wanted}"));
        for (text, meant) in [
            ("fn", Some("fn latest".to_owned())),
            ("team/fn:1", Some("team/fn 1".to_owned())),
            (&format!("fn@{digest}"), Some(format!("fn {digest}"))),
            ("localhost:5000/fn", None),
            ("fn:", None),
            ("fn@1", None),
            ("FN", None),
            ("../fn", None),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
        let image = RegistryImage { repository: "a".into(), digest, ..RegistryImage::default() };
        assert!(image.reference().starts_with("a@sha256:"));
    }
}
