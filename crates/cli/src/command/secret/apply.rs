//! `pinnace secret apply`: a directory of files becomes secrets.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use clap::Args;
use pinnace_core::wire::Secret;

use super::{
    check_name, replaced, said,
    value::{self, RawBytes, TrimArgs},
};
use crate::{
    args::{GatewayArgs, NamespaceArgs},
    gateway::Gateway,
    output::{complain, printable},
};

/// Where the files are.
const DIRECTORY: &str = ".secrets";

/// Flags of `pinnace secret apply`.
#[derive(Args, Debug)]
#[command(after_help = "\
Each file in the directory .secrets becomes a secret of its name. A secret that is there already
gets the file's value; others are left alone.

Example:
  pinnace secret apply -n dev")]
pub struct ApplyArgs {
    #[command(flatten)]
    trim: TrimArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Brings the files' values to the gateway.
pub fn run(args: &ApplyArgs) -> anyhow::Result<()> {
    let namespace = args.namespace.checked()?;
    let files = files(Path::new(DIRECTORY))?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    if files.is_empty() {
        writeln!(out, "No secrets found in {DIRECTORY} directory")?;
        return Ok(());
    }
    // The list also says who we are there before any value is sent.
    let known = gateway.secrets(namespace)?;
    let namespace = namespace.unwrap_or_default();
    let mut failed = 0_usize;
    for name in &files {
        let Some(secret) = secret(name, namespace, &args.trim, &mut out)? else { continue };
        let is_known = known.iter().any(|k| k.name == *name && k.namespace == namespace);
        if let Err(error) = apply(&gateway, &secret, is_known, &mut out) {
            complain(&format!("{error:#}"));
            failed += 1;
        }
    }
    if failed > 0 {
        anyhow::bail!("{failed} of {} secrets were not applied", files.len());
    }
    Ok(())
}

fn apply(
    gateway: &Gateway,
    secret: &Secret,
    is_known: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let name = &secret.name;
    if is_known {
        writeln!(out, "Secret {name} exists, updating...")?;
        return replaced(gateway, secret, out);
    }
    writeln!(out, "Creating secret: {name}.{}", secret.namespace)?;
    if let Some(status) = gateway.create_secret(secret)? {
        return said(out, "Created", status);
    }
    writeln!(out, "Secret {name} still exists, updating...")?;
    replaced(gateway, secret, out)
}

/// The names of the files in a directory, sorted.
fn files(directory: &Path) -> anyhow::Result<Vec<String>> {
    let shown = directory.display();
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "there is no directory {shown} here; make it, with one file per secret, or change to where it is"
        ),
        _ => anyhow::anyhow!("{shown}: {error}"),
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if !entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The secret of a file, unless it is none.
fn secret(
    name: &str,
    namespace: &str,
    trim: &TrimArgs,
    out: &mut dyn Write,
) -> anyhow::Result<Option<Secret>> {
    if check_name(name).is_err() {
        let shown = printable(name);
        writeln!(
            out,
            "Skipping invalid secret name: {shown} - ERROR: invalid secret name {shown}"
        )?;
        writeln!(out, "Secret name must start and end with an alphanumeric character ")?;
        writeln!(out, "and can only contain lower-case alphanumeric characters, '-' or '.'")?;
        return Ok(None);
    }
    let bytes = value::of_file(&Path::new(DIRECTORY).join(name))?;
    let secret = value::of_bytes(name, namespace, &bytes, trim, RawBytes::Sent)?;
    if secret.value.is_empty() {
        writeln!(out, "Skipping empty secret: {name}")?;
        return Ok(None);
    }
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_directories_are_none() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "C"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(files(dir.path()).unwrap(), ["C", "a", "b"]);
        let said = files(&dir.path().join("none")).unwrap_err().to_string();
        assert!(said.contains("there is no directory"), "{said}");
    }
}
