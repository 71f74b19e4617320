//! The repository's own rules. Each is a function from what is in the repository to what is wrong with it.
//!
//! They run as `cargo xtask tidy` and as a test, so nothing that breaks one is ever green.

mod repository;
mod rules;
mod source;

use anyhow::{Result, bail};

use crate::run::root;
use repository::Repository;

/// Checks all rules.
///
/// # Errors
/// One is broken: the error lists every fault.
pub fn tidy() -> Result<()> {
    let repository = Repository::read(root())?;
    let faults: Vec<String> = rules::ALL.iter().flat_map(|rule| rule(&repository)).collect();
    if faults.is_empty() {
        eprintln!("tidy: {} files, {} rules kept", repository.files.len(), rules::ALL.len());
        return Ok(());
    }
    bail!("the repository is not tidy:\n  {}", faults.join("\n  "));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_repository_is_tidy() {
        super::tidy().unwrap();
    }
}
