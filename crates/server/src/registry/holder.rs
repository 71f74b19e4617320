//! Who holds an image: a registry somewhere, or this server's own, which needs no HTTP and no credentials.

use std::{path::Path, sync::Arc};

use pinnace_core::{
    distribution::{Digest, Repository as Name, Wanted},
    image::Reference,
    limits,
};
use pinnace_sandbox::images::RemoteBlob;

use super::{
    blob, blocking,
    error::{PullError, PullFault},
    progress::Teller,
    repository::{Part, Repository},
};
use crate::distribution::{Blob, Distribution, DistributionError, Fault, OwnHosts};

/// The registry of this server, and how references name it.
#[derive(Clone, Debug)]
pub struct OwnRegistry {
    /// Its names.
    pub hosts: OwnHosts,
    /// What it has.
    pub store: Arc<Distribution>,
}

/// Where an image's documents and layers are.
pub(super) enum Holder<'a> {
    /// A repository of a registry.
    Remote(Box<Repository<'a>>),
    /// A repository of ours.
    Own(OwnRepository),
}

/// A repository of this server.
pub(super) struct OwnRepository {
    store: Arc<Distribution>,
    name: Name,
    host: String,
}

impl OwnRegistry {
    /// Whether a reference is one of this server's.
    #[must_use]
    pub fn is_of(&self, reference: &Reference) -> bool {
        self.hosts.have(reference.registry())
    }

    /// Whether a reference of this server's leads to something. Blocks.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub fn has(&self, reference: &Reference) -> Result<bool, DistributionError> {
        let name = Name::parse(reference.repository());
        let wanted = Wanted::parse(reference.wanted())?;
        let Some((name, wanted)) = name.zip(wanted) else { return Ok(false) };
        match self.store.manifest(&name, &wanted) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Fault::ManifestUnknown => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The repository that a reference names.
    pub(super) fn repository(&self, reference: &Reference) -> Result<OwnRepository, PullError> {
        let name = Name::parse(reference.repository());
        let name =
            name.ok_or_else(|| PullError::new(PullFault::Reference, "it is no repository"))?;
        Ok(OwnRepository { store: self.store.clone(), name, host: reference.registry().to_owned() })
    }
}

impl Holder<'_> {
    /// How errors call it.
    pub(super) fn server(&self) -> &str {
        match self {
            Self::Remote(repository) => repository.server(),
            Self::Own(own) => &own.host,
        }
    }

    /// A manifest or an index, by tag or digest, and the digest that its holder names.
    pub(super) async fn document(
        &self,
        wanted: &str,
        what: &str,
    ) -> Result<(Option<String>, Vec<u8>), PullError> {
        match self {
            Self::Remote(repository) => {
                let part = Part::Manifest(wanted);
                repository.get_patiently(&part, limits::IMAGE_JSON_BYTES_MAX, what).await
            }
            Self::Own(own) => own.document(wanted).await,
        }
    }

    /// All of a small blob.
    pub(super) async fn content(
        &self,
        blob: &RemoteBlob,
        bytes_max: u64,
        what: &str,
    ) -> Result<Vec<u8>, PullError> {
        match self {
            Self::Remote(repository) => {
                let part = Part::Blob(&blob.digest, 0);
                Ok(repository.get_patiently(&part, bytes_max, what).await?.1)
            }
            Self::Own(own) => own.content(blob, bytes_max).await,
        }
    }

    /// Brings a blob to `path`. Nobody else may write there meanwhile.
    pub(super) async fn fetch(
        &self,
        blob: &RemoteBlob,
        path: &Path,
        teller: &Teller,
    ) -> Result<(), PullError> {
        match self {
            Self::Remote(repository) => blob::fetch(repository, blob, path, teller).await,
            Self::Own(own) => own.fetch(blob, path, teller).await,
        }
    }
}

impl OwnRepository {
    async fn document(&self, wanted: &str) -> Result<(Option<String>, Vec<u8>), PullError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        let wanted = wanted.to_owned();
        blocking(move || {
            let wanted = Wanted::parse(&wanted)?.ok_or_else(|| {
                DistributionError::new(Fault::ManifestUnknown, format!("{wanted} is no tag"))
            })?;
            let manifest = store.manifest(&name, &wanted)?;
            Ok::<_, DistributionError>((Some(manifest.digest.to_string()), manifest.content))
        })
        .await
    }

    async fn content(&self, blob: &RemoteBlob, bytes_max: u64) -> Result<Vec<u8>, PullError> {
        let found = self.open(blob).await?;
        if found.bytes > bytes_max {
            let text = format!("{} has more than {bytes_max} bytes", blob.digest);
            return Err(PullError::registry(text));
        }
        blocking(move || found.content()).await
    }

    /// The store unpacks from there, and removes the name when it has. That the content has its digest was known
    /// before the registry took it, and what is unpacked is checked against another one.
    async fn fetch(
        &self,
        blob: &RemoteBlob,
        path: &Path,
        teller: &Teller,
    ) -> Result<(), PullError> {
        let (found, path) = (self.open(blob).await?, path.to_owned());
        let bytes = found.bytes;
        blocking(move || found.link_to(&path)).await?;
        teller.change(|progress| progress.bytes += bytes);
        Ok(())
    }

    async fn open(&self, blob: &RemoteBlob) -> Result<Blob, PullError> {
        let (store, name, digest) = (self.store.clone(), self.name.clone(), blob.digest.clone());
        let found = blocking(move || store.blob(&name, &Digest::parse(&digest)?)).await?;
        if found.bytes != blob.bytes {
            let (digest, said, bytes) = (&blob.digest, blob.bytes, found.bytes);
            let text =
                format!("the manifest says that {digest} has {said} bytes, and it has {bytes}");
            return Err(PullError::registry(text));
        }
        Ok(found)
    }
}

impl From<DistributionError> for PullError {
    fn from(error: DistributionError) -> Self {
        let kind = match error.kind() {
            Fault::BlobUnknown | Fault::ManifestUnknown | Fault::NameUnknown => PullFault::NotFound,
            Fault::Full | Fault::Broken => PullFault::Host,
            _ => PullFault::Registry,
        };
        Self::new(kind, error.to_string())
    }
}
