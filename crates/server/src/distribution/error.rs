//! Why the registry did not do what it was asked.

use std::{io, path::Path};

use pinnace_core::{
    distribution::{Digest, DigestFault, ManifestFault, Repository},
    limits,
};
use rusqlite::ErrorCode;

/// Why the registry did not do what it was asked: a sentence, and what kind of fault it is.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct DistributionError {
    kind: Fault,
    text: String,
}

/// Kinds of faults; the API has a status and a code for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The repository has no such blob.
    BlobUnknown,
    /// The repository has no such manifest.
    ManifestUnknown,
    /// There is no such repository.
    NameUnknown,
    /// A name that can be none.
    NameInvalid,
    /// There is no such upload.
    UploadUnknown,
    /// An upload was used in a way that it cannot be.
    UploadInvalid,
    /// What comes does not begin where the upload stands.
    OutOfOrder,
    /// No digest, or not that of the content.
    DigestInvalid,
    /// Not as many bytes as were said.
    SizeInvalid,
    /// No manifest.
    ManifestInvalid,
    /// A manifest whose parts are not there.
    ManifestBlobUnknown,
    /// More than a limit allows.
    TooLarge,
    /// More tags than one request may name.
    TooManyTags,
    /// As much is going on as may be.
    TooMany,
    /// A part of a manifest.
    InUse,
    /// The request cannot be read.
    Request,
    /// The disk takes no more.
    Full,
    /// This host.
    Broken,
}

impl DistributionError {
    /// A fault and its sentence.
    pub fn new(kind: Fault, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> Fault {
        self.kind
    }

    /// Something that the file system refused.
    pub(super) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Full,
            _ => Fault::Broken,
        };
        Self::new(kind, format!("the registry could not {doing} {}: {error}", path.display()))
    }

    /// A disk with too little room for what is to come.
    pub(super) fn full(left_bytes: u64) -> Self {
        let (left, kept) = (left_bytes >> 20, limits::REGISTRY_DISK_LEFT_BYTES_MIN >> 20);
        Self::new(
            Fault::Full,
            format!(
                "the disk is full: {left} MiB are left, and pushes leave {kept} MiB to functions, queued calls and \
                 logs (REGISTRY_DISK_LEFT_BYTES_MIN); make room, by `pinnace registry gc` for instance, and push again"
            ),
        )
    }

    /// No such blob.
    pub(super) fn no_blob(repository: &Repository, digest: &Digest) -> Self {
        Self::new(Fault::BlobUnknown, format!("repository {repository} has no blob {digest}"))
    }

    /// No such manifest.
    pub fn no_manifest(repository: &Repository, wanted: &impl std::fmt::Display) -> Self {
        Self::new(
            Fault::ManifestUnknown,
            format!("repository {repository} has no manifest {wanted:.200}"),
        )
    }

    /// No such repository.
    pub(super) fn no_repository(repository: &Repository) -> Self {
        Self::new(Fault::NameUnknown, format!("there is no repository {repository}"))
    }

    /// Content that is not what its name says.
    pub(super) fn lie(expected: &Digest, found: &Digest) -> Self {
        Self::new(
            Fault::DigestInvalid,
            format!(
                "what was sent is not {expected}: its digest is {found}; nothing of it is kept"
            ),
        )
    }
}

impl From<DigestFault> for DistributionError {
    fn from(fault: DigestFault) -> Self {
        Self::new(Fault::DigestInvalid, fault.to_string())
    }
}

impl From<ManifestFault> for DistributionError {
    fn from(fault: ManifestFault) -> Self {
        Self::new(Fault::ManifestInvalid, fault.to_string())
    }
}

impl From<rusqlite::Error> for DistributionError {
    fn from(error: rusqlite::Error) -> Self {
        let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let kind = if is_full { Fault::Full } else { Fault::Broken };
        Self::new(kind, format!("the registry's database: {error}"))
    }
}
