//! What a reference means: which image of which repository at which registry.
//!
//! The rules are Docker's: a first part that looks like a host is the registry, else it is Docker Hub, where
//! names without a slash lie in `library/`; without a tag or a digest `latest` is meant. Nothing here changes
//! what a user typed; it is only understood.

use std::fmt;

use super::{REFERENCE_BYTES_MAX, check_form, is_reference, with_default_tag};

/// What a reference looks like, for those who wrote another thing.
pub(super) const EXAMPLE: &str = "registry.example/team/app:1.0";
/// The registry of references that name none.
const DOCKER_HUB: &str = "docker.io";
/// Its old name.
const DOCKER_HUB_INDEX: &str = "index.docker.io";
/// The part of Docker Hub that needs not be written.
const LIBRARY: &str = "library/";
/// The tag of references that name neither tag nor digest.
const LATEST: &str = "latest";
/// Bytes of a repository's name (distribution reference grammar).
const REPOSITORY_BYTES_MAX: usize = 255;
/// Bytes of a tag (distribution reference grammar).
const TAG_BYTES_MAX: usize = 128;

/// A reference taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text names no image of a registry: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadReference {
    text: String,
    reason: String,
}

impl fmt::Display for BadReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, reason } = self;
        write!(f, "{text:?} names no image of a registry: {reason}; write it as {EXAMPLE}")
    }
}

impl std::error::Error for BadReference {}

