//! Flags that `pinnace build`, `publish` and `up -f` share.

use clap::Args;

use crate::{
    args::{number, pair},
    build::Engine,
    stack::TagSource,
};

/// What is built, and how.
#[derive(Args, Clone, Debug, Default)]
pub struct BuildFlags {
    /// Build argument
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Build")]
    pub build_arg: Vec<(String, String)>,
    /// Set of packages that the template offers, such as dev
    #[arg(short = 'o', long, value_name = "NAME", help_heading = "Build")]
    pub build_option: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Build")]
    pub build_label: Vec<(String, String)>,
    /// Folder of the project that is copied into the handler
    #[arg(long, value_name = "FOLDER", help_heading = "Build")]
    pub copy_extra: Vec<String>,
    /// Who builds [default: Pinnace itself where the template can do without a Dockerfile, else the first of
    /// docker buildx, docker build, buildah and podman that works]
    #[arg(long, value_enum, value_name = "BUILDER", help_heading = "Build")]
    pub builder: Option<Engine>,
    /// Builds at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = number::<usize>, help_heading = "Build")]
    pub parallel: usize,
    /// Set the image's tag from the source: latest [default], sha, branch or describe of the Git repository, or
    /// digest of the handler's files
    #[arg(long, value_name = "SOURCE", value_parser = TagSource::parse, hide_default_value = true,
          default_value = "latest", help_heading = "Build")]
    pub tag: TagSource,
    /// Do everything anew
    #[arg(long, help_heading = "Build")]
    pub no_cache: bool,
    /// Pull base images anew
    #[arg(long, help_heading = "Build")]
    pub pull: bool,
    /// Make an image of one layer (docker build, buildah, podman)
    #[arg(long, help_heading = "Build")]
    pub squash: bool,
    /// Show what builders say only if they fail
    #[arg(long, help_heading = "Build")]
    pub quiet: bool,
    /// Only make the folders that would be built, in ./build
    #[arg(long, help_heading = "Build")]
    pub shrinkwrap: bool,

    /// Function that is in no stack file
    #[arg(long, value_name = "NAME", requires_all = ["image", "handler", "lang"], help_heading = "Without a stack file")]
    pub name: Option<String>,
    /// Its image
    #[arg(long, value_name = "REF", requires = "name", help_heading = "Without a stack file")]
    pub image: Option<String>,
    /// The folder of its source
    #[arg(long, value_name = "FOLDER", requires = "name", help_heading = "Without a stack file")]
    pub handler: Option<String>,
    /// The template that it is built from
    #[arg(long, value_name = "TEMPLATE", requires = "name", help_heading = "Without a stack file")]
    pub lang: Option<String>,

    /// Do not bring templates that the stack file names
    #[arg(long, help_heading = "Stack file")]
    pub disable_stack_pull: bool,
    /// Taken for the sake of scripts: templates that are here are used
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    overwrite: Option<bool>,
    /// Taken for the sake of scripts
    #[arg(long, hide = true)]
    debug: bool,
}

impl BuildFlags {
    /// Those that say nothing but where tags come from.
    pub fn of_tag(tag: TagSource) -> Self {
        Self { tag, ..Self::default() }
    }
}

/// A builder at another address than the gateway's.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Builder")]
pub struct RemoteFlags {
    /// Builder that serves OpenFaaS's builder API [default: the gateway]
    #[arg(long, value_name = "URL")]
    pub remote_builder: Option<String>,
    /// File with what requests to the builder are signed with
    #[arg(long, value_name = "FILE")]
    pub payload_secret: Option<String>,
    /// Taken for the sake of scripts: no build secrets are sent, so there is nothing to seal
    #[arg(long, value_name = "KEY", hide = true)]
    builder_public_key: Option<String>,
}

/// To which platforms and tags images are published.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Publishing")]
pub struct PublishFlags {
    /// Platforms [default: the stack file's, then linux/amd64]
    #[arg(long, value_name = "LIST")]
    pub platforms: Option<String>,
    /// Another tag for the same image
    #[arg(long, value_name = "TAG")]
    pub extra_tag: Vec<String>,
    /// Let this machine run programs of others first (docker run --privileged)
    #[arg(long)]
    pub reset_qemu: bool,
}
