//! What the OCI distribution API says and what it means: paths, digests, ranges and manifests.
//!
//! Everything here is told what a client sent and answers what is meant by it, or why nothing is. Section names
//! (`end-2`) are those of the OCI distribution specification, version 1.1.

mod digest;
mod document;
mod manifest;
mod path;
mod range;

pub use digest::{Algorithm, Digest, DigestFault};
pub use document::{RegistryGarbage, RegistryImage, RegistryListing, local_reference};
pub use manifest::{Manifest, ManifestFault, Part};
pub use path::{Repository, Tag, Target, Wanted};
pub use range::{ByteRange, Chunk, ChunkFault, Page, chunk};
