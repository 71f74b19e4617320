//! Mode static: the files of a directory.
//!
//! A path is decoded and cleaned, then resolved with all its links; what lies outside of the directory
//! then is not there, whichever way it was reached. Everything that may wait for a disk is done on a
//! thread for such work.

mod body;
mod listing;
pub mod ranges;

use std::{
    fs::{File, Metadata},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_MODIFIED_SINCE, IF_RANGE,
        LAST_MODIFIED, LOCATION, RANGE,
    },
};
use hyper::body::Incoming;

pub use self::body::FileBody;
use self::ranges::Wanted;
use crate::{
    answer::{self, Answer},
    front::Call,
    sniff, status, target, unread,
};

/// A directory whose files are served.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    read_timeout: Duration,
}

/// What is asked for, without the connection.
#[derive(Debug)]
struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// A file that may be sent.
#[derive(Debug)]
struct Found {
    file: File,
    metadata: Metadata,
    name: String,
}

impl Files {
    /// Of this directory, which need not exist.
    pub fn new(root: PathBuf, read_timeout: Duration) -> Self {
        Self { root, read_timeout }
    }

    /// A call.
    pub async fn call(
        self: &Arc<Self>,
        request: Request<Incoming>,
        call: Call,
    ) -> Response<Answer> {
        let files = Arc::clone(self);
        let (parts, body) = request.into_parts();
        unread::discard(body, self.read_timeout);
        let question = Question { method: parts.method, uri: parts.uri, headers: parts.headers };
        let answered = tokio::task::spawn_blocking(move || files.answer(&question)).await;
        drop(call.pass);
        answered.unwrap_or_else(|error| failed(&io::Error::other(error)))
    }

    fn answer(&self, question: &Question) -> Response<Answer> {
        self.look_up(question).unwrap_or_else(|error| failed(&error))
    }

    fn look_up(&self, question: &Question) -> io::Result<Response<Answer>> {
        let path = question.uri.path();
        if path.ends_with("/index.html") {
            return Ok(redirect("./", question));
        }
        let decoded = target::decode(path).ok_or(io::ErrorKind::NotFound)?;
        let found = self.open(&relative(&decoded)?)?;
        let is_dir = found.metadata.is_dir();
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        match (is_dir, path.ends_with('/')) {
            (true, false) => Ok(redirect(&format!("{last}/"), question)),
            (false, true) => Ok(redirect(&format!("../{last}"), question)),
            (false, false) => found.send(question),
            (true, true) => match self.open(&relative(&decoded)?.join("index.html")) {
                Ok(index) if index.metadata.is_file() => index.send(question),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.list(&found, &relative(&decoded)?, question),
            },
        }
    }

    /// Opens what a path means after all links, if that lies within the directory.
    fn open(&self, path: &Path) -> io::Result<Found> {
        let root = self.root.canonicalize()?;
        let real = root.join(path).canonicalize()?;
        if !real.starts_with(&root) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let metadata = real.metadata()?;
        // Opening a pipe would wait for its other end; only files and directories are served.
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = File::open(&real)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Found { file, metadata, name })
    }

    fn list(&self, dir: &Found, path: &Path, question: &Question) -> io::Result<Response<Answer>> {
        let page = listing::page(&self.root.join(path))?;
        let mut response = Response::new(Answer::memory(page));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
        dir.date(&mut response);
        Ok(not_modified(dir, question).unwrap_or(response))
    }
}

impl Found {
    fn send(self, question: &Question) -> io::Result<Response<Answer>> {
        if let Some(unchanged) = not_modified(&self, question) {
            return Ok(unchanged);
        }
        let size = self.metadata.len();
        let content_type = self.content_type()?;
        let mut response = match self.wanted(question, size) {
            Wanted::All => Response::new(self.part(0, size)?),
            Wanted::One(range) => {
                let mut response = Response::new(self.part(range.from, range.bytes)?);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                insert(&mut response, CONTENT_RANGE, range.header(size));
                response
            }
            Wanted::Several(ranges) => {
                let (text, boundary) = ranges::multipart(&self.file, &ranges, size, content_type)?;
                let mut response = Response::new(Answer::memory(text));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let parts = format!("multipart/byteranges; boundary={boundary}");
                insert(&mut response, CONTENT_TYPE, parts);
                response
            }
            Wanted::Impossible(why) => {
                let mut response = answer::error(StatusCode::RANGE_NOT_SATISFIABLE, why);
                insert(&mut response, CONTENT_RANGE, format!("bytes */{size}"));
                return Ok(response);
            }
        };
        let headers = response.headers_mut();
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        self.date(&mut response);
        if question.method == Method::HEAD {
            let bytes = http_body::Body::size_hint(response.body()).exact().unwrap_or(size);
            response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
            *response.body_mut() = Answer::empty();
        }
        Ok(response)
    }

