//! Calls go on while their function is redeployed, and scaled between none and five by hand, by alerts and by
//! its load; none of them notices.
//!
//! `PINNACE_SOAK_CALLS` says how many calls (`cargo xtask soak` sets it).

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pinnace_tests::{Function, Gateway, images::Image};
use serde_json::json;

const CALLS_DEFAULT: u64 = 20_000;
const CALLERS: usize = 8;

/// Calls between two changes, at least.
const CALLS_PER_CHANGE: u64 = 100;

/// A caller that keeps its connection.
struct Caller(BufReader<TcpStream>);

impl Caller {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        Self(BufReader::new(stream))
    }

    /// The answer's status line and its body.
    fn call(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(String, String)> {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n");
        self.0.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())?;
        let (mut status, mut length) = (String::new(), 0);
        self.0.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            let line = line.trim_end().to_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status.trim_end().to_owned(), String::from_utf8_lossy(&body).into_owned()))
    }
}

#[test]
fn no_call_fails_while_its_function_is_redeployed_and_scaled() {
    let calls_max = std::env::var("PINNACE_SOAK_CALLS").ok();
    let calls_max = calls_max.map_or(CALLS_DEFAULT, |calls| calls.parse().unwrap());
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let labels = json!({
        "com.openfaas.scale.type": "capacity", "com.openfaas.scale.target": "2",
        "com.openfaas.scale.max": "5",
    });
    gateway.deploy(&Function::new("a", "hello:test").with("labels", labels.clone()));
    let alert = |status: &str| {
        let labels = json!({ "function_name": "a.openfaas-fn" });
        let message = json!({ "alerts": [{ "status": status, "labels": labels }] });
        gateway.api("POST", "/system/alert", message.to_string().as_bytes()).expect(200);
    };
    let update = |number: u64| {
        // By turns it is handed a socket, and listens on TCP.
        let annotations = match number % 8 {
            0 => json!({ "dev.pinnace.listen": "socket" }),
            _ => json!({}),
        };
        let deployment = json!({
            "service": "a", "image": "hello:test", "annotations": annotations, "labels": labels,
            "envVars": { "VERSION": number.to_string() },
        });
        gateway.api("PUT", "/system/functions", deployment.to_string().as_bytes()).expect(202);
    };
    let (calls, bad) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let is_over = || calls.load(Ordering::Relaxed) >= calls_max || !bad.lock().unwrap().is_empty();
    std::thread::scope(|scope| {
        for number in 0..CALLERS {
            let (calls, bad, is_over) = (&calls, &bad, &is_over);
            let address = gateway.address();
            scope.spawn(move || {
                let mut caller = Caller::connect(address);
                while !is_over() {
                    // A POST could not be sent twice.
                    let (method, path, sent, expected) = match number % 2 {
                        0 => ("GET", "/function/a/", "", "hello\n"),
                        _ => ("POST", "/function/a/echo", "echoed", "echoed"),
                    };
                    match caller.call(method, path, sent) {
                        Ok((status, body))
                            if status.starts_with("HTTP/1.1 200") && body == expected => {}
                        other => return bad.lock().unwrap().push(format!("{method}: {other:?}")),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1.. {
            if is_over() {
                break;
            }
            match number % 6 {
                0 => gateway.scale("a", 0),
                1 => gateway.scale("a", 5),
                2 => update(number),
                3 => gateway.scale("a", 1),
                4 => alert("firing"),
                _ => alert("resolved"),
            }
            // Each change is seen by some calls: without that, replicas would never get to serve.
            let seen = calls.load(Ordering::Relaxed) + CALLS_PER_CHANGE;
            while !is_over() && calls.load(Ordering::Relaxed) < seen {
                std::thread::yield_now();
            }
        }
    });
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "{bad:#?}\n{}", gateway.log());
}
