//! Paths of the API: which resource of which repository is meant.

use std::fmt;

use crate::image::{is_repository, is_tag};

use super::digest::{Digest, DigestFault};

/// A repository's name that was checked to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A tag that was checked to be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// How a manifest is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By a name that may be moved.
    Tag(Tag),
    /// By what it holds.
    Digest(Digest),
}

/// What a path names. Digests and tags are as they were sent: what a wrong one means depends on the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Whether the API is there (end-1).
    Base,
    /// All repositories.
    Catalog,
    /// A repository's tags (end-8).
    Tags(&'a str),
    /// A manifest by tag or digest (end-3, 7, 9).
    Manifest(&'a str, &'a str),
    /// A blob by digest (end-2, 10).
    Blob(&'a str, &'a str),
    /// Where uploads begin (end-4, 11).
    Uploads(&'a str),
    /// An upload under way (end-5, 6, 13, 14).
    Upload(&'a str, &'a str),
    /// Manifests whose subject is this digest (end-12).
    Referrers(&'a str, &'a str),
}

impl Repository {
    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_repository(text).then(|| Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// Reads a tag.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_tag(text).then(|| Self(text.to_owned()))
    }

    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Wanted {
    /// Reads a tag or a digest, which alone has a colon.
    ///
    /// # Errors
    /// It has a colon and is no digest. `Ok(None)` is no tag.
    pub fn parse(text: &str) -> Result<Option<Self>, DigestFault> {
        if text.contains(':') {
            return Digest::parse(text).map(Self::Digest).map(Some);
        }
        Ok(Tag::parse(text).map(Self::Tag))
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl<'a> Target<'a> {
    /// Reads what stands behind `/v2` in a path, decoded. Names may have `blobs` and the like in them, so a path
    /// is read from its end.
    #[must_use]
    pub fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/').unwrap_or(path);
        match path {
            "" => return Some(Self::Base),
            "_catalog" => return Some(Self::Catalog),
            _ => {}
        }
        // Clients begin an upload with a slash at the end, and some leave it out.
        let without_slash = path.strip_suffix('/');
        if let Some(name) = without_slash.unwrap_or(path).strip_suffix("/blobs/uploads") {
            return Some(Self::Uploads(name));
        }
        let (rest, last) = path.rsplit_once('/')?;
        if last.is_empty() {
            return None;
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Some(Self::Upload(name, last));
        }
        let (name, kind) = rest.rsplit_once('/')?;
        match (kind, last) {
            ("tags", "list") => Some(Self::Tags(name)),
            ("manifests", wanted) => Some(Self::Manifest(name, wanted)),
            ("blobs", digest) => Some(Self::Blob(name, digest)),
            ("referrers", digest) => Some(Self::Referrers(name, digest)),
            _ => None,
        }
    }

    /// The repository's name, if it names one.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        for (path, target) in [
            ("", Some(Target::Base)),
            ("/", Some(Target::Base)),
            ("/_catalog", Some(Target::Catalog)),
            ("/a/tags/list", Some(Target::Tags("a"))),
            ("/a/b/manifests/1.0", Some(Target::Manifest("a/b", "1.0"))),
            ("/a/manifests/sha256:00", Some(Target::Manifest("a", "sha256:00"))),
            ("/a/blobs/sha256:00", Some(Target::Blob("a", "sha256:00"))),
            ("/a/blobs/uploads/", Some(Target::Uploads("a"))),
            ("/a/blobs/uploads", Some(Target::Uploads("a"))),
            ("/a/blobs/uploads/7", Some(Target::Upload("a", "7"))),
            ("/a/referrers/sha256:00", Some(Target::Referrers("a", "sha256:00"))),
            ("/a/blobs/uploads/manifests/1", Some(Target::Manifest("a/blobs/uploads", "1"))),
            ("/a/manifests/tags/list", Some(Target::Tags("a/manifests"))),
            ("/blobs/blobs/uploads/", Some(Target::Uploads("blobs"))),
            ("/a", None),
            ("/a/tags", None),
            ("/a/manifests/", None),
            ("/manifests/x", None),
            ("/tags/list", None),
            ("/a/other/x", None),
        ] {
            assert_eq!(Target::parse(path), target, "{path}");
        }
    }

    #[test]
    fn names_and_tags_have_the_grammar_of_the_specification() {
        for good in ["a", "a/b", "a.b/c_d/e__f/g---h", &"a".repeat(255)] {
            assert!(Repository::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "A",
            "a//b",
            "/a",
            "a/",
            "..",
            "a/../b",
            "a/./b",
            "a___b",
            "-a",
            "a%2Fb",
            "a b",
            "a\0",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(Repository::parse(bad).is_none(), "{bad}");
        }
        for good in ["a", "_", "1.0-rc.1", "A_b", &"t".repeat(128)] {
            assert!(Tag::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a:b", "a b", &"t".repeat(129)] {
            assert!(Tag::parse(bad).is_none(), "{bad}");
        }
        assert!(matches!(Wanted::parse("1.0"), Ok(Some(Wanted::Tag(_)))));
        assert_eq!(Wanted::parse(".INVALID"), Ok(None));
        assert!(Wanted::parse("sha256:0").is_err());
    }
}
