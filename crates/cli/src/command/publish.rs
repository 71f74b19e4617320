//! `pinnace publish`: from source to images in their registries, for one platform or several.

use clap::Args;

use super::build::{BuildFlags, Jobs, PublishFlags, Purpose, RemoteFlags, Work};
use crate::args::{GatewayArgs, StackArgs};

/// Flags of `pinnace publish`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace publish --platforms linux/amd64,linux/arm64
  pinnace publish --tag sha --extra-tag latest
  pinnace publish --remote-builder http://127.0.0.1:8081 --payload-secret ./payload-secret

Several platforms take docker buildx, buildah or podman, and a template with a Dockerfile that is made for them.")]
pub struct PublishArgs {
    #[command(flatten)]
    flags: BuildFlags,
    #[command(flatten)]
    publish: PublishFlags,
    #[command(flatten)]
    remote: RemoteFlags,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackArgs,
}

/// Builds and pushes functions.
pub fn run(args: &PublishArgs) -> anyhow::Result<()> {
    let jobs = Jobs::collect(&args.flags, &args.stack)?;
    let purpose = Purpose::Publish(args.publish.clone());
    let work = Work::new(&args.flags, &args.remote, &args.gateway, &jobs, purpose);
    work.run(&jobs).map(drop)
}
