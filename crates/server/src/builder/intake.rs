//! A build's request is taken in: the body goes to disk while it is hashed, and is unpacked and read once all of it is
//! there and its signature, if one is wanted, has proved right.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use pinnace_core::{
    build::{BuildRequest, Template},
    limits::{BODY_IDLE_MAX, BUILD_DOCUMENT_BYTES_MAX, BUILD_REQUEST_BYTES_MAX},
};
use pinnace_sandbox::images::ImageStore;
use ring::hmac;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};
use subtle::ConstantTimeEq as _;
use tokio::{io::AsyncWriteExt as _, task::spawn_blocking, time::timeout};

use super::{Admission, BuildError, Builder, Workshop, job::Job, work::WorkDir};

/// The request's own file.
const CONFIG: &str = "com.openfaas.docker.config";

/// Secrets, sealed.
const SECRETS: &str = "com.openfaas.secrets";

/// The source's directory.
const CONTEXT: &str = "context";

/// What the source is built by.
const TEMPLATE: &str = "template.yml";

impl Builder {
    /// Takes a request in. `signature` is what it was sent with.
    ///
    /// # Errors
    /// It is not whole, not signed, or not to be built.
    pub async fn receive(
        &self,
        admission: Admission,
        body: BodyDataStream,
        signature: Option<&str>,
    ) -> Result<Job, BuildError> {
        let signed = self.0.payload_secret.as_deref().map(|secret| Signed::new(secret, signature));
        let signed = signed.transpose()?;
        let workshop = self.0.clone();
        let work = workshop.work.make()?;
        let file = work.path().join("request.tar");
        spool(body, &file, signed).await?;
        let job = spawn_blocking(move || workshop.read(work, &file, admission)).await;
        job.map_err(|error| BuildError::Host(io::Error::other(error)))?
    }
}

/// A request whose signature is still to be checked.
struct Signed {
    wanted: Vec<u8>,
    hashed: hmac::Context,
}

impl Signed {
    fn new(secret: &[u8], signature: Option<&str>) -> Result<Self, BuildError> {
        let signature = signature.ok_or(BuildError::Unsigned(
            "the request is not signed: this builder was started with a payload secret, so send X-Build-Signature",
        ))?;
        let wanted = signature.strip_prefix("sha256=").and_then(bytes_of_hex);
        let wanted = wanted.ok_or(BuildError::Unsigned(
            "X-Build-Signature is not `sha256=` and 64 hexadecimal digits",
        ))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { wanted, hashed: hmac::Context::with_key(&key) })
    }

    fn check(self) -> Result<(), BuildError> {
        if self.hashed.sign().as_ref().ct_eq(&self.wanted).into() {
            return Ok(());
        }
        Err(BuildError::Unsigned(
            "the signature of the request is not that of this builder's payload secret",
        ))
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..32).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

/// Writes a body to a file, and checks its signature.
async fn spool(
    mut body: BodyDataStream,
    path: &Path,
    mut signed: Option<Signed>,
) -> Result<(), BuildError> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let mut bytes = 0u64;
    loop {
        let piece = timeout(BODY_IDLE_MAX, body.next()).await.map_err(|_| {
            BuildError::Unfit(format!(
                "nothing of the request came for {} s",
                BODY_IDLE_MAX.as_secs()
            ))
        })?;
        let Some(piece) = piece else { break };
        let piece =
            piece.map_err(|error| BuildError::Unfit(format!("the request broke off: {error}")))?;
        bytes += piece.len() as u64;
        if bytes > BUILD_REQUEST_BYTES_MAX {
            let most = BUILD_REQUEST_BYTES_MAX;
            let text = format!("the request has more than {most} bytes (BUILD_REQUEST_BYTES_MAX)");
            return Err(BuildError::TooLarge(text));
        }
        if let Some(signed) = &mut signed {
            signed.hashed.update(&piece);
        }
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    signed.map_or(Ok(()), Signed::check)
}

