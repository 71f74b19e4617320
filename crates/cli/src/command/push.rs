//! `pinnace push`: images to their registries.

use std::{
    io::{self, Write},
    path::Path,
};

use clap::Args;
use pinnace_core::limits;

use super::build::{BuildFlags, Jobs};
use crate::{
    args::{StackArgs, number},
    build::{Engine, Engines, Job, Log, pool, process, steps},
    output::{complain, remark},
    stack::TagSource,
    template::Template,
};

/// Flags of `pinnace push`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace push                        the images of ./stack.yaml, which `pinnace build` built
  pinnace push --filter 'api-*' --parallel 4 --tag sha

What Pinnace built itself is in the gateway's store, and needs no registry there; `pinnace publish` builds it and
pushes it.")]
pub struct PushArgs {
    /// Pushes at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = number::<usize>)]
    parallel: usize,
    /// Tag from the source, as it was built with: latest [default], sha, branch, describe or digest
    #[arg(long, value_name = "SOURCE", value_parser = TagSource::parse, hide_default_value = true,
          default_value = "latest")]
    tag: TagSource,
    /// Show what the program that pushes says only if it fails
    #[arg(long)]
    quiet: bool,
    /// The program that built them [default: as for `pinnace build`]
    #[arg(long, value_enum, value_name = "BUILDER")]
    builder: Option<Engine>,
    #[command(flatten)]
    stack: StackArgs,
}

/// Pushes images.
pub fn run(args: &PushArgs) -> anyhow::Result<()> {
    let flags = BuildFlags::of_tag(args.tag);
    let jobs = Jobs::collect(&flags, &args.stack)?;
    let engines = Engines::new(args.builder);
    let mut pushes = Vec::new();
    for job in jobs.jobs.iter().filter(|job| !job.skip) {
        pushes.push(Push::of(job, &engines)?);
    }
    all(&pushes, args.parallel, args.quiet)
}

/// An image to be pushed.
pub struct Push {
    /// Its function.
    pub name: String,
    /// The image.
    pub image: String,
    /// Who has it.
    pub engine: Engine,
}

impl Push {
    fn of(job: &Job, engines: &Engines) -> anyhow::Result<Self> {
        let template = if job.is_dockerfile() { None } else { Template::find(&job.lang)? };
        let is_native = template.is_some_and(|template| template.definition.is_native);
        let failed = |why: String| anyhow::anyhow!("function {}: {why}", job.name);
        let engine = engines.of(is_native).map_err(failed)?;
        if engine == Engine::Native {
            return Err(failed(format!(
                "Pinnace itself builds it, and has the image where it is deployed; `pinnace publish` brings {} to its \
                 registry, --builder names the program that built it if another did",
                job.image
            )));
        }
        Ok(Self { name: job.name.clone(), image: job.image.clone(), engine })
    }
}

/// Pushes images, what fails first told last.
///
/// # Errors
/// A push failed; the others were done.
pub fn all(pushes: &[Push], at_a_time: usize, is_quiet: bool) -> anyhow::Result<()> {
    let is_alone = pushes.len() == 1;
    let results = pool::each(pushes, at_a_time.min(limits::BUILDS_AT_ONCE_MAX), |push| {
        let Push { name, image, engine } = push;
        remark(&format!("Pushing {name}: {image}, by {engine}."));
        let log = Log::new(name, is_alone, is_quiet);
        let pushed = process::run(&steps::push(*engine, image), Path::new("."), &log);
        pushed.map_err(|error| {
            anyhow::anyhow!(
                "function {name}: {error:#}; an image that needs no registry goes to the gateway with `pinnace build \
                 --load`"
            )
        })?;
        writeln!(io::stdout(), "Image: {image} pushed.")?;
        Ok(())
    });
    let mut failed: Vec<anyhow::Error> = results.into_iter().filter_map(Result::err).collect();
    let last = failed.pop();
    for error in failed {
        complain(&format!("{error:#}"));
    }
    last.map_or(Ok(()), Err)
}
