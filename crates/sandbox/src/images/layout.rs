//! OCI image layouts as a tar: `index.json` leads over indexes and manifests to configurations and layers,
//! all of them blobs named by their digest.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use pinnace_core::limits::{ARCHIVE_IMAGES_MAX, IMAGE_INDEX_DEPTH_MAX};
use serde::Deserialize;

use super::{
    error::{LoadError, printable},
    plan::{ImagePlan, LayerSource, Platform},
    spool::{Blob, Spool},
    stream::sha256_hex,
};

/// The file that makes an archive one of these.
pub(super) const INDEX: &str = "index.json";
const VERSION_FILE: &str = "oci-layout";
/// The whole name, as containerd and BuildKit write it.
const WHOLE_NAME: &str = "io.containerd.image.name";
/// The name, or only its tag, as the specification has it.
const NAME: &str = "org.opencontainers.image.ref.name";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutVersion {
    image_layout_version: String,
}

/// An image manifest that an index leads to.
struct Candidate {
    descriptor: Descriptor,
    platform: Option<Platform>,
}

/// The images of a layout: for each name the one that fits this machine.
pub(super) fn images(spool: &Spool) -> Result<Vec<ImagePlan>, LoadError> {
    check_version(spool)?;
    let index: ImageIndex = spool.need(INDEX, "the archive")?.json(INDEX)?;
    let mut named: BTreeMap<Option<String>, Vec<Candidate>> = BTreeMap::new();
    let mut count = 0;
    for descriptor in index.manifests() {
        let found = named.entry(name(descriptor)).or_default();
        collect(spool, descriptor, INDEX, 0, found, &mut count)?;
    }
    // What has no name beside images that have one only accompanies them.
    if named.len() > 1 {
        named.remove(&None);
    }
    named.into_iter().map(|(name, candidates)| choose(spool, name.as_deref(), candidates)).collect()
}

fn check_version(spool: &Spool) -> Result<(), LoadError> {
    let version: LayoutVersion =
        spool.need(VERSION_FILE, "the OCI image layout")?.json(VERSION_FILE)?;
    let version = version.image_layout_version;
    if version.starts_with("1.") {
        return Ok(());
    }
    let reason = format!("version `{}` is unknown; 1.x is known", printable(version.as_bytes()));
    Err(LoadError::unusable(VERSION_FILE, reason))
}

fn name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations.get(WHOLE_NAME).or_else(|| annotations.get(NAME)).cloned()
}

/// Gathers the image manifests below a descriptor.
fn collect(
    spool: &Spool,
    descriptor: &Descriptor,
    by: &str,
    depth: usize,
    found: &mut Vec<Candidate>,
    count: &mut usize,
) -> Result<(), LoadError> {
    *count += 1;
    if *count > ARCHIVE_IMAGES_MAX || depth > IMAGE_INDEX_DEPTH_MAX {
        return Err(LoadError::unusable(
            by,
            format!(
                "its indexes name more than {ARCHIVE_IMAGES_MAX} manifests (ARCHIVE_IMAGES_MAX) or lie \
                 more than {IMAGE_INDEX_DEPTH_MAX} deep (IMAGE_INDEX_DEPTH_MAX)"
            ),
        ));
    }
    match descriptor.media_type() {
        MediaType::ImageIndex => {}
        MediaType::Other(other) if other == DOCKER_LIST => {}
        MediaType::ImageManifest => return add(descriptor, found),
        MediaType::Other(other) if other == DOCKER_MANIFEST => return add(descriptor, found),
        // Signatures, bills of materials and the like.
        _ => return Ok(()),
    }
    let what = descriptor.digest().to_string();
    let index: ImageIndex = blob(spool, descriptor, by)?.json(&what)?;
    for inner in index.manifests() {
        collect(spool, inner, &what, depth + 1, found, count)?;
    }
    Ok(())
}

fn add(descriptor: &Descriptor, found: &mut Vec<Candidate>) -> Result<(), LoadError> {
    let platform = descriptor.platform().as_ref().map(|platform| Platform {
        os: platform.os().to_string(),
        architecture: platform.architecture().to_string(),
        variant: platform.variant().clone().unwrap_or_default(),
    });
    // BuildKit's attestations are manifests too, of a platform that is none.
    if platform.as_ref().is_none_or(|platform| platform.os != "unknown") {
        found.push(Candidate { descriptor: descriptor.clone(), platform });
    }
    Ok(())
}

/// The one of several manifests that fits this machine best.
fn choose(
    spool: &Spool,
    name: Option<&str>,
    candidates: Vec<Candidate>,
) -> Result<ImagePlan, LoadError> {
    let shown = name.map_or_else(|| "in the archive".to_owned(), |n| printable(n.as_bytes()));
    let mut best: Option<(u8, ImagePlan)> = None;
    let mut others = Vec::new();
    for Candidate { descriptor, platform } in candidates {
        if let Some(platform) = platform.as_ref().filter(|platform| platform.fit().is_none()) {
            others.push(platform.to_string());
            continue;
        }
        let plan = image(spool, name, &descriptor)?;
        let platform = platform.unwrap_or_else(|| plan.platform());
        match platform.fit() {
            Some(fit) if best.as_ref().is_none_or(|(best, _)| fit < *best) => {
                best = Some((fit, plan));
            }
            Some(_) => {}
            None => others.push(platform.to_string()),
        }
    }
    others.truncate(20);
    best.map(|(_, plan)| plan).ok_or_else(|| LoadError::Platform {
        name: shown,
        wanted: Platform::wanted(),
        found: if others.is_empty() { "nothing".into() } else { others.join(", ") },
    })
}

fn image(
    spool: &Spool,
    name: Option<&str>,
    descriptor: &Descriptor,
) -> Result<ImagePlan, LoadError> {
    let what = descriptor.digest().to_string();
    let manifest: ImageManifest = blob(spool, descriptor, INDEX)?.json(&what)?;
    let config_name = manifest.config().digest().to_string();
    let config = blob(spool, manifest.config(), &what)?.content(&config_name)?;
    let layers = manifest.layers().iter().map(|layer| {
        Ok(LayerSource {
            blob: blob(spool, layer, &what)?.clone(),
            media_type: Some(layer.media_type().to_string()),
        })
    });
    let layers = layers.collect::<Result<_, LoadError>>()?;
    ImagePlan::new(name.map(str::to_owned).into_iter().collect(), &config, &config_name, layers)
}

/// The blob that a descriptor describes. That its content has the digest of its name was checked when it
/// was spooled.
fn blob<'a>(spool: &'a Spool, descriptor: &Descriptor, by: &str) -> Result<&'a Blob, LoadError> {
    let digest = descriptor.digest().to_string();
    let Some(hex) = sha256_hex(&digest) else {
        let reason = format!("the digest `{}` is not a sha256", printable(digest.as_bytes()));
        return Err(LoadError::unusable(by, reason));
    };
    let blob = spool.need(&format!("blobs/sha256/{hex}"), by)?;
    blob.check_digest(&digest, &digest)?;
    if blob.bytes != descriptor.size() {
        return Err(LoadError::Size {
            what: digest,
            expected: descriptor.size(),
            found: blob.bytes,
        });
    }
    Ok(blob)
}
