//! `pinnace completion`: a script that completes commands and flags in a shell.

use std::io::{self, Write};

use clap::Args;
use clap_complete::Shell;

use crate::args;

/// Flags of `pinnace completion`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(pinnace completion bash)                                  for this shell
  pinnace completion bash > /etc/bash_completion.d/pinnace           for all
  pinnace completion zsh > \"${fpath[1]}/_pinnace\"
  pinnace completion fish > ~/.config/fish/completions/pinnace.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::definition(), "pinnace", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
