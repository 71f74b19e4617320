//! `pinnace scale`: how many replicas a function has.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{no_such_function, split_name};
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackFileArgs, number},
    gateway::Gateway,
    output,
};

/// Flags of `pinnace scale`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace scale hello 3
  pinnace scale hello 0      the next call starts it again")]
pub struct ScaleArgs {
    /// The function
    name: String,
    /// How many replicas it shall have
    #[arg(value_parser = number::<u64>)]
    replicas: u64,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

/// Scales a function.
pub fn run(args: &ScaleArgs) -> anyhow::Result<()> {
    let (name, namespace) = split_name(&args.name, args.namespace.get())?;
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    if !gateway.scale(name, namespace, args.replicas)? {
        return Err(no_such_function(name, namespace, &gateway));
    }
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &json!({ "name": name, "replicas": args.replicas }));
    }
    writeln!(out, "Scaling {name} to {}.", args.replicas)?;
    Ok(())
}
