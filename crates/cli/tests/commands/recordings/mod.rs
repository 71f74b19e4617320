//! What the real `faas-cli` (MIT) sends, prints and leaves, replayed with `pinnace` in its place: the same
//! words must lead to the same requests, standard output, exit code and files. Where they do not, the table
//! of `differences` says why, and what ours is.

mod differences;

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::Regex;
use serde_json::Value;

use self::differences::Difference;
use crate::{
    bench::{Bench, Ran},
    server::{Reply, Seen, Server},
};

/// How many recordings there are: one that is lost must not pass for one that passes.
const COUNT: usize = 100;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/contract/cli")
}

fn names() -> Vec<String> {
    let files = fs::read_dir(directory()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_recording_is_replayed() {
    let names = names();
    assert_eq!(names.len(), COUNT);
    let failed: Vec<String> = names
        .iter()
        .filter_map(|name| Some(format!("{name}: {}", Replay::of(name).check().err()?)))
        .collect();
    assert!(failed.is_empty(), "{} of {COUNT} differ:\n\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn every_difference_is_of_a_recording_and_has_a_reason() {
    let names = names();
    for (at, one) in differences::ALL.iter().enumerate() {
        assert!(names.iter().any(|name| name == one.name), "{} is no recording", one.name);
        assert!(one.reason.ends_with('.') && one.reason.len() > 20, "{}: {}", one.name, one.reason);
        let twice = differences::ALL[..at].iter().any(|other| other.name == one.name);
        assert!(!twice, "{} is there twice", one.name);
    }
}

/// A recording, and what came of running it.
struct Replay {
    value: Value,
    ours: Option<&'static Difference>,
    gateway: Server,
    files: Server,
    bench: Bench,
    ran: Ran,
}

impl Replay {
    fn of(name: &str) -> Self {
        let text = fs::read_to_string(directory().join(format!("{name}.json"))).unwrap();
        let ours = differences::ALL.iter().find(|one| one.name == name);
        let answers: Arc<Mutex<Vec<Value>>> = Arc::default();
        let served: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let (left, kept) = (answers.clone(), served.clone());
        let gateway = Server::start(move |seen| {
            let mut left = left.lock().unwrap();
            if left.is_empty() || is_look(seen) && !asks(&left[0], seen) {
                return unrecorded(seen);
            }
            answer(&left.remove(0)["response"])
        });
        let files = Server::start(move |seen| {
            let kept = kept.lock().unwrap();
            let found = kept.iter().find(|(name, _)| format!("/{name}") == seen.target);
            found.map_or(Reply::new(404, ""), |(_, text)| Reply::new(200, text.clone()))
        });
        let value: Value = serde_json::from_str(&filled(&text, &gateway, &files)).unwrap();
        *answers.lock().unwrap() = value["exchanges"].as_array().unwrap().clone();
        *served.lock().unwrap() = pairs(&value["serve"]);
        let mut bench = Bench::new(&gateway.url).without_env("OPENFAAS_URL");
        for (name, value) in pairs(&value["env"]) {
            bench = bench.env(&name, &value);
        }
        for (name, text) in pairs(&value["files"]) {
            bench = bench.file(&name, text);
        }
        let words = value["argv"].as_array().unwrap().iter().skip(1);
        let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
        let ran = bench.run_with(&words, &bytes(&value, "stdin"));
        Self { value, ours, gateway, files, bench, ran }
    }

    fn check(&self) -> Result<(), String> {
        self.same_requests()?;
        let stdout = match self.ours {
            Some(ours) => filled(ours.stdout, &self.gateway, &self.files).into_bytes(),
            None => bytes(&self.value, "stdout"),
        };
        let stdout = self.comparable(&String::from_utf8_lossy(&stdout));
        same("standard output", &stdout, &self.comparable(&self.ran.out()))?;
        let exit = self.ours.map_or(self.value["exit"].as_i64(), |ours| Some(ours.exit));
        same("exit code", &exit, &Some(i64::from(self.ran.code)))
            .map_err(|said| format!("{said}\n{}", self.ran.stderr))?;
        if let Some(ours) = self.ours {
            let part = filled(ours.stderr, &self.gateway, &self.files);
            if !self.ran.stderr.contains(&part) {
                return Err(format!("{part:?} is not in standard error {:?}", self.ran.stderr));
            }
        }
        for (file, expected) in self.value["files_after"].as_object().into_iter().flatten() {
            let found = fs::read_to_string(self.bench.path(file)).ok();
            // A token that begins with a digit is quoted, which is the same YAML.
            let found = found.map(|text| text.replace('"', ""));
            same(file, &expected.as_str(), &found.as_deref())?;
        }
        Ok(())
    }

    /// What was sent is what was recorded, but for the look at a function that was deployed.
    fn same_requests(&self) -> Result<(), String> {
        let recorded = self.value["exchanges"].as_array().unwrap();
        let mut seen = self.gateway.seen();
        if let Some(ours) = self.ours.and_then(|ours| ours.requests) {
            let expected: Vec<String> = ours.iter().map(|line| (*line).to_owned()).collect();
            return same("requests", &expected, &self.gateway.lines());
        }
        if self.is_deploy() {
            seen.retain(|seen| !is_look(seen));
        }
        let line = |one: &Value| {
            let part = |name: &str| one["request"][name].as_str().unwrap();
            format!("{} {}", part("method"), self.comparable_target(part("target")))
        };
        let found =
            |seen: &Seen| format!("{} {}", seen.method, self.comparable_target(&seen.target));
        let expected: Vec<String> = recorded.iter().map(line).collect();
        let lines: Vec<String> = seen.iter().map(found).collect();
        same("requests", &expected, &lines)
            .map_err(|said| format!("{said}\n{}", self.ran.stderr))?;
        let mut all = seen.iter().zip(recorded);
        all.try_for_each(|(seen, one)| same_request(seen, &one["request"]))
    }

    fn is_deploy(&self) -> bool {
        let words = self.value["argv"].as_array().unwrap();
        words.iter().take(3).any(|word| word == "deploy" || word == "up")
    }

    fn volatile(&self) -> impl Iterator<Item = &str> {
        self.value["volatile"].as_array().unwrap().iter().map(|one| one.as_str().unwrap())
    }

    fn comparable(&self, text: &str) -> String {
        if !self.volatile().any(|one| one == "unordered:stdout") {
            return text.to_owned();
        }
        let mut lines: Vec<&str> = text.split('\n').collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn comparable_target(&self, target: &str) -> String {
        let mut target = target.to_owned();
        for regex in self.volatile().filter_map(|one| one.strip_prefix("target:")) {
            target = Regex::new(regex).unwrap().replace_all(&target, "*").into_owned();
        }
        let Some((path, query)) = target.split_once('?') else { return target };
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.sort_unstable();
        format!("{path}?{}", pairs.join("&"))
    }
}

/// After a deploy ours looks whether the function serves; this gateway does not tell.
fn is_look(seen: &Seen) -> bool {
    seen.method == "GET" && seen.target.starts_with("/system/function/")
}

fn asks(one: &Value, seen: &Seen) -> bool {
    one["request"]["method"] == *seen.method && one["request"]["target"] == *seen.target
}

fn unrecorded(seen: &Seen) -> Reply {
    if is_look(seen) {
        return Reply::new(200, r#"{"name":"x","image":"x","labels":{},"annotations":{}}"#);
    }
    Reply::new(200, "")
}

fn filled(text: &str, gateway: &Server, files: &Server) -> String {
    text.replace("{gateway}", &gateway.url)
        .replace("{files}", &files.url)
        .replace("{image}", "docker.io/example/hello:1")
        .replace("{user}", "admin")
        .replace("{password}", "secret-pass")
        .replace("{basic}", &STANDARD.encode("admin:secret-pass"))
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{revision}", pinnace_server::REVISION)
}

fn answer(response: &Value) -> Reply {
    let status = response["status"].as_u64().unwrap();
    let mut reply = Reply::new(u16::try_from(status).unwrap(), bytes(response, "body"));
    for (name, value) in pairs(&response["headers"]) {
        if !["Content-Length", "Transfer-Encoding", "Connection"].contains(&name.as_str()) {
            reply = reply.header(&name, &value);
        }
    }
    reply
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    match (value[name].as_str(), value[format!("{name}_base64")].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).unwrap(),
        (None, None) => Vec::new(),
    }
}

fn same_request(seen: &Seen, recorded: &Value) -> Result<(), String> {
    for (name, value) in pairs(&recorded["headers"]) {
        let of_the_client = ["User-Agent", "Accept-Encoding", "Content-Length", "Referer"];
        // Who has no token sends none.
        let is_bare = name == "Authorization" && value == "Bearer";
        if !of_the_client.contains(&name.as_str()) && !is_bare {
            let what = format!("{name} of {}", seen.line());
            same(&what, &Some(value.as_str()), &seen.header(&name))?;
        }
    }
    if recorded["headers"]["Authorization"].as_str().is_none_or(|value| value == "Bearer") {
        same("Authorization", &None, &seen.header("Authorization"))?;
    }
    let body = bytes(recorded, "body");
    let (expected, found) = (serde_json::from_slice::<Value>(&body), &seen.body);
    match (expected, serde_json::from_slice::<Value>(found)) {
        (Ok(expected), Ok(found)) => same("body", &expected, &found),
        _ => same("body", &String::from_utf8_lossy(&body), &String::from_utf8_lossy(found)),
    }
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    recorded: &T,
    ours: &T,
) -> Result<(), String> {
    if recorded == ours {
        return Ok(());
    }
    Err(format!("{what}\n  recorded {recorded:?}\n  ours     {ours:?}"))
}
