//! Asynchronous calls: taken, delivered, tried again, cancelled, and never lost.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pinnace_tests::{Answer, Callbacks, Function, Gateway, eventually, http, images::Image};
use serde_json::Value;

/// How long what should happen soon may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn submit(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let url = format!("{}/async-function/{path}", gateway.url());
    http::send("POST", &url, headers, body).unwrap()
}

/// Submits a call and answers its id.
fn submitted(gateway: &Gateway, path: &str) -> String {
    let answer = submit(gateway, path, &[], b"").expect(202);
    answer.header("x-call-id").unwrap().to_owned()
}

fn cancel(gateway: &Gateway, id: &str) -> Answer {
    http::send("DELETE", &format!("{}/async-function/{id}", gateway.url()), &[], b"").unwrap()
}

fn queue(gateway: &Gateway, query: &str) -> Value {
    gateway.api("GET", &format!("/system/queue{query}"), b"").expect(200).json()
}

/// Waits until no call waits or is under way.
fn emptied(gateway: &Gateway) {
    eventually("the queue is empty", 4 * PATIENCE, || {
        let queue = queue(gateway, "");
        (queue["waiting"] == 0 && queue["inFlight"] == 0).then_some(())
    });
}

fn failed(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("calls have failed", PATIENCE, || {
        let calls = queue(gateway, "?failed=true")["calls"].as_array()?.clone();
        (calls.len() == count).then_some(calls)
    })
}

