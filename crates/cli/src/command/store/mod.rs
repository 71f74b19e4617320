//! `pinnace store`: functions that others made, from a list of them.

mod catalog;

use std::io::{self, Write};

use clap::{Args, Subcommand};
use pinnace_core::wire::{FunctionDeployment, Map};

pub use self::catalog::{Catalog, DEFAULT_URL, platform_of};
use self::catalog::{Item, this_platform};
use super::deploy::{self, OverlayArgs, RolloutArgs, Wanted, lay_over};
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, UnusedStackArgs},
    gateway::Gateway,
    output::{self, printable},
};

/// Flags of `pinnace store`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace store list
  pinnace store describe figlet
  pinnace store deploy figlet
  pinnace store list --url ./functions.json

The store is a JSON file. --url wins over the variable OPENFAAS_STORE; without both it is that of
OpenFaaS.")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
    #[command(flatten)]
    stack: UnusedStackArgs,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// List the functions of the store
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show all about one function of the store
    #[command(visible_alias = "inspect")]
    Describe(DescribeArgs),
    /// Deploy a function of the store
    Deploy(Box<StoreDeployArgs>),
}

/// Which store, and for which machines.
#[derive(Args, Debug)]
#[command(next_help_heading = "Store")]
struct CatalogArgs {
    /// URL or path of the store's JSON file [default: OPENFAAS_STORE, then OpenFaaS's own]
    #[arg(short, long, value_name = "URL")]
    url: Option<String>,
    /// Machines that the function must run on: x86_64, arm64 or armhf [default: like this one]
    #[arg(short, long, value_name = "NAME")]
    platform: Option<String>,
}

impl CatalogArgs {
    fn read(&self) -> anyhow::Result<Catalog> {
        let variable = std::env::var("OPENFAAS_STORE").ok().filter(|url| !url.is_empty());
        let url = self.url.clone().or(variable);
        Catalog::read(url.as_deref().unwrap_or(catalog::DEFAULT_URL))
    }

    fn platform(&self) -> &str {
        let named = self.platform.as_deref().filter(|platform| !platform.is_empty());
        named.map_or(this_platform(), catalog::platform_of)
    }
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Show titles in full
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    catalog: CatalogArgs,
}

#[derive(Args, Debug)]
struct DescribeArgs {
    /// The function's name or title
    name: String,
    /// Taken for the sake of scripts
    #[arg(short, long, hide = true)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    catalog: CatalogArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace store deploy figlet
  pinnace store deploy nodeinfo --name info -n dev -e MODE=fast

Environment that is given here wins over the store's; the store's labels and annotations win.")]
struct StoreDeployArgs {
    /// The function's name or title
    #[arg(value_name = "FUNCTION")]
    function: String,
    /// Name that it is deployed under [default: the store's]
    #[arg(long, help_heading = "Function")]
    name: Option<String>,
    #[command(flatten)]
    overlay: OverlayArgs,
    #[command(flatten)]
    rollout: RolloutArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    catalog: CatalogArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// Runs a command about the store.
pub fn run(args: &StoreArgs) -> anyhow::Result<()> {
    match &args.command {
        StoreCommand::List(args) => list(args),
        StoreCommand::Describe(args) => describe(args),
        StoreCommand::Deploy(args) => deploy(args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let catalog = args.catalog.read()?;
    let platform = args.catalog.platform();
    let items: Vec<&Item> = catalog.of_platform(platform).collect();
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &items);
    }
    if items.is_empty() {
        writeln!(
            out,
            "No functions found in the store for platform '{platform}', try one of the following: {}",
            catalog.platforms().join(", ")
        )?;
        return Ok(());
    }
    write!(out, "{}", table(&items, args.verbose))?;
    Ok(())
}

fn describe(args: &DescribeArgs) -> anyhow::Result<()> {
    let catalog = args.catalog.read()?;
    let platform = args.catalog.platform();
    let item = catalog.find(&args.name, platform)?;
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, item);
    }
    write!(out, "{}", described(item, platform))?;
    Ok(())
}

