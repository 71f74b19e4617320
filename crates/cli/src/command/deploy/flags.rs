//! Flags that `pinnace deploy` and `pinnace store deploy` share.

use std::time::Duration;

use clap::Args;
use pinnace_core::duration;

use super::How;
use crate::{args::pair, failure::usage};

/// What is laid over a function's own definition.
#[derive(Args, Debug)]
pub struct OverlayArgs {
    /// Environment
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Function")]
    pub env: Vec<(String, String)>,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Function")]
    pub label: Vec<(String, String)>,
    /// Annotation
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Function")]
    pub annotation: Vec<(String, String)>,
    /// Secret to mount
    #[arg(long, value_name = "NAME", help_heading = "Function")]
    pub secret: Vec<String>,
    /// Placement constraint; kept, and without effect on one host
    #[arg(long, value_name = "TEXT", help_heading = "Function")]
    pub constraint: Vec<String>,
    /// Most memory of a replica, such as 128Mi
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    pub memory_limit: Option<String>,
    /// Most processor time of a replica, such as 500m
    #[arg(long, value_name = "CPU", help_heading = "Resources")]
    pub cpu_limit: Option<String>,
    /// Memory asked for; kept, and without effect on one host
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    pub memory_request: Option<String>,
    /// Processor time asked for; kept, and without effect on one host
    #[arg(long, value_name = "CPU", help_heading = "Resources")]
    pub cpu_request: Option<String>,
}

/// How a function comes to the gateway, and how long that may take.
#[derive(Args, Debug)]
pub struct RolloutArgs {
    /// Update a function that is already there; with =false it must be new
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help_heading = "Rollout")]
    update: Option<bool>,
    /// Remove the function first
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL",
          hide_default_value = true, hide_possible_values = true, help_heading = "Rollout")]
    replace: bool,
    /// Do not wait until the function is ready
    #[arg(long, help_heading = "Rollout")]
    pub no_wait: bool,
    /// How long to wait for it to be ready, or for the next news of it
    #[arg(
        long,
        value_name = "TIME",
        default_value = "120s",
        conflicts_with = "no_wait",
        help_heading = "Rollout"
    )]
    timeout: String,
}

impl RolloutArgs {
    /// What happens to a function that is already there (contract section 13), and the time to wait.
    ///
    /// # Errors
    /// Flags that exclude each other, or a time that is none.
    pub fn check(&self) -> anyhow::Result<(How, Duration)> {
        let how = match (self.replace, self.update) {
            (true, Some(true)) => {
                return Err(usage("--replace and --update exclude each other"));
            }
            (true, _) => How::Replace,
            (false, Some(false)) => How::Create,
            (false, _) => How::Update,
        };
        let patience = duration::parse_seconds_or_go(&self.timeout).ok_or_else(|| {
            usage(format!("--timeout {:?} is no time such as 120s", self.timeout))
        })?;
        Ok((how, patience))
    }
}
