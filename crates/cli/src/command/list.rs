//! `pinnace list`: the functions of a namespace.

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use pinnace_core::{name::check_label, wire::FunctionStatus};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackFileArgs},
    failure::usage,
    gateway::Gateway,
    golayout,
    output::{self, printable},
};

/// Flags of `pinnace list`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace list
  pinnace list -v --sort invocations
  pinnace list -q | xargs -n1 pinnace describe")]
pub struct ListArgs {
    /// Show image and time of creation too
    #[arg(short, long)]
    verbose: bool,
    /// Show names alone
    #[arg(short, long)]
    quiet: bool,
    /// Order
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    sort: Sort,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    /// By name
    Name,
    /// Most called first
    Invocations,
    /// Oldest first
    Creation,
}

/// Lists functions.
pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    if let Some(namespace) = args.namespace.get() {
        check_label("namespace", namespace).map_err(|error| usage(error.to_string()))?;
    }
    let mut functions = gateway.functions(args.namespace.get())?;
    sort(&mut functions, args.sort);
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &functions);
    }
    if args.quiet {
        for function in &functions {
            writeln!(out, "{}", printable(&function.name))?;
        }
        return Ok(());
    }
    write!(out, "{}", table(&functions, args.verbose))?;
    if functions.is_empty() {
        output::remark(
            "There are no functions here yet; deploy one with `pinnace deploy NAME --image IMAGE`.",
        );
    }
    Ok(())
}

fn sort(functions: &mut [FunctionStatus], order: Sort) {
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    match order {
        Sort::Name => {}
        Sort::Invocations => functions.sort_by_key(|f| Reverse(f.invocation_count as u64)),
        Sort::Creation => functions.sort_by_key(created),
    }
}

fn created(function: &FunctionStatus) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(&function.created_at, &Rfc3339).ok()
}

/// How Go prints a time, and with it faas-cli.
const TIME: &str = "2006-01-02 15:04:05.999999999 -0700 MST";

/// Narrowest column of images, in characters.
const IMAGE_CHARS: usize = 40;

/// The table, column for column as faas-cli lays it out: scripts cut it at its tabs.
fn table(functions: &[FunctionStatus], verbose: bool) -> String {
    let images = functions.iter().map(|function| printable(&function.image).chars().count());
    let width = images.max().unwrap_or_default().max(IMAGE_CHARS);
    let image = |text: &str| if verbose { format!("{text:<width$}\t") } else { String::new() };
    let row = |name: &str, of_image: &str, invocations: &str, replicas: &str, created: &str| {
        format!("{name:<30}\t{}{invocations:<15}\t{replicas:<5}{created}\n", image(of_image))
    };
    let created = if verbose { "\tCreatedAt" } else { "" };
    let mut text = row("Function", "Image", "Invocations", "Replicas", created);
    for function in functions {
        let time = printable(&golayout::reformat(&function.created_at, TIME));
        let created = if verbose { format!("\t\t{time}") } else { String::new() };
        text.push_str(&row(
            &printable(&function.name),
            &printable(&function.image),
            &(function.invocation_count as u64).to_string(),
            &function.replicas.to_string(),
            &created,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, invocations: f64, created_at: &str) -> FunctionStatus {
        FunctionStatus {
            name: name.into(),
            image: format!("i/{name}:1"),
            invocation_count: invocations,
            replicas: 2,
            created_at: created_at.into(),
            ..FunctionStatus::default()
        }
    }

    fn three() -> Vec<FunctionStatus> {
        vec![
            function("b", 5.0, "2026-01-02T00:00:00Z"),
            function("a", 0.0, "2026-01-03T00:00:00+01:00"),
            function("c", 9.0, "2026-01-01T00:00:00.5Z"),
        ]
    }

    fn sorted(order: Sort) -> String {
        let mut functions = three();
        sort(&mut functions, order);
        functions.into_iter().map(|f| f.name).collect()
    }

    #[test]
    fn orders() {
        assert_eq!(sorted(Sort::Name), "abc");
        assert_eq!(sorted(Sort::Invocations), "cba");
        assert_eq!(sorted(Sort::Creation), "cba");
    }

    #[test]
    fn columns() {
        let plain = table(&three()[..1], false);
        let name = format!("b{}", " ".repeat(29));
        assert!(plain.ends_with(&format!("\n{name}\t5{}\t2    \n", " ".repeat(14))), "{plain:?}");
        let words: Vec<String> = table(&three(), true)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(words[0], "Function Image Invocations Replicas CreatedAt");
        assert_eq!(words[2], "a i/a:1 0 2 2026-01-03 00:00:00 +0100 +0100");
    }
}
