//! What an archive says an image is made of, checked before anything is unpacked.

use oci_spec::image::ImageConfiguration;
use pinnace_core::limits::LAYERS_MAX;

use super::{
    error::{LoadError, printable},
    spool::{Blob, parse},
    stream::{digest_of, sha256_hex},
};

/// An image of an archive.
pub(super) struct ImagePlan {
    /// The names that the archive gives it.
    pub names: Vec<String>,
    /// Digest of its configuration.
    pub digest: String,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Its layers, lowest first, as many as the configuration has diff_ids.
    pub layers: Vec<LayerSource>,
}

/// Where a layer is in the archive.
pub(super) struct LayerSource {
    /// Its file, perhaps compressed.
    pub blob: Blob,
    /// What the manifest says it is.
    pub media_type: Option<String>,
}

impl ImagePlan {
    /// Takes an image's configuration apart; errors call it `what`.
    pub(super) fn new(
        names: Vec<String>,
        config: &[u8],
        what: &str,
        layers: Vec<LayerSource>,
    ) -> Result<Self, LoadError> {
        let digest = digest_of(config);
        let config: ImageConfiguration = parse(config, what)?;
        let diff_ids = config.rootfs().diff_ids();
        let what = printable(what.as_bytes());
        if diff_ids.len() != layers.len() {
            let reason =
                format!("it names {} layers, and the manifest {}", diff_ids.len(), layers.len());
            return Err(LoadError::Unusable { what, reason });
        }
        if layers.len() > LAYERS_MAX {
            let max = LAYERS_MAX as u64;
            return Err(LoadError::Limit { what, max, unit: "layers", limit: "LAYERS_MAX" });
        }
        if let Some(bad) = diff_ids.iter().find(|id| sha256_hex(id).is_none()) {
            let reason = format!("`{}` is no sha256 digest of a layer", printable(bad.as_bytes()));
            return Err(LoadError::Unusable { what, reason });
        }
        for layer in &layers {
            layer.check_media_type()?;
        }
        Ok(Self { names, digest, config, layers })
    }

    /// The platform that the configuration names.
    pub(super) fn platform(&self) -> Platform {
        Platform {
            os: self.config.os().to_string(),
            architecture: self.config.architecture().to_string(),
            variant: self.config.variant().clone().unwrap_or_default(),
        }
    }

    /// How errors call the image.
    pub(super) fn name(&self) -> String {
        self.names.first().map_or_else(|| self.digest.clone(), |name| printable(name.as_bytes()))
    }

    /// Refuses an image of another platform.
    pub(super) fn check_platform(&self) -> Result<(), LoadError> {
        let platform = self.platform();
        if platform.fit().is_some() {
            return Ok(());
        }
        Err(LoadError::Platform {
            name: self.name(),
            wanted: Platform::wanted(),
            found: platform.to_string(),
        })
    }
}

impl LayerSource {
    /// Refuses layers that are no tars, such as encrypted ones. How a tar is compressed, its content says.
    fn check_media_type(&self) -> Result<(), LoadError> {
        let Some(media_type) = &self.media_type else { return Ok(()) };
        let known = ["tar", "tar+gzip", "tar+zstd", "tar.gzip", "tar.zstd", "tar.gz"];
        if known.iter().any(|end| media_type.strip_suffix(end).is_some_and(|m| m.ends_with('.'))) {
            return Ok(());
        }
        Err(LoadError::unusable(
            format!("the layer {}", self.blob.digest),
            format!("its media type `{}` is none of a tar", printable(media_type.as_bytes())),
        ))
    }
}

/// What an image is made to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Platform {
    /// Operating system; old images leave it empty.
    pub os: String,
    /// Architecture as Go names it; old images leave it empty.
    pub architecture: String,
    /// Variant of the architecture.
    pub variant: String,
}

impl Platform {
    /// How well it fits this machine, 0 best; `None` if not at all.
    pub(super) fn fit(&self) -> Option<u8> {
        let os = self.os.is_empty() || self.os == "linux";
        let architecture = self.architecture.is_empty() || self.architecture == machine();
        if !os || !architecture {
            return None;
        }
        // Without a variant an image runs on every machine of the architecture.
        let plain = match machine() {
            "arm64" => matches!(self.variant.as_str(), "" | "v8"),
            "arm" => matches!(self.variant.as_str(), "" | "v6" | "v7"),
            _ => self.variant.is_empty(),
        };
        Some(u8::from(!plain))
    }

    /// This machine.
    pub(super) fn wanted() -> String {
        format!("linux/{}", machine())
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let part = |text: &str| printable(if text.is_empty() { b"?" } else { text.as_bytes() });
        write!(f, "{}/{}", part(&self.os), part(&self.architecture))?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", part(&self.variant)) }
    }
}

/// This machine's architecture as Go names it.
pub(super) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn platforms_fit_or_not() {
        let platform = |os: &str, architecture: &str, variant: &str| Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        assert_eq!(platform("linux", machine(), "").fit(), Some(0));
        assert_eq!(platform("", "", "").fit(), Some(0));
        assert_eq!(platform("linux", machine(), "v99").fit(), Some(1));
        assert_eq!(platform("linux", "s390x", "").fit(), None);
        assert_eq!(platform("windows", machine(), "").fit(), None);
    }

    #[test]
    fn media_types_are_those_of_tars() {
        let layer = |media_type: &str| {
            let blob = Blob { path: PathBuf::new(), digest: "sha256:x".into(), bytes: 0 };
            LayerSource { blob, media_type: Some(media_type.into()) }.check_media_type()
        };
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            layer(good).unwrap();
        }
        for bad in
            ["application/wasm", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "", "tar"]
        {
            assert!(layer(bad).unwrap_err().to_string().contains("media type"), "{bad}");
        }
    }
}