fn deploy(args: &StoreDeployArgs) -> anyhow::Result<()> {
    args.rollout.check()?;
    let namespace = args.namespace.checked()?.unwrap_or_default();
    let catalog = args.catalog.read()?;
    let platform = args.catalog.platform();
    let item = catalog.find(&args.function, platform)?;
    let mut function = FunctionDeployment {
        service: args.name.as_ref().unwrap_or(&item.name).clone(),
        image: item.image(platform).unwrap_or_default().to_owned(),
        namespace: namespace.to_owned(),
        env_process: item.fprocess.clone(),
        env_vars: item.environment.clone().filter(|environment| !environment.is_empty()),
        labels: Some(Map::new()),
        annotations: Some(Map::new()),
        read_only_root_filesystem: item.read_only_root_filesystem,
        ..FunctionDeployment::default()
    };
    lay_over(&mut function, &args.overlay);
    for (map, of_store) in
        [(&mut function.labels, &item.labels), (&mut function.annotations, &item.annotations)]
    {
        map.get_or_insert_default().extend(of_store.clone().unwrap_or_default());
    }
    let gateway = Gateway::open(&args.gateway, None)?;
    let wanted = Wanted { gateway: None, from_stack: false, functions: vec![function] };
    deploy::deploy(&gateway, &wanted, &args.rollout, args.output.is_json())
}

/// Longest title in a table, in characters.
const TITLE_CHARS: usize = 40;

fn table(items: &[&Item], verbose: bool) -> String {
    let mut rows = vec![["FUNCTION".to_owned(), "AUTHOR".to_owned(), "DESCRIPTION".to_owned()]];
    for item in items {
        let title = printable(&item.title);
        let title = if verbose { title } else { shortened(&title) };
        rows.push([printable(&item.name), printable(item.author()), title]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let (first, second) = (width(0).unwrap_or_default(), width(1).unwrap_or_default());
    let mut text = String::from("\n");
    for [name, author, title] in &rows {
        text.push_str(&format!("{name:<first$} {author:<second$} {title}\n"));
    }
    text + "\n"
}

fn shortened(title: &str) -> String {
    if title.chars().count() <= TITLE_CHARS {
        return title.to_owned();
    }
    title.chars().take(TITLE_CHARS - 3).chain("...".chars()).collect()
}

fn described(item: &Item, platform: &str) -> String {
    let description = wrapped(&printable(&item.description), 80);
    let mut text = format!(
        "{:<13}{}\n{:<13}{}\nDescription: \n{description}\n\n",
        "Title:",
        printable(&item.title),
        "Author:",
        printable(item.author()),
    );
    let image = item.image(platform).unwrap_or_default();
    let lines = [("Image:", image), ("Process:", &item.fprocess), ("Repo URL:", &item.repo_url)];
    for (label, value) in lines {
        text.push_str(&format!("{label:<10}{}\n", printable(value)));
    }
    for (title, map) in [
        ("Environment", &item.environment),
        ("Labels", &item.labels),
        ("Annotations", &item.annotations),
    ] {
        let Some(map) = map.as_ref().filter(|map| !map.is_empty()) else { continue };
        let width = map.keys().map(|key| key.chars().count()).max().unwrap_or_default() + 1;
        text.push_str(&format!("{title}:\n"));
        for (key, value) in map {
            let key = format!("{}:", printable(key));
            text.push_str(&format!("-  {key:<width$} {}\n", printable(value)));
        }
        text.push('\n');
    }
    text
}

/// Text whose lines break at spaces, before they are longer than this many characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut current = String::new();
        for word in line.split_whitespace() {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("a bb ccc\n\nd", 4), "a bb\nccc\n\nd");
        assert_eq!(wrapped("abcdefgh i", 4), "abcdefgh\ni");
        assert_eq!(wrapped("", 4), "");
    }

    #[test]
    fn titles_are_shortened_by_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(41)), "ä".repeat(37) + "...");
        assert_eq!(shortened(&"ä".repeat(40)), "ä".repeat(40));
    }
}
