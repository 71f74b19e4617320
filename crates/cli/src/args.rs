//! The command line: its commands, and the flags that several of them share. Flags are named as faas-cli
//! names them where it has the command.

use std::str::FromStr;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use pinnace_core::name::check_label;

use crate::{
    command::{
        build, completion, deploy, describe, diff, doctor, down, generate, image, invoke, list,
        login, logs, namespace, new, print_token, publish, push, queue, ready, registry, remove,
        scale, schedule, secret, store, template, up_stack, version,
    },
    failure::usage,
    gateway::Gateway,
    stack::StackHead,
};

/// Runs functions: any container image or plain binary, called over HTTP, started when it is needed and
/// gone when it is not.
#[derive(Debug, Parser)]
#[command(name = "pinnace", version, max_term_width = 110, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a server on this host; with -f, build and deploy the functions of a stack file
    Up(Box<crate::up::UpArgs>),
    /// Build, push and deploy the functions of a stack file
    #[command(name = up_stack::NAME, hide = true)]
    UpStack(Box<up_stack::UpStackArgs>),
    /// End what a server left running on this host
    Down(down::DownArgs),
    /// Say what this host can do, what is missing and what is left behind
    Doctor(doctor::DoctorArgs),
    /// Make a new function from a template
    New(new::NewArgs),
    /// Build functions: from source to images
    Build(Box<build::BuildArgs>),
    /// Push images to their registries
    Push(push::PushArgs),
    /// Build functions and push their images, for several platforms if need be
    Publish(Box<publish::PublishArgs>),
    /// Bring templates from Git repositories and stores
    Template(template::TemplateArgs),
    /// Deploy a function, or those of a stack file
    Deploy(Box<deploy::DeployArgs>),
    /// Call a function
    Invoke(invoke::InvokeArgs),
    /// List functions
    #[command(alias = "ls")]
    List(list::ListArgs),
    /// Show all about one function
    Describe(describe::DescribeArgs),
    /// Show what functions print
    Logs(logs::LogsArgs),
    /// Set a function's number of replicas
    Scale(scale::ScaleArgs),
    /// Remove a function, or those of a stack file
    #[command(aliases = ["rm", "delete"])]
    Remove(remove::RemoveArgs),
    /// Wait until the gateway or a function is ready
    Ready(ready::ReadyArgs),
    /// Compare a stack file with what is deployed
    Diff(diff::DiffArgs),
    /// Find functions that others made, and deploy them
    Store(store::StoreArgs),
    /// Create, update, list and remove secrets
    Secret(secret::SecretArgs),
    /// Create, update, list and remove namespaces
    #[command(alias = "ns")]
    Namespace(namespace::NamespaceCommandArgs),
    /// List namespaces
    #[command(hide = true)]
    Namespaces(namespace::ListArgs),
    /// Write a stack file's functions as Kubernetes resources
    Generate(generate::GenerateArgs),
    /// Load, pull, list and remove images
    Image(image::ImageArgs),
    /// List and remove what was pushed to the server's own registry
    Registry(registry::RegistryArgs),
    /// List, retry and drop asynchronous calls
    Queue(queue::QueueArgs),
    /// Show when functions are due
    Schedule(schedule::ScheduleArgs),
    /// Log in at a gateway
    Login(login::LoginArgs),
    /// Forget a login
    Logout(login::LogoutArgs),
    /// Show the versions of this program and of a gateway
    Version(version::VersionArgs),
    /// Show what a token says
    #[command(hide = true)]
    PrintToken(print_token::PrintTokenArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Which gateway, and who we are there.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Gateway")]
pub struct GatewayArgs {
    /// Gateway URL [default: the stack file's where one is read, OPENFAAS_URL, PINNACE_URL, http://127.0.0.1:8080]
    #[arg(short, long, value_name = "URL")]
    pub gateway: Option<String>,
    /// Token to send in place of the stored login
    #[arg(short = 'k', long, value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Do not check the gateway's certificate
    #[arg(long)]
    pub tls_no_verify: bool,
}

/// Flags of commands that ask a gateway and show its answer.
#[derive(Args, Debug)]
pub struct AskArgs {
    /// How the answer is shown.
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

impl AskArgs {
    /// The gateway that is meant.
    ///
    /// # Errors
    /// None can be told, or the stack file cannot be read.
    pub fn open(&self) -> anyhow::Result<Gateway> {
        Gateway::open(&self.gateway, self.stack.gateway()?.as_deref())
    }
}

/// Which namespace.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Gateway")]
pub struct NamespaceArgs {
    /// Namespace of the function
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl NamespaceArgs {
    /// The namespace, if one is named.
    pub fn get(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }

    /// The namespace, if one is named, fit to become part of a URL.
    ///
    /// # Errors
    /// It is no name of a namespace.
    pub fn checked(&self) -> anyhow::Result<Option<&str>> {
        if let Some(namespace) = self.get() {
            check_label("namespace", namespace).map_err(|error| usage(error.to_string()))?;
        }
        Ok(self.get())
    }
}

/// Which stack file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Stack file")]
pub struct StackArgs {
    /// Stack file [default: stack.yaml or stack.yml, if there is one]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub yaml: Option<String>,
    /// Only functions named so; * stands for any characters
    #[arg(long, value_name = "WILDCARD")]
    pub filter: Option<String>,
    /// Only functions whose name matches
    #[arg(long, value_name = "REGEX", conflicts_with = "filter")]
    pub regex: Option<String>,
    /// Replace ${VARIABLE} in the file
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub envsubst: bool,
}

impl Default for StackArgs {
    fn default() -> Self {
        Self { yaml: None, filter: None, regex: None, envsubst: true }
    }
}

/// Where a stack file stands for the gateway only.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Gateway")]
pub struct StackFileArgs {
    /// Stack file that names the gateway [default: stack.yaml or stack.yml, if there is one]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub yaml: Option<String>,
    /// Taken for the sake of scripts, as are the two below: it is not about a file's functions
    #[arg(long, value_name = "WILDCARD", hide = true)]
    filter: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "REGEX", hide = true)]
    regex: Option<String>,
    /// Replace ${VARIABLE} in the file
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, hide = true,
          require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    envsubst: bool,
}

impl StackFileArgs {
    /// What the stack file says beside its functions' settings.
    pub fn head(&self) -> anyhow::Result<StackHead> {
        let args =
            StackArgs { yaml: self.yaml.clone(), envsubst: self.envsubst, ..StackArgs::default() };
        crate::stack::head(&args)
    }

    /// The gateway that the stack file names.
    pub fn gateway(&self) -> anyhow::Result<Option<String>> {
        Ok(self.head()?.gateway)
    }
}

/// A stack file for commands that need none, for faas-cli takes one with each.
#[derive(Args, Clone, Debug)]
pub struct UnusedStackArgs {
    /// Taken for the sake of scripts
    #[arg(short = 'f', long, value_name = "FILE", hide = true, global = true)]
    yaml: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "WILDCARD", hide = true, global = true)]
    filter: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "REGEX", hide = true, global = true)]
    regex: Option<String>,
}

