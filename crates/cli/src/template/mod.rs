//! Templates: what makes a function of a few lines of code.
//!
//! They lie in `./template`, a folder each, as OpenFaaS has them. One that is not there comes from where the stack
//! file says ([`Repository`]), from the template store ([`Store`]), or from the set that this program carries
//! ([`shipped`]).

mod name;
mod origin;
mod repository;
pub mod shipped;
mod store;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pinnace_core::limits;
use pinnace_stack::{Configuration, Definition, parse};

pub use self::{
    name::TemplateName,
    origin::Origin,
    repository::{Overwrite, Repository},
    store::{DEFAULT_URL, Store, StoreItem},
};
use crate::{fetch, output::printable};

/// The folder of templates.
pub const FOLDER: &str = "template";

/// The file of a template that says what it is.
pub const DEFINITION_FILE: &str = "template.yml";

/// Where OpenFaaS keeps its templates.
pub const DEFAULT_REPOSITORY: &str = "https://github.com/openfaas/templates.git";

/// The variable that names another repository.
pub const REPOSITORY_VARIABLE: &str = "OPENFAAS_TEMPLATE_URL";

/// The template whose handler is a whole build context of its own.
pub const DOCKERFILE: &str = "dockerfile";

/// A template in `./template`.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its name.
    pub name: TemplateName,
    /// Its folder.
    pub folder: PathBuf,
    /// What its `template.yml` says.
    pub definition: Definition,
}

impl Template {
    /// The template of a name; `None` if it is not there.
    ///
    /// # Errors
    /// Its `template.yml` cannot be read or has faults.
    pub fn find(name: &TemplateName) -> anyhow::Result<Option<Self>> {
        let folder = Path::new(FOLDER).join(name.to_string());
        let file = folder.join(DEFINITION_FILE);
        if !folder.is_dir() {
            return Ok(None);
        }
        if !file.is_file() && name.name() == DOCKERFILE {
            return Ok(Some(Self {
                name: name.clone(),
                folder,
                definition: Definition::default(),
            }));
        }
        let definition = read_definition(&file)?;
        Ok(Some(Self { name: name.clone(), folder, definition }))
    }

    /// The template of a name, brought here if it is not: from where the stack file says, else from those that this
    /// program carries.
    ///
    /// # Errors
    /// It is in neither, or cannot be brought.
    pub fn obtain(
        name: &TemplateName,
        configuration: Option<&Configuration>,
    ) -> anyhow::Result<Self> {
        if let Some(found) = Self::find(name)? {
            return Ok(found);
        }
        let listed = configuration.iter().flat_map(|configuration| &configuration.templates);
        let listed = listed.into_iter().find(|source| source.name == name.to_string());
        if let Some(listed) = listed {
            Repository::of_stack(listed)?.take(Some(name), Overwrite::No, false)?;
        } else if let Some(template) = shipped::find(name) {
            template.write(Path::new(FOLDER))?;
        }
        Self::find(name)?.ok_or_else(|| missing(name))
    }

    /// The folder whose content a new function starts from.
    pub fn handler(&self) -> PathBuf {
        self.folder.join(&self.definition.handler_folder)
    }
}

fn missing(name: &TemplateName) -> anyhow::Error {
    let carried: Vec<&str> = shipped::all().map(shipped::Shipped::name).collect();
    anyhow::anyhow!(
        "there is no template {name} in ./{FOLDER}, nor does this program carry one (but {}); \
         `pinnace template pull URL` brings those of a Git repository, `pinnace template store pull {name}` \
         one of the template store",
        carried.join(", ")
    )
}

fn read_definition(file: &Path) -> anyhow::Result<Definition> {
    let shown = file.display().to_string();
    let text = fetch::text(&shown, limits::TEMPLATE_FILE_BYTES_MAX)?;
    let mut faults = Vec::new();
    let definition = parse(&text, None, &mut faults)
        .map(|document| Definition::read(&document, &mut faults))
        .unwrap_or_default();
    if faults.is_empty() {
        return Ok(definition);
    }
    let faults: Vec<String> = faults.iter().map(|fault| printable(&fault.to_string())).collect();
    anyhow::bail!("{shown}: {}", faults.join("\n  "))
}

/// The names of the templates in `./template`, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn present() -> anyhow::Result<Vec<TemplateName>> {
    let entries = match fs::read_dir(FOLDER) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => anyhow::bail!("cannot read ./{FOLDER}: {error}"),
        Ok(entries) => entries,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| anyhow::anyhow!("cannot read ./{FOLDER}: {error}"))?;
        let name = entry.file_name().to_string_lossy().parse::<TemplateName>();
        if entry.path().is_dir()
            && let Ok(name) = name
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
