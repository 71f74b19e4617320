//! A `template.yml`: how code of a language becomes a function (contract section 12.2). What it does not know it
//! ignores, as with stack files: templates are shared with other tools.

use super::{
    Fault,
    file::{entries, flag, text, words, wrong},
    node::{Kind, Node},
};

/// The folder of a template that holds the handler, if it names none.
pub const HANDLER_FOLDER: &str = "function";

/// What a `template.yml` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The language.
    pub language: String,
    /// The command that the watchdog runs.
    pub fprocess: String,
    /// Sets of packages that a build may ask for by name.
    pub build_options: Vec<BuildOption>,
    /// What a newcomer is told.
    pub welcome_message: String,
    /// The folder that holds the handler.
    pub handler_folder: String,
    /// Whether the build may use the user's SSH agent.
    pub mount_ssh: bool,
    /// Whether Pinnace can build it without a Dockerfile (section `pinnace`).
    pub is_native: bool,
}

/// A set of packages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildOption {
    /// Its name.
    pub name: String,
    /// The packages.
    pub packages: Vec<String>,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            language: String::new(),
            fprocess: String::new(),
            build_options: Vec::new(),
            welcome_message: String::new(),
            handler_folder: HANDLER_FOLDER.to_owned(),
            mount_ssh: false,
            is_native: false,
        }
    }
}

impl Definition {
    /// Takes what it knows out of a document, and adds what is wrong with it to `faults`.
    pub fn read(document: &Node, faults: &mut Vec<Fault>) -> Self {
        let mut definition = Self::default();
        for (key, value) in entries(document, "the file", faults) {
            let word = |faults: &mut Vec<Fault>| text(value, key, faults).unwrap_or_default();
            match key {
                "language" => definition.language = word(faults),
                "fprocess" => definition.fprocess = word(faults),
                "welcome_message" => definition.welcome_message = word(faults),
                "handler_folder" => definition.take_folder(value, faults),
                "mount_ssh" => definition.mount_ssh = flag(value, key, faults),
                "build_options" => definition.build_options = read_options(value, faults),
                "pinnace" => definition.is_native = value.kind != Kind::Null,
                _ => {}
            }
        }
        definition
    }

    /// A template is a stranger's: its folder must not lead out of the build.
    fn take_folder(&mut self, value: &Node, faults: &mut Vec<Fault>) {
        let folder = text(value, "handler_folder", faults).unwrap_or_default();
        let folder = folder.trim_start_matches("./").trim_end_matches('/');
        if folder.is_empty() {
            return;
        }
        if folder.split('/').any(|part| part.is_empty() || part == "..") {
            let said = format!("handler_folder is {folder:?}; it must be a folder of the template");
            faults.push(Fault::at(value.line, said));
            return;
        }
        self.handler_folder = folder.to_owned();
    }
}

fn read_options(node: &Node, faults: &mut Vec<Fault>) -> Vec<BuildOption> {
    const PATH: &str = "build_options";
    let Kind::List(items) = &node.kind else {
        if node.kind != Kind::Null {
            wrong(node, PATH, "a list", faults);
        }
        return Vec::new();
    };
    let mut options = Vec::new();
    for item in items {
        let mut option = BuildOption::default();
        for (key, value) in entries(item, PATH, faults) {
            match key {
                "name" => option.name = text(value, PATH, faults).unwrap_or_default(),
                "packages" => option.packages = words(value, PATH, faults),
                _ => {}
            }
        }
        options.push(option);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Definition, Vec<String>) {
        let mut faults = Vec::new();
        let read = Definition::read(&Node::parse(text).unwrap(), &mut faults);
        (read, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn everything_a_build_needs() {
        let (definition, faults) = read(
            "language: python3\nfprocess: python index.py\nbuild_options:\n  - name: dev\n    packages:\n      - make\n      \
             - g++\nwelcome_message: |\n  Hello.\n  You.\nhandler_folder: ./src/\nmount_ssh: true\npinnace:\n  base: host\n",
        );
        assert_eq!(faults, Vec::<String>::new());
        let expected = Definition {
            language: "python3".into(),
            fprocess: "python index.py".into(),
            build_options: vec![BuildOption {
                name: "dev".into(),
                packages: vec!["make".into(), "g++".into()],
            }],
            welcome_message: "Hello.\nYou.\n".into(),
            handler_folder: "src".into(),
            mount_ssh: true,
            is_native: true,
        };
        assert_eq!(definition, expected);
    }

    #[test]
    fn a_template_may_say_next_to_nothing() {
        let (definition, faults) = read("language: x\npinnace:\n");
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(definition.handler_folder, "function");
        assert!(!definition.is_native);
    }

    #[test]
    fn the_handler_stays_inside() {
        for folder in ["/etc", "../x", "a/../../b", "a//b"] {
            let (definition, faults) = read(&format!("handler_folder: {folder}\n"));
            assert_eq!(definition.handler_folder, "function", "{folder}");
            assert!(faults[0].contains("must be a folder of the template"), "{faults:?}");
        }
    }
}
