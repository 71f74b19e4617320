//! What `debug_headers` and `write_debug` have the log say.

use http::{HeaderMap, HeaderValue, Uri};

use super::marshal;
use crate::{
    journal::{Journal, Source},
    target,
};

/// `[in] X-A=[1 2]`, a line for each name, to standard output.
pub async fn headers(direction: &str, headers: &HeaderMap, journal: &Journal) {
    let mut text = String::new();
    for name in headers.keys() {
        let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let values: Vec<String> = headers.get_all(name).iter().map(lossy).collect();
        let name = marshal::canonical(name.as_str());
        text += &format!("[{direction}] {name}=[{}]\n", values.join(" "));
    }
    journal.pass(Source::Out, text.as_bytes()).await;
}

/// What was asked for.
pub fn target(uri: &Uri, journal: &Journal) {
    let path = target::decode(uri.path()).unwrap_or_else(|| uri.path().into());
    journal.say(format_args!("Query  {}", uri.query().unwrap_or_default()));
    journal.say(format_args!("Path  {}", String::from_utf8_lossy(&path)));
}

/// How a process failed.
pub fn failure(why: &str, output: &[u8], journal: &Journal) {
    journal.say(format_args!("Success=false, Error={why}"));
    journal.say(format_args!("Out={}", String::from_utf8_lossy(output)));
}
