//! Files that are named by a path or a URL: stack files and function stores. Nothing of ours, neither a
//! login nor a token, goes to where they lie.

use std::{
    fs,
    io::{self, Read},
};

use pinnace_core::limits;
use ureq::{Agent, http::StatusCode};

/// Whether a name is that of a file elsewhere.
pub fn is_url(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}

/// The text of a file or of what a URL leads to, of at most `most` bytes.
///
/// # Errors
/// It cannot be read, is longer, or is no UTF-8 text.
pub fn text(name: &str, most: u64) -> anyhow::Result<String> {
    let bytes = if is_url(name) { over_http(name, most) } else { from_disk(name, most) };
    let bytes = bytes.map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
    if bytes.len() as u64 > most {
        anyhow::bail!("{name}: is more than {most} bytes");
    }
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("{name}: is no UTF-8 text"))
}

fn from_disk(name: &str, most: u64) -> Result<Vec<u8>, String> {
    if name.contains("://") {
        return Err("only files and http and https URLs are read".to_owned());
    }
    let file = fs::File::open(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    })?;
    bounded(file, most)
}

fn over_http(url: &str, most: u64) -> Result<Vec<u8>, String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(limits::CLIENT_CONNECT_TIME_MAX))
        .timeout_global(Some(limits::CLIENT_REQUEST_TIME_MAX))
        .user_agent(concat!("pinnace/", env!("CARGO_PKG_VERSION")));
    let agent: Agent = config.build().into();
    let mut answer = agent.get(url).call().map_err(|error| match error {
        ureq::Error::HostNotFound => "its host is not known".to_owned(),
        ureq::Error::Timeout(_) => "it was not answered in time".to_owned(),
        other => other.to_string(),
    })?;
    if answer.status() != StatusCode::OK {
        return Err(format!("its server answers {}", answer.status()));
    }
    bounded(answer.body_mut().as_reader(), most)
}

fn bounded(from: impl Read, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
