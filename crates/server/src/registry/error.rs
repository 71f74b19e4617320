//! Why an image was not pulled.

use std::time::Duration;

use pinnace_sandbox::images::{Cause, LoadError, StoreError};

/// Why an image was not pulled: a sentence, and whose fault it is. Holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct PullError {
    text: String,
    kind: PullFault,
    again: Again,
}

/// Whose fault a failed pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFault {
    /// The reference names nothing that could be pulled.
    Reference,
    /// The registry does not have it.
    NotFound,
    /// The registry does not give it to us.
    Denied,
    /// It is larger than a limit allows.
    TooLarge,
    /// It is no image that runs here.
    Image,
    /// As many pulls as may be are known already.
    Busy,
    /// The registry cannot be reached, or does not do what it should.
    Registry,
    /// This host.
    Host,
}

/// Whether the same request may succeed when it is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    /// Perhaps, after the time that the registry asks for, if it does.
    Perhaps(Option<Duration>),
}

impl PullError {
    pub(super) fn new(kind: PullFault, text: impl Into<String>) -> Self {
        Self { text: text.into(), kind, again: Again::Never }
    }

    /// The registry's fault, and trying again is of no use.
    pub(super) fn registry(text: impl Into<String>) -> Self {
        Self::new(PullFault::Registry, text)
    }

    /// A fault that may pass.
    pub(super) fn passing(text: impl Into<String>, asked: Option<Duration>) -> Self {
        Self { again: Again::Perhaps(asked), ..Self::registry(text) }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn kind(&self) -> PullFault {
        self.kind
    }

    pub(super) fn again(&self) -> Again {
        self.again
    }

    /// The same with the image named.
    pub(super) fn of(self, reference: &str) -> Self {
        Self { text: format!("cannot pull {reference}: {}", self.text), ..self }
    }

    /// Whether another source of the same image may do better.
    pub(super) fn is_of_this_source(&self) -> bool {
        !matches!(self.kind, PullFault::Host | PullFault::TooLarge | PullFault::Reference)
    }
}

impl From<LoadError> for PullError {
    fn from(error: LoadError) -> Self {
        let kind = match error.cause() {
            Cause::Archive | Cause::Stream => PullFault::Image,
            Cause::TooLarge => PullFault::TooLarge,
            Cause::Host => PullFault::Host,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        Self::new(PullFault::Host, error.to_string())
    }
}
