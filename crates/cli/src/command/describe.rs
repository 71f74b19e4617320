//! `pinnace describe`: all about one function. The block is faas-cli's; what the platform itself has to
//! say about the function stands above it.

use std::io::{self, Write};

use clap::Args;
use pinnace_core::wire::{FunctionStatus, Map, Resources, RolloutPhase};
use serde::Serialize;

use super::{no_such_function, split_name};
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackFileArgs},
    gateway::Gateway,
    output::{self, Paint, has_color, painted, printable},
};

/// Flags of `pinnace describe`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace describe hello
  pinnace describe hello -n dev
  pinnace describe hello -o json | jq .availableReplicas")]
pub struct DescribeArgs {
    /// The function
    name: String,
    /// Show empty parts too
    #[arg(short, long)]
    verbose: bool,
    /// Taken for the sake of scripts; NAME is the function
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

/// A function as JSON: its status, and the four fields that faas-cli adds.
#[derive(Serialize)]
struct Description {
    #[serde(flatten)]
    status: FunctionStatus,
    #[serde(rename = "Status")]
    word: &'static str,
    #[serde(rename = "InvocationCount")]
    invocations: u64,
    #[serde(rename = "URL")]
    url: String,
    #[serde(rename = "AsyncURL")]
    async_url: String,
}

/// Shows a function.
pub fn run(args: &DescribeArgs) -> anyhow::Result<()> {
    let (name, namespace) = split_name(&args.name, args.namespace.get())?;
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    let Some(mut status) = gateway.function(name, namespace, true)? else {
        return Err(no_such_function(name, namespace, &gateway));
    };
    // Other gateways count calls in the list alone.
    if status.invocation_count == 0.0 {
        let listed = gateway.functions(namespace)?.into_iter().find(|f| f.name == status.name);
        status.invocation_count = listed.map_or(0.0, |listed| listed.invocation_count);
    }
    let description = Description {
        word: if status.available_replicas > 0 { "Ready" } else { "Not Ready" },
        invocations: status.invocation_count as u64,
        url: gateway.function_url(name, namespace),
        async_url: gateway.async_url(name, namespace),
        status,
    };
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &description);
    }
    let color = has_color(&io::stdout());
    let logs = gateway.command(&format!("logs {name}"), namespace);
    write!(out, "{}", notices(&description.status, &logs, color))?;
    write!(out, "{}", block(&description, args.verbose, color))?;
    Ok(())
}

