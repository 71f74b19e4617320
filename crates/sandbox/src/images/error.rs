//! What can go wrong with the store and with a load.

use std::{io, path::PathBuf};

use rustix::io::Errno;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store was made by the other kind of user.
    #[error(
        "the image store {} was made {found}; it cannot be used {wanted}: choose another state directory",
        dir.display()
    )]
    OtherOwnership {
        /// The store's directory.
        dir: PathBuf,
        /// How it was made.
        found: &'static str,
        /// How it was opened.
        wanted: &'static str,
    },
    /// Real owners need root.
    #[error(
        "the image store {} is to keep files with their real owners, which only root can",
        dir.display()
    )]
    NotRoot {
        /// The store's directory.
        dir: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} holds files but is no image store of this version: choose another directory", dir.display())]
    NotAStore {
        /// The directory.
        dir: PathBuf,
    },
    /// Not the form of an image reference.
    #[error("`{0}` is no image reference: write NAME:TAG, such as `registry.example/team/app:1.0`")]
    BadReference(String),
    /// Nothing under this reference.
    #[error(
        "no image `{0}` in the store: bring it there with `pinnace image load` or `pinnace image pull`"
    )]
    NoImage(String),
    /// A layer or an image that something points at is gone.
    #[error(
        "the image `{reference}` is damaged: {missing} is missing; remove the image and load it again"
    )]
    Damaged {
        /// The reference.
        reference: String,
        /// What is missing.
        missing: String,
    },
    /// A file of the store does not read as what it should be.
    #[error("{} is damaged ({reason}); remove it and load the image again", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the image is there, and whole, once it is pulled.
    #[must_use]
    pub fn is_mended_by_pull(&self) -> bool {
        matches!(self, Self::NoImage(_) | Self::Damaged { .. })
    }

    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// Whose fault a failed load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The archive, or how it was asked for.
    Archive,
    /// The archive is larger than a limit allows.
    TooLarge,
    /// The stream broke off or could not be read.
    Stream,
    /// The host: no space, no permission, a damaged store.
    Host,
}

