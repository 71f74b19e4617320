//! What is to be deployed: flags alone, or a stack file with flags over it.

use clap::builder::{PossibleValue, PossibleValuesParser};
use pinnace_core::{
    Network,
    image::HOST,
    spec::{ANNOTATION_NETWORK, ANNOTATION_PULL},
    wire::{FunctionDeployment, Map, Resources},
};

use super::{DeployArgs, flags::OverlayArgs};
use crate::{
    failure::usage,
    output::warn,
    stack::{Stack, StackFunction},
};

/// The network that scripts for Docker Swarm name, which go on unchanged.
const SWARM: &str = "func_functions";

/// Functions to deploy.
#[derive(Debug)]
pub struct Wanted {
    /// The gateway that the stack file names.
    pub gateway: Option<String>,
    /// Whether they come from a stack file.
    pub from_stack: bool,
    /// The functions.
    pub functions: Vec<FunctionDeployment>,
}

/// Flags and file brought together.
///
/// # Errors
/// There is nothing to deploy, or the file has faults.
pub fn collect(args: &DeployArgs) -> anyhow::Result<Wanted> {
    warn_of_swarm(args.network.as_deref());
    let name = args.named.as_deref().or(args.positional.as_deref());
    if let Some(image) = &args.image {
        check_without_stack(image, args)?;
        let name =
            name.ok_or_else(|| usage("name the function: pinnace deploy NAME --image IMAGE"))?;
        let plain = FunctionDeployment {
            service: name.to_owned(),
            image: image.clone(),
            labels: Some(Map::new()),
            annotations: Some(Map::new()),
            ..FunctionDeployment::default()
        };
        let functions = vec![overlaid(plain, &args.overrides())];
        return Ok(Wanted { gateway: None, from_stack: false, functions });
    }
    let Some(stack) = Stack::load(&args.stack)? else {
        return Err(usage(
            "nothing to deploy: give a name and --image, or a stack file with -f; there is no \
             stack.yaml here",
        ));
    };
    let mut functions = chosen(stack.functions, name)?;
    if args.read_template == Some(false) {
        for function in functions.iter_mut().filter(|function| function.process_of_template) {
            function.deployment.env_process.clear();
        }
    }
    for function in &mut functions {
        function.tag(args.tag)?;
    }
    let overrides = args.overrides();
    let functions = functions.into_iter().map(|f| overlaid(f.deployment, &overrides)).collect();
    Ok(Wanted { gateway: stack.gateway, from_stack: true, functions })
}

/// What flags say of all functions, whatever the file says.
#[derive(Debug)]
pub struct Overrides<'a> {
    /// Namespace.
    pub namespace: Option<&'a str>,
    /// Command that the watchdog runs.
    pub fprocess: Option<&'a str>,
    /// When the image is pulled.
    pub pull: Option<&'a str>,
    /// What it reaches.
    pub network: Option<&'a str>,
    /// Whether its root filesystem is read-only.
    pub readonly: Option<bool>,
    /// Everything else.
    pub overlay: &'a OverlayArgs,
}

/// Says that a network of Docker Swarm is none here.
pub fn warn_of_swarm(network: Option<&str>) {
    if network == Some(SWARM) {
        warn(&format!(
            "--network {SWARM} is of Docker Swarm and is left out; here it is none, nat or host"
        ));
    }
}

/// Refuses flags that mean nothing for an image that is named.
fn check_without_stack(image: &str, args: &DeployArgs) -> anyhow::Result<()> {
    let stack = &args.stack;
    if stack.yaml.is_some() {
        return Err(usage("--image and -f exclude each other: the stack file names the images"));
    }
    if stack.filter.is_some() || stack.regex.is_some() || !stack.envsubst {
        return Err(usage(
            "--filter, --regex and --envsubst are about a stack file, and --image is without one",
        ));
    }
    if image == HOST && args.pull.is_some() {
        return Err(usage("--pull means nothing with --image host: there is no image to pull"));
    }
    Ok(())
}

/// What `--network` may be.
pub fn networks() -> PossibleValuesParser {
    let ours = [Network::None, Network::Nat, Network::Host].map(Network::name);
    let ours = ours.into_iter().map(PossibleValue::new);
    PossibleValuesParser::new(ours.chain([PossibleValue::new(SWARM).hide(true)]))
}

fn chosen(all: Vec<StackFunction>, name: Option<&str>) -> anyhow::Result<Vec<StackFunction>> {
    let Some(name) = name else { return Ok(all) };
    let names: Vec<String> = all.iter().map(|f| f.deployment.service.clone()).collect();
    let found: Vec<_> = all.into_iter().filter(|f| f.deployment.service == name).collect();
    if found.is_empty() {
        return Err(usage(format!(
            "the stack file has no function {name}, only {}; or give --image for one that is in no file",
            names.join(", ")
        )));
    }
    Ok(found)
}

/// A function with the flags over it.
pub fn overlaid(mut function: FunctionDeployment, flags: &Overrides<'_>) -> FunctionDeployment {
    if let Some(namespace) = flags.namespace {
        function.namespace = namespace.to_owned();
    }
    if let Some(fprocess) = flags.fprocess {
        function.env_process = fprocess.to_owned();
    }
    lay_over(&mut function, flags.overlay);
    let pull = flags.pull.map(|policy| (ANNOTATION_PULL.to_owned(), policy.to_owned()));
    merge(&mut function.annotations, pull.as_slice());
    let network = flags.network.filter(|network| *network != SWARM);
    let network = network.map(|network| (ANNOTATION_NETWORK.to_owned(), network.to_owned()));
    merge(&mut function.annotations, network.as_slice());
    if let Some(readonly) = flags.readonly {
        function.read_only_root_filesystem = readonly;
    }
    function
}

/// Lays flags over a function.
pub fn lay_over(function: &mut FunctionDeployment, overlay: &OverlayArgs) {
    merge(&mut function.env_vars, &overlay.env);
    merge(&mut function.labels, &overlay.label);
    merge(&mut function.annotations, &overlay.annotation);
    prepend(&mut function.secrets, &overlay.secret);
    prepend(&mut function.constraints, &overlay.constraint);
    limit(&mut function.limits, overlay.memory_limit.as_ref(), overlay.cpu_limit.as_ref());
    limit(&mut function.requests, overlay.memory_request.as_ref(), overlay.cpu_request.as_ref());
}

fn merge(map: &mut Option<Map>, flags: &[(String, String)]) {
    if !flags.is_empty() {
        map.get_or_insert_default().extend(flags.iter().cloned());
    }
}

/// The flags' entries stand before the file's; what is in both is there once.
fn prepend(list: &mut Option<Vec<String>>, flags: &[String]) {
    if flags.is_empty() {
        return;
    }
    let mut merged = flags.to_vec();
    let others = list.take().unwrap_or_default();
    merged.extend(others.into_iter().filter(|entry| !flags.contains(entry)));
    *list = Some(merged);
}

fn limit(resources: &mut Option<Resources>, memory: Option<&String>, cpu: Option<&String>) {
    if memory.is_none() && cpu.is_none() {
        return;
    }
    let resources = resources.get_or_insert_default();
    if let Some(memory) = memory {
        resources.memory = Some(memory.clone());
    }
    if let Some(cpu) = cpu {
        resources.cpu = Some(cpu.clone());
    }
}
