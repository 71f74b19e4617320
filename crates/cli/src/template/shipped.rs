//! The templates that this program carries, from the folder `templates/` of its source.
//!
//! They are written into `./template` like any other, so that other tools can build them too and everybody can see
//! and change what is built.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Origin, TemplateName, repository::replace};

/// What stands in `meta.json` as their repository.
const REPOSITORY: &str = "pinnace";

/// One file of a template.
struct CarriedFile {
    /// Its path: the template's name first.
    path: &'static str,
    is_executable: bool,
    bytes: &'static [u8],
}

static FILES: &[CarriedFile] = &include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// A template that this program carries.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    name: &'static str,
}

/// All of them, in the order of their names.
pub fn all() -> impl Iterator<Item = Shipped> {
    let mut names: Vec<&str> =
        FILES.iter().filter_map(|file| file.path.split('/').next()).collect();
    names.dedup();
    names.into_iter().map(|name| Shipped { name })
}

/// The one of a name, which is at no other version than this program's.
pub fn find(name: &TemplateName) -> Option<Shipped> {
    all().find(|shipped| shipped.name == name.name() && name.pin().is_none())
}

impl Shipped {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Writes it into a folder of templates, where it is not yet.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)
            .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", folder.display()))?;
        let staged = tempfile::Builder::new().prefix(".new-").tempdir_in(folder)?;
        let inner = staged.path().join(self.name);
        let mut hash = Sha256::new();
        for (path, file) in self.files() {
            hash.update(path.as_bytes());
            hash.update(file.bytes);
            write(&inner.join(path), file)?;
        }
        let sha: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Origin::now(REPOSITORY, Some(env!("CARGO_PKG_VERSION")), &sha).write(&inner)?;
        replace(&inner, &folder.join(self.name))
    }

    /// Its files, by their paths in it.
    fn files(self) -> impl Iterator<Item = (&'static str, &'static CarriedFile)> {
        FILES.iter().filter_map(move |file| {
            let path = file.path.strip_prefix(self.name)?.strip_prefix('/')?;
            Some((path, file))
        })
    }
}

fn write(path: &PathBuf, file: &CarriedFile) -> anyhow::Result<()> {
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode).open(path)?.write_all(file.bytes)
    };
    written().map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use pinnace_core::limits;
    use pinnace_stack::{Definition, parse};

    use super::{super::DEFINITION_FILE, *};

    #[test]
    fn every_template_has_what_it_takes() {
        let names: Vec<&str> = all().map(Shipped::name).collect();
        assert_eq!(names, NAMES);
        for template in all() {
            let name = template.name();
            let files: Vec<&str> = template.files().map(|(path, _)| path).collect();
            let text = template.files().find(|(path, _)| *path == DEFINITION_FILE);
            let text = text.unwrap_or_else(|| panic!("{name} has no {DEFINITION_FILE}")).1.bytes;
            assert!(text.len() as u64 <= limits::TEMPLATE_FILE_BYTES_MAX);
            let mut faults = Vec::new();
            let document = parse(std::str::from_utf8(text).unwrap(), None, &mut faults).unwrap();
            let definition = Definition::read(&document, &mut faults);
            assert!(faults.is_empty(), "{name}: {faults:?}");
            assert!(!definition.welcome_message.is_empty(), "{name} tells a newcomer nothing");
            assert!(definition.is_native || name == "dockerfile", "{name}");
            let handler = format!("{}/", definition.handler_folder);
            assert!(files.iter().any(|path| path.starts_with(&handler)), "{name}: {files:?}");
        }
    }

    const NAMES: &[&str] =
        &["bash", "dockerfile", "go", "java", "node", "php", "python", "ruby", "rust", "static"];

    #[test]
    fn one_is_written_with_its_origin_and_in_place_of_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("template");
        let python = find(&"python".parse().unwrap()).unwrap();
        python.write(&folder).unwrap();
        fs::write(folder.join("python/old"), "").unwrap();
        python.write(&folder).unwrap();
        assert!(folder.join("python/function/handler.py").is_file());
        assert!(!folder.join("python/old").exists());
        let origin = fs::read_to_string(folder.join("python/meta.json")).unwrap();
        assert!(origin.contains(r#""repository":"pinnace""#), "{origin}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn none_has_another_version() {
        assert!(find(&"python@1.0".parse().unwrap()).is_none());
        assert!(find(&"no-such".parse().unwrap()).is_none());
    }
}