    fn wanted(&self, question: &Question, size: u64) -> Wanted {
        let Some(range) = question.headers.get(RANGE) else { return Wanted::All };
        let modified = self.metadata.modified().map(httpdate::fmt_http_date).ok();
        let condition = question.headers.get(IF_RANGE).map(HeaderValue::as_bytes);
        if condition.is_some_and(|date| Some(date) != modified.as_deref().map(str::as_bytes)) {
            return Wanted::All;
        }
        ranges::wanted(range.to_str().unwrap_or_default(), size)
    }

    fn part(&self, from: u64, bytes: u64) -> io::Result<Answer> {
        Ok(Answer::file(FileBody::new(self.file.try_clone()?, from, bytes)?))
    }

    fn content_type(&self) -> io::Result<&'static str> {
        if let Some(known) = sniff::by_name(&self.name) {
            return Ok(known);
        }
        let mut begin = [0; 512];
        let read = std::os::unix::fs::FileExt::read_at(&self.file, &mut begin, 0)?;
        Ok(sniff::content_type(&begin[..read]))
    }

    fn date(&self, response: &mut Response<Answer>) {
        if let Ok(modified) = self.metadata.modified() {
            insert(response, LAST_MODIFIED, httpdate::fmt_http_date(modified));
        }
    }
}

/// The path within the directory: decoded, and cleaned of dot segments.
fn relative(decoded: &[u8]) -> io::Result<PathBuf> {
    if decoded.contains(&0) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut path = PathBuf::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(path.pop()),
            segment => path.push(std::ffi::OsStr::from_bytes(segment)),
        }
    }
    Ok(path)
}

fn not_modified(found: &Found, question: &Question) -> Option<Response<Answer>> {
    if question.method != Method::GET && question.method != Method::HEAD {
        return None;
    }
    let since = question.headers.get(IF_MODIFIED_SINCE)?.to_str().ok()?;
    let since = httpdate::parse_http_date(since).ok()?;
    let modified = found.metadata.modified().ok()?;
    let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map(|at| at.as_secs());
    if seconds(modified).ok()? > seconds(since).ok()? {
        return None;
    }
    let mut response = answer::bare(StatusCode::NOT_MODIFIED);
    found.date(&mut response);
    Some(response)
}

/// Another path of the same directory, with the same query.
fn redirect(to: &str, question: &Question) -> Response<Answer> {
    let mut response = answer::bare(StatusCode::MOVED_PERMANENTLY);
    let query = question.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    insert(&mut response, LOCATION, format!("{to}{query}"));
    response
}

fn insert(response: &mut Response<Answer>, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

fn failed(error: &io::Error) -> Response<Answer> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => answer::error(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
            status::not_found()
        }
        // Links that lead in a circle.
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            status::not_found()
        }
        _ => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_within() {
        let check = |path: &str, within: &str| {
            assert_eq!(relative(path.as_bytes()).unwrap(), Path::new(within), "{path}");
        };
        check("/a/b.txt", "a/b.txt");
        check("/../secret", "secret");
        check("/a/../../..", "");
        check("/a//./b/", "a/b");
        assert!(relative(b"/a\0b").is_err());
    }

    #[test]
    fn links_that_lead_out_are_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("public");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::write(root.join("file"), "f").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link("../secret", "out");
        link("/etc", "etc");
        link("file", "within");
        link("loop", "loop");
        let files = Files::new(root.clone(), Duration::from_secs(1));
        assert!(files.open(Path::new("file")).is_ok());
        assert!(files.open(Path::new("within")).is_ok());
        for out in ["out", "etc/passwd", "loop", "missing"] {
            assert!(files.open(Path::new(out)).is_err(), "{out}");
        }
    }
}
