//! From flags and a stack file to [`Job`]s with their templates.

use std::path::PathBuf;

use pinnace_core::name::check_label;
use pinnace_stack::Configuration;

use super::flags::BuildFlags;
use crate::{
    args::StackArgs,
    build::Job,
    failure::usage,
    stack::{Stack, TagSource},
    template::{Template, TemplateName},
};

/// What is to be built.
pub struct Jobs {
    /// The gateway that the stack file names.
    pub gateway: Option<String>,
    /// The functions.
    pub jobs: Vec<Job>,
    configuration: Configuration,
}

impl Jobs {
    /// Those of the stack file, or the one that the flags name.
    ///
    /// # Errors
    /// There is nothing to build, or the file has faults.
    pub fn collect(flags: &BuildFlags, stack: &StackArgs) -> anyhow::Result<Self> {
        if let Some(name) = &flags.name {
            return Ok(Self {
                gateway: None,
                jobs: vec![of_flags(name, flags)?],
                configuration: Configuration::default(),
            });
        }
        let Some(stack) = Stack::load(stack)? else {
            return Err(usage(
                "nothing to build: there is no stack.yaml here; name one with -f, or a function with --name, --image, \
                 --handler and --lang. `pinnace new` makes one",
            ));
        };
        let mut jobs = Vec::new();
        for mut function in stack.functions {
            function.tag(flags.tag)?;
            let name = function.deployment.service.clone();
            let lang = named(&name, &function.lang)?;
            let mut args = function.build.args;
            args.extend(flags.build_arg.iter().cloned());
            let mut options = function.build.options;
            options.extend(flags.build_option.iter().cloned());
            let mut copy = stack.configuration.copy.clone();
            copy.extend(flags.copy_extra.iter().cloned());
            jobs.push(Job {
                image: function.deployment.image,
                lang,
                handler: PathBuf::from(function.handler),
                copy,
                args,
                options,
                secrets: function.build.secrets,
                platforms: function.build.platforms,
                skip: function.build.skip,
                name,
            });
        }
        Ok(Self { gateway: stack.gateway, jobs, configuration: stack.configuration })
    }

    /// The template of each function, brought here if it is not. Two builds at a time must not both bring it.
    ///
    /// # Errors
    /// One cannot be had.
    pub fn templates(&self, is_pull_allowed: bool) -> anyhow::Result<Vec<Option<Template>>> {
        let configuration = is_pull_allowed.then_some(&self.configuration);
        let template = |job: &Job| -> anyhow::Result<Option<Template>> {
            if job.is_dockerfile() || job.skip {
                return Ok(None);
            }
            let found = Template::obtain(&job.lang, configuration);
            found.map(Some).map_err(|error| anyhow::anyhow!("function {}: {error:#}", job.name))
        };
        self.jobs.iter().map(template).collect()
    }
}

fn of_flags(name: &str, flags: &BuildFlags) -> anyhow::Result<Job> {
    check_label("function", name).map_err(|error| usage(error.to_string()))?;
    let handler = flags.handler.clone().unwrap_or_default();
    let image = pinnace_core::image::with_default_tag(flags.image.as_deref().unwrap_or_default());
    let image = match flags.tag {
        TagSource::File => image,
        source => source.apply(&image, &handler)?,
    };
    Ok(Job {
        name: name.to_owned(),
        image,
        lang: named(name, flags.lang.as_deref().unwrap_or_default())?,
        handler: PathBuf::from(handler),
        copy: flags.copy_extra.clone(),
        args: flags.build_arg.iter().cloned().collect(),
        options: flags.build_option.clone(),
        secrets: Default::default(),
        platforms: String::new(),
        skip: false,
    })
}

fn named(function: &str, lang: &str) -> anyhow::Result<TemplateName> {
    if lang.is_empty() {
        anyhow::bail!(
            "function {function} names no template: write `lang: NAME`, or `skip_build: true` if it is not built"
        );
    }
    lang.parse().map_err(|why| anyhow::anyhow!("function {function}: lang {why}"))
}
