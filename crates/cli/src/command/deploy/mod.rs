//! `pinnace deploy`: from flags or a stack file to functions that are ready.
//!
//! PUT, and POST where there was nothing to update. Then the rollout is watched until it is ready or
//! failed; a gateway that tells nothing about rollouts is not waited for.

mod flags;
mod wanted;

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::ProgressBar;
use pinnace_core::{
    limits,
    wire::{self, FunctionDeployment, FunctionStatus, RolloutPhase},
};
use serde::Serialize;
use ureq::http::StatusCode;

pub use self::{
    flags::{OverlayArgs, RolloutArgs},
    wanted::{Overrides, Wanted, lay_over, networks, overlaid, warn_of_swarm},
};
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackArgs},
    gateway::{Gateway, spoken},
    output::{self, printable},
    pause,
    stack::TagSource,
};

/// Flags of `pinnace deploy`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace deploy hello --image host --fprocess 'cat'         a program of this host
  pinnace deploy web --image ghcr.io/me/web:1 -e MODE=fast   an image
  pinnace deploy                                             all functions of ./stack.yaml
  pinnace deploy -f stack.yaml --filter 'api-*' -e MODE=slow

Flags win over the stack file; labels, annotations and environment are merged with it. Files in
environment_file are looked for in the working directory, then beside the stack file.")]
pub struct DeployArgs {
    /// The function; with a stack file, the one of its functions to deploy
    #[arg(value_name = "NAME")]
    positional: Option<String>,
    /// The same as NAME
    #[arg(
        long = "name",
        value_name = "NAME",
        help_heading = "Function",
        conflicts_with = "positional"
    )]
    named: Option<String>,
    /// Image reference, or host for this host's own programs
    #[arg(long, value_name = "REF", help_heading = "Function")]
    image: Option<String>,
    /// Command that the watchdog runs
    #[arg(long, value_name = "COMMAND", help_heading = "Function")]
    fprocess: Option<String>,
    /// When to pull the image: at each deploy, if the server does not have it [default], or not at all
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never"], help_heading = "Function")]
    pull: Option<String>,
    /// What it reaches beside the platform: nothing (none, the default of image host), the outside by the
    /// host's address (nat, the default of other images where the host can do it), or all that the host does
    /// (host, for one replica of a command that the watchdog runs)
    #[arg(long, value_name = "NETWORK", value_parser = wanted::networks(), help_heading = "Function")]
    network: Option<String>,
    /// Root filesystem read-only; /tmp stays writable
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help_heading = "Function")]
    readonly: Option<bool>,
    /// Set the image's tag from the source: latest [default], sha, branch or describe of the Git
    /// repository, or digest of the handler's files
    #[arg(long, value_name = "SOURCE", value_parser = TagSource::parse, hide_default_value = true,
          default_value = "latest", help_heading = "Function")]
    tag: TagSource,
    #[command(flatten)]
    overlay: OverlayArgs,
    #[command(flatten)]
    rollout: RolloutArgs,

    /// Taken for the sake of scripts that other clients need it for
    #[arg(long, hide = true)]
    lang: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, hide = true)]
    handler: Option<String>,
    /// Whether a template's command fills in
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_template: Option<bool>,

    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackArgs,
}

impl DeployArgs {
    fn overrides(&self) -> Overrides<'_> {
        Overrides {
            namespace: self.namespace.get(),
            fprocess: self.fprocess.as_deref(),
            pull: self.pull.as_deref(),
            network: self.network.as_deref(),
            readonly: self.readonly,
            overlay: &self.overlay,
        }
    }
}

/// One deployed function, as JSON.
#[derive(Debug, Serialize)]
struct Deployed {
    name: String,
    namespace: String,
    status: u16,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<wire::Rollout>,
}

/// How a rollout went.
#[derive(Debug)]
pub enum Rollout {
    /// The new revision serves.
    Ready(wire::Rollout),
    /// It cannot serve; why.
    Failed(String),
    /// The gateway does not say.
    Unknown,
}

/// Deploys functions and waits for them.
pub fn run(args: &DeployArgs) -> anyhow::Result<()> {
    args.rollout.check()?;
    let wanted = wanted::collect(args)?;
    let gateway = Gateway::open(&args.gateway, wanted.gateway.as_deref())?;
    deploy(&gateway, &wanted, &args.rollout, args.output.is_json())
}

/// Deploys these functions, then waits for each of them.
pub fn deploy(
    gateway: &Gateway,
    wanted: &Wanted,
    args: &RolloutArgs,
    is_json: bool,
) -> anyhow::Result<()> {
    let (how, patience) = args.check()?;
    let mut out = io::stdout().lock();
    let mut deployed = Vec::new();
    let mut failed = Vec::new();
    for function in &wanted.functions {
        if wanted.from_stack && !is_json {
            writeln!(out, "Deploying: {}.", function.service)?;
        }
        match how.deploy(gateway, function, is_json) {
            Ok(status) => deployed.push(announce(gateway, function, status, is_json, &mut out)?),
            Err(error) => failed.push(error),
        }
    }
    for function in deployed.iter_mut().filter(|_| !args.no_wait) {
        match await_ready(gateway, function, patience) {
            Ok(rollout) => function.rollout = rollout,
            Err(error) => failed.push(error),
        }
    }
    if is_json {
        output::json(&mut out, &deployed)?;
    }
    let last = failed.pop();
    for error in failed {
        output::complain(&format!("{error:#}"));
    }
    last.map_or(Ok(()), Err)
}

