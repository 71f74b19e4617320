//! What a function platform is, without the platform: names, specs, limits, scaling rules.
//!
//! Nothing here does I/O, reads a clock or holds a lock. Decisions are plain state machines that are
//! told what happened and when, and answer with what to do; the loops around them live in
//! `pinnace-server`. Everything is therefore tested by calling it.

#![forbid(unsafe_code)]

pub mod build;
pub mod distribution;
pub mod duration;
pub mod exit;
pub mod image;
pub mod limits;
pub mod name;
pub mod namespace;
pub mod network;
pub mod probes;
pub mod quantity;
pub mod queue;
pub mod resolvers;
pub mod retry;
pub mod scaling;
pub mod schedule;
pub mod secret;
pub mod slots;
pub mod spec;
pub mod supervision;
pub mod token;
pub mod wire;

pub use exit::Exit;
pub use name::{FunctionRef, NameError};
pub use namespace::Namespace;
pub use network::Network;
pub use resolvers::Resolvers;
pub use spec::FunctionSpec;
