//! `pinnace ready`: waits until a gateway, or a function, can serve.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use pinnace_core::duration;
use ureq::http::{Method, StatusCode};

use super::split_name;
use crate::{
    args::{GatewayArgs, NamespaceArgs, StackFileArgs, number},
    failure::usage,
    gateway::{Gateway, Patience},
    output::remark,
    pause,
};

/// Flags of `pinnace ready`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace ready && pinnace deploy -f stack.yaml
  pinnace ready hello --attempts 10 --interval 500ms")]
pub struct ReadyArgs {
    /// The function; without it the gateway is waited for
    function: Option<String>,
    /// How often to look
    #[arg(long, value_name = "COUNT", default_value_t = 60, value_parser = number::<u32>)]
    attempts: u32,
    /// How long between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    interval: Duration,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

fn time(text: &str) -> Result<Duration, String> {
    duration::parse_seconds_or_go(text).ok_or_else(|| "give a time such as 1s or 500ms".to_owned())
}

/// Waits.
pub fn run(args: &ReadyArgs) -> anyhow::Result<()> {
    if args.attempts == 0 {
        return Err(usage("--attempts must be 1 or more"));
    }
    let named = args.function.as_deref();
    let named = named.map(|name| split_name(name, args.namespace.get())).transpose()?;
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    let shown = named.map_or("gateway".to_owned(), |(name, namespace)| {
        let namespace = namespace.map(|namespace| format!(".{namespace}")).unwrap_or_default();
        format!("function {name}{namespace}")
    });
    let mut out = io::stdout().lock();
    for attempt in 1..=args.attempts {
        writeln!(out, "[{attempt}/{}] Waiting for {shown}", args.attempts)?;
        out.flush()?;
        let found = match named {
            Some((name, namespace)) => serves(&gateway, name, namespace),
            None => is_healthy(&gateway),
        };
        match (found, named) {
            (Ok(true), Some((name, _))) => {
                writeln!(out, "Function {name} is ready")?;
                return Ok(());
            }
            (Ok(true), None) => {
                writeln!(out, "OpenFaaS gateway is ready")?;
                return Ok(());
            }
            (Ok(false), _) => {}
            (Err(error), _) => {
                remark(&format!("[{attempt}/{}] {error:#}", args.attempts));
            }
        }
        if attempt < args.attempts {
            pause::of(args.interval);
        }
    }
    let waited = args.interval.saturating_mul(args.attempts);
    let describe = named.map_or("doctor".to_owned(), |(name, _)| format!("describe {name}"));
    let describe = gateway.command(&describe, named.and_then(|(_, namespace)| namespace));
    anyhow::bail!("{shown} is not ready after {waited:?}; `{describe}` may say why")
}

fn serves(gateway: &Gateway, name: &str, namespace: Option<&str>) -> anyhow::Result<bool> {
    let found = gateway.function(name, namespace, true)?;
    Ok(found.is_some_and(|status| status.available_replicas > 0))
}

fn is_healthy(gateway: &Gateway) -> anyhow::Result<bool> {
    let doing = "asking for health";
    let answer = gateway.ask_openly(Method::GET, "/healthz", Patience::Request, doing)?;
    Ok(answer.status() == StatusCode::OK)
}
