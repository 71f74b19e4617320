//! From a handler and a template to an image.
//!
//! [`Job`] is what is wanted, [`context`] the folder that is built (contract section 14.1), [`Engine`] who builds it:
//! Pinnace itself over the API ([`native`]), or one of the programs that build Dockerfiles ([`steps`]). [`pool`] runs
//! several at a time.

pub mod context;
mod engine;
mod ignore;
mod log;
pub mod native;
pub mod pool;
pub mod process;
pub mod steps;

use std::path::PathBuf;

use pinnace_core::wire::Map;

pub use self::{
    engine::{Engine, Engines},
    log::Log,
};
use crate::template::{DOCKERFILE, Template, TemplateName};

/// A function whose image is to be built.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The image, its tag included.
    pub image: String,
    /// The template that it is built from.
    pub lang: TemplateName,
    /// The folder of its source.
    pub handler: PathBuf,
    /// Folders that are copied into the handler.
    pub copy: Vec<String>,
    /// Build arguments.
    pub args: Map,
    /// Names of the template's sets of packages.
    pub options: Vec<String>,
    /// Files that the build may read while it runs.
    pub secrets: Map,
    /// Platforms to publish for, apart by commas.
    pub platforms: String,
    /// Whether it is not built at all.
    pub skip: bool,
}

impl Job {
    /// Whether the handler is the whole of what is built.
    pub fn is_dockerfile(&self) -> bool {
        self.lang.name() == DOCKERFILE
    }

    /// The build arguments, those for the template's sets of packages with them.
    ///
    /// # Errors
    /// The template has no set of a name.
    pub fn all_args(&self, template: Option<&Template>) -> Result<Map, String> {
        let mut args = self.args.clone();
        let known = template.map(|template| &template.definition.build_options[..]);
        let mut packages = Vec::new();
        for option in &self.options {
            let set = known.unwrap_or_default().iter().find(|known| known.name == *option);
            let set = set.ok_or_else(|| {
                let names: Vec<&str> =
                    known.unwrap_or_default().iter().map(|known| known.name.as_str()).collect();
                format!(
                    "template {} has no build option {option}, only: {}",
                    self.lang,
                    names.join(", ")
                )
            })?;
            packages.extend(set.packages.iter().cloned());
        }
        packages.sort();
        packages.dedup();
        if !packages.is_empty() {
            args.entry(ADDITIONAL_PACKAGE.to_owned()).or_insert_with(|| packages.join(" "));
        }
        Ok(args)
    }
}

/// The build argument by which templates learn of packages (contract section 12.2).
const ADDITIONAL_PACKAGE: &str = "ADDITIONAL_PACKAGE";

#[cfg(test)]
mod tests {
    use pinnace_stack::{Definition, template::BuildOption};

    use super::*;

    #[test]
    fn packages_of_several_sets_become_one_argument() {
        let set = |name: &str, packages: &[&str]| BuildOption {
            name: name.into(),
            packages: packages.iter().map(|package| (*package).to_owned()).collect(),
        };
        let definition = Definition {
            build_options: vec![set("dev", &["make", "g++"]), set("git", &["git", "make"])],
            ..Definition::default()
        };
        let lang: TemplateName = "x".parse().unwrap();
        let template = Template { name: lang.clone(), folder: "x".into(), definition };
        let mut job = Job {
            name: "f".into(),
            image: "f:1".into(),
            lang,
            handler: "f".into(),
            copy: Vec::new(),
            args: Map::new(),
            options: vec!["dev".into(), "git".into()],
            secrets: Map::new(),
            platforms: String::new(),
            skip: false,
        };
        let args = job.all_args(Some(&template)).unwrap();
        assert_eq!(args["ADDITIONAL_PACKAGE"], "g++ git make");
        job.options = vec!["nope".into()];
        let said = job.all_args(Some(&template)).unwrap_err();
        assert_eq!(said, "template x has no build option nope, only: dev, git");
    }
}
