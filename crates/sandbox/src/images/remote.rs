//! What a registry says an image is made of: its manifest, and the index that leads to it.
//!
//! A document is taken for what it holds, not for what its sender calls it; one that could be read both as
//! a manifest and as an index is refused, since two readers could see two images in it.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use pinnace_core::limits::{ARCHIVE_IMAGES_MAX, LAYERS_MAX};
use serde::Deserialize;

use super::{
    error::{LoadError, printable},
    plan::Platform,
    spool::parse,
    stream::{digest_of, sha256_hex},
};

/// A blob of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBlob {
    /// Its digest, `sha256:…`, checked to be one.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    pub(super) media_type: String,
}

/// An image's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteManifest {
    /// Its configuration.
    pub config: RemoteBlob,
    /// Its layers, lowest first.
    pub layers: Vec<RemoteBlob>,
}

/// What a reference leads to at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteDocument {
    /// An image.
    Image(RemoteManifest),
    /// An index; of what it names, the document that fits this machine best.
    Index(RemoteBlob),
}

/// The fields by which documents are told apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl RemoteBlob {
    fn new(descriptor: &Descriptor, by: &str) -> Result<Self, LoadError> {
        let digest = descriptor.digest().to_string();
        if sha256_hex(&digest).is_none() {
            let reason = format!("the digest `{}` is not a sha256", printable(digest.as_bytes()));
            return Err(LoadError::unusable(by, reason));
        }
        let media_type = descriptor.media_type().to_string();
        Ok(Self { digest, bytes: descriptor.size(), media_type })
    }

    /// Checks content against the size and the digest that it must have.
    ///
    /// # Errors
    /// It has others.
    pub fn check(&self, content: &[u8]) -> Result<(), LoadError> {
        let found = digest_of(content);
        if found == self.digest {
            return Ok(());
        }
        let (what, expected) = (self.digest.clone(), self.digest.clone());
        Err(LoadError::Digest { what, expected, found })
    }
}

impl RemoteManifest {
    /// Bytes of all layers together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.bytes))
    }
}

impl RemoteDocument {
    /// Reads a manifest or an index; errors call it `what`.
    ///
    /// # Errors
    /// It is neither, or an index of nothing that runs here.
    pub fn read(content: &[u8], what: &str) -> Result<Self, LoadError> {
        let shape: Shape = parse(content, what)?;
        let is_index = shape.manifests.is_some();
        let is_image = shape.layers.is_some() || shape.config.is_some();
        match (is_index, is_image) {
            _ if shape.schema_version == Some(1) => Err(LoadError::unusable(
                what,
                "it has the old form of manifest (schema 1): push it again with a newer tool",
            )),
            (true, false) => Ok(Self::Index(choose(&parse(content, what)?, what)?)),
            (false, true) => Ok(Self::Image(manifest(&parse(content, what)?, what)?)),
            (true, true) => Err(LoadError::unusable(what, "it is a manifest and an index at once")),
            (false, false) => Err(LoadError::unusable(what, "it is no manifest and no index")),
        }
    }
}

fn manifest(manifest: &ImageManifest, what: &str) -> Result<RemoteManifest, LoadError> {
    if manifest.layers().len() > LAYERS_MAX {
        let (what, max) = (what.to_owned(), LAYERS_MAX as u64);
        return Err(LoadError::Limit { what, max, unit: "layers", limit: "LAYERS_MAX" });
    }
    let layers = manifest.layers().iter().map(|layer| RemoteBlob::new(layer, what));
    Ok(RemoteManifest {
        config: RemoteBlob::new(manifest.config(), what)?,
        layers: layers.collect::<Result<_, _>>()?,
    })
}

/// The manifest for this machine; where none says that it is, one that names no platform.
fn choose(index: &ImageIndex, what: &str) -> Result<RemoteBlob, LoadError> {
    if index.manifests().len() > ARCHIVE_IMAGES_MAX {
        let (what, max) = (what.to_owned(), ARCHIVE_IMAGES_MAX as u64);
        return Err(LoadError::Limit { what, max, unit: "manifests", limit: "ARCHIVE_IMAGES_MAX" });
    }
    let mut best: Option<(u8, &Descriptor)> = None;
    let mut others = Vec::new();
    for descriptor in index.manifests() {
        let Some(fit) = fit(descriptor, &mut others) else { continue };
        if best.is_none_or(|(best, _)| fit < best) {
            best = Some((fit, descriptor));
        }
    }
    match best {
        Some((_, descriptor)) => RemoteBlob::new(descriptor, what),
        None => {
            others.truncate(20);
            Err(LoadError::Platform {
                name: what.to_owned(),
                wanted: Platform::wanted(),
                found: if others.is_empty() { "nothing".into() } else { others.join(", ") },
            })
        }
    }
}

