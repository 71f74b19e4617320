//! Manifests and indexes: what they are made of and what they refer to.
//!
//! A registry keeps any form of manifest, so what is read here is what all forms have alike: a media type, and
//! descriptors at known places. Content that could be read both as a manifest and as an index is refused, since
//! two readers could see two images in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::{image::shown, limits::REGISTRY_MANIFEST_PARTS_MAX};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How the media types of the old form begin, which is signed and knows no configuration.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+";
/// Bytes of a media type (RFC 6838 section 4.2).
const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// What a registry needs to know of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub media_type: String,
    /// What it is made of, none twice.
    pub parts: Vec<Part>,
    /// The manifest that it says something about.
    pub subject: Option<Digest>,
    /// What it says it is, or its configuration is.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Something that a manifest is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Whether it is a manifest itself.
    pub is_manifest: bool,
}

/// Why content is not taken as a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// Not JSON of that form.
    #[error("the manifest is not the JSON of one: {0}")]
    Json(String),
    /// No media type, or one that is none.
    #[error("{0:?} is no media type: send the manifest's own as Content-Type")]
    MediaType(String),
    /// Two media types.
    #[error("the manifest says it is {said:?}, and it was sent as {sent:?}")]
    OtherType {
        /// In the document.
        said: String,
        /// In the request.
        sent: String,
    },
    /// The old form.
    #[error("the manifest has an old form (schema 1): push it again with a newer tool")]
    Schema1,
    /// Both at once.
    #[error("the manifest has layers and manifests, so that it can be read in two ways")]
    Ambiguous,
    /// A digest that is none.
    #[error(
        "the manifest refers to something by {0:?}, which is no digest: sha256: or sha512: and hexadecimal digits"
    )]
    Digest(String),
    /// Too many parts.
    #[error(
        "the manifest is made of {0} parts, at most {REGISTRY_MANIFEST_PARTS_MAX} (REGISTRY_MANIFEST_PARTS_MAX)"
    )]
    TooManyParts(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    /// As the artifacts of image-spec 1.1's first drafts had it.
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

/// A manifest as a list of referrers names it (end-12).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Referrer<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest that was sent as this media type, whose parameters do not count.
    ///
    /// # Errors
    /// It is none, or could be two.
    pub fn read(content: &[u8], content_type: Option<&str>) -> Result<Self, ManifestFault> {
        // A list of an object's values in their order would be read as that object.
        if content.trim_ascii_start().first() != Some(&b'{') {
            return Err(ManifestFault::Json("it is no object".to_owned()));
        }
        let document: Document = serde_json::from_slice(content)
            .map_err(|error| ManifestFault::Json(error.to_string()))?;
        let sent = content_type.map(|sent| sent.split(';').next().unwrap_or(sent).trim());
        let media_type = document.media_type(sent.filter(|sent| !sent.is_empty()))?;
        if document.schema_version == Some(1) || media_type.starts_with(SCHEMA_1) {
            return Err(ManifestFault::Schema1);
        }
        let has_layers = document.layers.is_some() || document.config.is_some();
        if has_layers && document.manifests.is_some() {
            return Err(ManifestFault::Ambiguous);
        }
        let subject = document.subject.as_ref().map(Descriptor::digest).transpose()?;
        let parts = document.parts()?;
        let config_type = document.config.map(|config| config.media_type);
        let artifact_type = document.artifact_type.filter(|kind| !kind.is_empty());
        let artifact_type = artifact_type.or(config_type).filter(|kind| !kind.is_empty());
        let annotations = document.annotations.unwrap_or_default();
        Ok(Self { media_type, parts, subject, artifact_type, annotations })
    }

    /// How a list of referrers names it, as JSON.
    #[must_use]
    pub fn referrer(&self, digest: &Digest, bytes: usize) -> String {
        let referrer = Referrer {
            media_type: &self.media_type,
            digest: digest.as_str(),
            size: bytes,
            artifact_type: self.artifact_type.as_deref(),
            annotations: &self.annotations,
        };
        // Texts and a number are always JSON.
        serde_json::to_string(&referrer).unwrap_or_default()
    }
}

