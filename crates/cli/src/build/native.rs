//! Builds by Pinnace itself: the context goes to the builder's API, the image is then where that builder keeps its
//! images (contract section 14.5).
//!
//! The builder is the gateway, who knows us, or one at another address, who gets no credentials but may ask for the
//! request to be signed.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use hmac::{Hmac, KeyInit, Mac};
use pinnace_core::{limits, wire::Map};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use ureq::http::{StatusCode, header};
use walkdir::WalkDir;

use super::{Log, ignore::Ignored};
use crate::{
    gateway::{Answer, Gateway, Lines},
    output::printable,
};

/// The entry of the archive that says what is wanted.
const CONFIG_ENTRY: &str = "com.openfaas.docker.config";

/// The header with the archive's signature.
const SIGNATURE: &str = "X-Build-Signature";

/// What is wanted.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The image.
    pub image: String,
    /// Build arguments.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub build_args: Map,
    /// Platforms; the builder's own if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Whether the image stays where it is built.
    pub skip_push: bool,
}

/// A builder.
pub struct Builder {
    gateway: Gateway,
    /// What requests are signed with.
    secret: Option<Vec<u8>>,
}

/// What a builder says, all at once or a part at a time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    log: Option<Vec<String>>,
    status: String,
    error: String,
}

impl Builder {
    /// The builder behind an address, who perhaps wants to see signatures.
    pub fn new(gateway: Gateway, secret: Option<Vec<u8>>) -> Self {
        Self { gateway, secret }
    }

    /// Builds what is in a folder.
    ///
    /// # Errors
    /// The builder cannot be asked, or the build failed.
    pub fn build(&self, config: &Config, folder: &Path, log: &Log) -> anyhow::Result<()> {
        let doing = format!("building {}", config.image);
        let mut archive = packed(config, folder)?;
        let signature = match &self.secret {
            Some(secret) => Some(signed(&mut archive, secret)?),
            None => None,
        };
        let headers: Vec<_> = signature.iter().map(|value| (SIGNATURE, value.as_str())).collect();
        let answer = self.gateway.build(archive, &headers, &doing)?;
        if [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&answer.status()) {
            anyhow::bail!(
                "{doing}: {} builds nothing, as it is no Pinnace; --builder docker, buildah or podman build what has a \
                 Dockerfile",
                self.gateway.address()
            );
        }
        let answer =
            self.gateway.expect(answer, &[StatusCode::OK, StatusCode::ACCEPTED], &doing)?;
        let said = hear(answer, log, &doing)?;
        match said.status.as_str() {
            "success" => Ok(()),
            "failed" | "failure" => {
                log.show_last();
                anyhow::bail!("{doing}: {}", printable(said.error.trim()))
            }
            other => anyhow::bail!(
                "{doing}: the answer of {} ended while the build was {:?}",
                self.gateway.address(),
                printable(other)
            ),
        }
    }
}

/// Hands a builder's lines on as they come; answers what it said last.
fn hear(answer: Answer, log: &Log, doing: &str) -> anyhow::Result<Said> {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_stream = kind.is_some_and(|kind| kind.contains("ndjson"));
    let mut body = answer.into_body().into_reader();
    let mut heard = Heard::default();
    if !is_stream {
        let said = serde_json::from_reader(body.by_ref().take(limits::ANSWER_BYTES_MAX));
        let said = said.map_err(|error| anyhow::anyhow!("{doing}: not understood: {error}"))?;
        return Ok(heard.take(said, log));
    }
    let mut lines = Lines::<_, Said>::new(body);
    let mut last = Said::default();
    while let Some(said) = lines.next().map_err(|error| anyhow::anyhow!("{doing}: {error}"))? {
        last = heard.take(said, log);
    }
    Ok(last)
}

/// What was heard of a log so far. Builders repeat all of it at the end, or do not.
#[derive(Debug, Default)]
struct Heard {
    first: Option<String>,
    lines: usize,
}

impl Heard {
    fn take(&mut self, mut said: Said, log: &Log) -> Said {
        let lines = said.log.take().unwrap_or_default();
        let is_end = !matches!(said.status.as_str(), "" | "in_progress");
        let repeats = is_end && self.lines > 0 && lines.first() == self.first.as_ref();
        let known = if repeats { self.lines } else { 0 };
        for line in lines.iter().skip(known) {
            log.line(line);
        }
        self.lines += lines.len();
        if self.first.is_none() {
            self.first = lines.into_iter().next();
        }
        said
    }
}