#[test]
fn a_call_is_taken_and_its_answer_goes_to_the_callback() {
    let (gateway, callbacks) = (Gateway::start(), Callbacks::start(&[]));
    gateway.deploy_hello("hello");
    let callback = callbacks.url("/cb?a=b");
    let headers = [
        ("X-Callback-Url", callback.as_str()),
        ("Content-Type", "text/csv"),
        ("X-Mine", "1"),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("User-Agent", "me"),
    ];
    let answer = submit(&gateway, "hello/request?x=%2F", &headers, b"a,b").expect(202);
    assert_eq!(answer.body, b"");
    assert!(answer.header("x-start-time").is_some());
    assert!(answer.header("x-served-by").unwrap().starts_with("pinnace/"));
    let id = answer.header("x-call-id").unwrap();
    let told = callbacks.next(PATIENCE);
    assert_eq!(told.target, "POST /cb?a=b");
    assert_eq!(told.header("x-call-id"), Some(id));
    assert_eq!(told.header("x-function-name"), Some("hello"));
    assert_eq!(told.header("x-function-status"), Some("200"));
    assert_eq!((told.header("x-retry"), told.header("x-retry-max")), (Some("0"), Some("9")));
    assert!(told.header("x-duration-seconds").unwrap().parse::<f64>().unwrap() < 10.0);
    assert!(told.header("user-agent").unwrap().starts_with("pinnace-queue/"));
    let seen = told.text().to_lowercase();
    assert!(seen.starts_with("post /request?x=%2f"), "{seen}");
    for line in
        [&format!("x-call-id: {id}"), "x-mine: 1", "user-agent: me", "content-type: text/csv"]
    {
        assert!(seen.contains(line), "{line} is missing: {seen}");
    }
    assert!(!seen.contains("x-hop"), "{seen}");

    // A caller's own id is not told back. Without a path, `/` is called; without an agent, the queue is it.
    let mine = [("X-Call-Id", "mine"), ("X-Callback-Url", callback.as_str()), ("User-Agent", "")];
    let answer = submit(&gateway, "hello.openfaas-fn", &mine, b"").expect(202);
    assert_eq!(answer.header("x-call-id"), None);
    let told = callbacks.next(PATIENCE);
    assert_eq!((told.header("x-call-id"), told.text().as_str()), (Some("mine"), "hello\n"));
    let metrics = gateway.metrics();
    for line in [
        "queue_worker_messages_submitted_total{queue_name=\"faas-request\"} 2",
        "queue_worker_messages_processed_total{queue_name=\"faas-request\"} 2",
        "gateway_function_invocation_started{function_name=\"hello.openfaas-fn\"} 4",
    ] {
        assert!(metrics.contains(line), "{line} is missing: {metrics}");
    }

    // Large bodies, in chunks too, and large answers.
    let body = vec![b'x'; 1 << 20];
    let large = [("X-Callback-Url", callback.as_str())];
    submit(&gateway, "hello/echo", &large, &body).expect(202);
    assert!(callbacks.next(PATIENCE).body == body);
    let url = format!("{}/async-function/hello/echo", gateway.url());
    http::upload(&url, &large, &body[..], PATIENCE).unwrap().expect(202);
    assert!(callbacks.next(PATIENCE).body == body);
    submit(&gateway, "hello/zeros/9", &large, b"").expect(202);
    let told = callbacks.next(PATIENCE);
    assert_eq!(told.header("x-pinnace-cut-at").unwrap(), told.body.len().to_string());
    emptied(&gateway);
    assert_eq!(std::fs::read_dir(gateway.state_dir().join("queue")).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_queued_is_refused() {
    let gateway = Gateway::start_with(&["--async-body", "1000"]);
    gateway.deploy_hello("hello");
    let said = |answer: Answer, status, what: &str| {
        let answer = answer.expect(status);
        assert!(answer.text().contains(what), "{}", answer.text());
    };
    said(submit(&gateway, "unknown", &[], b""), 404, "unknown.openfaas-fn");
    said(submit(&gateway, "", &[], b""), 400, "function name");
    said(submit(&gateway, "hello", &[], &[0; 1001]), 413, "--async-body");
    submit(&gateway, "hello", &[], &[0; 1000]).expect(202);
    let url = format!("{}/async-function/hello", gateway.url());
    let chunked = http::upload(&url, &[], &[0; 1001][..], PATIENCE).unwrap();
    said(chunked, 413, "1000 bytes");
    for bad in ["ftp://h/", "nonsense", "/path", "http://"] {
        let headers = [("X-Callback-Url", bad)];
        said(submit(&gateway, "hello", &headers, b""), 400, "X-Callback-Url");
    }
    for method in ["GET", "PUT", "OPTIONS", "HEAD"] {
        let answer = http::send(method, &url, &[], b"").unwrap().expect(405);
        assert_eq!(answer.header("allow"), Some("POST, DELETE"));
    }
    said(cancel(&gateway, "unknown"), 404, "unknown");
    said(gateway.api("GET", "/system/queue/unknown", b""), 404, "unknown");
    let open = http::send("GET", &format!("{}/system/queue", gateway.url()), &[], b"").unwrap();
    assert_eq!(open.status, 401);
}

#[test]
fn what_may_pass_is_tried_again() {
    let (gateway, callbacks) = (Gateway::start(), Callbacks::start(&[500]));
    gateway.load("hello:test", &Image::hello("hello:test"));
    let quick =
        |name| Function::new(name, "hello:test").annotation("com.openfaas.retry.min_wait", "50ms");
    gateway.deploy(&quick("flaky"));
    let callback = callbacks.url("/");
    let begin = Instant::now();
    let headers = [("X-Callback-Url", callback.as_str())];
    submit(&gateway, "flaky/fails/2", &headers, b"").expect(202);
    // The callback fails too, once.
    let first = callbacks.next(PATIENCE);
    let told = callbacks.next(PATIENCE);
    assert!(begin.elapsed() >= Duration::from_secs(2), "Retry-After asked for a second, twice");
    assert_eq!(told.header("x-function-status"), Some("200"));
    assert_eq!(told.header("x-retry"), Some("2"));
    assert_eq!(first.body, told.body);
    assert_eq!(callbacks.all().len(), 0);

    // What is no passing failure is the function's answer.
    submit(&gateway, "flaky/status/404", &headers, b"").expect(202);
    let told = callbacks.next(PATIENCE);
    assert_eq!(told.header("x-function-status"), Some("404"));
    assert_eq!(told.header("x-retry"), Some("0"));

    let doomed = quick("doomed").annotation("com.openfaas.retry.attempts", "3");
    gateway.deploy(&doomed);
    let answer = submit(&gateway, "doomed/status/500", &headers, b"body").expect(202);
    let id = answer.header("x-call-id").unwrap();
    let told = callbacks.next(PATIENCE);
    assert_eq!(told.header("x-function-status"), Some("500"));
    assert_eq!((told.header("x-retry"), told.header("x-retry-max")), (Some("2"), Some("2")));
    let call = &failed(&gateway, 1)[0];
    assert_eq!(
        (&call["callId"], &call["attempts"], &call["state"]),
        (&id.into(), &3.into(), &"failed".into())
    );
    assert_eq!(call["history"].as_array().unwrap().len(), 3);
    assert_eq!(call["history"][2]["error"], "the answer was 500: status 500");

    gateway.login();
    let run = |words: &[&str]| {
        let output = gateway.cli(words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, listed, _) = run(&["queue", "ls", "--failed"]);
    assert!(code == Some(0) && listed.contains(id) && listed.contains("failed"), "{listed}");
    assert_eq!(run(&["queue", "ls", "-q"]).1, "");
    assert!(run(&["queue", "show", id]).1.contains("Attempts:     3\n"));
    assert_eq!(run(&["queue", "retry", id]).0, Some(0));
    assert_eq!(callbacks.next(PATIENCE).header("x-retry"), Some("2"), "with all its attempts");
    let again = &failed(&gateway, 1)[0];
    assert_eq!(again["history"].as_array().unwrap().len(), 6);
    assert_eq!(run(&["queue", "drop", id]).0, Some(0));
    assert_eq!(failed(&gateway, 0), Vec::<Value>::new());
    let (code, _, error) = run(&["queue", "drop", id]);
    assert!(code == Some(1) && error.contains("there is no such call"), "{error}");
}

#[test]
fn calls_are_cancelled_while_they_wait_and_while_they_run() {
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway
        .deploy(&Function::new("hello", "hello:test").annotation("dev.pinnace.concurrency", "1"));
    let running = submitted(&gateway, "hello/wait/600000");
    let waiting = submitted(&gateway, "hello/write/tmp/never");
    let state = |id: &str| {
        gateway.api("GET", &format!("/system/queue/{id}"), b"").json()[0]["state"].clone()
    };
    eventually("one runs", PATIENCE, || (state(&running) == "in_flight").then_some(()));
    assert_eq!(state(&waiting), "waiting");
    cancel(&gateway, &waiting).expect(202);
    cancel(&gateway, &waiting).expect(404);
    cancel(&gateway, &running).expect(202);
    // The place is free at once.
    submitted(&gateway, "hello/write/tmp/after");
    emptied(&gateway);
    let written = gateway.call("hello/read/tmp", b"").expect(200).text();
    assert!(written.contains("after") && !written.contains("never"), "{written}");
    assert_eq!(queue(&gateway, "")["failed"], 0);
}

#[test]
fn all_calls_of_a_function_are_dropped_at_once() {
    let gateway = Gateway::start();
    gateway.login();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let hello = |name| Function::new(name, "hello:test").annotation("dev.pinnace.concurrency", "1");
    gateway.deploy(&hello("hello"));
    gateway.deploy(&hello("other"));
    let running = submitted(&gateway, "hello/wait/600000");
    for _ in 0..20 {
        submitted(&gateway, "hello/write/tmp/never");
    }
    let other = submitted(&gateway, "other/wait/600000");
    eventually("two run", PATIENCE, || (queue(&gateway, "")["inFlight"] == 2).then_some(()));
    let dropped = gateway.cli(&["queue", "drop", "--function", "hello"]);
    assert_eq!(String::from_utf8_lossy(&dropped.stdout), "21 dropped.\n", "{dropped:?}");
    eventually("its calls are gone", PATIENCE, || {
        let left = queue(&gateway, "");
        (left["waiting"] == 0 && left["inFlight"] == 1).then_some(())
    });
    gateway.api("GET", &format!("/system/queue/{running}"), b"").expect(404);
    gateway.api("DELETE", "/system/queue", b"").expect(400);
    cancel(&gateway, &other).expect(202);
    emptied(&gateway);
    // Those that have failed are others.
    let once = Function::host("fails", "false").annotation("com.openfaas.retry.attempts", "1");
    gateway.deploy(&once);
    for _ in 0..3 {
        submitted(&gateway, "fails");
    }
    failed(&gateway, 3);
    assert_eq!(gateway.api("DELETE", "/system/queue?function=fails", b"").json()["dropped"], 0);
    let answer = gateway.api("DELETE", "/system/queue?function=fails&failed=true", b"");
    assert_eq!(answer.json()["dropped"], 3);
    failed(&gateway, 0);
}

#[test]
fn calls_of_a_removed_function_are_kept_with_the_reason() {
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway
        .deploy(&Function::new("hello", "hello:test").annotation("dev.pinnace.concurrency", "1"));
    submitted(&gateway, "hello/wait/1000");
    let id = submitted(&gateway, "hello/write/tmp/a");
    gateway.remove("hello");
    let calls = failed(&gateway, 1);
    assert_eq!(calls[0]["callId"], id.as_str());
    let why = calls[0]["history"][0]["error"].to_string();
    assert!(why.contains("not deployed"), "{why}");
    gateway.deploy(&Function::new("hello", "hello:test"));
    gateway.api("POST", &format!("/system/queue/{id}/retry"), b"").expect(202);
    emptied(&gateway);
    assert!(gateway.call("hello/read/tmp", b"").text().contains('a'));
    failed(&gateway, 0);
}

#[test]
fn a_slow_function_keeps_no_other_waiting() {
    let (gateway, callbacks) = (Gateway::start(), Callbacks::start(&[]));
    gateway.deploy_hello("slow");
    gateway.deploy(&Function::new("quick", "hello:test"));
    for _ in 0..400 {
        submit(&gateway, "slow/wait/600000", &[], b"").expect(202);
    }
    let callback = callbacks.url("/");
    for _ in 0..20 {
        let begin = Instant::now();
        submit(&gateway, "quick", &[("X-Callback-Url", &callback)], b"").expect(202);
        let told = callbacks.next(PATIENCE);
        assert_eq!(told.header("x-function-name"), Some("quick"));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    let metrics = gateway.metrics();
    let count = |name: &str| {
        let labels = "queue_name=\"faas-request\",function_name=\"slow.openfaas-fn\"";
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{{labels}}}")));
        line.unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let (waiting, running) = (
        count("queue_worker_pending_messages"),
        count("queue_worker_function_invocation_inflight"),
    );
    assert_eq!((waiting + running, running), (400, 128), "half of what may be under way");
}

/// Nobody's own server, and what clouds keep, is reached by a URL that any caller gives.
#[test]
fn callbacks_do_not_reach_the_api() {
    let gateway = Gateway::start_with(&["--no-auth"]);
    let image = Image::hello("hello:test").oci_layout();
    let load = format!("{}/system/images?reference=hello:test&kind=archive", gateway.url());
    http::send("POST", &load, &[], &image).unwrap().expect(200);
    let url = format!("{}/system/functions", gateway.url());
    let body = br#"{"service":"hello","image":"hello:test"}"#;
    http::send("POST", &url, &[], body).unwrap().expect(202);
    let deployed = br#"{"service":"evil","image":"hello:test"}"#;
    for host in ["127.0.0.1", "localhost", "127.9.9.9", "[::ffff:127.0.0.1]"] {
        let callback = format!("http://{host}:{}/system/functions", gateway.address().port());
        submit(&gateway, "hello/echo", &[("X-Callback-Url", &callback)], deployed).expect(202);
    }
    let metadata = [("X-Callback-Url", "http://169.254.169.254/latest/meta-data")];
    submit(&gateway, "hello/echo", &metadata, deployed).expect(202);
    eventually("all are refused", PATIENCE, || {
        let refused = gateway.log().matches("no address that this callback may reach").count();
        (refused == 5).then_some(())
    });
    let listed = http::send("GET", &url, &[], b"").unwrap().text();
    assert!(!listed.contains("evil"), "{listed}");
    // Functions are reached, by this server's address and by the gateway's name.
    for host in [gateway.address().to_string(), "gateway:8080".to_owned()] {
        let name = host.replace([':', '.'], "-");
        let callback = format!("http://{host}/function/hello/write/tmp/{name}");
        submit(&gateway, "hello/echo", &[("X-Callback-Url", &callback)], b"told").expect(202);
        eventually("the other function was called", PATIENCE, || {
            (gateway.call(&format!("hello/read/tmp/{name}"), b"").body == b"told").then_some(())
        });
    }
}

#[test]
fn a_function_has_the_platform_reach_no_more_than_it_does() {
    let gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let shut = Function::new("shut", "hello:test").annotation("dev.pinnace.network", "none");
    gateway.deploy(&shut);
    let callbacks = Callbacks::start(&[]);
    let asked = |callback: &str| {
        let request = format!(
            "POST /async-function/shut/echo HTTP/1.1\r\nHost: gateway\r\nX-Callback-Url: {callback}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        gateway.call("shut/dial/gateway:8080", request.as_bytes()).expect(200).text()
    };
    let refused = asked(&callbacks.url("/"));
    assert!(
        refused.starts_with("HTTP/1.1 400 ") && refused.contains("--network none"),
        "{refused}"
    );
    let taken = asked("http://gateway:8080/function/shut/write/tmp/told");
    assert!(taken.starts_with("HTTP/1.1 202 "), "{taken}");
    eventually("the function was called", PATIENCE, || {
        (gateway.call("shut/read/tmp/told", b"").status == 200).then_some(())
    });
    assert_eq!(callbacks.all().len(), 0);
}

#[test]
fn a_server_that_ends_lets_calls_finish_and_keeps_the_others() {
    let mut gateway = Gateway::start();
    gateway.load("hello:test", &Image::hello("hello:test"));
    let callbacks = Callbacks::start(&[]);
    gateway
        .deploy(&Function::new("hello", "hello:test").annotation("dev.pinnace.concurrency", "1"));
    let callback = callbacks.url("/");
    let headers = [("X-Callback-Url", callback.as_str())];
    submit(&gateway, "hello/wait/1500", &headers, b"").expect(202);
    eventually("it runs", PATIENCE, || (queue(&gateway, "")["inFlight"] == 1).then_some(()));
    let id = submitted(&gateway, "hello/write/tmp/later");
    gateway.stop();
    assert_eq!(callbacks.next(PATIENCE).text(), "waited\n");
    gateway.up();
    emptied(&gateway);
    assert_eq!(gateway.call("hello/read/tmp/later", b"").status, 200, "{id} has run");
    assert_eq!(callbacks.all().len(), 0, "what had finished did not run again");
}

/// `PINNACE_SOAK_QUEUE_KILLS` says how often (`cargo xtask soak` sets it).
#[test]
fn a_killed_server_loses_no_call() {
    // How often it is killed, and after how many calls each time.
    let (kills, calls) = std::env::var("PINNACE_SOAK_QUEUE_KILLS")
        .map_or((5, 20), |kills| (kills.parse().unwrap(), 1000));
    let mut gateway = Gateway::start();
    gateway.deploy_hello("hello");
    let taken = Mutex::new(HashSet::new());
    let ends = AtomicBool::new(false);
    let url = format!("{}/async-function/hello/write/tmp", gateway.url());
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (taken, ends, url) = (&taken, &ends, &url);
            scope.spawn(move || {
                let large = vec![b'x'; 100 << 10];
                for call in 0.. {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let id = format!("{caller}-{call}");
                    // Some have a body in a file of its own.
                    let body = if call % 16 == 0 { &large[..] } else { b"x" };
                    let sent =
                        http::send("POST", &format!("{url}/{id}"), &[("X-Call-Id", &id)], body);
                    match sent {
                        Ok(answer) if answer.status == 202 => {
                            taken.lock().unwrap().insert(id);
                        }
                        // A server that is not there is asked again soon.
                        _ => std::thread::park_timeout(Duration::from_millis(5)),
                    }
                }
            });
        }
        for kill in 0..kills {
            let before = taken.lock().unwrap().len();
            eventually("calls are taken", PATIENCE, || {
                (taken.lock().unwrap().len() > before + calls).then_some(())
            });
            let random_ms = RandomState::new().hash_one(kill) % 100;
            std::thread::park_timeout(Duration::from_millis(random_ms));
            gateway.kill();
            gateway.up();
        }
        ends.store(true, Ordering::SeqCst);
    });
    emptied(&gateway);
    let written = gateway.call("hello/read/tmp", b"").expect(200).text();
    let executed: HashSet<_> = written.split_whitespace().collect();
    let failed = queue(&gateway, "?failed=true");
    assert_eq!(failed["failed"], 0, "{failed}");
    let taken = taken.into_inner().unwrap();
    let lost: Vec<_> = taken.iter().filter(|id| !executed.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "of {} calls these were lost: {lost:?}", taken.len());
    println!("{} calls taken, {kills} kills, none lost", taken.len());
}
