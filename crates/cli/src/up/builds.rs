//! The flags of `pinnace up` that say how images are built.

use std::path::PathBuf;

use clap::Args;
use pinnace_core::limits;
use pinnace_server::builder::BuilderSettings;

use super::settings::{absolute, bytes, time};
use crate::args::number;

/// They, as they were typed.
#[derive(Args, Clone, Debug)]
pub struct BuildFlags {
    /// Images that are built at a time
    #[arg(long, value_name = "COUNT", default_value_t = limits::BUILDS_MAX_DEFAULT, value_parser = number::<usize>, allow_negative_numbers = true, help_heading = "Builds")]
    pub builds_max: usize,
    /// Memory of a command that a build runs
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "2Gi",
        allow_negative_numbers = true,
        help_heading = "Builds"
    )]
    pub build_memory: String,
    /// How long a command may run that a build runs
    #[arg(long, value_name = "TIME", default_value = "10m", help_heading = "Builds")]
    pub build_time_max: String,
    /// Build only what is signed with the secret in this file (header X-Build-Signature), which is then worth the password
    #[arg(long, value_name = "FILE", help_heading = "Builds")]
    pub payload_secret: Option<PathBuf>,
}

impl BuildFlags {
    /// What they say, or what is wrong with them.
    pub fn settings(&self, faults: &mut Vec<String>) -> Option<BuilderSettings> {
        let least = limits::MEMORY_BYTES_MIN;
        let memory_bytes = bytes("--build-memory", &self.build_memory, least, faults);
        let time_max = time("--build-time-max", &self.build_time_max, faults);
        if time_max.is_some_and(|time| time.is_zero()) {
            faults.push("--build-time-max 0 would end every build; give a time such as 10m".into());
        }
        if self.builds_max == 0 {
            faults.push("--builds-max 0 lets nothing be built; give at least 1".into());
        }
        let secret = self.payload_secret.as_deref();
        let payload_secret = secret.and_then(|file| absolute("--payload-secret", file, faults));
        Some(BuilderSettings {
            builds_max: self.builds_max,
            memory_bytes: memory_bytes?,
            time_max: time_max?,
            payload_secret,
        })
    }
}
