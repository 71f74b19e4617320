//! `pinnace down` and `pinnace doctor`: what concerns this host and needs no gateway.

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

/// Flags of `pinnace doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Args, Debug)]
struct StateArgs {
    /// State directory of the server [default: /var/lib/pinnace as root, else pinnace in the XDG data directory]
    #[arg(long, value_name = "DIR", env = "PINNACE_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    fn get(&self) -> anyhow::Result<PathBuf> {
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

/// Looks at this host.
pub fn doctor(args: &DoctorArgs) -> anyhow::Result<()> {
    if host::doctor(&args.state.get()?, &mut io::stdout())? {
        return Ok(());
    }
    anyhow::bail!("this host lacks what Pinnace needs; the lines above say what would mend it")
}
