//! Calling functions: bodies that stream both ways, and who is to blame for an error.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    sync::mpsc,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    bench::{Bench, finish},
    server::{Reply, Server, read_chunk, read_head, send},
};

#[test]
fn short_bodies_have_a_length_and_no_credentials() {
    let server = Server::start(|seen| Reply::new(200, seen.body.clone()));
    let bench = Bench::new(&server.url).password("hunter2\n");
    let ran = bench.run_with(&["invoke", "hello", "--query", "a b=c&d"], b"hi there").ok();
    assert_eq!(ran.out(), "hi there");
    assert_eq!(ran.stderr, "");
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "POST /function/hello.openfaas-fn?a%20b=c%26d");
    assert_eq!(seen.header("content-length"), Some("8"));
    assert_eq!(seen.header("content-type"), Some("text/plain"));
    assert_eq!(seen.header("authorization"), None);
}

#[test]
fn a_slow_body_is_sent_as_it_comes_and_the_answer_is_shown_as_it_comes() {
    let (sender, pieces) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::raw(move |stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        let mut stream = &stream;
        while let Some(chunk) = read_chunk(&mut reader) {
            sender.send(chunk).unwrap();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .unwrap();
        // The rest follows once the test has seen the first piece.
        gone.lock().unwrap().recv().unwrap();
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    });
    let mut child = Bench::new(&server.url).spawn(&["invoke", "hello"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one").unwrap();
    let deadline = std::time::Duration::from_secs(30);
    assert_eq!(pieces.recv_timeout(deadline).unwrap(), b"one", "sent before the end of input");
    stdin.write_all(b"two").unwrap();
    assert_eq!(pieces.recv_timeout(deadline).unwrap(), b"two");
    drop(stdin);
    let mut first = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first", "shown before the end of the answer");
    go.send(()).unwrap();
    let ran = finish(child).ok();
    assert_eq!(ran.out(), "second");
}

#[test]
fn errors_say_who_answered() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/function/own.openfaas-fn" => Reply::new(500, "exit status 1\n"),
        _ => Reply::new(502, "no replica came up").header("X-OpenFaaS-Internal", "proxy"),
    });
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["invoke", "own"], b"x");
    let ran = ran.failed(1, "calling own: it answers 500 Internal Server Error");
    assert!(ran.stderr.starts_with("exit status 1\n"), "{}", ran.stderr);
    assert_eq!(ran.out(), "");
    let ran = bench.run_with(&["invoke", "other"], b"x");
    let said =
        "calling other: the platform (proxy) answers 502 Bad Gateway, not the function itself";
    let ran = ran.failed(1, said);
    assert!(ran.stderr.starts_with("no replica came up\n"), "{}", ran.stderr);
}

#[test]
fn call_ids() {
    let answer = |_: &_| Reply::new(202, "").header("X-Call-Id", "id-1");
    let server = Server::start(answer);
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["invoke", "f", "-a", "-v"], b"x").ok();
    assert_eq!(ran.stderr, "Call id: id-1\nFunction submitted asynchronously.\n");
    assert_eq!(server.lines(), ["POST /async-function/f.openfaas-fn"]);
    let ran = bench.run_with(&["invoke", "f", "--async", "-j"], b"x").ok();
    let json: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "status": 202, "callId": "id-1" }));
}

#[test]
fn an_early_refusal_is_read_although_the_body_was_not() {
    let server = Server::raw(|stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        send(&stream, &Reply::new(413, "body over 1 MiB\n")).unwrap();
    });
    let ran = Bench::new(&server.url).run_with(&["invoke", "f", "-a"], &vec![b'x'; 8 << 20]);
    let ran = ran.failed(1, "it answers 413");
    assert!(ran.stderr.starts_with("body over 1 MiB\n"), "{}", ran.stderr);
}

#[test]
fn an_answer_that_breaks_off_is_a_failure() {
    let server = Server::raw(|stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        let mut one = [0; 1];
        reader.read_exact(&mut one).unwrap();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    });
    let ran = Bench::new(&server.url).run_with(&["invoke", "f"], b"x");
    let ran = ran.failed(1, "calling f: its answer broke off");
    assert_eq!(ran.out(), "half");
}

