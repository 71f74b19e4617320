//! The two commands that act on this host and not through the API. The server's crate does the work.

use std::{io::Write, path::Path};

use crate::embed;

/// Ends everything that a server left under a state directory, and says what that was.
///
/// # Errors
/// Something could not be ended.
pub fn down(state_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let down = pinnace_server::down(state_dir)?;
    match down.server {
        Some(pid) => {
            let took = down.took.as_secs_f32();
            writeln!(out, "Ended the server (process {pid}) and its replicas in {took:.1} s.")?;
        }
        None => writeln!(out, "No server ran; what was left of replicas is cleared away.")?,
    }
    writeln!(out, "State is kept in {}; `pinnace up` starts with it again.", state_dir.display())?;
    Ok(())
}

/// Says what this host can and cannot enforce, a sentence each, and what would mend it. `true` if
/// nothing that Pinnace needs is missing.
///
/// # Errors
/// The host could not be looked at.
pub fn doctor(state_dir: &Path, out: &mut dyn Write) -> anyhow::Result<bool> {
    let own = std::env::temp_dir().join(format!("pinnace-doctor-{}", std::process::id()));
    let looked = embed::unpack(&own)
        .map_err(anyhow::Error::from)
        .and_then(|programs| Ok(pinnace_server::doctor(&programs.dir, nearest(state_dir))?));
    // The first error is the one to tell; the directory holds programs only.
    drop(std::fs::remove_dir_all(&own));
    let host = looked?;
    let groups =
        host.cgroup_version.map_or("none".to_owned(), |version| format!("version {version}"));
    writeln!(out, "Kernel {}, control groups: {groups}", host.kernel)?;
    writeln!(out, "User {}{}", host.uid, if host.root { " (root)" } else { "" })?;
    let missing = host.missing();
    if missing.is_empty() {
        writeln!(out, "This host can enforce everything that Pinnace promises.")?;
    }
    for sentence in &missing {
        writeln!(out, "- {sentence}")?;
    }
    Ok(host.user_namespaces.is_ok() && host.overlay.is_ok())
}

/// The directory itself, or the nearest one above that is there: both lie on the same filesystem.
fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}
