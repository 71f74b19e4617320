//! `pinnace remove`: functions by name, or those of a stack file.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{no_such_function, split_name};
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackArgs},
    failure::usage,
    gateway::Gateway,
    output,
    stack::{self, Stack},
};

/// Flags of `pinnace remove`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace remove hello
  pinnace remove hello world -n dev
  pinnace remove -f stack.yaml

Without a name the functions of the stack file are removed; those that are not there are passed over.")]
pub struct RemoveArgs {
    /// The functions
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackArgs,
}

/// Removes functions.
pub fn run(args: &RemoveArgs) -> anyhow::Result<()> {
    let by_name = !args.names.is_empty();
    let (gateway, wanted) = if by_name { named(args)? } else { of_stack(args)? };
    let mut out = io::stdout().lock();
    let mut removed = Vec::new();
    let mut failed = Vec::new();
    for (name, namespace) in &wanted {
        let namespace = namespace.as_deref();
        if !args.output.is_json() {
            writeln!(out, "Deleting: {name}.{}", namespace.unwrap_or_default())?;
        }
        match gateway.remove(name, namespace) {
            Ok(true) => {
                removed.push(name);
                if !args.output.is_json() {
                    writeln!(out, "Removing old function.")?;
                }
            }
            Ok(false) if by_name => {
                failed.push(no_such_function(name, namespace, &gateway));
            }
            Ok(false) => {}
            Err(error) => failed.push(error),
        }
    }
    if args.output.is_json() {
        output::json(&mut out, &json!({ "removed": removed }))?;
    }
    let last = failed.pop();
    for error in failed {
        output::complain(&format!("{error:#}"));
    }
    last.map_or(Ok(()), Err)
}

type Wanted = Vec<(String, Option<String>)>;

fn named(args: &RemoveArgs) -> anyhow::Result<(Gateway, Wanted)> {
    let mut wanted = Vec::new();
    for name in &args.names {
        let (name, namespace) = split_name(name, args.namespace.get())?;
        wanted.push((name.to_owned(), namespace.map(str::to_owned)));
    }
    let gateway = Gateway::open(&args.gateway, stack::head(&args.stack)?.gateway.as_deref())?;
    Ok((gateway, wanted))
}

fn of_stack(args: &RemoveArgs) -> anyhow::Result<(Gateway, Wanted)> {
    let stack = Stack::load(&args.stack)?.ok_or_else(|| {
        usage("name the functions to remove, or a stack file with -f; there is no stack.yaml here")
    })?;
    let gateway = Gateway::open(&args.gateway, stack.gateway.as_deref())?;
    let wanted = stack.functions.into_iter().map(|function| {
        let of_file = Some(function.deployment.namespace).filter(|ns| !ns.is_empty());
        let namespace = args.namespace.get().map(str::to_owned).or(of_file);
        (function.deployment.service, namespace)
    });
    Ok((gateway, wanted.collect()))
}