fn announce(
    gateway: &Gateway,
    function: &FunctionDeployment,
    status: StatusCode,
    is_json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<Deployed> {
    let namespace = Some(function.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let url = gateway.function_url(&function.service, namespace);
    if !is_json {
        writeln!(out, "\nDeployed. {}.\nURL: {url}\n", spoken(status))?;
        out.flush()?;
    }
    Ok(Deployed {
        name: function.service.clone(),
        namespace: function.namespace.clone(),
        status: status.as_u16(),
        url,
        rollout: None,
    })
}

/// What happens to a function that is already there (contract section 13).
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// It is updated.
    Update,
    /// It is a failure.
    Create,
    /// It is removed first.
    Replace,
}

impl How {
    fn deploy(
        self,
        gateway: &Gateway,
        function: &FunctionDeployment,
        quiet: bool,
    ) -> anyhow::Result<StatusCode> {
        match self {
            Self::Create => gateway.create(function),
            Self::Update => match gateway.update(function)? {
                Some(status) => {
                    // A gateway that is done with its answer is told apart so by the clients people know.
                    if status == StatusCode::OK && !quiet {
                        let name = &function.service;
                        writeln!(
                            io::stdout(),
                            "Function {name} already exists, attempting rolling-update."
                        )?;
                    }
                    Ok(status)
                }
                None => gateway.create(function),
            },
            Self::Replace => {
                let namespace = Some(function.namespace.as_str()).filter(|ns| !ns.is_empty());
                if gateway.remove(&function.service, namespace)? && !quiet {
                    writeln!(io::stdout(), "Removing old function.")?;
                }
                gateway.create(function)
            }
        }
    }
}

/// Updates a function, or creates it if there is none.
pub fn take(gateway: &Gateway, function: &FunctionDeployment) -> anyhow::Result<StatusCode> {
    match gateway.update(function)? {
        Some(status) => Ok(status),
        None => gateway.create(function),
    }
}

fn await_ready(
    gateway: &Gateway,
    function: &Deployed,
    patience: Duration,
) -> anyhow::Result<Option<wire::Rollout>> {
    let name = &function.name;
    let namespace = Some(function.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    match settle(gateway, name, namespace, patience)? {
        Rollout::Ready(rollout) => {
            output::remark(&format!("{name} is ready."));
            Ok(Some(rollout))
        }
        Rollout::Failed(why) => {
            let logs = gateway.command(&format!("logs {name}"), namespace);
            let why = printable(&why);
            anyhow::bail!(
                "{name} was deployed but cannot serve: {why}; `{logs}` shows what it printed"
            )
        }
        Rollout::Unknown => Ok(None),
    }
}

/// Watches a function until its latest deploy is ready or failed. As long as there is news of it, it is waited
/// for: a large image may take its time.
///
/// # Errors
/// It is neither in time, it is gone, or the gateway can no longer be asked.
pub fn settle(
    gateway: &Gateway,
    name: &str,
    namespace: Option<&str>,
    patience: Duration,
) -> anyhow::Result<Rollout> {
    let mut until = Instant::now() + patience;
    let mut progress = Progress::new(name);
    let mut status = match first_look(gateway, name, namespace) {
        Some(status) => status,
        None => return Ok(Rollout::Unknown),
    };
    loop {
        let Some(rollout) = status.rollout else { return Ok(Rollout::Unknown) };
        match rollout.phase {
            RolloutPhase::Ready => return Ok(Rollout::Ready(rollout)),
            RolloutPhase::Failed => return Ok(Rollout::Failed(rollout.message)),
            RolloutPhase::Progressing => {
                if progress.show(&rollout.message) {
                    until = Instant::now() + patience;
                }
            }
        }
        if Instant::now() >= until {
            anyhow::bail!(
                "{name} is not ready after {} s ({}); the gateway keeps trying, and `{}` shows how far it is",
                patience.as_secs(),
                printable(&rollout.message),
                gateway.command(&format!("describe {name}"), namespace)
            );
        }
        pause::briefly();
        status = gateway
            .function(name, namespace, false)?
            .ok_or_else(|| anyhow::anyhow!("{name} was removed while it was being rolled out"))?;
    }
}

/// What the gateway says of a function that it just took. Not every gateway shows it at once, and not
/// every account may look: the deploy is none the worse for that.
fn first_look(gateway: &Gateway, name: &str, namespace: Option<&str>) -> Option<FunctionStatus> {
    let why = match gateway.function(name, namespace, false) {
        Ok(Some(status)) => return Some(status),
        Ok(None) => "the gateway does not show it yet".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    output::warn(&format!("whether {name} is ready is not known: {why}"));
    None
}

/// A spinner on a terminal; elsewhere a line whenever there is news.
struct Progress {
    name: String,
    shown: String,
    /// The last line said where there is no spinner.
    said: String,
    spinner: Option<ProgressBar>,
}

/// A text without its numbers.
fn digitless(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_ascii_digit())
}

impl Progress {
    fn new(name: &str) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(limits::SPINNER_TICK);
            spinner
        });
        Self { name: name.to_owned(), shown: String::new(), said: String::new(), spinner }
    }

    /// Shows a message; answers whether it is a new one.
    fn show(&mut self, message: &str) -> bool {
        if message == self.shown {
            return false;
        }
        self.shown = message.to_owned();
        let line = format!("{}: {}", self.name, printable(message));
        match &self.spinner {
            Some(spinner) => spinner.set_message(line),
            // Nobody wants to read each megabyte of a log.
            None if digitless(&line).ne(digitless(&self.said)) => {
                output::remark(&line);
                self.said = line;
            }
            None => {}
        }
        true
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
