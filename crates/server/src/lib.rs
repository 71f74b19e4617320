//! Data plane, API, scaler, providers, logs: the server behind `pinnace up`.
//!
//! [`proxy`] is the way of an invocation; [`api`] everything under `/system`; [`deployments`] the one place
//! where what is deployed changes; [`namespaces`] and [`secrets`] are what it is deployed in and with; [`provider`]
//! runs it; [`store`] keeps it; [`logs`] keeps what it prints;
//! [`tokens`] are for those who call; [`serve`] puts it all together.

#![forbid(unsafe_code)]

pub mod api;
pub mod builder;
pub mod catalog;
pub mod certificate;
mod clock;
pub mod deployments;
mod descriptors;
pub mod distribution;
mod doctor;
mod down;
mod key_file;
pub mod listeners;
pub mod logs;
mod metrics;
pub mod namespaces;
mod pace;
pub mod provider;
pub mod proxy;
pub mod queue;
pub mod registry;
pub mod replica;
mod rest;
mod run_dir;
pub mod scaler;
pub mod schedules;
pub mod secrets;
mod serve;
pub mod settings;
mod spawners;
pub mod state_dir;
pub mod stats;
pub mod store;
mod tls;
pub mod tokens;
mod turns;
mod watched;

/// The git revision that this was built from, or `unknown`.
pub const REVISION: &str = env!("PINNACE_REVISION");

pub use doctor::{Check, Diagnosis, Group, Verdict, doctor};
pub use down::{Down, down};
pub use pinnace_sandbox::page_out;
pub use serve::run;
pub use settings::Settings;
pub use tls::TlsFault;
