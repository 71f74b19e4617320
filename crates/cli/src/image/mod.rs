//! An image on its way to the server: an archive as it is, a directory as an archive made on the way.

mod pack;

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::Context;

/// What the bytes are, in the words of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What `docker save` writes, or an OCI layout.
    Archive,
    /// A root directory.
    RootDir,
}

impl Kind {
    /// Its word in the query.
    pub fn word(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::RootDir => "rootdir",
        }
    }
}

/// An image to send.
pub struct Upload {
    /// The bytes.
    pub body: Box<dyn Read + Send>,
    /// What they are.
    pub kind: Kind,
    /// How many, if that is known.
    pub bytes: Option<u64>,
    /// What is left out of a directory, known once it has been read.
    pub left_out: pack::LeftOut,
}

impl Upload {
    /// Opens an archive, a directory, or standard input (`-`).
    ///
    /// # Errors
    /// It is not there or cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let left_out = pack::LeftOut::default();
        if path == Path::new("-") {
            let body = Box::new(Source::new(io::stdin(), "standard input"));
            return Ok(Self { body, kind: Kind::Archive, bytes: None, left_out });
        }
        let shown = path.display();
        let metadata = path.metadata().with_context(|| format!("reading {shown}"))?;
        if metadata.is_dir() {
            let is_layout = path.join("oci-layout").is_file();
            let kind = if is_layout { Kind::Archive } else { Kind::RootDir };
            let body = Box::new(pack::Packed::start(path, left_out.clone())?);
            return Ok(Self { body, kind, bytes: None, left_out });
        }
        let file = File::open(path).with_context(|| format!("reading {shown}"))?;
        let bytes = metadata.is_file().then_some(metadata.len());
        let body = Box::new(Source::new(file, &shown.to_string()));
        Ok(Self { body, kind: Kind::Archive, bytes, left_out })
    }
}

/// A body whose read errors name it: else they would look like errors of the connection.
pub struct Source<R> {
    inner: R,
    name: String,
}

impl<R> Source<R> {
    /// A body under a name for people.
    pub fn new(inner: R, name: &str) -> Self {
        Self { inner, name: name.to_owned() }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => SourceError::wrap(format!("reading {}: {error}", self.name)),
        })
    }
}

/// Why a body could not be read, as opposed to sent.
#[derive(Debug)]
pub struct SourceError(String);

impl SourceError {
    /// A sentence as an I/O error that can be told from those of the connection.
    pub fn wrap(text: String) -> io::Error {
        io::Error::other(Self(text))
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SourceError {}
