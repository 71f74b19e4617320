//! `pinnace build`: from source to images.

mod flags;
mod jobs;
mod work;

use clap::Args;

pub use self::{
    flags::{BuildFlags, PublishFlags, RemoteFlags},
    jobs::Jobs,
    work::{Built, Purpose, Work},
};
use crate::args::{GatewayArgs, StackArgs};

/// Flags of `pinnace build`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace build                                  all functions of ./stack.yaml
  pinnace build -f stack.yaml --filter 'api-*' --parallel 4
  pinnace build --shrinkwrap                     only the folders, for other builders
  pinnace build --builder buildah --load         and into the gateway's store of images

What Pinnace builds itself is in the gateway's store of images at once: `pinnace deploy` uses it. What another
builder built is in that one's own: --load brings it to the gateway, `pinnace push` to its registry.")]
pub struct BuildArgs {
    #[command(flatten)]
    flags: BuildFlags,
    /// Bring what another builder built into the gateway's store of images
    #[arg(long, help_heading = "Build")]
    load: bool,
    #[command(flatten)]
    remote: RemoteFlags,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackArgs,
}

/// Builds functions.
pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let jobs = Jobs::collect(&args.flags, &args.stack)?;
    let purpose = Purpose::Build { load: args.load };
    let work = Work::new(&args.flags, &args.remote, &args.gateway, &jobs, purpose);
    work.run(&jobs).map(drop)
}
