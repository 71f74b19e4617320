//! What the rules look at: the files of the checkout and the packages of the workspace.

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use serde::Deserialize;

use super::source::Source;
use crate::run::{cargo, output};

/// The repository.
#[derive(Default)]
pub struct Repository {
    /// Every file of it, in order of their paths.
    pub files: Vec<File>,
    /// Every package of the workspace.
    pub packages: Vec<Package>,
}

/// A file.
pub struct File {
    /// Its path from the root.
    pub path: String,
    /// Its text; empty if it is none.
    pub text: String,
    /// The text taken apart, if it is Rust.
    pub rust: Option<Source>,
}

/// A package, as `cargo metadata` tells of it.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its licence.
    pub license: Option<String>,
    /// Its manifest, an absolute path.
    pub manifest_path: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A dependency of a package.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    pub kind: Option<String>,
}

impl Repository {
    /// Reads a checkout: what git tracks and what it would.
    ///
    /// # Errors
    /// git or cargo fail, or a file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut git = Command::new("git");
        git.current_dir(root).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let listed = output(&mut git)?;
        let mut paths: Vec<_> =
            listed.split('\0').filter(|path| root.join(path).is_file()).collect();
        paths.sort_unstable();
        paths.dedup();
        let read = |path: &&str| -> Result<File> {
            let bytes = fs::read(root.join(path))?;
            Ok(File::new(path, &String::from_utf8(bytes).unwrap_or_default()))
        };
        let files = paths.iter().map(read).collect::<Result<_>>()?;

        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
        let metadata: Metadata = serde_json::from_str(&metadata)?;
        Ok(Self { files, packages: metadata.packages })
    }

    /// The Rust files, each with its text taken apart.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Source)> {
        self.files.iter().filter_map(|file| Some((file, file.rust.as_ref()?)))
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    /// A file of this content.
    pub fn new(path: &str, text: &str) -> Self {
        let rust = path.ends_with(".rs").then(|| Source::read(text));
        Self { path: path.to_owned(), text: text.to_owned(), rust }
    }
}
