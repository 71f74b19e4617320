//! What a build stands on: the layers under what it makes, and what they are known by.

use std::{os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc};

use pinnace_core::{build::Base, image::ImageConfig};
use pinnace_sandbox::images::{Image, ImageStore, Lease, StoreError};
use tokio::task::spawn_blocking;

use super::{Workshop, log::Log};
use crate::pace::Pace;

/// A base that is there.
#[derive(Clone, Debug, Default)]
pub struct Footing {
    /// Its layers' directories, lowest first.
    pub layers: Vec<PathBuf>,
    /// Its layers' diff_ids, lowest first.
    pub diff_ids: Vec<String>,
    /// Whether the host's own programs lie under those.
    pub on_host: bool,
    /// What it says of itself.
    pub config: ImageConfig,
    /// Another base has another one.
    pub identity: String,
    /// Keeps the layers.
    _lease: Option<Arc<Lease>>,
}

/// Directories in which packages of the host put and replace programs and libraries: what changes one of these
/// packages changes one of these times.
const HOST_DIRECTORIES: [&str; 5] =
    ["/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin", "/usr/local/lib"];

impl Workshop {
    /// Finds a base, or brings it.
    pub async fn footing(&self, base: &Base, log: &Log) -> Result<Footing, String> {
        match base {
            Base::Scratch => Ok(Footing { identity: "scratch".into(), ..Footing::default() }),
            Base::Host => {
                let identity = self.host_identity();
                Ok(Footing { on_host: true, identity, ..Footing::default() })
            }
            Base::Image(reference) => self.image(reference, log).await,
        }
    }

    fn host_identity(&self) -> String {
        // Named after what it holds, the linker's cache among it.
        let made_up = self.errands.host_root().host.file_name().unwrap_or_default();
        let mut identity = made_up.to_string_lossy().into_owned();
        for directory in HOST_DIRECTORIES {
            if let Ok(found) = std::fs::metadata(directory) {
                identity += &format!(" {directory} {}.{}", found.mtime(), found.mtime_nsec());
            }
        }
        identity
    }

    async fn image(&self, reference: &str, log: &Log) -> Result<Footing, String> {
        let image = match self.stored(reference).await? {
            Ok(image) => image,
            Err(error) if error.is_mended_by_pull() => self.pull(reference, log).await?,
            Err(error) => return Err(format!("base {reference}: {error}")),
        };
        let (images, digest) = (self.images.clone(), image.digest.clone());
        let diff_ids = spawn_blocking(move || images.diff_ids(&digest)).await;
        let diff_ids = diff_ids.map_err(|error| error.to_string())?;
        let diff_ids = diff_ids.map_err(|error| format!("base {reference}: {error}"))?;
        Ok(Footing {
            layers: image.layers,
            diff_ids,
            on_host: image.on_host,
            config: image.config,
            identity: image.digest,
            _lease: Some(image.lease),
        })
    }

    async fn stored(&self, reference: &str) -> Result<Result<Image, StoreError>, String> {
        let (images, reference) = (self.images.clone(), reference.to_owned());
        let found = spawn_blocking(move || images.resolve(&reference)).await;
        found.map_err(|error| format!("the image store failed: {error}"))
    }

    async fn pull(&self, reference: &str, log: &Log) -> Result<Image, String> {
        let failed = |error: &dyn std::fmt::Display| format!("base {reference}: {error}");
        let mut pulling = self.puller.pull(reference).map_err(|error| failed(&error))?;
        let mut pace = Pace::default();
        while let Some(progress) = pulling.news().await {
            if pace.is_due(&progress.step()) {
                log.say(format!("base: pulling {reference}: {progress}")).await;
            }
        }
        let pulled = pulling.end().await.map_err(|error| failed(&error))?;
        self.stored(&pulled.digest).await?.map_err(|error| failed(&error))
    }
}

impl Footing {
    /// It, with a further layer of the store over it.
    pub fn over(
        &self,
        images: &ImageStore,
        layer: Option<&pinnace_sandbox::images::HeldLayer>,
    ) -> Vec<PathBuf> {
        let above = layer.map(|layer| images.layer_dir(layer));
        self.layers.iter().cloned().chain(above).collect()
    }
}
