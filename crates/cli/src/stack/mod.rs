//! A `stack.yaml`: functions as code.
//!
//! The way of a file: bounded read → typed data, by `pinnace_stack` → environment files and templates → one
//! deployment per function. Every fault on the way is collected and reported at once.

pub mod entry;
mod tag;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use pinnace_core::{
    FunctionSpec,
    image::HOST,
    limits,
    wire::{FunctionDeployment, Map},
};
use pinnace_stack::{
    Build, Configuration, Fault, Function, Kind, Lookup, Node, StackFile, file, parse,
};
use regex::Regex;

use crate::{args::StackArgs, failure::usage, fetch, output};

pub use tag::{TagSource, digest as handler_digest};

/// The files that are looked for when none is named.
const DEFAULT_FILES: [&str; 2] = [DEFAULT_FILE, "stack.yml"];

/// The file that is written when none is named.
pub const DEFAULT_FILE: &str = "stack.yaml";

/// A checked stack file.
#[derive(Debug)]
pub struct Stack {
    /// The gateway it names.
    pub gateway: Option<String>,
    /// The functions that were selected, in the file's order.
    pub functions: Vec<StackFunction>,
    /// What it says of all builds.
    pub configuration: Configuration,
}

/// A selected function of a stack file.
#[derive(Clone, Debug)]
pub struct StackFunction {
    /// What the file says of it, flags left out.
    pub deployment: FunctionDeployment,
    /// Whether its command is the one of a template.
    pub process_of_template: bool,
    /// The folder of its source.
    pub handler: String,
    /// The template that it is built from.
    pub lang: String,
    /// How its image is built.
    pub build: Build,
}

impl StackFunction {
    /// Gives its image the tag of a source.
    ///
    /// # Errors
    /// The source cannot be read.
    pub fn tag(&mut self, source: TagSource) -> anyhow::Result<()> {
        let tagged = source.apply(&self.deployment.image, &self.handler);
        let name = &self.deployment.service;
        self.deployment.image =
            tagged.map_err(|error| anyhow::anyhow!("function {name}: {error}"))?;
        Ok(())
    }
}

/// Everything that is wrong with a stack file.
#[derive(Debug)]
pub struct Faults {
    path: PathBuf,
    faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.faults[..] {
            [only] => write!(f, "{path}: {}", shown(only)),
            many => {
                write!(f, "{path} has {} faults:", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  {}", shown(fault)))
            }
        }
    }
}

/// A fault names what stands in the file, which may speak to terminals.
fn shown(fault: &Fault) -> String {
    output::printable(&fault.to_string())
}

impl std::error::Error for Faults {}

