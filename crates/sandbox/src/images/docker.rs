//! `docker save` archives: `manifest.json` names configurations and layers by their files in the archive.
//!
//! Docker writes two forms, up to 24 with a directory and a `layer.tar` for each layer, since 25 as an OCI
//! image layout with a `manifest.json` beside. What is read here is common to both, and to the archives of
//! podman, skopeo, crane and Bazel.

use pinnace_core::limits::ARCHIVE_IMAGES_MAX;
use serde::Deserialize;

use super::{
    error::LoadError,
    plan::{ImagePlan, LayerSource},
    spool::{Spool, digest_in_name},
};

/// The file that makes an archive one of these.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive.
pub(super) fn images(spool: &Spool) -> Result<Vec<ImagePlan>, LoadError> {
    let items: Vec<Item> = spool.need(MANIFEST, "the archive")?.json(MANIFEST)?;
    if items.len() > ARCHIVE_IMAGES_MAX {
        return Err(LoadError::Limit {
            what: MANIFEST.into(),
            max: ARCHIVE_IMAGES_MAX as u64,
            unit: "images",
            limit: "ARCHIVE_IMAGES_MAX",
        });
    }
    items.into_iter().map(|item| image(spool, item)).collect()
}

fn image(spool: &Spool, item: Item) -> Result<ImagePlan, LoadError> {
    let config = spool.need(&item.config, MANIFEST)?;
    if let Some(digest) = digest_in_name(&item.config) {
        config.check_digest(&item.config, &digest)?;
    }
    let layers = item.layers.unwrap_or_default().into_iter().map(|name| {
        Ok(LayerSource { blob: spool.need(&name, MANIFEST)?.clone(), media_type: None })
    });
    ImagePlan::new(
        item.repo_tags.unwrap_or_default(),
        &config.content(&item.config)?,
        &item.config,
        layers.collect::<Result<_, LoadError>>()?,
    )
}
