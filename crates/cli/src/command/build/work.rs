//! Builds of several functions: each its folder, then its image, then where that goes.

use std::{
    env,
    io::{self, Write},
    path::Path,
    time::Instant,
};

use pinnace_core::limits;

use super::{
    Jobs,
    flags::{BuildFlags, PublishFlags, RemoteFlags},
};
use crate::{
    args::GatewayArgs,
    build::{
        Engine, Engines, Job, Log, context,
        native::{Builder, Config},
        pool, process,
        steps::{self, PROXY_VARIABLES, Publishing, Recipe, Step},
    },
    command::image::follow,
    gateway::{Address, Gateway, query},
    output::{complain, remark},
    template::Template,
};

/// What becomes of an image.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// It stays with its builder, or goes to the gateway's store too.
    Build {
        /// Whether it does.
        load: bool,
    },
    /// It goes to its registry.
    Publish(PublishFlags),
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image.
    pub image: String,
    /// Its function.
    pub name: String,
    /// Who built it.
    pub engine: Engine,
}

/// Builds that are to be done.
pub struct Work<'a> {
    flags: &'a BuildFlags,
    remote: &'a RemoteFlags,
    gateway: &'a GatewayArgs,
    /// The gateway that the stack file names.
    from_stack: Option<&'a str>,
    purpose: Purpose,
    engines: Engines,
}

impl<'a> Work<'a> {
    /// Work with these flags.
    pub fn new(
        flags: &'a BuildFlags,
        remote: &'a RemoteFlags,
        gateway: &'a GatewayArgs,
        jobs: &'a Jobs,
        purpose: Purpose,
    ) -> Self {
        // Who names a builder elsewhere has everything built there.
        let wanted = remote.remote_builder.as_ref().map(|_| Engine::Native).or(flags.builder);
        let from_stack = jobs.gateway.as_deref();
        Self { flags, remote, gateway, from_stack, purpose, engines: Engines::new(wanted) }
    }

    /// Does all of it, what fails first told last. Functions that are not built are left out of the answer.
    ///
    /// # Errors
    /// A build failed; the others were done.
    pub fn run(&self, jobs: &Jobs) -> anyhow::Result<Vec<Built>> {
        let templates = jobs.templates(!self.flags.disable_stack_pull)?;
        let mut work = Vec::new();
        for (job, template) in jobs.jobs.iter().zip(&templates) {
            if job.skip {
                writeln!(io::stdout(), "Skipping build of: {}.", job.name)?;
            } else {
                work.push((job, template.as_ref()));
            }
        }
        let is_alone = work.len() == 1;
        let at_a_time = self.flags.parallel.min(limits::BUILDS_AT_ONCE_MAX);
        if let Purpose::Publish(publish) = &self.purpose
            && !self.flags.shrinkwrap
        {
            self.prepare(publish, &work)?;
        }
        let results =
            pool::each(&work, at_a_time, |(job, template)| self.one(job, *template, is_alone));
        let (mut built, mut failed) = (Vec::new(), Vec::new());
        for ((job, _), result) in work.iter().zip(results) {
            match result {
                Ok(one) => built.extend(one),
                Err(error) => failed.push(anyhow::anyhow!("function {}: {error:#}", job.name)),
            }
        }
        let last = failed.pop();
        for error in failed {
            complain(&format!("{error:#}"));
        }
        last.map_or(Ok(built), Err)
    }

    /// What is done once before images are published.
    fn prepare(
        &self,
        publish: &PublishFlags,
        work: &[(&Job, Option<&Template>)],
    ) -> anyhow::Result<()> {
        let log = Log::new("", true, true);
        if publish.reset_qemu {
            process::run(&steps::reset_qemu(), Path::new("."), &log)?;
        }
        let engine = |template: Option<&Template>| self.engines.of(is_native(template)).ok();
        if work.iter().any(|(_, template)| engine(*template) == Some(Engine::Buildx)) {
            // It fails if there is one of that name, which is then used.
            let _ = process::run(&steps::make_buildx_builder(), Path::new("."), &log);
        }
        Ok(())
    }

