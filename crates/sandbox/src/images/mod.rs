//! The image store: images as directories that an overlay can be mounted from.
//!
//! [`ImageStore::load`] reads one stream, an archive as `docker save` or an OCI tool writes it, or the
//! tar of a root directory. The stream cannot seek and its index may come last, so its files are spooled
//! to disk while they are hashed; then each layer that the store does not have yet is unpacked beside the
//! store, and when all of the archive has proved whole, everything is made durable and renamed into place.
//! An error or a crash before that leaves the store as it was.
//!
//! ```text
//! DIR/format                        which kind of store this is
//! DIR/layers/sha256/HEX/fs          a layer, named by its diff_id, whiteouts in overlayfs form
//! DIR/layers/sha256/HEX/layer.json  its size
//! DIR/images/sha256/HEX.json        an image, named by the digest of its configuration
//! DIR/references/HEX.json           a reference (HEX is its hash) and the image it stands for
//! DIR/pins/HEX.json                the image that a deploy was resolved to; HEX is its owner's hash
//! DIR/partial/HEX                  what has come of a blob that is pulled, named by its digest
//! DIR/tmp/N                         what a load or a removal is at work on; swept when the store opens
//! ```
//!
//! References point at images and images at layers. Nothing points at an image or a layer whose last
//! reference is gone, unless it is pinned by a deploy, leased (a load under way, an [`Image`] that somebody
//! holds) or in use by a replica; [`ImageStore::collect_garbage`] removes what nothing points at.
//!
//! What a layer holds was written by strangers. Every path is taken apart by `path` before it is used,
//! and every file is made by name in a directory that was opened below the layer's own (`openat2`, beneath
//! and without links), so that nothing can be written outside of it.

mod built;
mod config;
mod docker;
mod entries;
mod error;
mod export;
mod harvest;
mod labels;
mod layered;
mod layout;
mod lease;
mod load;
mod parents;
mod path;
mod pax;
mod pins;
mod plan;
mod pull;
mod record;
mod remote;
mod spool;
mod store;
mod stream;
mod tree;
mod unpack;
mod user;
mod watchdog;

pub use built::{HeldLayer, Source, Stamp};
pub use entries::listed;
pub use error::{Cause, EntryFault, LoadError, StoreError};
pub use harvest::{HarvestError, Yield, lay_out, measure};
pub use lease::Lease;
pub use load::{ArchiveKind, LoadOptions, Progress};
pub use pull::PullPlan;
pub use remote::{RemoteBlob, RemoteDocument, RemoteManifest};
pub use store::{Collected, Image, ImageStore, Ownership};

/// Removes a directory with all that a stranger has put there. Links are removed, not followed.
///
/// # Errors
/// Those of the system.
pub fn remove_tree(path: &std::path::Path) -> std::io::Result<()> {
    Ok(tree::remove_path(path)?)
}
