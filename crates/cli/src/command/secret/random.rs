//! `pinnace secret generate`: a value that nobody can guess.

use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use pinnace_core::limits;

use crate::args::number;

/// Flags of `pinnace secret generate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace secret generate | pinnace secret create api-key
  pinnace secret generate --length 64 -o payload.txt")]
pub struct GenerateArgs {
    /// How many random bytes; they are written in base64
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = number::<u64>)]
    length: u64,
    /// Write to this file, which others cannot read
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes a value.
pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let most = limits::CLIENT_SECRET_BYTES_MAX / 2;
    if args.length == 0 || args.length > most {
        return Err(crate::failure::usage(format!("--length must be from 1 to {most} bytes")));
    }
    let value = value(args.length)?;
    let mut out = io::stdout().lock();
    let Some(path) = &args.output else {
        // What is piped on must be the value alone.
        let end = if io::stdout().is_terminal() { "\n" } else { "" };
        write!(out, "{value}{end}")?;
        out.flush()?;
        return Ok(());
    };
    store(path, &value).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    writeln!(out, "Wrote {}-byte secret to {}", args.length, path.display())?;
    Ok(())
}

fn value(length: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom")?.take(length).read_to_end(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

fn store(path: &Path, value: &str) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn values_differ_and_have_their_length() {
        let (a, b) = (value(32).unwrap(), value(32).unwrap());
        assert_ne!(a, b);
        assert_eq!(STANDARD.decode(a).unwrap().len(), 32);
    }

    #[test]
    fn the_file_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/payload.txt");
        store(&path, "x").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