/// The archive of a request, in a file without a name: what is built may be large. The same folder gives the same
/// bytes.
fn packed(config: &Config, folder: &Path) -> anyhow::Result<File> {
    let ignored = Ignored::of(folder)?;
    let is_sent = |entry: &walkdir::DirEntry| {
        let path = entry.path().strip_prefix(folder);
        !path.is_ok_and(|path| ignored.has(path))
    };
    let write = || -> io::Result<File> {
        let mut tar = tar::Builder::new(tempfile::tempfile()?);
        let config = serde_json::to_vec(config)?;
        append(&mut tar, Path::new(CONFIG_ENTRY), 0o644, config.len() as u64, &config[..])?;
        for entry in WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(is_sent) {
            let entry = entry?;
            let path = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            let name = Path::new("context").join(path);
            if entry.file_type().is_dir() {
                let mut header = head(0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, name, io::empty())?;
            } else {
                let file = File::open(entry.path())?;
                let found = file.metadata()?;
                let is_program = found.permissions().mode() & 0o100 != 0;
                let mode = if is_program { 0o755 } else { 0o644 };
                append(&mut tar, &name, mode, found.len(), file.take(found.len()))?;
            }
        }
        let mut file = tar.into_inner()?;
        file.rewind()?;
        Ok(file)
    };
    write().map_err(|error| anyhow::anyhow!("cannot pack {}: {error}", folder.display()))
}

fn append(
    tar: &mut tar::Builder<File>,
    name: &Path,
    mode: u32,
    bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    tar.append_data(&mut head(mode, bytes), name, content)
}

fn head(mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header
}

/// The signature of an archive, which is read once for it.
fn signed(archive: &mut File, secret: &[u8]) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match archive.read(&mut buffer)? {
            0 => break,
            read => mac.update(&buffer[..read]),
        }
    }
    archive.rewind()?;
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256={hex}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("function")).unwrap();
        fs::write(dir.path().join("function/handler.py"), "x").unwrap();
        fs::write(dir.path().join("template.yml"), "language: x\n").unwrap();
        fs::create_dir(dir.path().join("function/node_modules")).unwrap();
        fs::write(dir.path().join("function/node_modules/a.js"), "").unwrap();
        fs::write(dir.path().join(".dockerignore"), "**/node_modules\n.dockerignore\n").unwrap();
        dir
    }

    #[test]
    fn the_same_folder_gives_the_same_archive() {
        let config = Config { image: "f:1".into(), skip_push: true, ..Config::default() };
        let bytes = || {
            let mut bytes = Vec::new();
            packed(&config, folder().path()).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        let archive = bytes();
        assert_eq!(archive, bytes());
        let mut tar = tar::Archive::new(&archive[..]);
        let mut names = Vec::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if names.is_empty() {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                assert_eq!(text, r#"{"image":"f:1","skipPush":true}"#);
            }
            names.push(name);
        }
        let expected = [
            CONFIG_ENTRY,
            "context",
            "context/function",
            "context/function/handler.py",
            "context/template.yml",
        ];
        let names: Vec<&str> = names.iter().map(|name| name.trim_end_matches('/')).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_signature_is_of_the_whole_archive() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"what do ya want for nothing?").unwrap();
        file.rewind().unwrap();
        // RFC 4231, test case 2.
        let known = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signed(&mut file, b"Jefe").unwrap(), known);
        let mut left = String::new();
        file.read_to_string(&mut left).unwrap();
        assert_eq!(left.len(), 28, "it can be sent afterwards");
    }

    #[test]
    fn a_log_that_is_repeated_at_the_end_is_shown_once() {
        let log = Log::new("f", true, true);
        let said = |lines: &[&str], status: &str| Said {
            log: Some(lines.iter().map(|line| (*line).to_owned()).collect()),
            status: status.into(),
            error: String::new(),
        };
        let mut heard = Heard::default();
        heard.take(said(&["a", "b"], "in_progress"), &log);
        heard.take(said(&["a"], "in_progress"), &log);
        heard.take(said(&["a", "b", "a", "c"], "success"), &log);
        assert_eq!(log.kept(), ["a", "b", "a", "c"]);
        let mut heard = Heard::default();
        heard.take(said(&["d"], "success"), &log);
        assert_eq!(log.kept().len(), 5);
    }
}
