//! Templates of a Git repository, brought by the program `git`.
//!
//! The URL may come from a stranger's stack file or store, so only a few protocols are spoken and nothing that git
//! could take for an option is handed to it. What was brought is looked through before anything here is changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

use pinnace_stack::build::TemplateSource;

use super::{DEFINITION_FILE, FOLDER, Origin, TemplateName, store::Store};
use crate::{
    output::{printable, remark},
    tree::{self, Links, Room},
};

/// The protocols that git may speak.
const PROTOCOLS: &str = "https:ssh:git:file";

/// A version that begins so is a commit's.
const COMMIT: &str = "sha-";

/// A repository with templates, perhaps at a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    url: String,
    version: Option<String>,
}

/// What happens to a template that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It is replaced.
    Yes,
    /// Nothing is written at all.
    No,
}

/// Templates that were brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken(pub Vec<TemplateName>);

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "Wrote {} template(s) : [{}]", names.len(), names.join(" "))
    }
}

impl FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (url, version) = match text.split_once('#') {
            Some((url, version)) => (url, Some(version)),
            None => (text, None),
        };
        if !is_spoken(url) {
            return Err(format!(
                "{:?} is no URL of a Git repository that is fetched from; such begin with https://, ssh://, git:// or \
                 file://, or look like git@host:path",
                printable(url)
            ));
        }
        Self { url: url.to_owned(), version: None }.at(version)
    }
}

fn is_spoken(url: &str) -> bool {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if PROTOCOLS.split(':').any(|protocol| protocol == scheme) {
        return !rest.is_empty() && !rest.starts_with('-');
    }
    // As git has it for SSH. An option begins with a dash, a host of one too.
    let plain = |text: &str| {
        let ordinary = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(ordinary)
    };
    let Some((who, path)) = url.split_once(':') else { return false };
    let Some((user, host)) = who.split_once('@') else { return false };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with(['-', ':', '/'])
}

impl Repository {
    /// Where a stack file has a template from.
    ///
    /// # Errors
    /// The URL is none, or the template store does not know it.
    pub fn of_stack(source: &TemplateSource) -> anyhow::Result<Self> {
        let name: TemplateName = source.name.parse().map_err(anyhow::Error::msg)?;
        let found: Self = match &source.source {
            Some(url) => url.parse().map_err(anyhow::Error::msg)?,
            None => {
                Store::read(None)?.find(name.name())?.repo.parse().map_err(anyhow::Error::msg)?
            }
        };
        // What the URL names stands first, as it is the more exact.
        let version = found.version.clone().or_else(|| name.pin().map(str::to_owned));
        found.at(version.as_deref()).map_err(anyhow::Error::msg)
    }

    /// The same repository at a version.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn at(self, version: Option<&str>) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if let Some(version) = version
            && (version.is_empty()
                || version.starts_with(['-', '.'])
                || !version.chars().all(plain))
        {
            return Err(format!(
                "{:?} is no branch or tag that templates can be pinned to: it has letters, digits, dots, dashes and \
                 underscores",
                printable(version)
            ));
        }
        Ok(Self { version: version.map(str::to_owned), ..self })
    }

    /// The version that is asked for.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Brings its templates into `./template`: all, each pinned to the version if there is one, or one under a name.
    ///
    /// # Errors
    /// Git fails, there is no such template, or one is there already and may not be replaced.
    pub fn take(
        &self,
        only: Option<&TemplateName>,
        overwrite: Overwrite,
        debug: bool,
    ) -> anyhow::Result<Taken> {
        let version = self.version.as_ref().map(|version| format!(" [{version}]"));
        remark(&format!(
            "Fetching templates from {}{}",
            printable(&self.url),
            version.unwrap_or_default()
        ));
        let scratch = tempfile::Builder::new().prefix("pinnace-templates-").tempdir()?;
        if debug {
            remark(&format!("Temporary files in {}", scratch.path().display()));
        }
        let tree = scratch.path().join("tree");
        self.fetch(&tree)?;
        let sha = git(&tree, &["rev-parse", "HEAD"])?;
        let origin = Origin::now(&self.url, self.version.as_deref(), &sha);
        let found = self.templates_in(&tree, only)?;
        if overwrite == Overwrite::No {
            refuse_present(&found)?;
        }
        let root = fs::canonicalize(&tree)?;
        for (name, folder) in &found {
            install(name, folder, &root, &origin)?;
        }
        if debug {
            let _ = scratch.keep();
        }
        Ok(Taken(found.into_iter().map(|(name, _)| name).collect()))
    }

    fn fetch(&self, tree: &Path) -> anyhow::Result<()> {
        let commit = self.version.as_deref().and_then(|version| version.strip_prefix(COMMIT));
        let mut clone = command(None);
        clone.args(["clone", "--quiet", "--no-tags", "--single-branch"]);
        match (commit, &self.version) {
            // A commit may be anywhere in the history.
            (Some(_), _) => clone.args(["--no-checkout", "--no-single-branch"]),
            (None, Some(branch)) => clone.args(["--depth=1", "--branch", branch]),
            (None, None) => clone.arg("--depth=1"),
        };
        clone.arg("--").arg(&self.url).arg(tree).stdin(Stdio::inherit());
        said_by(clone.output(), "git clone")?;
        if let Some(commit) = commit {
            git(tree, &["checkout", "--quiet", "--detach", commit])?;
        }
        Ok(())
    }

    /// The folders of templates, with the names that they get here.
    fn templates_in(
        &self,
        tree: &Path,
        only: Option<&TemplateName>,
    ) -> anyhow::Result<Vec<(TemplateName, PathBuf)>> {
        let url = printable(&self.url);
        let folder = tree.join(FOLDER);
        let entries = fs::read_dir(&folder)
            .map_err(|_| anyhow::anyhow!("{url} has no folder {FOLDER} with templates in it"))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().parse::<TemplateName>();
            let Ok(name) = name else { continue };
            if path.is_dir() && (only.is_none() || path.join(DEFINITION_FILE).is_file()) {
                found.push((name, path));
            }
        }
        found.sort();
        if let Some(only) = only {
            let one = found.into_iter().find(|(name, _)| name.name() == only.name());
            let (_, path) =
                one.ok_or_else(|| anyhow::anyhow!("{url} has no template {}", only.name()))?;
            return Ok(vec![(only.clone(), path)]);
        }
        if found.is_empty() {
            anyhow::bail!("{url} has no templates in its folder {FOLDER}");
        }
        let pinned = found.into_iter().map(|(name, path)| {
            let name = name.pinned(self.version()).map_err(anyhow::Error::msg)?;
            Ok((name, path))
        });
        pinned.collect()
    }
}

