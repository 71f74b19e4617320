//! `pinnace down`: ends what a server left on this host.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use pinnace_server::Down;

use crate::{failure::usage, state_dir};

/// Flags of `pinnace down`.
#[derive(Args, Debug)]
#[command(after_help = "\
Functions, images, secrets and logs stay in the state directory; `pinnace up` starts with them again.")]
pub struct DownArgs {
    #[command(flatten)]
    state: StateArgs,
}

/// Which state directory.
#[derive(Args, Debug)]
pub struct StateArgs {
    /// State directory of the server [default: /var/lib/pinnace as root, else pinnace in the XDG data directory]
    #[arg(long, value_name = "DIR", env = "PINNACE_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The directory that is named and not there, if so.
    fn missing(&self) -> Option<&Path> {
        let named = self.state_dir.as_deref().filter(|dir| !dir.as_os_str().is_empty())?;
        matches!(named.try_exists(), Ok(false)).then_some(named)
    }

    /// The directory, as an absolute path.
    pub fn get(&self) -> anyhow::Result<PathBuf> {
        let named = self.state_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
        let dir = named.or_else(state_dir::default).ok_or_else(|| {
            usage("there is no home directory; say where the state is with --state-dir")
        })?;
        Ok(std::path::absolute(dir)?)
    }
}

/// Ends everything that a server left, and says what that was.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    let state_dir = args.state.get()?;
    let down = pinnace_server::down(&state_dir)?;
    // What ran for a directory that was removed is ended all the same.
    if let Some(dir) = args.state.missing()
        && !down.found
    {
        return Err(usage(format!(
            "there is no directory {}; name the one that `pinnace up` was given with --state-dir, or none \
             for the default",
            dir.display()
        )));
    }
    Ok(tell(&down, &state_dir, &mut io::stdout())?)
}

/// Says what was ended for a state directory.
///
/// # Errors
/// Those of the output.
fn tell(down: &Down, state_dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    match down.server {
        Some(pid) => {
            let took = down.took.as_secs_f32();
            writeln!(out, "Ended the server (process {pid}) and its replicas in {took:.1} s.")?;
        }
        None if !down.found => {
            return writeln!(
                out,
                "No server ran; there is no directory {} yet.",
                state_dir.display()
            );
        }
        None if !state_dir.exists() => {
            let state_dir = state_dir.display();
            return writeln!(out, "What ran for {state_dir}, which is gone, is cleared away.");
        }
        None => writeln!(out, "No server ran; what was left of replicas is cleared away.")?,
    }
    writeln!(out, "State is kept in {}; `pinnace up` starts with it again.", state_dir.display())?;
    Ok(())
}
