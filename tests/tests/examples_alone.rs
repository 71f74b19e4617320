//! The two examples over the host's own programs, without the platform: the words of their `fprocess` are
//! run as a watchdog runs them, and what comes out is compared with what is known of the input.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use pinnace_tests::{eventually, http};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Stack {
    functions: BTreeMap<String, Function>,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default)]
    fprocess: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The command of an example, split as watchdogs split it: at single spaces, without quotes. The programs
/// are the host's in /usr/bin, which is all that a sandbox shows.
fn command(name: &str) -> Command {
    let stack = fs::read_to_string(examples().join("stack.yaml")).unwrap();
    let stack: Stack = serde_saphyr::from_str(&stack).unwrap();
    let function = &stack.functions[name];
    let mut words = function.fprocess.split(' ');
    let program = Path::new("/usr/bin").join(words.next().unwrap());
    let mut command = Command::new(program);
    command.args(words).env_clear().env("PATH", "/usr/bin").envs(&function.environment);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn words_of(text: &[u8]) -> String {
    let mut child = command("word-frequencies").spawn().unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn words_are_counted_most_frequent_first() {
    let text = fs::read(examples().join("word-frequencies/gettysburg.txt")).unwrap();
    let counted = words_of(&text);
    let lines: Vec<_> = counted.lines().map(str::trim).collect();
    // That the address says "that" 13 times and "the" 11 times is in every study of it.
    let known = [
        "13 that", "11 the", "10 we", "8 here", "8 to", "7 a", "6 and", "5 can", "5 for", "5 have",
    ];
    assert_eq!(lines, known);
}

#[test]
fn words_are_letters_of_any_language_in_one_case() {
    assert_eq!(words_of("Écoute, écoute! It's 5 o'clock.".as_bytes()).trim(), {
        "2 écoute\n      1 it's\n      1 o'clock"
    });
    assert_eq!(words_of(b""), "");
}

/// The handler, started once as a watchdog in mode http does.
struct Handler(Child);

impl Handler {
    const URL: &str = "http://127.0.0.1:5000";

    fn start() -> Self {
        let handler = Self(command("csv-statistics").spawn().unwrap());
        eventually("the handler serves", Duration::from_secs(20), || {
            http::send("GET", Self::URL, &[], b"").ok()
        });
        handler
    }

    fn post(body: &[u8]) -> http::Answer {
        http::send("POST", Self::URL, &[], body).unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One test, since the handler's port is fixed.
#[test]
fn columns_are_described_and_bad_files_refused() {
    let mut handler = Handler::start();

    let planets = fs::read(examples().join("csv-statistics/planets.csv")).unwrap();
    let answer = Handler::post(&planets).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    assert_eq!(json["rows"], 8);
    let kind = json!({
        "count": 8, "missing": 0, "type": "text", "distinct": 3,
        "top": [
            {"value": "rock", "count": 4},
            {"value": "gas giant", "count": 2},
            {"value": "ice giant", "count": 2},
        ],
    });
    assert_eq!(json["columns"]["kind"], kind);
    let gravity = &json["columns"]["gravity_m_s2"];
    assert_eq!((&gravity["min"], &gravity["max"]), (&json!(3.7), &json!(23.1)));
    // By hand: the sum is 77.9, that of the squares 1013.93; the middle two are 8.9 and 9.0.
    let near = |value: &serde_json::Value, known: f64| {
        assert!((value.as_f64().unwrap() - known).abs() < 1e-6, "{value} is not {known}");
    };
    near(&gravity["mean"], 77.9 / 8.0);
    near(&gravity["median"], 8.95);
    near(&gravity["stdev"], ((1013.93 - 77.9 * 77.9 / 8.0) / 7.0_f64).sqrt());

    let gaps = Handler::post(b"a;b\r\n1;x\r\n;\"y;z\"\r\n").expect(200).json();
    assert_eq!(gaps["columns"]["a"]["missing"], 1);
    assert_eq!(gaps["columns"]["b"]["top"][1]["value"], "y;z");

    let error = |body: &[u8], status| {
        Handler::post(body).expect(status).json()["error"].as_str().unwrap().to_owned()
    };
    assert!(error(b"", 400).contains("empty"));
    assert!(error(b"a,b\n1", 400).contains("row 1 has 1 fields"));
    assert!(error(b"a\n\"", 400).contains("no CSV"));
    assert!(error(b"\xff", 400).contains("UTF-8"));
    assert!(error(&vec![b'a'; 9 << 20], 413).contains("at most"));

    let pid = rustix::process::Pid::from_child(&handler.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = eventually("the handler ends after SIGTERM", Duration::from_secs(10), || {
        handler.0.try_wait().unwrap()
    });
    assert!(status.success(), "{status}");
}
