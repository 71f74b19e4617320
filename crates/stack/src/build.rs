//! What a stack file says of builds (contract section 12.1).

use pinnace_core::wire::Map;

use super::{
    Fault,
    file::{entries, flag, list, text, texts, words, wrong},
    node::{Kind, Node},
};

/// How a function's image is built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Build {
    /// Whether it is not built at all.
    pub skip: bool,
    /// Names of the template's sets of packages.
    pub options: Vec<String>,
    /// Build arguments.
    pub args: Map,
    /// Files that a build may read while it runs, by the name it knows them under.
    pub secrets: Map,
    /// Platforms to publish for, apart by commas.
    pub platforms: String,
}

impl Build {
    /// Takes a key of a function if it is about its build.
    pub(crate) fn take(&mut self, key: &str, value: &Node, path: &str, faults: &mut Vec<Fault>) {
        match key {
            "skip_build" => self.skip = flag(value, path, faults),
            "build_options" => self.options = words(value, path, faults),
            "build_args" => self.args = texts(value, path, faults),
            "build_secrets" => self.secrets = texts(value, path, faults),
            "platforms" => self.platforms = text(value, path, faults).unwrap_or_default(),
            _ => {}
        }
    }
}

/// What a stack file says of all its builds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// Folders that are copied into every handler.
    pub copy: Vec<String>,
    /// Where templates come from.
    pub templates: Vec<TemplateSource>,
}

/// Where a template comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateSource {
    /// Its name, perhaps with `@` and a version.
    pub name: String,
    /// A Git URL, perhaps with `#` and a version; without one, the template store knows it.
    pub source: Option<String>,
}

impl Configuration {
    /// Takes what it knows out of the section, and adds what is wrong with it to `faults`.
    pub(crate) fn read(node: &Node, faults: &mut Vec<Fault>) -> Self {
        let mut configuration = Self::default();
        for (key, value) in entries(node, "configuration", faults) {
            match key {
                "copy" => {
                    let copied = list(value, "configuration.copy", faults);
                    configuration.copy = copied.into_iter().map(|(_, path)| path).collect();
                }
                "templates" => configuration.templates = read_templates(value, faults),
                _ => {}
            }
        }
        configuration
    }
}

fn read_templates(node: &Node, faults: &mut Vec<Fault>) -> Vec<TemplateSource> {
    const PATH: &str = "configuration.templates";
    let Kind::List(items) = &node.kind else {
        if node.kind != Kind::Null {
            wrong(node, PATH, "a list", faults);
        }
        return Vec::new();
    };
    let mut templates = Vec::new();
    for item in items {
        let mut template = TemplateSource::default();
        for (key, value) in entries(item, PATH, faults) {
            let word = text(value, &format!("{PATH}.{key}"), faults).unwrap_or_default();
            match key {
                "name" => template.name = word,
                "source" => template.source = Some(word).filter(|source| !source.is_empty()),
                _ => {}
            }
        }
        if template.name.is_empty() {
            faults.push(Fault::at(item.line, format!("{PATH} has an entry without a name")));
        } else {
            templates.push(template);
        }
    }
    templates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Configuration, Vec<String>) {
        let mut faults = Vec::new();
        let read = Configuration::read(&Node::parse(text).unwrap(), &mut faults);
        (read, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn faults_have_their_lines() {
        let (read, faults) =
            read("copy: x\ntemplates:\n  - source: https://x/y\n  - name: [t]\n  - name: u\n");
        assert_eq!(read.templates.len(), 1);
        assert_eq!(
            faults,
            [
                "line 1: configuration.copy is a scalar, not a list",
                "line 3: configuration.templates has an entry without a name",
                "line 4: configuration.templates.name is a list, not a word",
                "line 4: configuration.templates has an entry without a name",
            ]
        );
    }

    #[test]
    fn nothing_is_no_fault() {
        assert_eq!(read("copy:\ntemplates:\nother: [1]\n"), Default::default());
    }
}
