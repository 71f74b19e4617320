//! `pinnace secret`: what functions must know and nobody else may read.
//!
//! Values come from standard input, a file or, seen by others on this host, the command line. No command
//! reads one back.

mod apply;
mod random;
mod value;

use std::io::{self, Write};

use clap::{Args, Subcommand};
use pinnace_core::{secret, wire::Secret};
use ureq::http::StatusCode;

use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, UnusedStackArgs},
    failure::usage,
    gateway::{Gateway, spoken},
    output::{self, printable},
};

/// Flags of `pinnace secret`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace secret generate | pinnace secret create api-key
  pinnace secret create db-password --from-file password.txt
  pinnace deploy web --image ghcr.io/me/web:1 --secret api-key --secret db-password
  pinnace secret list

A function finds each of its secrets in the file /var/openfaas/secrets/NAME.")]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
    #[command(flatten)]
    stack: UnusedStackArgs,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Create a secret
    Create(CreateArgs),
    /// Give a secret another value
    #[command(visible_alias = "u")]
    Update(UpdateArgs),
    /// Remove a secret
    #[command(visible_aliases = ["rm", "delete"])]
    Remove(RemoveArgs),
    /// List the names of secrets
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Create or update a secret from each file in ./.secrets
    Apply(apply::ApplyArgs),
    /// Make a random value
    #[command(visible_alias = "gen")]
    Generate(random::GenerateArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace secret create api-key < key.txt
  pinnace secret create api-key --from-file key.txt --replace
  pinnace secret generate | pinnace secret create api-key -n dev")]
struct CreateArgs {
    /// The secret
    name: String,
    #[command(flatten)]
    value: value::ValueArgs,
    /// Update it if there is one of that name
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL",
          hide_default_value = true, hide_possible_values = true)]
    replace: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace secret update api-key < key.txt
  pinnace secret update api-key --from-file key.txt -n dev

A function that read the old value at its start keeps it until it starts again.")]
struct UpdateArgs {
    /// The secret
    name: String,
    #[command(flatten)]
    value: value::ValueArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pinnace secret remove api-key")]
struct RemoveArgs {
    /// The secret
    name: String,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace secret list
  pinnace secret list -n dev --json | jq -r '.[].name'")]
struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Runs a command about secrets.
pub fn run(args: &SecretArgs) -> anyhow::Result<()> {
    match &args.command {
        SecretCommand::Create(args) => create(args),
        SecretCommand::Update(args) => update(args),
        SecretCommand::Remove(args) => remove(args),
        SecretCommand::List(args) => list(args),
        SecretCommand::Apply(args) => apply::run(args),
        SecretCommand::Generate(args) => random::run(args),
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let namespace = args.namespace.checked()?.unwrap_or_default();
    let secret = args.value.secret(&args.name, namespace, value::RawBytes::Sent)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    writeln!(out, "Creating secret: {}.{namespace}", args.name)?;
    if let Some(status) = gateway.create_secret(&secret)? {
        return said(&mut out, "Created", status);
    }
    if !args.replace {
        anyhow::bail!(
            "creating secret {0}: there is one of that name; --replace gives it the new value, as does \
             `pinnace secret update {0}`",
            args.name
        );
    }
    writeln!(out, "Secret {} already exists, updating...", args.name)?;
    replaced(&gateway, &secret, &mut out)
}

fn update(args: &UpdateArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let namespace = args.namespace.checked()?.unwrap_or_default();
    let secret = args.value.secret(&args.name, namespace, value::RawBytes::LeftOut)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    writeln!(out, "Updating secret: {}", args.name)?;
    replaced(&gateway, &secret, &mut out)
}

fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let namespace = args.namespace.checked()?.unwrap_or_default();
    let gateway = Gateway::open(&args.gateway, None)?;
    if !gateway.remove_secret(&args.name, namespace)? {
        return Err(no_such_secret(&args.name, namespace, &gateway));
    }
    writeln!(io::stdout(), "Removed.. OK.")?;
    Ok(())
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let gateway = Gateway::open(&args.gateway, None)?;
    let secrets = gateway.secrets(args.namespace.checked()?)?;
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &secrets);
    }
    if secrets.is_empty() {
        writeln!(out, "No secrets found.")?;
        return Ok(());
    }
    writeln!(out, "\nNAME")?;
    for secret in &secrets {
        writeln!(out, "{}", printable(&secret.name))?;
    }
    writeln!(out)?;
    Ok(())
}

/// Gives a secret its new value and says so.
fn replaced(gateway: &Gateway, secret: &Secret, out: &mut dyn Write) -> anyhow::Result<()> {
    match gateway.update_secret(secret)? {
        Some(status) => said(out, "Updated", status),
        None => Err(no_such_secret(&secret.name, &secret.namespace, gateway)),
    }
}

fn said(out: &mut dyn Write, what: &str, status: StatusCode) -> anyhow::Result<()> {
    writeln!(out, "{what}: {}", spoken(status))?;
    Ok(())
}

fn no_such_secret(name: &str, namespace: &str, gateway: &Gateway) -> anyhow::Error {
    let namespace = Some(namespace).filter(|namespace| !namespace.is_empty());
    let place = namespace.map(|ns| format!(" in namespace {ns}")).unwrap_or_default();
    let list = gateway.command("secret list", namespace);
    anyhow::anyhow!(
        "there is no secret {name}{place} at {}; `{list}` shows those there are",
        gateway.address()
    )
}

fn check_name(name: &str) -> anyhow::Result<()> {
    secret::check_name(name).map_err(|fault| usage(fault.to_string()))
}