/// Why an archive was not loaded. The store is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The stream gave an error.
    #[error("could not read the archive: {0}")]
    Read(#[source] io::Error),
    /// Something ended in its middle.
    #[error("{0} ends too early: the archive was cut off; send it again")]
    Truncated(String),
    /// Bad compressed data.
    #[error("{what} does not decompress: {source}")]
    Compression {
        /// What was being read.
        what: String,
        /// What the decoder said.
        source: io::Error,
    },
    /// More than a limit allows.
    #[error("{what}: more than {max} {unit}, which is the limit ({limit})")]
    Limit {
        /// What is too large.
        what: String,
        /// The limit's value.
        max: u64,
        /// Its unit.
        unit: &'static str,
        /// The limit's name.
        limit: &'static str,
    },
    /// Not an image at all.
    #[error(
        "this archive holds no image: neither manifest.json (`docker save`) nor index.json (OCI image \
         layout) is in it; the tar of a root directory must be loaded as a root directory"
    )]
    NotAnImage,
    /// A content does not have the digest that it is named by.
    #[error("{what} is damaged: expected {expected}, found {found}")]
    Digest {
        /// What was checked.
        what: String,
        /// The digest it must have.
        expected: String,
        /// The digest it has.
        found: String,
    },
    /// A blob does not have the size that it is described by.
    #[error("{what} is damaged: expected {expected} bytes, found {found}")]
    Size {
        /// What was checked.
        what: String,
        /// Bytes it must have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// Not the JSON that it must be.
    #[error("{what} is not valid: {source}")]
    Json {
        /// Which document.
        what: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A file that another one names is not in the archive.
    #[error("{by} names {name}, which is not in the archive")]
    Missing {
        /// The file that is not there.
        name: String,
        /// What names it.
        by: String,
    },
    /// Something in the archive cannot be used.
    #[error("{what}: {reason}")]
    Unusable {
        /// What.
        what: String,
        /// Why, and what to change.
        reason: String,
    },
    /// A tar is malformed.
    #[error("{what} is not a valid tar: {reason}")]
    Tar {
        /// Which tar.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of a layer is refused.
    #[error("{what}: `{path}` is refused: {fault}")]
    Entry {
        /// Which layer.
        what: String,
        /// The entry.
        path: String,
        /// Why.
        #[source]
        fault: EntryFault,
    },
    /// An entry of a layer could not be written.
    #[error("{what}: could not write `{path}`: {source}")]
    Write {
        /// Which layer.
        what: String,
        /// The entry.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No image for this machine.
    #[error("the image {name} is not made for this machine ({wanted}) but for: {found}")]
    Platform {
        /// The image.
        name: String,
        /// This machine.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The archive does not say how its image is called, or a name fits no single image.
    #[error("{0}")]
    Naming(String),
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoadError {
    /// Whose fault it is; decides the status of an HTTP answer.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Read(_) | Self::Truncated(_) => Cause::Stream,
            Self::Limit { .. } => Cause::TooLarge,
            Self::Write { .. } => Cause::Host,
            Self::Store(StoreError::BadReference(_)) => Cause::Archive,
            Self::Store(_) => Cause::Host,
            _ => Cause::Archive,
        }
    }

    /// Carries this error through a chain of readers; [`LoadError::from_reader`] finds it again.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// The meaning of an error that a chain of readers gave while it read `what`.
    pub(super) fn from_reader(what: &str, error: io::Error) -> Self {
        match error.downcast::<LoadError>() {
            Ok(own) => own,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Truncated(what.to_owned())
            }
            Err(source) => Self::Compression { what: what.to_owned(), source },
        }
    }

    pub(super) fn unusable(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unusable { what: what.into(), reason: reason.into() }
    }

    /// An entry's fault, with the entry named.
    pub(super) fn entry(what: &str, path: &[u8], fault: EntryFault) -> Self {
        let (what, path) = (what.to_owned(), printable(path));
        match fault {
            EntryFault::System(errno) => Self::Write { what, path, source: errno.into() },
            fault => Self::Entry { what, path, fault },
        }
    }
}

/// Why an entry of a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum EntryFault {
    /// A `..` in the path.
    #[error("its path goes upwards with `..`")]
    Upwards,
    /// A NUL byte in the path.
    #[error("its path has a NUL byte in it")]
    NulByte,
    /// Path or link target too long.
    #[error("its path or link target is empty or longer than the system allows")]
    Length,
    /// Too deep.
    #[error("it lies more than {0} directories deep (LAYER_DEPTH_MAX)")]
    TooDeep(usize),
    /// A whiteout that names no file.
    #[error("it is a whiteout for `.`, `..` or nothing")]
    Whiteout,
    /// Something under a whiteout.
    #[error("it lies under a whiteout, which is no directory")]
    UnderWhiteout,
    /// A link in the path that goes above the layer.
    #[error("a symbolic link in its path leads out of the layer")]
    LeadsOut,
    /// Links without end.
    #[error("there are too many symbolic links in its path")]
    TooManyLinks,
    /// A file where a directory must be.
    #[error("what lies above it is no directory")]
    ParentNotDirectory,
    /// The layer's own directory as something else.
    #[error("it stands for the root directory but is none")]
    RootNotDirectory,
    /// A hard link that cannot be made within the layer.
    #[error("it is a hard link to `{target}`, {reason}")]
    HardLink {
        /// Where it leads.
        target: String,
        /// Why that cannot be.
        reason: &'static str,
    },
    /// A device outside of dev/.
    #[error("it is a device; devices are allowed (and left out) only below dev/")]
    Device,
    /// An owner that no sandbox has.
    #[error("its owner or group is {0}, and a sandbox has the ids 0 to 65535 only")]
    Id(u64),
    /// A form of entry that cannot be unpacked.
    #[error("it is {0}, which cannot be unpacked")]
    Unsupported(&'static str),
    /// Too many directories that lock their owner out.
    #[error("the layer has too many directories that their owner may not enter")]
    TooManyLocked,
    /// The system refused.
    #[error("{0}")]
    System(#[from] Errno),
}

/// A path as it can be shown: one line, at most 200 characters.
pub(super) fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().take(200).collect()
}
