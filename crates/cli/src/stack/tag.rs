//! Tags of images that come from the source: `--tag` of faas-cli (its builds push the same).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::Command,
};

use md5::{Digest, Md5};
use pinnace_core::{image::HOST, limits};
use walkdir::WalkDir;

/// Where an image's tag comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TagSource {
    /// What the file says, or `latest`.
    #[default]
    File,
    /// The file's, and the commit of the Git repository.
    Commit,
    /// The file's, and the branch and commit.
    Branch,
    /// The file's, and what `git describe` says.
    Describe,
    /// The digest of the handler's files.
    Digest,
}

impl TagSource {
    /// The source of a name, in any case.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "" | "default" | "latest" => Ok(Self::File),
            "sha" => Ok(Self::Commit),
            "branch" => Ok(Self::Branch),
            "describe" => Ok(Self::Describe),
            "digest" => Ok(Self::Digest),
            _ => Err("use latest, sha, branch, describe or digest".to_owned()),
        }
    }

    /// An image that has a tag, with the tag of this source.
    ///
    /// # Errors
    /// The source cannot be read, or the image has no tag to change.
    pub fn apply(self, image: &str, handler: &str) -> anyhow::Result<String> {
        if self == Self::File || image == HOST {
            return Ok(image.to_owned());
        }
        let Some((base, _)) = image.rsplit_once(':').filter(|_| !image.contains('@')) else {
            anyhow::bail!("image {image} names a digest: it has no tag for --tag to set");
        };
        Ok(match self {
            Self::File => image.to_owned(),
            Self::Commit => format!("{image}-{}", commit()?),
            Self::Branch => {
                let branch = git(&["rev-parse", "--symbolic-full-name", "--abbrev-ref", "HEAD"])?;
                format!("{image}-{branch}-{}", commit()?)
            }
            Self::Describe => format!("{image}-{}", git(&["describe", "--tags", "--always"])?),
            Self::Digest => format!("{base}:{}", digest(Path::new(handler))?),
        })
    }
}

fn commit() -> anyhow::Result<String> {
    git(&["rev-parse", "--short", "HEAD"])
}

fn git(words: &[&str]) -> anyhow::Result<String> {
    let ran = Command::new("git").args(words).output();
    let ran = ran.map_err(|error| anyhow::anyhow!("--tag needs the program git: {error}"))?;
    let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if !ran.status.success() || text.is_empty() {
        let why = String::from_utf8_lossy(&ran.stderr);
        let why = why.lines().next().unwrap_or("it has no commit").trim().to_owned();
        anyhow::bail!("--tag asks git for the source's version, but git says: {why}");
    }
    Ok(text)
}

/// The digest of a folder's regular files: of their MD5s one after another, in the order of their names.
///
/// # Errors
/// One cannot be read, or there are too many.
pub fn digest(folder: &Path) -> anyhow::Result<String> {
    let shown = folder.display();
    let wrong = |why: &dyn std::fmt::Display| {
        anyhow::anyhow!("--tag digest reads the handler {shown}: {why}")
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(folder) {
        let entry = entry.map_err(|error| wrong(&error))?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
        if files.len() > limits::HANDLER_FILES_MAX {
            return Err(wrong(&format!("it has more than {} files", limits::HANDLER_FILES_MAX)));
        }
    }
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut all = Md5::new();
    for file in &files {
        let sum = md5_of(file).map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
        all.update(sum);
    }
    Ok(hex(&all.finalize()))
}

fn md5_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Md5::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&sum.finalize())),
            read => sum.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_digest_is_of_names_in_order_and_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
        let one = digest(dir.path()).unwrap();
        assert_eq!(one, "cecc13585567025699be1b9e5f5729cd", "as faas-cli has it");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/x"), "1").unwrap();
        assert_ne!(digest(dir.path()).unwrap(), one);
        let said = digest(&dir.path().join("none")).unwrap_err().to_string();
        assert!(said.contains("reads the handler"), "{said}");
    }

    #[test]
    fn names_and_images() {
        assert_eq!(TagSource::parse("SHA"), Ok(TagSource::Commit));
        assert_eq!(TagSource::parse("default"), Ok(TagSource::File));
        assert!(TagSource::parse("date").is_err());
        assert_eq!(TagSource::File.apply("a:1", "").unwrap(), "a:1");
        assert_eq!(TagSource::Digest.apply(HOST, "").unwrap(), HOST);
        assert!(TagSource::Commit.apply("a@sha256:00", "").is_err());
    }
}