impl Reference {
    /// Takes a reference apart, with everything that was left out filled in.
    ///
    /// # Errors
    /// It does not have the form of a registry's references.
    pub fn parse(text: &str) -> Result<Self, BadReference> {
        let bad = |reason: String| BadReference { text: shown(text), reason };
        check_form(text).map_err(|error| bad(error.why))?;
        if is_sha256(text) {
            let reason = "it is a digest alone, which does not say in which repository";
            return Err(bad(format!("{reason}; write NAME@{text}, or a tag")));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if is_sha256(digest) => (name, Some(digest.to_owned())),
            Some((_, digest)) => {
                let digest = shown(digest);
                let reason = "is not sha256: and 64 of 0-9 and a-f";
                return Err(bad(format!("its digest {digest:?} {reason}")));
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(name);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag)),
            Some((_, tag)) => {
                let tag = shown(tag);
                let reason = "is not 1 to 128 letters, digits and _.-, the first no . or -";
                return Err(bad(format!("its tag {tag:?} {reason}")));
            }
            None => (rest, None),
        };
        let is_hub = registry == DOCKER_HUB;
        let repository =
            if is_hub && !path.contains('/') { format!("{LIBRARY}{path}") } else { path.into() };
        if let Some(part) = path.split('/').find(|part| !is_component(part)) {
            let part = shown(part);
            let reason = "is not of small letters and digits, with one of .-_ between them";
            return Err(bad(format!("its name has the part {part:?}, which {reason}")));
        }
        if repository.len() > REPOSITORY_BYTES_MAX {
            return Err(bad(format!("its name has more than {REPOSITORY_BYTES_MAX} bytes")));
        }
        if !is_registry(registry) {
            let registry = shown(registry);
            let reason = "is no host name with or without a port";
            return Err(bad(format!("its registry {registry:?} {reason}")));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(LATEST.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host of the registry, with its port if it names one; `docker.io` where none was written.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository there, such as `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, which is `latest` if neither tag nor digest was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest or index, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What a registry is asked for: the digest, which decides, or else the tag.
    #[must_use]
    pub fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(LATEST)
    }
}

impl fmt::Display for Reference {
    /// The whole reference, nothing left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// The name under which the store keeps an image: with its tag, and without the registry that Docker leaves
/// out. Texts that mean the same image have the same. `None` if it cannot be a name.
#[must_use]
pub fn stored_name(text: &str) -> Option<String> {
    if !is_reference(text) || is_sha256(text) {
        return None;
    }
    let whole = text.strip_prefix("index.").filter(|whole| whole.starts_with("docker.io/"));
    let whole = whole.unwrap_or(text);
    let short = match whole.strip_prefix("docker.io/") {
        // Without the registry it would be another one's.
        Some(rest) if named_registry(rest).is_some() => whole,
        Some(rest) => rest.strip_prefix(LIBRARY).filter(|name| !name.contains('/')).unwrap_or(rest),
        None => text,
    };
    let name = with_default_tag(short);
    (name.len() <= REFERENCE_BYTES_MAX && is_reference(&name)).then_some(name)
}

/// The beginning of what somebody wrote.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The registry and the rest of a name.
fn split_registry(name: &str) -> (&str, &str) {
    match named_registry(name) {
        Some((DOCKER_HUB_INDEX, rest)) => (DOCKER_HUB, rest),
        Some(named) => named,
        None => (DOCKER_HUB, name),
    }
}

/// The same of a name that has a registry in it.
fn named_registry(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost")
}

fn is_registry(host: &str) -> bool {
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    name.split('.').all(is_label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether a text is a repository's name, without a registry (distribution specification, section Pulling manifests).
#[must_use]
pub fn is_repository(text: &str) -> bool {
    text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_component)
}

/// Runs of small letters and digits with one `.`, one or two `_` or any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_separator = |c: char| matches!(c, '.' | '_' | '-');
    let mut separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let allowed = |s: &str| matches!(s, "" | "." | "_" | "__") || s.chars().all(|c| c == '-');
    !text.is_empty()
        && !text.starts_with(is_separator)
        && !text.ends_with(is_separator)
        && separators.all(allowed)
}

/// Whether a text is a tag.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= TAG_BYTES_MAX
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// Whether a text is `sha256:` and 64 lower-case hexadecimal digits.
fn is_sha256(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in_as_docker_does() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("team/app", "docker.io/team/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
            ("ghcr.io/a/b-c_d__e.f---g:V1.0_x", "ghcr.io/a/b-c_d__e.f---g:V1.0_x"),
            ("registry/x", "docker.io/registry/x:latest"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), whole, "{text}");
        }
        let whole = format!("ghcr.io/a/b:1@{digest}");
        let parsed = Reference::parse(&whole).unwrap();
        assert_eq!(parsed.to_string(), whole);
        assert_eq!((parsed.registry(), parsed.repository()), ("ghcr.io", "a/b"));
        assert_eq!((parsed.tag(), parsed.wanted()), (Some("1"), digest.as_str()));
        let parsed = Reference::parse(&format!("alpine@{digest}")).unwrap();
        assert_eq!((parsed.tag(), parsed.digest()), (None, Some(digest.as_str())));
        assert_eq!(Reference::parse("alpine").unwrap().wanted(), "latest");
    }

    #[test]
    fn what_no_registry_has_is_refused_with_a_reason() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, word) in [
            ("", "it is empty"),
            ("a b", "' ' in it"),
            ("https://a/b", "leave out"),
            ("Upper", "part \"Upper\""),
            ("a/B", "part \"B\""),
            ("a//b", "part \"\""),
            ("x/a..b", "part \"a..b\""),
            ("a..b/c", "registry \"a..b\""),
            ("a/b___c", "part \"b___c\""),
            ("a/-b", "part \"-b\""),
            ("a/b.", "part \"b.\""),
            ("localhost:5000/", "part \"\""),
            ("a:.tag", "tag \".tag\""),
            ("a:", "tag \"\""),
            ("a@sha256:00", "digest \"sha256:00\""),
            ("a@sha512:00", "digest \"sha512:00\""),
            ("-host.example/x", "begins with '-'"),
            ("host-.example/x", "registry \"host-.example\""),
            ("host.example:99999/x", "no host name"),
            ("host.example:/x", "no host name"),
        ] {
            let said = Reference::parse(text).unwrap_err().to_string();
            assert!(said.contains(word), "{text}: {said}");
            assert!(said.starts_with(&format!("{text:?}")) && said.contains(EXAMPLE), "{said}");
        }
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::parse(&"a".repeat(300)).is_err());
        assert!(Reference::parse(&digest).is_err(), "a digest alone is in no repository");
    }

    #[test]
    fn one_image_is_stored_under_one_name() {
        for (text, name) in [
            ("alpine", "alpine:latest"),
            ("docker.io/library/alpine:3", "alpine:3"),
            ("index.docker.io/library/alpine:3", "alpine:3"),
            ("docker.io/team/app", "team/app:latest"),
            ("docker.io/library/a/b:1", "library/a/b:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("ghcr.io/library/a:1", "ghcr.io/library/a:1"),
            ("index.example/a:1", "index.example/a:1"),
            ("a@sha256:00", "a@sha256:00"),
            // Names of other registries, at Docker's.
            ("docker.io/docker.io/a", "docker.io/docker.io/a:latest"),
            ("index.docker.io/ghcr.io/a:1", "docker.io/ghcr.io/a:1"),
            ("docker.io/localhost/a", "docker.io/localhost/a:latest"),
        ] {
            assert_eq!(stored_name(text).as_deref(), Some(name));
            assert_eq!(stored_name(name).as_deref(), Some(name));
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        for bad in ["", "../x", "docker.io/", "a b", &digest, &"x".repeat(600), &"x".repeat(510)] {
            assert_eq!(stored_name(bad), None, "{bad}");
        }
    }
}