impl Document {
    fn media_type(&self, sent: Option<&str>) -> Result<String, ManifestFault> {
        let said = self.media_type.as_deref().filter(|said| !said.is_empty());
        let found = match (said, sent) {
            (Some(said), Some(sent)) if said != sent => {
                return Err(ManifestFault::OtherType { said: shown(said), sent: shown(sent) });
            }
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) if self.manifests.is_some() => OCI_INDEX,
            (None, None) => OCI_MANIFEST,
        };
        if is_media_type(found) {
            Ok(found.to_owned())
        } else {
            Err(ManifestFault::MediaType(shown(found)))
        }
    }

    /// What it is made of, without what it says lies elsewhere.
    fn parts(&self) -> Result<Vec<Part>, ManifestFault> {
        let lists = [&self.layers, &self.blobs].into_iter().flatten().flatten();
        let blobs = self.config.iter().chain(lists).map(|blob| (blob, false));
        let manifests = self.manifests.iter().flatten().map(|manifest| (manifest, true));
        let here = blobs.chain(manifests).filter(|(descriptor, _)| !descriptor.is_elsewhere());
        let mut parts = here
            .map(|(descriptor, is_manifest)| Ok(Part { digest: descriptor.digest()?, is_manifest }))
            .collect::<Result<Vec<_>, ManifestFault>>()?;
        parts.sort();
        parts.dedup();
        match parts.len() {
            count if count > REGISTRY_MANIFEST_PARTS_MAX => Err(ManifestFault::TooManyParts(count)),
            _ => Ok(parts),
        }
    }
}

impl Descriptor {
    fn digest(&self) -> Result<Digest, ManifestFault> {
        Digest::parse(&self.digest).map_err(|_| ManifestFault::Digest(shown(&self.digest)))
    }

    /// Layers that may not be passed on stay where they are, and are not pushed.
    fn is_elsewhere(&self) -> bool {
        let is_kept_away = |word| self.media_type.contains(word);
        is_kept_away(".nondistributable.")
            || is_kept_away(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// `type/subtype`, both of the characters of a token (RFC 9110 section 5.6.2).
fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let is_mark = |c: char| "!#$%&'*+-.^_`|~".contains(c);
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || is_mark(c))
    };
    text.len() <= MEDIA_TYPE_BYTES_MAX
        && text.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(byte: char) -> String {
        format!("sha256:{}", byte.to_string().repeat(64))
    }

    fn blob(byte: char, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": digest(byte), "size": 1 })
    }

    fn read(document: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestFault> {
        Manifest::read(document.to_string().as_bytes(), content_type)
    }

    #[test]
    fn an_image_refers_to_what_it_is_made_of() {
        let image = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob('a', "x/config"),
            "layers": [blob('b', "x/tar"), blob('b', "x/tar"), blob('c', "x/layer.nondistributable.v1")],
            "subject": blob('d', OCI_MANIFEST), "annotations": { "k": "v" }, "unheard": [1],
        });
        let read = read(&image, Some(&format!("{OCI_MANIFEST}; charset=utf-8"))).unwrap();
        let parts: Vec<_> =
            read.parts.iter().map(|p| (p.digest.to_string(), p.is_manifest)).collect();
        assert_eq!(parts, [(digest('a'), false), (digest('b'), false)]);
        assert_eq!(read.subject.as_ref().unwrap().as_str(), digest('d'));
        assert_eq!(read.artifact_type.as_deref(), Some("x/config"));
        let own = Digest::parse(&digest('e')).unwrap();
        let told: Value = serde_json::from_str(&read.referrer(&own, 7)).unwrap();
        let expected = json!({
            "mediaType": OCI_MANIFEST, "digest": digest('e'), "size": 7,
            "artifactType": "x/config", "annotations": { "k": "v" },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn an_index_refers_to_manifests() {
        let index = json!({ "schemaVersion": 2, "manifests": [blob('a', OCI_MANIFEST)] });
        let read = read(&index, None).unwrap();
        assert_eq!((read.media_type.as_str(), read.artifact_type), (OCI_INDEX, None));
        assert!(read.parts[0].is_manifest);
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_in_none_is_refused() {
        let image = |field: &str, value: Value| {
            let mut image = json!({ "schemaVersion": 2, "layers": [blob('b', "x/tar")] });
            image[field] = value;
            image
        };
        for (document, content_type, word) in [
            (image("manifests", json!([])), None, "two ways"),
            (image("mediaType", json!("x/y")), Some("x/z"), "\"x/y\""),
            (image("mediaType", json!("nonsense")), None, "no media type"),
            (image("x", json!(1)), Some("a/b\u{7f}"), "no media type"),
            (image("schemaVersion", json!(1)), None, "schema 1"),
            (image("config", json!({ "digest": "sha256:00" })), None, "no digest"),
            (image("config", json!(1)), None, "not the JSON"),
            (json!([]), None, "not the JSON"),
        ] {
            let said = read(&document, content_type).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
        let many: Vec<_> = (0..=REGISTRY_MANIFEST_PARTS_MAX)
            .map(|number| json!({ "digest": format!("sha256:{number:064x}") }))
            .collect();
        let said = read(&json!({ "layers": many }), None).unwrap_err().to_string();
        assert!(said.contains("REGISTRY_MANIFEST_PARTS_MAX"), "{said}");
    }
}
