//! `pinnace up -f`: from source to running functions.
//!
//! `pinnace up` alone starts a server. With a flag about a stack file it is what faas-cli's `up` is; [`names_a_stack`]
//! tells the two apart, and each has its own help.

use std::ffi::{OsStr, OsString};

use clap::Args;
use pinnace_core::limits;

use super::{
    build::{BuildFlags, Built, Jobs, PublishFlags, Purpose, RemoteFlags, Work},
    deploy::{
        self, OverlayArgs, Overrides, RolloutArgs, Wanted, networks, overlaid, warn_of_swarm,
    },
    push::{self, Push},
};
use crate::{
    args::{GatewayArgs, NamespaceArgs, StackArgs},
    build::{Engine, Job},
    failure::usage,
    gateway::Gateway,
    output::{complain, remark},
    pause,
    stack::{Stack, handler_digest},
};

/// The command's name where commands are listed; nobody types it.
pub const NAME: &str = "up-stack";

/// Flags that only a stack file makes sense of.
const ABOUT_A_STACK: [&str; 7] =
    ["--yaml", "--filter", "--regex", "--skip-push", "--skip-deploy", "--publish", "--shrinkwrap"];

/// Flags of `pinnace up -f`.
#[derive(Args, Debug)]
#[command(
    override_usage = "pinnace up -f FILE [OPTIONS]",
    after_help = "\
Examples:
  pinnace up -f stack.yaml                     build, push and deploy
  pinnace up --filter 'api-*' --skip-push      the same for some functions of ./stack.yaml, without a push
  pinnace up -f stack.yaml --builder buildah --load

What Pinnace builds itself is where it is deployed at once and is not pushed; --publish pushes it too. Without a
flag about a stack file (-f, --filter, --regex, --skip-push, --skip-deploy, --publish, --shrinkwrap) `pinnace up`
starts a server."
)]
pub struct UpStackArgs {
    #[command(flatten)]
    flags: BuildFlags,
    /// Do not push images to their registries
    #[arg(long, help_heading = "Build")]
    skip_push: bool,
    /// Bring what another builder built into the gateway's store of images, and do not push it
    #[arg(long, help_heading = "Build", conflicts_with = "publish")]
    load: bool,
    /// Do not deploy
    #[arg(long, help_heading = "Build")]
    skip_deploy: bool,
    /// Build and push as `pinnace publish` does
    #[arg(long, help_heading = "Publishing")]
    publish: bool,
    /// Do it again whenever the source changes
    #[arg(long, help_heading = "Build")]
    watch: bool,
    #[command(flatten)]
    publishing: PublishFlags,
    #[command(flatten)]
    remote: RemoteFlags,
    /// Command that the watchdog runs
    #[arg(long, value_name = "COMMAND", help_heading = "Function")]
    fprocess: Option<String>,
    /// What it reaches beside the platform: none, nat or host, as for `pinnace deploy`
    #[arg(long, value_name = "NETWORK", value_parser = networks(), help_heading = "Function")]
    network: Option<String>,
    /// Root filesystem read-only; /tmp stays writable
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", help_heading = "Function")]
    readonly: Option<bool>,
    #[command(flatten)]
    overlay: OverlayArgs,
    #[command(flatten)]
    rollout: RolloutArgs,
    /// Whether a template's command fills in
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_template: Option<bool>,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackArgs,
}

/// The words of a command line, `up` replaced if it is about a stack file.
pub fn told_apart(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let is_up = words.get(1).is_some_and(|word| word == "up");
    if is_up && names_a_stack(&words[2..]) {
        words[1] = NAME.into();
    }
    words
}

fn names_a_stack(words: &[OsString]) -> bool {
    let before_end = words.iter().take_while(|word| *word != "--");
    before_end.map(OsString::as_os_str).filter_map(OsStr::to_str).any(|word| {
        let name = word.split('=').next().unwrap_or_default();
        ABOUT_A_STACK.contains(&name) || (word.starts_with("-f") && !word.starts_with("--"))
    })
}

