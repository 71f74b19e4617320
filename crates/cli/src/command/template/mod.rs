//! `pinnace template`: templates from Git repositories and from a store of them.

mod store;

use std::io::{self, Write};

use clap::{Args, Subcommand};

use crate::{
    args::StackArgs,
    failure::usage,
    stack,
    template::{DEFAULT_REPOSITORY, Overwrite, REPOSITORY_VARIABLE, Repository, TemplateName},
};

/// Flags of `pinnace template`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace template pull                                          OpenFaaS's own
  pinnace template pull https://github.com/openfaas/templates.git#1.0
  pinnace template pull stack                                    those that ./stack.yaml names
  pinnace template store list
  pinnace template store pull golang-middleware

Templates lie in ./template. Those at a version (URL#VERSION) lie in NAME@VERSION, and a function names them so.
`pinnace new --list` shows those here and those that this program carries.")]
pub struct TemplateArgs {
    #[command(subcommand)]
    command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
enum TemplateCommand {
    /// Bring templates from a Git repository
    Pull(PullArgs),
    /// Find templates that others made, and bring them
    Store(store::StoreArgs),
}

/// What happens to templates that are there, and how much is said.
#[derive(Args, Clone, Debug)]
struct TakeArgs {
    /// Replace templates that are there
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, global = true,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    overwrite: bool,
    /// Keep what git brought, and say where
    #[arg(long, global = true)]
    debug: bool,
}

impl TakeArgs {
    fn overwrite(&self) -> Overwrite {
        if self.overwrite { Overwrite::Yes } else { Overwrite::No }
    }
}

#[derive(Args, Debug)]
struct PullArgs {
    /// URL of the repository, perhaps with # and a branch or tag; or `stack` for what the stack file names
    /// [default: OPENFAAS_TEMPLATE_URL, then OpenFaaS's own]
    #[arg(value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    take: TakeArgs,
    #[command(flatten)]
    stack: PullStackArgs,
}

/// The stack file whose templates are brought.
#[derive(Args, Debug)]
struct PullStackArgs {
    /// Stack file that `stack` stands for [default: stack.yaml or stack.yml]
    #[arg(short = 'f', long, value_name = "FILE")]
    yaml: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "WILDCARD", hide = true)]
    filter: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "REGEX", hide = true)]
    regex: Option<String>,
}

/// Runs a command about templates.
pub fn run(args: &TemplateArgs) -> anyhow::Result<()> {
    match &args.command {
        TemplateCommand::Pull(args) if args.url.as_deref() == Some("stack") => pull_stack(args),
        TemplateCommand::Pull(args) => pull(args),
        TemplateCommand::Store(args) => store::run(args),
    }
}

fn pull(args: &PullArgs) -> anyhow::Result<()> {
    let given = |url: &String| !url.is_empty();
    let variable = std::env::var(REPOSITORY_VARIABLE).ok();
    let url = args.url.clone().filter(given).or(variable.filter(given));
    let url = url.as_deref().unwrap_or(DEFAULT_REPOSITORY);
    let repository: Repository = url.parse().map_err(|why: String| usage(why))?;
    let taken = repository.take(None, args.take.overwrite(), args.take.debug)?;
    writeln!(io::stdout(), "{taken}")?;
    Ok(())
}

fn pull_stack(args: &PullArgs) -> anyhow::Result<()> {
    let stack = StackArgs { yaml: args.stack.yaml.clone(), ..StackArgs::default() };
    let configuration = stack::configuration(&stack)?;
    if configuration.templates.is_empty() {
        anyhow::bail!("the stack file names no templates: list them under configuration.templates");
    }
    let mut out = io::stdout().lock();
    for source in &configuration.templates {
        let name: TemplateName = source.name.parse().map_err(anyhow::Error::msg)?;
        let from = source.source.as_deref().unwrap_or("store");
        writeln!(out, "Pulling template: {name} from {from}")?;
        let repository = Repository::of_stack(source)?;
        let taken = repository.take(Some(&name), args.take.overwrite(), args.take.debug)?;
        writeln!(out, "{taken}")?;
    }
    Ok(())
}
