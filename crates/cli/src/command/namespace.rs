//! `pinnace namespace`: places for functions and secrets, apart from each other.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use pinnace_core::{
    name::check_label,
    wire::{FunctionNamespace, Map},
};

use crate::{
    args::{GatewayArgs, OutputArgs, UnusedStackArgs, pair},
    failure::usage,
    gateway::{self, Gateway},
    output::{self, printable},
};

/// Flags of `pinnace namespace`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace namespace create dev --label team=web
  pinnace deploy hello --image host --fprocess cat -n dev
  pinnace namespace list
  pinnace namespace remove dev")]
pub struct NamespaceCommandArgs {
    #[command(subcommand)]
    command: NamespaceCommand,
    #[command(flatten)]
    stack: UnusedStackArgs,
}

#[derive(Debug, Subcommand)]
enum NamespaceCommand {
    /// Create a namespace
    Create(MarkedArgs),
    /// Replace a namespace's labels and annotations
    Update(MarkedArgs),
    /// Remove a namespace
    #[command(visible_aliases = ["rm", "delete"])]
    Remove(NamedArgs),
    /// Show a namespace's labels and annotations
    Get(GetArgs),
    /// List namespaces
    #[command(visible_alias = "ls")]
    List(ListArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
A namespace always has the label and the annotation openfaas=1, which mark it as one for functions.

Example:
  pinnace namespace create dev --label team=web --annotation owner=ops")]
struct MarkedArgs {
    /// The namespace
    name: String,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Annotation
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Args, Debug)]
struct NamedArgs {
    /// The namespace
    name: String,
    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Args, Debug)]
struct GetArgs {
    /// The namespace
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Flags of `pinnace namespace list` and of the older `pinnace namespaces`.
#[derive(Args, Debug)]
pub struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Runs a command about namespaces.
pub fn run(args: &NamespaceCommandArgs) -> anyhow::Result<()> {
    match &args.command {
        NamespaceCommand::Create(args) => create(args),
        NamespaceCommand::Update(args) => update(args),
        NamespaceCommand::Remove(args) => remove(args),
        NamespaceCommand::Get(args) => get(args),
        NamespaceCommand::List(args) => list(args),
    }
}

/// Lists namespaces for those who know the command by its former name.
pub fn list_by_old_name(args: &ListArgs) -> anyhow::Result<()> {
    output::warn("this is `pinnace namespace list` now");
    list(args)
}

fn create(args: &MarkedArgs) -> anyhow::Result<()> {
    let namespace = marked(args)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    writeln!(out, "Creating Namespace: {}", args.name)?;
    gateway.create_namespace(&namespace)?;
    writeln!(out, "Namespace Created: {}", args.name)?;
    Ok(())
}

fn update(args: &MarkedArgs) -> anyhow::Result<()> {
    let namespace = marked(args)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    writeln!(out, "Updating Namespace: {}", args.name)?;
    if !gateway.update_namespace(&namespace)? {
        return Err(no_such_namespace(&args.name, &gateway));
    }
    writeln!(out, "Namespace Updated: {}", args.name)?;
    Ok(())
}

fn remove(args: &NamedArgs) -> anyhow::Result<()> {
    check(&args.name)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let mut out = io::stdout().lock();
    writeln!(out, "Deleting Namespace: {}", args.name)?;
    if !gateway.remove_namespace(&args.name)? {
        return Err(no_such_namespace(&args.name, &gateway));
    }
    writeln!(out, "Namespace Removed: {}", args.name)?;
    Ok(())
}

fn get(args: &GetArgs) -> anyhow::Result<()> {
    check(&args.name)?;
    let gateway = Gateway::open(&args.gateway, None)?;
    let Some(namespace) = gateway.namespace(&args.name)? else {
        return Err(no_such_namespace(&args.name, &gateway));
    };
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &namespace);
    }
    writeln!(out, "Name: {}", printable(&namespace.name))?;
    for (title, map) in [("Labels", namespace.labels), ("Annotations", namespace.annotations)] {
        if map.is_empty() {
            continue;
        }
        writeln!(out, "{title}:")?;
        for (key, value) in map {
            writeln!(out, " {}: {}", printable(&key), printable(&value))?;
        }
    }
    Ok(())
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let gateway = Gateway::open(&args.gateway, None)?;
    let namespaces = gateway.namespaces()?;
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &namespaces);
    }
    writeln!(out, "Namespaces:")?;
    for namespace in namespaces {
        writeln!(out, " - {}", printable(&namespace))?;
    }
    Ok(())
}

fn marked(args: &MarkedArgs) -> anyhow::Result<FunctionNamespace> {
    check(&args.name)?;
    let map = |pairs: &[(String, String)]| pairs.iter().cloned().collect::<Map>();
    Ok(gateway::marked(&args.name, map(&args.label), map(&args.annotation)))
}

fn check(name: &str) -> anyhow::Result<()> {
    check_label("namespace", name).map_err(|error| usage(error.to_string()))
}

fn no_such_namespace(name: &str, gateway: &Gateway) -> anyhow::Error {
    let list = gateway.command("namespace list", None);
    anyhow::anyhow!(
        "there is no namespace {name} at {}; `{list}` shows those there are",
        gateway.address()
    )
}
