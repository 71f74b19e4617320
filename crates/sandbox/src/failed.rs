//! Errors of system calls, with what was being done.

use std::io;

/// A step that failed: what was being done to what, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {error}")]
pub struct Failed {
    doing: String,
    error: io::Error,
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        Self::new(failed.error.kind(), failed.to_string())
    }
}

/// Adds what was being done to an error.
pub(crate) trait Doing<T> {
    /// `doing` completes the sentence "cannot …" and names the object.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failed> {
        self.map_err(|error| Failed { doing: doing().into(), error: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_and_the_kind_stay() {
        let missing = std::fs::read("/nowhere/x").doing(|| "read /nowhere/x").unwrap_err();
        let error = io::Error::from(missing);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().starts_with("cannot read /nowhere/x: No such file"));
    }
}