impl Workshop {
    /// Unpacks a request and reads what it says.
    fn read(&self, work: WorkDir, file: &Path, admission: Admission) -> Result<Job, BuildError> {
        let dir = work.subdirectory("request")?;
        self.images.unpack_source(File::open(file)?, &dir, "the build's archive")?;
        std::fs::remove_file(file)?;
        let request = read_request(&dir)?;
        let template = document(&dir, &format!("{CONTEXT}/{TEMPLATE}"))?.ok_or_else(|| {
            unfit(format!(
                "{CONTEXT}/{TEMPLATE} is missing: the template says how the source is built"
            ))
        })?;
        let template: Template = serde_saphyr::from_str(&template)
            .map_err(|error| unfit(format!("{TEMPLATE}: {}", sentence(&error))))?;
        let recipe = template.recipe().map_err(|faults| unfit(format!("{TEMPLATE}: {faults}")))?;
        let sealed = document(&dir, SECRETS)?;
        let secrets = sealed.map(|sealed| {
            let secrets = self.key.open_all(&sealed).map_err(unfit)?;
            super::sealed::show(&secrets, &self.secrets).map_err(BuildError::Host)
        });
        Ok(Job {
            request,
            recipe,
            context: dir.join(CONTEXT),
            secrets: secrets.transpose()?,
            work,
            _admission: admission,
        })
    }
}

fn read_request(dir: &Path) -> Result<BuildRequest, BuildError> {
    let config = document(dir, CONFIG)?.ok_or_else(|| {
        unfit(format!("{CONFIG} is missing: it says, as JSON, which `image` is to be built"))
    })?;
    let request: BuildRequest = serde_json::from_str(&config)
        .map_err(|error| unfit(format!("{CONFIG} does not say what is to be built: {error}")))?;
    request
        .check(&ImageStore::platform().0)
        .map_err(|error| unfit(format!("{CONFIG}: {error}")))?;
    Ok(request)
}

/// What a YAML parser says, without what is for programmers.
fn sentence(error: &serde_saphyr::Error) -> String {
    let plain = error.without_snippet().render();
    plain.lines().next().unwrap_or("is no YAML").to_owned()
}

fn unfit(text: String) -> BuildError {
    BuildError::Unfit(text)
}

/// A small text file of the request; `None` if it is not there. Nothing outside of the request is read for it.
fn document(dir: &Path, name: &str) -> Result<Option<String>, BuildError> {
    let root = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)?;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match openat2(&root, name, flags, Mode::empty(), within) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {
            return Err(unfit(format!(
                "{name} lies behind a link, and is to be a file of its own"
            )));
        }
        opened => File::from(opened.map_err(io::Error::from)?),
    };
    if !file.metadata()?.is_file() {
        return Err(unfit(format!("{name} is no file")));
    }
    let mut text = String::new();
    match file.take(BUILD_DOCUMENT_BYTES_MAX + 1).read_to_string(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(unfit(format!("{name} is no text in UTF-8")));
        }
        read => drop(read?),
    }
    if text.len() as u64 > BUILD_DOCUMENT_BYTES_MAX {
        let most = BUILD_DOCUMENT_BYTES_MAX;
        return Err(unfit(format!("{name} has more than {most} bytes (BUILD_DOCUMENT_BYTES_MAX)")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_of_the_secret_and_the_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let tag = hmac::sign(&key, b"body");
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let check = |signature: Option<&str>, body: &[u8]| {
            let mut signed = Signed::new(b"secret", signature)?;
            signed.hashed.update(body);
            signed.check()
        };
        check(Some(&format!("sha256={hex}")), b"body").unwrap();
        for (signature, body, word) in [
            (None, "body", "not signed"),
            (Some(hex.clone()), "body", "is not `sha256=`"),
            (Some("sha256=é".repeat(20)), "body", "is not `sha256=`"),
            (Some(format!("sha256={hex}")), "other", "is not that of"),
            (Some(format!("sha256={}", "0".repeat(64))), "body", "is not that of"),
        ] {
            let said = check(signature.as_deref(), body.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(word), "{signature:?}: {said}");
        }
    }

    #[test]
    fn documents_are_read_from_the_request_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("secret"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(&outside, "x").unwrap();
        std::fs::write(inside.join("a"), "words").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        std::os::unix::fs::symlink("..", inside.join("context")).unwrap();
        assert_eq!(document(&inside, "a").unwrap().as_deref(), Some("words"));
        assert_eq!(document(&inside, "b").unwrap(), None);
        for bad in ["link", "context/secret", "../secret"] {
            assert!(document(&inside, bad).is_err(), "{bad}");
        }
    }
}