/// Builds, pushes and deploys functions.
pub fn run(args: &UpStackArgs) -> anyhow::Result<()> {
    args.rollout.check()?;
    warn_of_swarm(args.network.as_deref());
    if args.flags.name.is_some() {
        return Err(usage(
            "up takes a stack file's functions; build and deploy take one that is in no file",
        ));
    }
    if args.watch {
        return watch(args);
    }
    once(args)
}

/// Does it whenever a handler has changed, until it is stopped. What fails is said, and tried again with the next
/// change.
fn watch(args: &UpStackArgs) -> anyhow::Result<()> {
    loop {
        // The state before: what changes meanwhile is built next.
        let jobs = Jobs::collect(&args.flags, &args.stack)?;
        let state = |jobs: &Jobs| -> Vec<String> {
            let digest = |job: &Job| handler_digest(&job.handler).unwrap_or_default();
            jobs.jobs.iter().map(digest).collect()
        };
        let before = state(&jobs);
        if let Err(error) = once(args) {
            complain(&format!("{error:#}"));
        }
        remark("Waiting for a change; Ctrl-C ends this.");
        while state(&jobs) == before {
            pause::of(limits::SOURCE_LOOK_EVERY);
        }
    }
}

fn once(args: &UpStackArgs) -> anyhow::Result<()> {
    let jobs = Jobs::collect(&args.flags, &args.stack)?;
    let purpose = if args.publish {
        Purpose::Publish(args.publishing.clone())
    } else {
        Purpose::Build { load: args.load }
    };
    let work = Work::new(&args.flags, &args.remote, &args.gateway, &jobs, purpose);
    let built = work.run(&jobs)?;
    if args.flags.shrinkwrap {
        return Ok(());
    }
    if !(args.skip_push || args.publish || args.load) {
        push_all(&built, args)?;
    }
    if args.skip_deploy {
        return Ok(());
    }
    let wanted = wanted(args)?;
    let gateway = Gateway::open(&args.gateway, wanted.gateway.as_deref())?;
    deploy::deploy(&gateway, &wanted, &args.rollout, false)
}

fn push_all(built: &[Built], args: &UpStackArgs) -> anyhow::Result<()> {
    let elsewhere = built.iter().filter(|built| built.engine != Engine::Native);
    let pushes: Vec<Push> = elsewhere
        .map(|built| Push {
            name: built.name.clone(),
            image: built.image.clone(),
            engine: built.engine,
        })
        .collect();
    push::all(&pushes, args.flags.parallel, args.flags.quiet)
}

/// The functions as they are deployed. The file is read again: templates that its functions take their command from
/// may have been brought meanwhile.
fn wanted(args: &UpStackArgs) -> anyhow::Result<Wanted> {
    let stack = Stack::load(&args.stack)?;
    let stack = stack.ok_or_else(|| usage("the stack file is gone"))?;
    let overrides = Overrides {
        namespace: args.namespace.get(),
        fprocess: args.fprocess.as_deref(),
        pull: None,
        network: args.network.as_deref(),
        readonly: args.readonly,
        overlay: &args.overlay,
    };
    let mut functions = Vec::new();
    for mut function in stack.functions {
        function.tag(args.flags.tag)?;
        if args.read_template == Some(false) && function.process_of_template {
            function.deployment.env_process.clear();
        }
        functions.push(overlaid(function.deployment, &overrides));
    }
    Ok(Wanted { gateway: stack.gateway, from_stack: true, functions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> String {
        let words = told_apart(line.split(' ').map(OsString::from));
        words[1].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_flag_about_a_stack_file_makes_the_difference() {
        for line in [
            "pinnace up -f stack.yaml",
            "pinnace up -fstack.yaml",
            "pinnace up --yaml=x",
            "pinnace up --skip-push",
            "pinnace up -g http://x --filter a*",
            "pinnace up --help -f x",
        ] {
            assert_eq!(command(line), NAME, "{line}");
        }
        for line in [
            "pinnace up",
            "pinnace up --listen 127.0.0.1:1 --examples",
            "pinnace up -- -f",
            "pinnace up --fprocess x",
        ] {
            assert_eq!(command(line), "up", "{line}");
        }
        assert_eq!(command("pinnace deploy -f x"), "deploy");
    }
}
