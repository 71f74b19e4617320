//! What clients of the built-in registry send: paths, manifests, ranges.

use pinnace_core::distribution::{
    ByteRange, Digest, Manifest, Page, Repository, Target, Wanted, chunk, local_reference,
};

/// A path names one thing, and names in it lead nowhere else.
pub(crate) fn check_path(text: &str) {
    if let Some(target) = Target::parse(text) {
        check_target(text, &target);
    }
    if let Some((repository, wanted)) = local_reference(text) {
        let joint = if matches!(wanted, Wanted::Digest(_)) { '@' } else { ':' };
        let whole = format!("{repository}{joint}{wanted}");
        assert_eq!(local_reference(&whole), Some((repository, wanted)));
    }
}

fn check_target(text: &str, target: &Target<'_>) {
    let written = match target {
        Target::Base => String::new(),
        Target::Catalog => "_catalog".to_owned(),
        Target::Tags(name) => format!("{name}/tags/list"),
        Target::Manifest(name, wanted) => format!("{name}/manifests/{wanted}"),
        Target::Blob(name, digest) => format!("{name}/blobs/{digest}"),
        Target::Uploads(name) => format!("{name}/blobs/uploads"),
        Target::Upload(name, id) => format!("{name}/blobs/uploads/{id}"),
        Target::Referrers(name, digest) => format!("{name}/referrers/{digest}"),
    };
    let bare = text.strip_prefix('/').unwrap_or(text);
    let bare = if written.is_empty() { bare } else { bare.strip_suffix('/').unwrap_or(bare) };
    assert_eq!(written, bare, "nothing of a path is left out");
    let Some(repository) = target.name().and_then(Repository::parse) else { return };
    let climbs =
        repository.as_str().split('/').any(|part| part.is_empty() || part.starts_with('.'));
    assert!(!climbs && repository.as_str().len() <= 255, "{repository}");
    let (Target::Manifest(_, last) | Target::Blob(_, last)) = target else { return };
    if let Ok(Some(wanted)) = Wanted::parse(last) {
        assert_eq!(wanted.to_string(), *last);
        assert!(!last.contains('/') && !last.starts_with('.'), "{last}");
    }
}

/// What is taken as a manifest is the same when it is pushed again as what it was found to be.
pub(crate) fn check_manifest(content: &[u8]) {
    let Ok(manifest) = Manifest::read(content, None) else { return };
    assert_eq!(Manifest::read(content, Some(&manifest.media_type)).as_ref(), Ok(&manifest));
    assert!(manifest.parts.is_sorted_by(|one, other| one < other), "none twice");
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64)));
    let referrer = digest.map(|digest| manifest.referrer(&digest, content.len()));
    let referrer = referrer.map(|text| serde_json::from_str::<serde_json::Value>(&text));
    assert!(matches!(referrer, Ok(Ok(serde_json::Value::Object(_)))), "{referrer:?}");
}

/// Ranges lie within what there is.
pub(crate) fn check_range(text: &str) {
    for bytes in [0, 1, 1000] {
        if let ByteRange::Part { first, last } = ByteRange::read(Some(text), bytes) {
            assert!(first <= last && last < bytes, "{first}-{last} of {bytes}");
        }
        if let Ok(chunk) = chunk(bytes, Some(text), None, 1000) {
            assert!(bytes + chunk.bytes_max <= 1000);
        }
    }
    drop(Page::read(Some(text), Some(text)));
}