#[test]
fn names_are_checked_before_they_become_a_url() {
    let bench = Bench::new("http://127.0.0.1:1");
    bench.run(&["invoke", "../system/functions"]).failed(2, "function name");
    bench.run(&["invoke", "f", "-n", "a/b"]).failed(2, "namespace name");
    bench.run(&["invoke", "f", "-m", "TRACE"]).failed(2, "use GET, POST");
}

const ASKING: &str = "Bearer realm=IAM function invoke";

fn guarded() -> Server {
    let basic = format!("Basic {}", STANDARD.encode("admin:hunter2"));
    Server::start(move |seen| match (seen.target.as_str(), seen.header("authorization")) {
        ("/oauth/token", _) if seen.text().contains("subject_token=mine&") => {
            Reply::new(200, r#"{"access_token":"theirs","token_type":"Bearer","expires_in":60}"#)
        }
        ("/oauth/token", Some(given)) if given == basic => {
            Reply::new(200, r#"{"access_token":"theirs"}"#)
        }
        ("/oauth/token", _) => {
            Reply::new(400, r#"{"error":"invalid_request","error_description":"expired"}"#)
        }
        (_, Some("Bearer theirs")) => Reply::new(200, seen.body.clone()),
        _ => Reply::new(401, "no token").header("WWW-Authenticate", ASKING),
    })
}

#[test]
fn a_token_is_fetched_where_a_function_asks_for_one_and_before_with_auth() {
    let server = guarded();
    let bench = Bench::new(&server.url);
    let ran = bench.run_with(&["invoke", "f.dev", "-k", "mine"], b"x").ok();
    assert_eq!(ran.out(), "x");
    assert!(
        server.seen()[1].text().starts_with("audience=dev%3Af&"),
        "{}",
        server.seen()[1].text()
    );
    let ran = bench.run_with(&["invoke", "f", "-k", "mine", "--auth", "-m", "GET"], b"").ok();
    assert_eq!(ran.out(), "");
    assert_eq!(server.lines()[3..], ["POST /oauth/token", "GET /function/f.openfaas-fn"]);
    let long = vec![b'x'; 1 << 20];
    bench.run_with(&["invoke", "f", "-k", "mine"], &long).failed(1, "add --auth");
}

#[test]
fn a_token_is_fetched_for_the_password() {
    let server = guarded();
    let bench = Bench::new(&server.url).password("hunter2");
    let ran = bench.run_with(&["invoke", "f"], b"x").ok();
    assert_eq!(ran.out(), "x");
    let asked = server.seen()[1].text();
    assert_eq!(asked, "audience=openfaas-fn%3Af&grant_type=client_credentials&scope=function");
}

#[test]
fn a_token_that_is_not_granted() {
    let server = guarded();
    let bench = Bench::new(&server.url);
    let said = "does not grant it: invalid_request expired";
    bench.run_with(&["invoke", "f", "-k", "stale"], b"x").failed(1, said);
    bench.run_with(&["invoke", "f", "--auth"], b"x").failed(1, "not logged in at");
    bench.run(&["invoke", "f", "--sign", "X-Sig"]).failed(2, "--key <TEXT>");
}

#[test]
fn the_stack_file_says_where_a_function_is() {
    let server = Server::start(|_| Reply::new(200, ""));
    let stack = "provider: {name: openfaas}\nfunctions:\n  f: {image: i, namespace: dev}\n";
    let bench = Bench::new(&server.url).file("stack.yaml", stack);
    bench.run(&["invoke", "f"]).ok();
    bench.run(&["invoke", "f", "-n", "test"]).ok();
    bench.run(&["invoke", "g"]).ok();
    let lines = ["POST /function/f.dev", "POST /function/f.test", "POST /function/g.openfaas-fn"];
    assert_eq!(server.lines(), lines);
}
