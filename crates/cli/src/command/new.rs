//! `pinnace new`: a function to begin with, from a template.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use pinnace_core::{limits, name::check_label, wire::Resources};

use crate::{
    failure::usage,
    fetch,
    gateway::DEFAULT,
    output::printable,
    stack::{
        DEFAULT_FILE,
        entry::{Entry, check_amount, check_plain},
    },
    template::{self, DOCKERFILE, Template, TemplateName, shipped},
    tree::{self, Links, Room},
};

/// What Git need not keep.
const GIT_IGNORED: &str = "template\nbuild\n.secrets\n";

/// Flags of `pinnace new`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace new hello --lang python            a folder hello, and a stack.yaml with it
  pinnace new other --lang node --append stack.yaml
  pinnace new --list
  pinnace up -f stack.yaml                   builds and deploys what is in it

A template that is not in ./template is one of those that this program carries. Nothing is overwritten.")]
pub struct NewArgs {
    /// The function
    name: Option<String>,
    /// Template that it starts from
    #[arg(long, value_name = "TEMPLATE")]
    lang: Option<String>,
    /// List templates
    #[arg(long, conflicts_with_all = ["name", "lang"])]
    list: bool,
    /// Add it to this stack file
    #[arg(short, long, value_name = "FILE")]
    append: Option<PathBuf>,
    /// Folder of its source [default: its name]
    #[arg(long, value_name = "FOLDER")]
    handler: Option<String>,
    /// What stands before its image's name, such as ghcr.io/me
    #[arg(short, long, value_name = "PREFIX", env = "OPENFAAS_PREFIX")]
    prefix: Option<String>,
    /// Gateway that a new stack file names
    #[arg(short, long, value_name = "URL", env = "OPENFAAS_URL", default_value = DEFAULT)]
    gateway: String,
    /// Leave out the template's notes
    #[arg(short, long)]
    quiet: bool,
    /// Most memory of a replica, such as 128Mi
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    memory_limit: Option<String>,
    /// Most processor time of a replica, such as 500m
    #[arg(long, value_name = "CPU", help_heading = "Resources")]
    cpu_limit: Option<String>,
    /// Memory asked for
    #[arg(long, value_name = "BYTES", help_heading = "Resources")]
    memory_request: Option<String>,
    /// Processor time asked for
    #[arg(long, value_name = "CPU", help_heading = "Resources")]
    cpu_request: Option<String>,
    /// Stack file to write [default: stack.yaml]
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "append")]
    yaml: Option<PathBuf>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "WILDCARD", hide = true)]
    filter: Option<String>,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "REGEX", hide = true)]
    regex: Option<String>,
}

/// Makes a function, or lists templates.
pub fn run(args: &NewArgs) -> anyhow::Result<()> {
    if args.list {
        return list();
    }
    let wanted = Wanted::of(args)?;
    // All that can be wrong is looked for before anything is made.
    let text = wanted.stack_text(args)?;
    let template = Template::obtain(&wanted.lang, None)?;
    let mut out = io::stdout().lock();
    wanted.make_folder(&template)?;
    writeln!(out, "Folder: {} created.", wanted.folder)?;
    write_stack(&wanted.stack, &text)?;
    ignore_what_is_made()?;
    let done = if args.append.is_some() { "updated" } else { "written" };
    writeln!(out, "Function created in folder: {}", wanted.folder)?;
    writeln!(out, "Stack file {done}: {}", wanted.stack.display())?;
    let notes = printable(&template.definition.welcome_message);
    if !args.quiet && !notes.trim().is_empty() {
        writeln!(out, "\nNotes:\n{}", notes.trim_end())?;
    }
    Ok(())
}

fn list() -> anyhow::Result<()> {
    let present = template::present()?;
    let mut out = io::stdout().lock();
    writeln!(out, "Languages available as templates:")?;
    for name in &present {
        writeln!(out, "- {name}")?;
    }
    let absent =
        |shipped: &shipped::Shipped| !present.iter().any(|p| p.to_string() == shipped.name());
    for shipped in shipped::all().filter(absent) {
        writeln!(out, "- {}", shipped.name())?;
    }
    Ok(())
}

/// A function to make.
struct Wanted {
    lang: TemplateName,
    /// The folder of its source, as the stack file has it but for `./`.
    folder: String,
    stack: PathBuf,
    entry: Entry,
}

