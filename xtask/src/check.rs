//! Format, lints and the repository's own rules.

use anyhow::Result;

use crate::{
    run::{cargo, run},
    tidy,
};

/// Checks everything that can be checked without running the programs.
///
/// # Errors
/// Something is not as it should be; it was shown.
pub fn check() -> Result<()> {
    tidy::tidy()?;
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}