    fn one(
        &self,
        job: &Job,
        template: Option<&Template>,
        is_alone: bool,
    ) -> anyhow::Result<Option<Built>> {
        let begun = Instant::now();
        let folder = context::make(job, template)?;
        if self.flags.shrinkwrap {
            writeln!(io::stdout(), "{} shrink-wrapped to {}", job.name, folder.display())?;
            return Ok(None);
        }
        let engine = match self.remote.remote_builder {
            Some(_) => Engine::Native,
            None => self.engines.of(is_native(template)).map_err(anyhow::Error::msg)?,
        };
        if engine != Engine::Native && !context::has_dockerfile(&folder) {
            return Err(context::no_dockerfile(job));
        }
        remark(&format!(
            "Building {}: {} with template {}, by {engine}.",
            job.name, job.image, job.lang
        ));
        let log = Log::new(&job.name, is_alone, self.flags.quiet);
        if engine == Engine::Native {
            self.by_ourselves(job, template, &folder, &log)?;
        } else {
            self.by_program(engine, job, template, &folder, &log)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        remark(&format!("Built {} in {seconds:.1} s.", job.name));
        writeln!(io::stdout(), "Image: {} built.", job.image)?;
        Ok(Some(Built { image: job.image.clone(), name: job.name.clone(), engine }))
    }

    fn by_ourselves(
        &self,
        job: &Job,
        template: Option<&Template>,
        folder: &Path,
        log: &Log,
    ) -> anyhow::Result<()> {
        if !job.secrets.is_empty() {
            anyhow::bail!(
                "its build_secrets cannot be sent: this version seals none; --builder docker or buildah take them"
            );
        }
        let is_published = matches!(self.purpose, Purpose::Publish(_));
        let config = Config {
            image: job.image.clone(),
            build_args: job.all_args(template).map_err(anyhow::Error::msg)?,
            platforms: if is_published { self.platforms(job) } else { Vec::new() },
            skip_push: !is_published,
        };
        let mut images = vec![job.image.clone()];
        if let Purpose::Publish(publish) = &self.purpose {
            images.extend(publish.extra_tag.iter().map(|tag| retagged(&job.image, tag)));
        }
        let builder = self.builder()?;
        for image in images {
            builder.build(&Config { image, ..config.clone() }, folder, log)?;
        }
        Ok(())
    }

    fn by_program(
        &self,
        engine: Engine,
        job: &Job,
        template: Option<&Template>,
        folder: &Path,
        log: &Log,
    ) -> anyhow::Result<()> {
        let recipe = self.recipe(job, template)?;
        let steps = match &self.purpose {
            Purpose::Build { .. } => steps::build(engine, &recipe).map(|step| vec![step]),
            Purpose::Publish(publish) => {
                let more_images =
                    publish.extra_tag.iter().map(|tag| retagged(&job.image, tag)).collect();
                let to = Publishing { platforms: self.platforms(job), more_images };
                steps::publish(engine, &recipe, &to)
            }
        };
        for step in steps.map_err(anyhow::Error::msg)? {
            process::run(&step, folder, log)?;
        }
        match self.purpose {
            Purpose::Build { load: true } => self.load(engine, &job.image, log),
            _ => Ok(()),
        }
    }

    fn recipe(&self, job: &Job, template: Option<&Template>) -> anyhow::Result<Recipe> {
        let here = env::current_dir()?;
        let absolute = |(id, path): (&String, &String)| {
            (id.clone(), here.join(path.trim_start_matches("./")).display().to_string())
        };
        let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
        Ok(Recipe {
            image: job.image.clone(),
            args: job.all_args(template).map_err(anyhow::Error::msg)?,
            labels: self.flags.build_label.clone(),
            secrets: job.secrets.iter().map(absolute).collect(),
            ssh: template.is_some_and(|template| template.definition.mount_ssh),
            no_cache: self.flags.no_cache,
            pull: self.flags.pull,
            squash: self.flags.squash,
            proxies: PROXY_VARIABLES.into_iter().filter(is_set).collect(),
        })
    }

    fn platforms(&self, job: &Job) -> Vec<String> {
        let Purpose::Publish(publish) = &self.purpose else { return Vec::new() };
        let given = publish.platforms.as_deref().filter(|platforms| !platforms.is_empty());
        let platforms = given.unwrap_or(&job.platforms);
        let platforms = if platforms.is_empty() { "linux/amd64" } else { platforms };
        platforms.split(',').map(|one| one.trim().to_owned()).collect()
    }

    /// Brings an image from a builder's own store into the gateway's.
    fn load(&self, engine: Engine, image: &str, log: &Log) -> anyhow::Result<()> {
        let scratch = tempfile::Builder::new().prefix("pinnace-image-").tempdir()?;
        let archive = scratch.path().join("image.tar");
        let save: Step = steps::save(engine, image, &archive);
        process::run(&save, scratch.path(), log)?;
        let doing = format!("loading {image}");
        let gateway = Gateway::open(self.gateway, self.from_stack)?;
        let pairs = [("reference", Some(image)), ("kind", Some("archive"))];
        let target = format!("/system/images{}", query(&pairs));
        let body = std::fs::File::open(&archive)?;
        let answer = gateway.upload(&target, "application/x-tar", body, &doing)?;
        follow(&gateway, answer, &mut |_| {}, &doing)?;
        remark(&format!("Loaded {image} into the store of {}.", gateway.address()));
        Ok(())
    }

    fn builder(&self) -> anyhow::Result<Builder> {
        let secret = match &self.remote.payload_secret {
            Some(path) => Some(read_secret(path)?),
            None => None,
        };
        let gateway = match &self.remote.remote_builder {
            Some(url) => {
                let root = without_path(url);
                let address = Address::choose(Some(&root), None, |_| None)?;
                // Another server is told nothing of who we are at the gateway.
                Gateway::new(address, None, self.gateway.tls_no_verify)
            }
            None => Gateway::open(self.gateway, self.from_stack)?,
        };
        Ok(Builder::new(gateway, secret))
    }
}

/// Whether Pinnace can build a template itself.
fn is_native(template: Option<&Template>) -> bool {
    template.is_some_and(|template| template.definition.is_native)
}

fn read_secret(path: &str) -> anyhow::Result<Vec<u8>> {
    let text = crate::fetch::text(path, limits::CLIENT_SECRET_BYTES_MAX)?;
    let text = text.trim();
    if text.is_empty() {
        anyhow::bail!("--payload-secret {path} is empty");
    }
    Ok(text.as_bytes().to_vec())
}

/// The builder's own URL, without the path that faas-cli drops too.
fn without_path(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())
}

/// The same image under another tag.
fn retagged(image: &str, tag: &str) -> String {
    let base = match image.rsplit_once(':') {
        Some((base, last)) if !last.contains('/') => base,
        _ => image,
    };
    format!("{base}:{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_addresses() {
        assert_eq!(retagged("r:5000/f:1", "x"), "r:5000/f:x");
        assert_eq!(retagged("r:5000/f", "x"), "r:5000/f:x");
        assert_eq!(without_path("http://b:8081/build?x"), "http://b:8081");
        assert_eq!(without_path("b:8081/x"), "http://b:8081");
    }
}