/// What the platform says of the function, above everything else. `logs` is the command that shows its logs.
fn notices(status: &FunctionStatus, logs: &str, color: bool) -> String {
    let mut text = String::new();
    let mut is_failing = !status.conditions.is_empty();
    if let Some(rollout) = &status.rollout {
        let (word, paint) = match rollout.phase {
            RolloutPhase::Progressing => ("is being rolled out", Paint::Yellow),
            RolloutPhase::Failed => ("failed", Paint::Red),
            RolloutPhase::Ready => ("", Paint::Green),
        };
        is_failing |= rollout.phase == RolloutPhase::Failed;
        if rollout.phase != RolloutPhase::Ready {
            let head = format!("Deploy {} {word}:", rollout.revision);
            let said = printable(&rollout.message);
            text.push_str(&format!("{} {said}\n", painted(&head, paint, color)));
        }
    }
    for condition in &status.conditions {
        let head = painted("Attention:", Paint::Yellow, color);
        text.push_str(&format!("{head} {}\n", printable(condition)));
    }
    if is_failing {
        text.push_str(&format!("`{logs}` shows what it printed.\n"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn block(description: &Description, verbose: bool, color: bool) -> String {
    let status = &description.status;
    let paint = if description.word == "Ready" { Paint::Green } else { Paint::Yellow };
    let process = if status.env_process.is_empty() { "<default>" } else { &status.env_process };
    let mut text = String::new();
    let mut line = |label: &str, value: &str| text.push_str(&format!("{label:<20}{value}\n"));
    line("Name:", &printable(&status.name));
    line("Status:", &painted(description.word, paint, color));
    line("Replicas:", &status.replicas.to_string());
    line("Available Replicas:", &status.available_replicas.to_string());
    line("Invocations:", &description.invocations.to_string());
    line("Image:", &printable(&status.image));
    line("Function Process:", &printable(process));
    line("URL:", &description.url);
    line("Async URL:", &description.async_url);
    if let Some(network) = &status.network {
        line("Network:", &printable(network));
    }
    if verbose {
        line("Created:", &printable(&status.created_at));
        if let Some(rollout) = &status.rollout {
            let phase = format!("{:?}", rollout.phase).to_lowercase();
            let said = printable(&rollout.message);
            line("Deploy:", format!("{} {phase} {said}", rollout.revision).trim_end());
        }
    }
    map(&mut text, "Labels", Some(&status.labels), verbose);
    map(&mut text, "Annotations", Some(&status.annotations), verbose);
    list(&mut text, "Constraints", status.constraints.as_deref(), verbose);
    map(&mut text, "Environment", status.env_vars.as_ref(), verbose);
    list(&mut text, "Secrets", status.secrets.as_deref(), verbose);
    resources(&mut text, "Requests", status.requests.as_ref(), verbose);
    resources(&mut text, "Limits", status.limits.as_ref(), verbose);
    if status.read_only_root_filesystem || verbose {
        text.push_str(&format!("{:<20}{}\n", "Read-only root:", status.read_only_root_filesystem));
    }
    if let Some(usage) = &status.usage {
        let megabytes = usage.total_memory_bytes / f64::from(1 << 20);
        text.push_str(&format!("Usage:\n  RAM:  {megabytes:.2} MB\n  CPU:  {:.0} Mi\n", usage.cpu));
    }
    text
}

fn map(text: &mut String, title: &str, entries: Option<&Map>, verbose: bool) {
    match entries.filter(|entries| !entries.is_empty()) {
        Some(entries) => {
            text.push_str(&format!("{title}:\n"));
            for (key, value) in entries {
                text.push_str(&format!(" {}: {}\n", printable(key), printable(value)));
            }
        }
        None if verbose => text.push_str(&format!("{:<20}<none>\n", format!("{title}:"))),
        None => {}
    }
}

fn list(text: &mut String, title: &str, items: Option<&[String]>, verbose: bool) {
    match items.filter(|items| !items.is_empty()) {
        Some(items) => {
            text.push_str(&format!("{title}:\n"));
            for item in items {
                text.push_str(&format!(" - {}\n", printable(item)));
            }
        }
        None if verbose => text.push_str(&format!("{:<20}<none>\n", format!("{title}:"))),
        None => {}
    }
}

fn resources(text: &mut String, title: &str, resources: Option<&Resources>, verbose: bool) {
    let pairs = resources.map(|resources| {
        let named = [
            ("CPU", &resources.cpu),
            ("Memory", &resources.memory),
            ("nvidia.com/gpu", &resources.nvidia_gpu),
            ("amd.com/gpu", &resources.amd_gpu),
            ("intel.com/gpu", &resources.intel_gpu),
        ];
        let given = named.iter().filter_map(|(n, v)| Some(((*n).to_owned(), (*v).clone()?)));
        given.collect::<Map>()
    });
    map(text, title, pairs.as_ref(), verbose);
}

#[cfg(test)]
mod tests {
    use pinnace_core::wire::{Rollout, Usage};

    use super::*;

    fn described(json: &str) -> Description {
        let status: FunctionStatus = serde_json::from_str(json).unwrap();
        Description {
            word: if status.available_replicas > 0 { "Ready" } else { "Not Ready" },
            invocations: status.invocation_count as u64,
            url: "http://gw/function/echo".into(),
            async_url: "http://gw/async-function/echo".into(),
            status,
        }
    }

    #[test]
    fn the_block_is_that_of_faas_cli() {
        let description = described(
            r#"{"name":"echo","image":"i:1","namespace":"openfaas-fn","envProcess":"/bin/busybox cat",
                "envVars":{"content_type":"text/plain"},"labels":{"faas_function":"echo"},"annotations":{},
                "invocationCount":2,"replicas":1,"availableReplicas":1,"createdAt":"2026-11-23T19:55:50Z"}"#,
        );
        let expected = "\
Name:               echo
Status:             Ready
Replicas:           1
Available Replicas: 1
Invocations:        2
Image:              i:1
Function Process:   /bin/busybox cat
URL:                http://gw/function/echo
Async URL:          http://gw/async-function/echo
Labels:
 faas_function: echo
Environment:
 content_type: text/plain
";
        assert_eq!(block(&description, false, false), expected);
        assert_eq!(notices(&description.status, "pinnace logs echo", false), "");
    }

    #[test]
    fn the_network_is_shown_where_the_server_tells_it() {
        let description = described(r#"{"name":"echo","image":"i:1","network":"nat"}"#);
        let text = block(&description, false, false);
        assert!(text.ends_with("/async-function/echo\nNetwork:            nat\n"), "{text}");
    }

    #[test]
    fn usage_as_faas_cli_shows_it() {
        let mut description = described(r#"{"name":"echo","image":"i:1"}"#);
        description.status.usage = Some(Usage { cpu: 12.0, total_memory_bytes: 10_485_760.0 });
        let text = block(&description, false, false);
        assert!(text.ends_with("Usage:\n  RAM:  10.00 MB\n  CPU:  12 Mi\n"), "{text}");
        assert!(text.contains("Function Process:   <default>\n"), "{text}");
        assert!(text.contains("Status:             Not Ready\n"), "{text}");
    }

    #[test]
    fn what_is_wrong_stands_first() {
        let mut description = described(r#"{"name":"echo","image":"i:1"}"#);
        description.status.conditions = vec!["the image is gone".into()];
        description.status.rollout = Some(Rollout {
            revision: 3,
            phase: RolloutPhase::Failed,
            message: "the command was not found".into(),
        });
        let text = notices(&description.status, "pinnace logs echo", false);
        let expected = "Deploy 3 failed: the command was not found\nAttention: the image is gone\n\
                        `pinnace logs echo` shows what it printed.\n\n";
        assert_eq!(text, expected);
    }
}