impl Wanted {
    fn of(args: &NewArgs) -> anyhow::Result<Self> {
        let name = args.name.as_deref();
        let name =
            name.ok_or_else(|| usage("name the function: pinnace new NAME --lang TEMPLATE"))?;
        check_label("function", name).map_err(|error| usage(error.to_string()))?;
        let lang = args.lang.as_deref().filter(|lang| !lang.is_empty()).ok_or_else(|| {
            usage("name a template with --lang; `pinnace new --list` shows those there are")
        })?;
        let lang: TemplateName = lang.parse().map_err(|why| usage(format!("--lang: {why}")))?;
        let folder = args.handler.as_deref().filter(|folder| !folder.is_empty()).unwrap_or(name);
        let folder = folder.trim_start_matches("./").trim_end_matches('/').to_owned();
        let prefix = args.prefix.as_deref().map(|prefix| prefix.trim().trim_end_matches('/'));
        let image = match prefix.filter(|prefix| !prefix.is_empty()) {
            Some(prefix) => format!("{prefix}/{name}:latest"),
            None => format!("{name}:latest"),
        };
        for (what, text) in
            [("--handler", &folder), ("the image", &image), ("--gateway", &args.gateway)]
        {
            check_plain(what, text).map_err(usage)?;
        }
        let handler = if folder.starts_with('/') { folder.clone() } else { format!("./{folder}") };
        let entry = Entry {
            name: name.to_owned(),
            lang: lang.to_string(),
            handler,
            image,
            requests: resources(&args.memory_request, &args.cpu_request, "request")?,
            limits: resources(&args.memory_limit, &args.cpu_limit, "limit")?,
        };
        let stack = args.append.as_ref().or(args.yaml.as_ref());
        let stack = stack.cloned().unwrap_or_else(|| DEFAULT_FILE.into());
        Ok(Self { lang, folder, stack, entry })
    }

    /// What the stack file will be.
    fn stack_text(&self, args: &NewArgs) -> anyhow::Result<String> {
        let stack = self.stack.display();
        if Path::new(&self.folder).exists() {
            anyhow::bail!("folder {} already exists; --handler names another", self.folder);
        }
        if args.append.is_some() {
            let text = fetch::text(&stack.to_string(), limits::STACK_FILE_BYTES_MAX)?;
            return self.entry.added_to(&text).map_err(|why| anyhow::anyhow!("{stack}: {why}"));
        }
        if self.stack.exists() {
            anyhow::bail!("file {stack} already exists; --append {stack} adds the function to it");
        }
        Ok(self.entry.new_file(&args.gateway))
    }

    fn make_folder(&self, template: &Template) -> anyhow::Result<()> {
        let failed = |error: io::Error| anyhow::anyhow!("cannot make {}: {error}", self.folder);
        let from = template.handler();
        if let Some(parent) = Path::new(&self.folder).parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        tree::make_folder(Path::new(&self.folder), 0o700).map_err(failed)?;
        if !from.is_dir() {
            if template.name.name() == DOCKERFILE {
                return Ok(());
            }
            anyhow::bail!(
                "template {} has no folder {} to start from",
                template.name,
                template.definition.handler_folder
            );
        }
        let root = fs::canonicalize(&template.folder)?;
        let (to, mut room) = (Path::new(&self.folder), Room::of_template());
        Ok(tree::copy(&from, to, &[], Links::Within(&root), &mut room)?)
    }
}

fn resources(
    memory: &Option<String>,
    cpu: &Option<String>,
    kind: &str,
) -> anyhow::Result<Resources> {
    for (what, amount) in [("memory", memory), ("cpu", cpu)] {
        if let Some(amount) = amount {
            check_amount(&format!("--{what}-{kind}"), amount).map_err(usage)?;
        }
    }
    Ok(Resources { memory: memory.clone(), cpu: cpu.clone(), ..Resources::default() })
}

/// The file is whole before it has its name.
fn write_stack(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = || -> anyhow::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        let mode = fs::metadata(path).map(|found| found.permissions());
        let usual = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        file.as_file().set_permissions(mode.unwrap_or(usual))?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| anyhow::anyhow!("cannot write {}: {error:#}", path.display()))
}

fn ignore_what_is_made() -> anyhow::Result<()> {
    let path = env::current_dir()?.join(".gitignore");
    let mut options = fs::OpenOptions::new();
    match options.write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        opened => Ok(opened?.write_all(GIT_IGNORED.as_bytes())?),
    }
}
