//! The programs and examples that the binary carries.

use std::path::{Path, PathBuf};

use pinnace_core::wire::FunctionDeployment;

/// The programs that run beside functions, unpacked.
#[derive(Debug)]
pub struct Programs {
    /// Directory with `pinnace-spawner`, `pinnace-init` and `pinnace-watchdog`.
    pub dir: PathBuf,
}

/// A function that a newcomer runs first.
#[derive(Debug)]
pub struct Example {
    /// Its name.
    pub name: &'static str,
    /// What is deployed.
    pub deployment: FunctionDeployment,
}

/// Unpacks the programs below the state directory.
///
/// # Errors
/// The directory cannot be written.
pub fn unpack(state_dir: &Path) -> anyhow::Result<Programs> {
    Ok(Programs { dir: state_dir.join("bin") })
}

/// The examples.
pub fn examples() -> &'static [Example] {
    &[]
}
