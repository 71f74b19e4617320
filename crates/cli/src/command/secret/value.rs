//! Where a secret's value comes from.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use pinnace_core::{limits, wire::Secret};

use crate::{failure::usage, output};

/// Flags that name a value; without one of them it is standard input.
#[derive(Args)]
pub struct ValueArgs {
    /// The value; others on this host can read it here, so prefer standard input
    #[arg(long, value_name = "TEXT", conflicts_with = "from_file", allow_hyphen_values = true)]
    from_literal: Option<String>,
    /// File that holds the value
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    #[command(flatten)]
    trim: TrimArgs,
}

impl std::fmt::Debug for ValueArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueArgs").field("from_file", &self.from_file).finish_non_exhaustive()
    }
}

/// Whether space around a value is left out.
#[derive(Args, Debug)]
pub struct TrimArgs {
    /// Leave out space at the value's beginning and end
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    trim: bool,
}

/// Whether a file's bytes go along as they are, beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawBytes {
    /// They do, and win.
    Sent,
    /// The text alone.
    LeftOut,
}

impl ValueArgs {
    /// The secret with the value that is named.
    ///
    /// # Errors
    /// The value cannot be read, is empty or too long.
    pub fn secret(&self, name: &str, namespace: &str, raw: RawBytes) -> anyhow::Result<Secret> {
        let secret = if let Some(text) = self.from_literal.as_ref().filter(|text| !text.is_empty())
        {
            of_bytes(name, namespace, text.as_bytes(), &self.trim, RawBytes::LeftOut)?
        } else if let Some(path) = &self.from_file {
            of_bytes(name, namespace, &of_file(path)?, &self.trim, raw)?
        } else {
            of_bytes(name, namespace, &of_stdin()?, &self.trim, RawBytes::LeftOut)?
        };
        if secret.value.is_empty() {
            return Err(usage(format!(
                "secret {name} is empty: give its value on standard input, with --from-file or with \
                 --from-literal"
            )));
        }
        Ok(secret)
    }
}

/// A secret of bytes; its value is empty if they are nothing but space.
///
/// # Errors
/// They are no text, and nothing but text goes along.
pub fn of_bytes(
    name: &str,
    namespace: &str,
    bytes: &[u8],
    trim: &TrimArgs,
    raw: RawBytes,
) -> anyhow::Result<Secret> {
    let text = String::from_utf8_lossy(bytes);
    if raw == RawBytes::LeftOut && std::str::from_utf8(bytes).is_err() {
        anyhow::bail!(
            "secret {name} is no UTF-8 text; `pinnace secret create {name} --replace --from-file FILE` \
             sends any bytes"
        );
    }
    let raw_value = if raw == RawBytes::Sent { STANDARD.encode(bytes) } else { String::new() };
    let value = if trim.trim { text.trim() } else { &text }.to_owned();
    Ok(Secret { name: name.to_owned(), namespace: namespace.to_owned(), value, raw_value })
}

/// The bytes of a file.
///
/// # Errors
/// It cannot be read or is too long.
pub fn of_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| anyhow::anyhow!("{shown}: {error}"))?;
    bounded(file).map_err(|error| anyhow::anyhow!("{shown}: {error}"))
}

fn of_stdin() -> anyhow::Result<Vec<u8>> {
    if io::stdin().is_terminal() {
        output::remark("Reading from STDIN - hit (Control + D) to stop.");
    }
    bounded(io::stdin().lock()).map_err(|error| anyhow::anyhow!("standard input: {error}"))
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let most = limits::CLIENT_SECRET_BYTES_MAX;
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("is more than {most} bytes, the most of a secret")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(bytes: &[u8], trim: bool, raw: RawBytes) -> anyhow::Result<Secret> {
        of_bytes("s", "", bytes, &TrimArgs { trim }, raw)
    }

    #[test]
    fn space_is_trimmed_from_the_text_and_never_from_the_bytes() {
        let secret = made(b" a b\n", true, RawBytes::Sent).unwrap();
        assert_eq!((secret.value.as_str(), secret.raw_value.as_str()), ("a b", "IGEgYgo="));
        assert_eq!(made(b"a\n", false, RawBytes::LeftOut).unwrap().value, "a\n");
        assert_eq!(made(b" \n", true, RawBytes::LeftOut).unwrap().value, "");
    }

    #[test]
    fn bytes_that_are_no_text_need_a_way_that_keeps_them() {
        assert_eq!(made(b"\xff\x00", true, RawBytes::Sent).unwrap().raw_value, "/wA=");
        let said = made(b"\xff", true, RawBytes::LeftOut).unwrap_err().to_string();
        assert!(said.contains("--from-file"), "{said}");
    }

    #[test]
    fn values_are_bounded() {
        let long = vec![0; usize::try_from(limits::CLIENT_SECRET_BYTES_MAX).unwrap() + 1];
        assert!(bounded(&long[1..]).is_ok());
        assert!(bounded(&long[..]).unwrap_err().to_string().contains("is more than"));
    }
}
