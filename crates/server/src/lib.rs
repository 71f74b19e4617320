//! Data plane, API, scaler, providers, logs: the server behind `pinnace up`.
//!
//! [`proxy`] is the way of an invocation; [`api`] everything under `/system`; [`deployments`] the one place
//! where what is deployed changes; [`provider`] runs it; [`store`] keeps it; [`logs`] keeps what it prints;
//! [`serve`] puts them together.

#![forbid(unsafe_code)]

pub mod api;
pub mod catalog;
mod clock;
pub mod deployments;
mod descriptors;
mod down;
pub mod listeners;
pub mod logs;
mod metrics;
pub mod provider;
pub mod proxy;
pub mod replica;
mod serve;
pub mod settings;
pub mod state_dir;
pub mod stats;
pub mod store;
mod watched;

pub use down::{Down, down};
pub use serve::run;
pub use settings::Settings;

/// What this host can and cannot do for functions, a sentence each.
#[must_use]
pub fn doctor() -> pinnace_sandbox::host::Host {
    pinnace_sandbox::host::Host::probe()
}
