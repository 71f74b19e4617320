//! What runs functions: the one interface of sandbox, Docker and Kubernetes.
//!
//! A provider is told what is wanted and works towards it by itself. It says what has become of it by
//! changing the function's [`Entry`]: its ready replicas and its standing.

pub mod keeper;
pub mod sandbox;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use pinnace_core::{FunctionRef, FunctionSpec, Network};

use crate::{
    catalog::{Deployed, Entry},
    logs::{LogQuery, LogStream},
    proxy::admission::Activate,
};

/// Runs functions somewhere.
pub trait Provider: Activate {
    /// Whether this function could run here, as far as that can be seen without running it.
    ///
    /// # Errors
    /// It could not: its image is not there, it has no command.
    fn check(&self, spec: &FunctionSpec) -> Result<(), Refusal>;

    /// A function is new, or has a new deploy; so many replicas of it are wanted.
    fn apply(&self, entry: &Arc<Entry>, deployed: Arc<Deployed>, wanted: u32);

    /// So many replicas are wanted from now on.
    fn want(&self, id: &FunctionRef, replicas: u32);

    /// A function is no more; its replicas are to end.
    fn remove(&self, id: &FunctionRef);

    /// A secret has another value: resolves once every replica that has it sees that.
    ///
    /// # Errors
    /// A replica still sees the old one.
    fn secret_changed<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), Refusal>>;

    /// Log lines of a function's replicas, those of ended ones too.
    ///
    /// # Errors
    /// They cannot be read, or too many follow already.
    fn logs<'a>(
        &'a self,
        id: &'a FunctionRef,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogStream, Refusal>>;

    /// What this host cannot enforce, a sentence each.
    fn missing(&self) -> Vec<String>;

    /// What functions have used and use, of these or of all that have replicas. It reads files: not for a thread
    /// that serves.
    fn used(&self, wanted: Option<&HashSet<FunctionRef>>) -> HashMap<FunctionRef, Used>;

    /// Resource use of a function's replicas: thousandths of a processor, bytes of memory.
    fn usage(&self, id: &FunctionRef) -> pinnace_core::wire::Usage;

    /// What a function reaches beside the platform: what it has chosen, or else what it has by default.
    fn network(&self, spec: &FunctionSpec) -> Network;
}

/// What the replicas of one function have used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Processor time in nanoseconds, of ended replicas too. It only grows.
    pub cpu_ns: u64,
    /// Memory in use now, in bytes.
    pub memory_bytes: u64,
}

/// Why a provider does not do it: a sentence, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be met as it is.
    #[error("{0}")]
    Unfit(String),
    /// A limit is reached; later it may pass.
    #[error("{0}")]
    Busy(String),
    /// The provider failed.
    #[error("{0}")]
    Broken(String),
}
