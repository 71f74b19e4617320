//! The two commands that act on this host and not through the API. The server's crate does the work.

use std::{io::Write, path::Path};

/// Ends everything that a server left under a state directory, and says what that was.
///
/// # Errors
/// Something could not be ended.
pub fn down(state_dir: &Path, _out: &mut dyn Write) -> anyhow::Result<()> {
    anyhow::bail!("nothing here ends what runs under {}", state_dir.display())
}

/// Says what this host can and cannot enforce, a sentence each, and what would mend it. `true` if
/// nothing that Pinnace needs is missing.
///
/// # Errors
/// The host could not be looked at.
pub fn doctor(state_dir: &Path, _out: &mut dyn Write) -> anyhow::Result<bool> {
    anyhow::bail!("nothing here looks at the host of {}", state_dir.display())
}