/// Text for people, or JSON for scripts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Form of the result
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: OutputForm,
    /// The same as --output json
    #[arg(short, long)]
    json: bool,
}

impl OutputArgs {
    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json || self.output == OutputForm::Json
    }
}

/// Forms of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// For people
    #[default]
    Text,
    /// For scripts
    Json,
}

/// A pair such as `NAME=VALUE`; the value may hold further `=`.
///
/// # Errors
/// There is no `=`, or nothing before it.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// A whole number.
///
/// # Errors
/// It is none, or one that the flag has no room for.
pub fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "give a whole number such as 3".to_owned())
}

/// The commands as the help groups them.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Functions",
        &[
            "new", "build", "deploy", "invoke", "list", "describe", "logs", "ready", "scale",
            "queue", "schedule", "remove", "diff",
        ],
    ),
    (
        "Around functions",
        &[
            "template",
            "push",
            "publish",
            "secret",
            "namespace",
            "store",
            "image",
            "registry",
            "generate",
        ],
    ),
    ("Server", &["up", "down", "doctor"]),
    ("Client", &["login", "logout", "version", "completion"]),
];

const FIRST_STEPS: &str = "\
First steps:
  pinnace up --examples &                        start a server with example functions
  pinnace deploy hello --image host --fprocess 'cat'
  echo hi | pinnace invoke hello
  pinnace logs hello

`pinnace COMMAND --help` tells more about each command.";

/// The command line's definition, its help in groups.
pub fn definition() -> clap::Command {
    let command = Cli::command();
    let heading = command.get_styles().get_header();
    let mut groups = String::new();
    for (title, names) in GROUPS {
        groups.push_str(&format!("{heading}{title}:{heading:#}\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            groups.push_str(&format!("  {name:<12}{about}\n"));
        }
        groups.push('\n');
    }
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{heading}Options:{heading:#}\n{{options}}\n\n{FIRST_STEPS}\n"
    );
    command.help_template(template)
}

/// Reads the command line; ends the program if it is wrong (2) or asks for help (0).
pub fn parse() -> Cli {
    let matches = definition().get_matches_from(up_stack::told_apart(std::env::args_os()));
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod flags_of_faas_cli;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_command_is_in_one_group_and_has_help() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        grouped.sort_unstable();
        let command = Cli::command();
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut names: Vec<&str> = shown.map(clap::Command::get_name).collect();
        names.sort_unstable();
        assert_eq!(grouped, names);
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
        }
    }

    #[test]
    fn pairs() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(pair("A="), Ok(("A".into(), String::new())));
        assert!(pair("A").is_err());
        assert!(pair("=b").is_err());
        assert_eq!((number("3"), number::<i64>("-1")), (Ok(3_u64), Ok(-1)));
        assert!(number::<u64>("many").is_err() && number::<u32>("-1").is_err());
    }

    #[test]
    fn names_and_aliases_of_faas_cli() {
        for words in [
            &["list", "-v", "-q", "--sort", "creation", "-n", "dev", "-g", "http://x", "-j"][..],
            &["ls", "--output", "json", "-k", "t"],
            &["rm", "a", "b"],
            &["delete", "-f", "x.yml", "--filter", "a*"],
            &["logs", "f", "-t=false", "--lines=5", "--since", "10m", "--instance", "--name"],
            &["logs", "f", "--tail=false", "-o", "keyvalue", "--time-format", "rfc850"],
            &["deploy", "--image", "i", "--name", "n", "--update=false", "--replace", "-e", "A=b"],
            &[
                "deploy",
                "--readonly",
                "--network",
                "func_functions",
                "--lang",
                "go",
                "-l",
                "a=b",
                "--read-template",
            ],
            &["invoke", "f", "-a", "-H", "A: b", "--header", "C:d", "-m", "GET", "--query", "a=b"],
            &["login", "-u", "admin", "-s", "--tls-no-verify"],
            &["version", "--json", "--warn-update=false"],
        ] {
            let words = std::iter::once("pinnace").chain(words.iter().copied());
            let parsed = definition().try_get_matches_from(words.clone());
            assert!(parsed.is_ok(), "{:?}", parsed.map_err(|error| error.to_string()));
        }
    }
}