/// How well a part of an index fits this machine, 0 best. Platforms that do not are added to `others`.
fn fit(descriptor: &Descriptor, others: &mut Vec<String>) -> Option<u8> {
    let media_type = descriptor.media_type().to_string();
    let is_index = media_type.ends_with("image.index.v1+json")
        || media_type.ends_with("manifest.list.v2+json");
    let is_image = matches!(descriptor.media_type(), MediaType::ImageManifest)
        || media_type.ends_with("distribution.manifest.v2+json");
    if !is_index && !is_image {
        // Signatures, bills of materials and the like.
        return None;
    }
    let Some(platform) = descriptor.platform() else { return Some(2) };
    let platform = Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone().unwrap_or_default(),
    };
    let fit = platform.fit();
    // BuildKit's attestations are manifests too, of a platform that is none.
    if fit.is_none() && platform.os != "unknown" {
        others.push(platform.to_string());
    }
    fit
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::images::plan::machine;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn read(document: &Value) -> Result<RemoteDocument, LoadError> {
        RemoteDocument::read(document.to_string().as_bytes(), "x:1")
    }

    fn descriptor(byte: &str, kind: &str, platform: Option<(&str, &str, &str)>) -> Value {
        let mut value = json!({
            "mediaType": kind, "digest": format!("sha256:{}", byte.repeat(32)), "size": 7,
        });
        if let Some((os, architecture, variant)) = platform {
            value["platform"] = json!({ "os": os, "architecture": architecture });
            if !variant.is_empty() {
                value["platform"]["variant"] = variant.into();
            }
        }
        value
    }

    fn index(manifests: &[Value]) -> Value {
        json!({ "schemaVersion": 2, "manifests": manifests })
    }

    #[test]
    fn an_index_leads_to_what_fits_this_machine() {
        let here = machine();
        let of = |byte, platform| descriptor(byte, MANIFEST, platform);
        let chosen = |manifests: &[Value]| match read(&index(manifests)).unwrap() {
            RemoteDocument::Index(blob) => blob.digest[7..9].to_owned(),
            RemoteDocument::Image(_) => panic!("no image"),
        };
        let other = of("aa", Some(("linux", "s390x", "")));
        let variant = of("bb", Some(("linux", here, "v99")));
        let plain = of("cc", Some(("linux", here, "")));
        let unnamed = of("dd", None);
        let all = [other.clone(), unnamed.clone(), variant.clone(), plain];
        assert_eq!(chosen(&all), "cc");
        assert_eq!(chosen(&[unnamed.clone(), variant, other.clone()]), "bb");
        assert_eq!(chosen(&[other.clone(), unnamed]), "dd");
        let unknown = of("ee", Some(("unknown", "unknown", "")));
        let windows = of("ff", Some(("windows", here, "")));
        let said = read(&index(&[other, unknown, windows])).unwrap_err().to_string();
        assert!(said.contains("linux/s390x, windows/"), "{said}");
        assert!(!said.contains("unknown"), "{said}");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let config = descriptor("aa", "application/vnd.oci.image.config.v1+json", None);
        let layer = descriptor("bb", "application/vnd.oci.image.layer.v1.tar+gzip", None);
        let image = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let RemoteDocument::Image(found) = read(&image).unwrap() else { panic!("an image") };
        assert_eq!((found.layers.len(), found.bytes()), (1, 7));
        let mut both = image.clone();
        both["manifests"] = json!([]);
        assert!(read(&both).unwrap_err().to_string().contains("at once"));
        assert!(read(&json!({ "schemaVersion": 2 })).unwrap_err().to_string().contains("no index"));
        let old = json!({ "schemaVersion": 1, "fsLayers": [] });
        assert!(read(&old).unwrap_err().to_string().contains("schema 1"));
        let mut bad = image;
        bad["layers"][0]["digest"] = "sha256:../../x".into();
        assert!(read(&bad).is_err());
    }
}
