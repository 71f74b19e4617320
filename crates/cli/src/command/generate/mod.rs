//! `pinnace generate`: a stack file's functions as resources for Kubernetes.

mod resource;

use std::io::{self, Write};

use clap::Args;
use pinnace_core::wire::{FunctionDeployment, Map};

use super::store::{Catalog, DEFAULT_URL, platform_of};
use crate::{
    args::{StackArgs, pair},
    failure::usage,
    stack::{Stack, TagSource},
};

/// Flags of `pinnace generate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace generate | kubectl apply -f -
  pinnace generate --api serving.knative.dev/v1 -f stack.yaml -n dev
  pinnace generate --from-store figlet --annotation topic=words")]
pub struct GenerateArgs {
    /// The resources' API: openfaas.com/v1 or serving.knative.dev/v1
    #[arg(long, value_name = "VERSION", default_value = resource::OPENFAAS)]
    api: String,
    /// Namespace of the resources
    #[arg(short, long, value_name = "NAME", default_value = pinnace_core::name::DEFAULT_NAMESPACE)]
    namespace: String,
    /// Set the images' tag from the source: latest [default], sha, branch, describe or digest
    #[arg(long, value_name = "SOURCE", value_parser = TagSource::parse, hide_default_value = true,
          default_value = "latest")]
    tag: TagSource,
    /// A function of the store, in place of those of a stack file
    #[arg(long, value_name = "FUNCTION", help_heading = "Store")]
    from_store: Option<String>,
    /// Another name for the store's function
    #[arg(long, requires = "from_store", help_heading = "Store")]
    name: Option<String>,
    /// Machines that the store's image is for
    #[arg(long, value_name = "NAME", default_value = "x86_64", help_heading = "Store")]
    arch: String,
    /// URL or path of the store's JSON file [default: OPENFAAS_STORE, then OpenFaaS's own]
    #[arg(long, value_name = "URL", help_heading = "Store")]
    url: Option<String>,
    /// Label for the store's function
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Store")]
    label: Vec<(String, String)>,
    /// Annotation for the store's function
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, help_heading = "Store")]
    annotation: Vec<(String, String)>,
    #[command(flatten)]
    stack: StackArgs,
}

/// Writes the resources.
pub fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let mut functions = match &args.from_store {
        Some(name) => vec![of_store(name, args)?],
        None => of_stack(args)?,
    };
    functions.sort_by(|a, b| a.service.cmp(&b.service));
    let mut text = String::new();
    for function in &functions {
        text.push_str("---\n");
        text.push_str(&resource::render(function, &args.api, &args.namespace)?);
    }
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}

fn of_stack(args: &GenerateArgs) -> anyhow::Result<Vec<FunctionDeployment>> {
    let Some(mut stack) = Stack::load(&args.stack)? else {
        return Err(usage(
            "name a stack file with -f, for there is no stack.yaml here, or a function of the store with \
             --from-store",
        ));
    };
    for function in &mut stack.functions {
        function.tag(args.tag)?;
    }
    Ok(stack.functions.into_iter().map(|function| function.deployment).collect())
}

fn of_store(name: &str, args: &GenerateArgs) -> anyhow::Result<FunctionDeployment> {
    if args.tag != TagSource::File {
        return Err(usage("--tag is about a stack file's functions, not about the store's"));
    }
    let variable = std::env::var("OPENFAAS_STORE").ok().filter(|url| !url.is_empty());
    let url = args.url.clone().or(variable);
    let catalog = Catalog::read(url.as_deref().unwrap_or(DEFAULT_URL))?;
    let platform = platform_of(&args.arch);
    let item = catalog.find(name, platform)?;
    let merged = |of_store: &Option<Map>, flags: &[(String, String)]| {
        let mut map = of_store.clone().unwrap_or_default();
        map.extend(flags.iter().cloned());
        Some(map)
    };
    Ok(FunctionDeployment {
        service: args.name.as_ref().unwrap_or(&item.name).clone(),
        image: item.image(platform).unwrap_or_default().to_owned(),
        env_process: item.fprocess.clone(),
        env_vars: item.environment.clone(),
        labels: merged(&item.labels, &args.label),
        annotations: merged(&item.annotations, &args.annotation),
        read_only_root_filesystem: item.read_only_root_filesystem,
        ..FunctionDeployment::default()
    })
}
