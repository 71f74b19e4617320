//! `pinnace template store`: a list of templates that others made.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::TakeArgs;
use crate::{
    args::{OutputArgs, UnusedStackArgs},
    output::{self, printable},
    template::{DEFAULT_URL, Repository, Store, StoreItem},
};

/// Machines that templates are listed for, if none are named.
const PLATFORM: &str = "x86_64";

/// Flags of `pinnace template store`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace template store list --recommended
  pinnace template store describe golang-http
  pinnace template store pull openfaas/node20

The store is a JSON file. --url wins over the variable OPENFAAS_TEMPLATE_STORE_URL; without both it is that of
OpenFaaS.")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
    #[command(flatten)]
    take: TakeArgs,
    #[command(flatten)]
    stack: UnusedStackArgs,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// List the templates of the store
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show all about one template of the store
    #[command(visible_alias = "inspect")]
    Describe(DescribeArgs),
    /// Bring a template of the store, and what else its repository has
    Pull(PullArgs),
}

#[derive(Args, Debug)]
struct UrlArgs {
    /// URL or path of the store's JSON file
    #[arg(short, long, value_name = "URL", long_help = DEFAULT_URL, hide_possible_values = true)]
    url: Option<String>,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Show language and machines too
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value_t = false, hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    verbose: bool,
    /// Only those that the store advises
    #[arg(short, long)]
    recommended: bool,
    /// Only those of the store's owners
    #[arg(long, short = 'o')]
    official: bool,
    /// Machines that the templates are for
    #[arg(short, long, value_name = "NAME", default_value = PLATFORM)]
    platform: String,
    /// As JSON
    #[arg(short, long)]
    json: bool,
    #[command(flatten)]
    url: UrlArgs,
}

#[derive(Args, Debug)]
struct DescribeArgs {
    /// The template
    name: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    url: UrlArgs,
}

#[derive(Args, Debug)]
struct PullArgs {
    /// The template, perhaps with @ and a version
    name: String,
    #[command(flatten)]
    url: UrlArgs,
}

/// Runs a command about the store.
pub fn run(args: &StoreArgs) -> anyhow::Result<()> {
    match &args.command {
        StoreCommand::List(args) => list(args),
        StoreCommand::Describe(args) => describe(args),
        StoreCommand::Pull(pull_args) => pull(pull_args, &args.take),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let store = Store::read(args.url.url.as_deref())?;
    let mut out = io::stdout().lock();
    if args.json {
        return output::json(&mut out, &store.0);
    }
    let chosen = store.0.iter().filter(|item| {
        item.platform.eq_ignore_ascii_case(&args.platform)
            && (!args.recommended || item.recommended)
            && (!args.official || item.is_official())
    });
    let chosen: Vec<&StoreItem> = chosen.collect();
    if chosen.is_empty() {
        writeln!(out, "The store has no such templates for {}.", printable(&args.platform))?;
        return Ok(());
    }
    write!(out, "{}", table(&chosen, args.verbose))?;
    Ok(())
}

fn table(items: &[&StoreItem], verbose: bool) -> String {
    let titles: &[&str] = if verbose {
        &["NAME", "RECOMMENDED", "SOURCE", "DESCRIPTION", "LANGUAGE", "PLATFORM"]
    } else {
        &["NAME", "RECOMMENDED", "SOURCE", "DESCRIPTION"]
    };
    let mut rows = vec![titles.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>()];
    for item in items {
        let mut row = vec![&item.template, mark(item.recommended), &item.source, &item.description];
        if verbose {
            row.extend([&item.language, &item.platform]);
        }
        rows.push(row.into_iter().map(|cell| printable(cell)).collect());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..titles.len()).filter_map(width).collect();
    let mut text = String::from("\n");
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join(" ").trim_end());
        text.push('\n');
    }
    text + "\n"
}

fn mark(is_so: bool) -> &'static String {
    static MARKS: std::sync::LazyLock<[String; 2]> =
        std::sync::LazyLock::new(|| ["[ ]".to_owned(), "[x]".to_owned()]);
    &MARKS[usize::from(is_so)]
}

fn describe(args: &DescribeArgs) -> anyhow::Result<()> {
    let store = Store::read(args.url.url.as_deref())?;
    let item = store.find(&args.name)?;
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, item);
    }
    writeln!(out)?;
    for (label, value) in [
        ("Name:", &item.template),
        ("Description:", &item.description),
        ("Language:", &item.language),
        ("Source:", &item.source),
        ("Repository:", &item.repo),
        ("Platform:", &item.platform),
        ("Official:", mark(item.is_official())),
        ("Recommended:", mark(item.recommended)),
    ] {
        writeln!(out, "{label:<13}{}", printable(value))?;
    }
    writeln!(out)?;
    Ok(())
}

fn pull(args: &PullArgs, take: &TakeArgs) -> anyhow::Result<()> {
    let (name, version) = match args.name.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (args.name.as_str(), None),
    };
    let store = Store::read(args.url.url.as_deref())?;
    let repository: Repository = store.find(name)?.repo.parse().map_err(anyhow::Error::msg)?;
    let repository = match version {
        Some(_) => repository.at(version).map_err(anyhow::Error::msg)?,
        None => repository,
    };
    let taken = repository.take(None, take.overwrite(), take.debug)?;
    writeln!(io::stdout(), "{taken}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_its_columns_under_their_titles() {
        let item = StoreItem {
            template: "go".into(),
            source: "openfaas".into(),
            description: "Go, \x1b[2J".into(),
            recommended: true,
            ..StoreItem::default()
        };
        let text = table(&[&item], false);
        assert_eq!(
            text,
            "\nNAME RECOMMENDED SOURCE   DESCRIPTION\ngo   [x]         openfaas Go, \\u{1b}[2J\n\n"
        );
        assert!(table(&[&item], true).contains("LANGUAGE PLATFORM"));
    }
}
