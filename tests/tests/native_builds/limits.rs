//! Builds that fail, do not end, are too many, or whose client leaves.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use pinnace_tests::{Function, Gateway, builds::log, eventually};
use serde_json::Value;

use super::compiled;

const WAIT_MAX: Duration = Duration::from_secs(30);

/// A build whose answer is read as it comes.
fn streamed(gateway: &Gateway, tar: &[u8]) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nAccept: application/x-ndjson\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        gateway.authorization(),
        tar.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(tar).unwrap();
    BufReader::new(stream)
}

/// Waits until a line of the answer has this in it.
fn until(answer: &mut BufReader<TcpStream>, words: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(answer.read_line(&mut line).unwrap() > 0, "the answer ended without {words:?}");
        if line.contains(words) {
            return line;
        }
    }
}

/// Whether a process with this word in its command runs.
fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
}

/// Waits until nothing of any build is left.
fn until_nothing_is_left(gateway: &Gateway) {
    let count = |path: &str| std::fs::read_dir(gateway.state_dir().join(path)).unwrap().count();
    eventually("nothing of the build is left", WAIT_MAX, || {
        (count("run/slots") == 0 && count("builds/work") == 0).then_some(())
    });
}

#[test]
fn a_command_that_fails_shows_its_log() {
    let gateway = Gateway::start_with(&["--slots", "0"]);
    let source = compiled("a:1", "echo one; echo two >&2; exit 3");
    let answer = gateway.try_build(&source.tar(), &[]).expect(200).json();
    assert_eq!(answer["status"], "failed");
    assert!(answer["error"].as_str().unwrap().contains("ended with exit code 3"), "{answer:#}");
    let said = log(&answer);
    assert!(said.contains("one") && said.contains("two"), "{said}");
    assert!(gateway.api("GET", "/system/images", b"").text().trim() == "[]");
    let missing = gateway.try_build(&compiled("a:1", "true").tar(), &[]).expect(200).json();
    assert!(missing["error"].as_str().unwrap().contains("/home/app/made"), "{missing:#}");
    until_nothing_is_left(&gateway);
}

#[test]
fn the_log_comes_while_the_command_runs() {
    let gateway = Gateway::start();
    let tar =
        compiled("a:1", "echo begun; while ! [ -e made ]; do echo x > made; sleep 1; done").tar();
    let mut answer = streamed(&gateway, &tar);
    assert!(until(&mut answer, "begun").contains(r#""status":"in_progress""#));
    let last = until(&mut answer, r#""status":"success""#);
    let last: Value = serde_json::from_str(last.trim()).unwrap();
    assert!(last["digest"].as_str().unwrap().starts_with("sha256:"), "{last}");
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("status"), "{rest}");
}

#[test]
fn a_command_without_an_end_is_ended() {
    let gateway = Gateway::start_with(&["--slots", "0", "--build-time-max", "1s"]);
    let begun = Instant::now();
    let answer = gateway.try_build(&compiled("a:1", "sleep 40401").tar(), &[]).expect(200).json();
    let error = answer["error"].as_str().unwrap();
    assert!(error.contains("`--build-time-max`"), "{error}");
    assert!(begun.elapsed() < WAIT_MAX);
    assert!(!runs("40401"));
    until_nothing_is_left(&gateway);
}

#[test]
fn a_command_that_takes_too_much_memory_is_ended() {
    let gateway = Gateway::start_with(&["--slots", "0", "--build-memory", "64Mi"]);
    let hog = "/usr/bin/python3 -c 'x = bytearray(1 << 30)'";
    let answer = gateway.try_build(&compiled("a:1", hog).tar(), &[]).expect(200).json();
    assert!(answer["error"].as_str().unwrap().contains("`--build-memory`"), "{answer:#}");
    until_nothing_is_left(&gateway);
}

#[test]
fn a_client_that_leaves_ends_its_build() {
    let gateway = Gateway::start_with(&["--slots", "0", "--builds-max", "1"]);
    let tar = |word: &str| compiled("a:1", &format!("echo begun; sleep {word}")).tar();
    let mut answer = streamed(&gateway, &tar("40402"));
    until(&mut answer, "begun");
    let busy = gateway.try_build(&tar("40403"), &[]).expect(429).text();
    assert!(busy.contains("--builds-max"), "{busy}");
    drop(answer);
    eventually("its command is ended", WAIT_MAX, || (!runs("40402")).then_some(()));
    until_nothing_is_left(&gateway);

    // So does one that waits for its answer in one piece.
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let body = tar("40404");
    let (authorization, length) = (gateway.authorization(), body.len());
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
    eventually("its command runs", WAIT_MAX, || runs("40404").then_some(()));
    drop(stream);
    eventually("its command is ended", WAIT_MAX, || (!runs("40404")).then_some(()));
    until_nothing_is_left(&gateway);
    // The place is free again.
    let _ = gateway.build(&compiled("a:1", "echo x > made"));
}

#[test]
fn a_build_is_broken_off_by_a_crash_and_leaves_nothing() {
    let mut gateway = Gateway::start_with(&["--slots", "0"]);
    let mut answer = streamed(&gateway, &compiled("a:1", "echo begun; sleep 40405").tar());
    until(&mut answer, "begun");
    gateway.kill();
    gateway.up();
    eventually("its command is ended", WAIT_MAX, || (!runs("40405")).then_some(()));
    until_nothing_is_left(&gateway);
}

#[test]
fn an_ordinary_user_builds_too() {
    let gateway = Gateway::start_as(65_534, &[]);
    let _ = gateway.build(&compiled("a:1", "echo made by $(id -u) > made"));
    gateway.deploy(&Function::new("a", "a:1"));
    assert!(gateway.call("a", b"").expect(200).text().starts_with("made by"));
}

#[test]
fn an_image_goes_elsewhere_with_its_digest() {
    let [here, elsewhere] = [Gateway::start(), Gateway::start()];
    let built =
        here.build(&compiled("a:1", "rm -rf /tmp/x; mkdir -p made.d && echo travels > made"));
    let archive = here.api("GET", "/build/image?name=a:1", b"").expect(200);
    let again = here.api("GET", "/build/image?name=a:1", b"").expect(200);
    assert_eq!(archive.body, again.body, "the same image is the same archive");
    let event = elsewhere.try_load("b:1", "archive", &archive.body);
    assert_eq!(event["event"], "loaded", "{event}");
    assert_eq!(event["image"]["digest"], built["digest"], "{event}");
    elsewhere.deploy(&Function::new("b", "b:1"));
    assert_eq!(elsewhere.call("b", b"").expect(200).text(), "travels\n");
    here.api("GET", "/build/image?name=none:1", b"").expect(404);
}