fn refuse_present(found: &[(TemplateName, PathBuf)]) -> anyhow::Result<()> {
    let there = |name: &&TemplateName| Path::new(FOLDER).join(name.to_string()).exists();
    let present: Vec<String> =
        found.iter().map(|(name, _)| name).filter(there).map(ToString::to_string).collect();
    if present.is_empty() {
        return Ok(());
    }
    anyhow::bail!(
        "unable to overwrite the following: [{}]; --overwrite replaces them",
        present.join(" ")
    )
}

/// Puts a template's folder in its place. It is whole before it has its name.
fn install(name: &TemplateName, from: &Path, root: &Path, origin: &Origin) -> anyhow::Result<()> {
    fs::create_dir_all(FOLDER)
        .map_err(|error| anyhow::anyhow!("cannot make the folder {FOLDER}: {error}"))?;
    let staged = tempfile::Builder::new().prefix(".new-").tempdir_in(FOLDER)?;
    let inner = staged.path().join("template");
    tree::make_folder(&inner, 0o755)?;
    let copied = tree::copy(from, &inner, &[], Links::Within(root), &mut Room::of_template());
    copied.map_err(|error| anyhow::anyhow!("template {name} is not taken: {error}"))?;
    origin.write(&inner)?;
    replace(&inner, &Path::new(FOLDER).join(name.to_string()))
}

/// Gives a folder its name, in place of what had it.
pub fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    let failed = |error: io::Error| anyhow::anyhow!("cannot write {}: {error}", to.display());
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => fs::rename(from, to).map_err(failed),
    }
}

fn command(tree: Option<&Path>) -> Command {
    let mut git = Command::new("git");
    if let Some(tree) = tree {
        git.arg("-C").arg(tree);
    }
    // Redirects and submodules are bound by it too. No hook of this machine runs in a stranger's tree.
    git.env("GIT_ALLOW_PROTOCOL", PROTOCOLS).args(["-c", "core.hooksPath=/dev/null"]);
    git
}

fn git(tree: &Path, words: &[&str]) -> anyhow::Result<String> {
    let ran = command(Some(tree)).args(words).stdin(Stdio::null()).output();
    said_by(ran, &format!("git {}", words[0]))
}

fn said_by(ran: io::Result<std::process::Output>, what: &str) -> anyhow::Result<String> {
    let ran = ran.map_err(|error| {
        anyhow::anyhow!("templates are fetched by the program git, which does not start: {error}")
    })?;
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned());
    }
    let why = printable(String::from_utf8_lossy(&ran.stderr).trim());
    anyhow::bail!("{what} fails ({}): {why}", ran.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_versions() {
        for (text, version) in [
            ("https://github.com/openfaas/templates.git#1.0", Some("1.0")),
            ("https://github.com/openfaas/templates", None),
            ("ssh://git@host/x.git", None),
            ("git@github.com:openfaas/templates.git#dev_2", Some("dev_2")),
            ("git://host/x", None),
            ("file:///tmp/x", None),
        ] {
            let parsed: Repository = text.parse().unwrap();
            assert_eq!(parsed.version(), version, "{text}");
        }
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        for text in [
            "",
            "--upload-pack=x",
            "-x@host:y",
            "http://host/x.git",
            "ext::sh -c x",
            "fd::3",
            "./x",
            "/tmp/x",
            "ssh://-oProxyCommand=x/y",
            "git@-oX:y",
            "git@host:-y",
            "https://host/x#",
            "https://host/x#-x",
            "https://host/x#a/b",
            "https://host/x y",
            "https://",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_stack_file_may_pin_by_either_side() {
        let source = |name: &str, url: &str| {
            let source = TemplateSource { name: name.into(), source: Some(url.into()) };
            Repository::of_stack(&source).unwrap().version
        };
        assert_eq!(source("a@1", "https://x/y"), Some("1".into()));
        assert_eq!(source("a@1", "https://x/y#2"), Some("2".into()));
        assert_eq!(source("a", "https://x/y"), None);
    }
}
