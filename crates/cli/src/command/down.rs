//! `pinnace down`: ends what a server left on this host.

use std::{
    io,
    path::{Path, PathBuf},
};

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

/// Ends everything that a server left.
pub fn run(args: &DownArgs) -> anyhow::Result<()> {
    // What ran for one that was removed is ended all the same.
    if let Some(dir) = args.state.missing()
        && !pinnace_server::left_something(&args.state.get()?)
    {
        return Err(usage(format!(
            "there is no directory {}; name the one that `pinnace up` was given with --state-dir, or none \
             for the default",
            dir.display()
        )));
    }
    host::down(&args.state.get()?, &mut io::stdout())
}
