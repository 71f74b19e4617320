//! What acts on this host and not through the API: ending what a server left. The server's crate does the
//! work.

use std::{io::Write, path::Path};

/// Ends everything that a server left under a state directory, and says what that was.
///
/// # Errors
/// Something could not be ended.
pub fn down(state_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let left = !state_dir.exists() && pinnace_server::left_something(state_dir);
    let down = pinnace_server::down(state_dir)?;
    match down.server {
        Some(pid) => {
            let took = down.took.as_secs_f32();
            writeln!(out, "Ended the server (process {pid}) and its replicas in {took:.1} s.")?;
        }
        None if left => {
            writeln!(out, "What ran for {}, which is gone, is cleared away.", state_dir.display())?;
            return Ok(());
        }
        None if !state_dir.exists() => {
            writeln!(out, "No server ran; there is no directory {} yet.", state_dir.display())?;
            return Ok(());
        }
        None => writeln!(out, "No server ran; what was left of replicas is cleared away.")?,
    }
    writeln!(out, "State is kept in {}; `pinnace up` starts with it again.", state_dir.display())?;
    Ok(())
}
