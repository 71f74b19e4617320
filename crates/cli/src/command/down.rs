//! `pinnace down`: ends what a server left on this host.

use std::{io, path::PathBuf};

use clap::Args;

use crate::{failure::usage, host, state_dir};

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
    /// The directory, as an absolute path.
    pub fn get(&self) -> anyhow::Result<PathBuf> {
        let named = self.state_dir.clone().filter(|dir| !dir.as_os_str().is_empty());
        let dir = named.or_else(state_dir::default).ok_or_else(|| {
            usage("there is no home directory; say where the state is with --state-dir")
        })?;
        Ok(std::path::absolute(dir)?)
    }
}

/// Ends everything that a server left.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    host::down(&args.state.get()?, &mut io::stdout())
}