impl Stack {
    /// The file that the flags name, or the default one; `None` if none is named and there is none.
    ///
    /// # Errors
    /// It cannot be read, has faults, or the flags select nothing in it.
    pub fn load(args: &StackArgs) -> anyhow::Result<Option<Self>> {
        let selection = Selection::of(args)?;
        let path = match &args.yaml {
            Some(named) => PathBuf::from(named),
            None => match default_file() {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if fetch::is_url(&path.to_string_lossy()) {
            output::remark(&format!("Parsed: {}", path.display()));
        }
        let lookup = |name: &str| std::env::var(name).ok();
        let variable: Option<Lookup<'_>> = if args.envsubst { Some(&lookup) } else { None };
        Self::read(&path, &selection, variable).map(Some)
    }

    fn read(
        path: &Path,
        selection: &Selection,
        variable: Option<Lookup<'_>>,
    ) -> anyhow::Result<Self> {
        let mut faults = Vec::new();
        let text = read_bounded(path)?;
        let document = parse(&text, variable, &mut faults);
        let file = document.map(|document| StackFile::read(&document, &mut faults));
        let file = file.unwrap_or_default();
        let total = file.functions.len();
        let beside = path.parent().unwrap_or(Path::new(""));
        let mut functions = Vec::new();
        for function in file.functions.into_iter().filter(|f| selection.has(&f.name)) {
            let (line, name) = (function.line, function.name.clone());
            let process_of_template = function.fprocess.is_empty();
            let (handler, lang) = (function.handler.clone(), function.lang.clone());
            let build = function.build.clone();
            let deployment = deployment(function, beside, variable, &mut faults);
            if let Err(found) = FunctionSpec::check(deployment.clone()) {
                let said = found.0.into_iter().map(|text| format!("functions.{name}: {text}"));
                faults.extend(said.map(|text| Fault::at(line, text)));
            }
            functions.push(StackFunction { deployment, process_of_template, handler, lang, build });
        }
        if !faults.is_empty() {
            return Err(Faults { path: path.to_owned(), faults }.into());
        }
        if functions.is_empty() && total > 0 {
            anyhow::bail!(
                "{}: it has {total} function{}, but none {selection}",
                path.display(),
                if total == 1 { "" } else { "s" }
            );
        }
        Ok(Self { gateway: file.gateway, functions, configuration: file.configuration })
    }
}

/// What a stack file says that commands need which are not about its functions.
#[derive(Debug, Default)]
pub struct StackHead {
    /// The gateway it names.
    pub gateway: Option<String>,
    /// The namespaces of those functions that have one.
    pub namespaces: BTreeMap<String, String>,
}

impl StackHead {
    fn of(gateway: Option<String>, functions: impl Iterator<Item = (String, String)>) -> Self {
        let namespaces = functions.filter(|(_, namespace)| !namespace.is_empty()).collect();
        Self { gateway, namespaces }
    }
}

/// The head of a stack file.
///
/// A file that was not asked for is left alone if it is none of ours: other tools have a `stack.yaml` too.
///
/// # Errors
/// A file that the flags name cannot be read or has faults.
pub fn head(args: &StackArgs) -> anyhow::Result<StackHead> {
    if args.yaml.is_some() {
        let Some(stack) = Stack::load(args)? else { return Ok(StackHead::default()) };
        let functions = stack.functions.into_iter().map(|function| function.deployment);
        let named = functions.map(|deployment| (deployment.service, deployment.namespace));
        return Ok(StackHead::of(stack.gateway, named));
    }
    let read = || {
        let text = read_bounded(&default_file()?).ok()?;
        let lookup = |name: &str| std::env::var(name).ok();
        let variable: Option<Lookup<'_>> = if args.envsubst { Some(&lookup) } else { None };
        let document = parse(&text, variable, &mut Vec::new())?;
        let file = StackFile::read(&document, &mut Vec::new());
        let named = file.functions.into_iter().map(|function| (function.name, function.namespace));
        Some(StackHead::of(file.gateway, named))
    };
    Ok(read().unwrap_or_default())
}

/// What a stack file says of all builds.
///
/// # Errors
/// There is none, it cannot be read or has faults.
pub fn configuration(args: &StackArgs) -> anyhow::Result<Configuration> {
    let stack = Stack::load(args)?;
    let stack = stack.ok_or_else(|| usage("there is no stack.yaml here; name one with -f"))?;
    Ok(stack.configuration)
}

fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn read_bounded(path: &Path) -> anyhow::Result<String> {
    fetch::text(&path.to_string_lossy(), limits::STACK_FILE_BYTES_MAX)
}

/// Which functions of a file are meant.
#[derive(Debug)]
enum Selection {
    All,
    /// Words with `*` for any characters.
    Glob(String),
    Regex(Regex),
}

impl Selection {
    fn of(args: &StackArgs) -> anyhow::Result<Self> {
        // What a script leaves empty is not given.
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(match (given(&args.filter), given(&args.regex)) {
            (Some(_), Some(_)) => return Err(usage("--filter and --regex exclude each other")),
            (Some(glob), None) => Self::Glob(glob),
            (None, Some(text)) => Self::Regex(
                Regex::new(&text).map_err(|error| usage(format!("--regex {text:?}: {error}")))?,
            ),
            (None, None) => Self::All,
        })
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Glob(glob) => globbed(glob, name),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("usable"),
            Self::Glob(glob) => write!(f, "named like --filter {glob:?}"),
            Self::Regex(regex) => write!(f, "matched by --regex {:?}", regex.as_str()),
        }
    }
}

/// Whether `name` is `glob` with each `*` replaced by any characters.
pub fn globbed(glob: &str, name: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else { return glob == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

fn deployment(
    function: Function,
    beside: &Path,
    variable: Option<Lookup<'_>>,
    faults: &mut Vec<Fault>,
) -> FunctionDeployment {
    let mut environment = function.environment;
    for (line, named) in &function.environment_files {
        environment.extend(environment_of(named, *line, beside, variable, faults));
    }
    let env_process = if function.fprocess.is_empty() {
        template_process(&function.lang)
    } else {
        function.fprocess
    };
    let some_list = |list: Vec<String>| (!list.is_empty()).then_some(list);
    FunctionDeployment {
        service: function.name,
        image: tagged(&function.image),
        namespace: function.namespace,
        env_process,
        env_vars: (!environment.is_empty()).then_some(environment),
        constraints: some_list(function.constraints),
        secrets: some_list(function.secrets),
        labels: Some(function.labels),
        annotations: Some(function.annotations),
        limits: function.limits,
        requests: function.requests,
        read_only_root_filesystem: function.read_only,
    }
}

/// Reads a file of `environment_file`: from the working directory, else from beside the stack file.
fn environment_of(
    named: &str,
    line: u64,
    beside: &Path,
    variable: Option<Lookup<'_>>,
    faults: &mut Vec<Fault>,
) -> Map {
    let here = PathBuf::from(named);
    let path = if here.exists() { here } else { beside.join(named) };
    let text = match read_bounded(&path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(Fault::at(line, format!("environment_file {error}")));
            return Map::new();
        }
    };
    // Faults of that file have its name and lines.
    let mut inner = Vec::new();
    let environment = parse(&text, variable, &mut inner)
        .map(|document| file::read_environment(&document, &mut inner))
        .unwrap_or_default();
    faults
        .extend(inner.into_iter().map(|fault| Fault::new(format!("{}: {fault}", path.display()))));
    environment
}

/// The command of a template that lies in the working directory, if it names one. A template that is
/// absent or broken matters to a build, not to a deploy.
fn template_process(lang: &str) -> String {
    let name = lang.split('@').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return String::new();
    }
    let path = Path::new("template").join(name).join("template.yml");
    let read = || {
        let document = Node::parse(&read_bounded(&path).ok()?).ok()?;
        let Kind::Map(entries) = document.kind else { return None };
        let (_, value) = entries.into_iter().find(|(key, _)| key.text() == Some("fprocess"))?;
        value.text().map(str::to_owned)
    };
    read().unwrap_or_default()
}

/// An image without a tag gets `:latest`; the host's own programs are no image.
fn tagged(image: &str) -> String {
    if image.is_empty() || image == HOST {
        return image.to_owned();
    }
    pinnace_core::image::with_default_tag(image)
}

#[cfg(test)]
mod tests;
