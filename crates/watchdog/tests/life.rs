//! Start, probes, logs and end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use harness::{
    PATIENCE, ROUTES, Route, Upstream, Watchdog, beside, script, wait_for_file, wait_until,
};

#[test]
fn settings_that_cannot_be_used_end_the_start_with_their_code() {
    type Env = &'static [(&'static str, &'static str)];
    let cases: [(Env, i32, &str); 7] = [
        (&[("mode", "warp"), ("fprocess", "cat")], 2, "unknown watchdog mode: 0"),
        (&[("mode", "http"), ("fprocess", "cat")], 1, "you must specify a valid URL"),
        (&[("mode", "streaming")], 1, "provide a \"function_process\" or \"fprocess\""),
        (&[("fprocess", "cat"), ("write_timeout", "0")], 1, "HTTP write timeout must be over 0s"),
        (&[("mode", "static"), ("static_path", "")], 1, "you must specify the \"static_path\""),
        (&[("fprocess", "cat"), ("port", "abc")], 1, "port=\"abc\""),
        (&[("mode", "inproc")], 1, "mode=inproc"),
    ];
    for (env, code, words) in cases {
        let (exit, log) = Watchdog::run(env, &[]);
        assert_eq!(exit, Some(code), "{log}");
        assert!(log.contains(words), "{log}");
        assert!(log.contains("Version: "), "{log}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let (_, log) = Watchdog::run(&[("mode", "http"), ("write_timeout", "0")], &[]);
    for words in ["valid URL", "write timeout", "provide a"] {
        assert!(log.contains(words), "{log}");
    }
}

#[test]
fn a_taken_port_and_a_lock_that_cannot_be_written_are_failures() {
    let taken = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (exit, log) = Watchdog::run(&[("fprocess", "cat"), ("port", &port)], &[]);
    assert_eq!(exit, Some(1));
    assert!(log.contains("bind: address already in use"), "{log}");
    let (exit, log) = Watchdog::run(&[("fprocess", "cat"), ("TMPDIR", "/proc/none")], &[]);
    assert_eq!(exit, Some(1));
    assert!(log.contains("Cannot write /proc/none/.lock"), "{log}");
}

#[test]
fn a_handed_descriptor_that_is_no_socket_is_a_failure() {
    let (exit, log) = Watchdog::run(&[("fprocess", "cat"), ("LISTEN_FDS", "1")], &[]);
    assert_eq!(exit, Some(1));
    assert!(log.contains("The socket that was handed over cannot be used"), "{log}");
}

#[test]
fn flags() {
    let (exit, log) = Watchdog::run(&[], &["--version"]);
    assert_eq!(exit, Some(0));
    assert!(log.contains("Version: ") && log.contains("\tSHA: "), "{log}");
    let (exit, log) = Watchdog::run(&[], &["--run-healthcheck"]);
    assert_eq!(exit, Some(1));
    assert!(log.contains("unable to find lock file."), "{log}");
    assert_eq!(Watchdog::run(&[], &["--warp"]).0, Some(2));
    let watchdog = Watchdog::start(Route::Tcp, &[("fprocess", "cat")]);
    let dir = watchdog.dir.path().to_str().unwrap();
    assert_eq!(Watchdog::run(&[("TMPDIR", dir)], &["--run-healthcheck"]).0, Some(0));
}

#[test]
fn the_child_of_http_mode_ends_the_watchdog_with_it() {
    let url = ("upstream_url", "http://127.0.0.1:1");
    for (command, words) in [
        ("false", "Forked function has terminated: exit status 1"),
        ("true", "Forked function has terminated: exit status 0"),
        ("no-such-command", "Forked function has terminated: exec: not started"),
    ] {
        let (exit, log) = Watchdog::run(&[("mode", "http"), ("fprocess", command), url], &[]);
        assert_eq!(exit, Some(1), "{log}");
        assert!(log.contains(words), "{log}");
    }
}

#[test]
fn a_command_that_leaves_its_server_behind_is_no_failure() {
    let upstream = Upstream::saying("still here");
    let env = [("mode", "http"), ("fprocess", "true"), ("upstream_url", upstream.url.as_str())];
    let watchdog = Watchdog::start(Route::Tcp, &env);
    watchdog.wait_log("goes on without the command");
    assert_eq!(watchdog.get("/").body, "still here");
}

#[test]
fn probes_follow_the_lock_file() {
    for route in ROUTES {
        let watchdog = Watchdog::start(route, &[("fprocess", "cat"), ("TMPDIR", "DIR/deep/er")]);
        let lock = watchdog.path("deep/er/.lock");
        let mode = lock.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o707, 0o600);
        let health = watchdog.get("/_/health");
        assert_eq!((health.status, health.body.as_str()), (200, "OK"));
        let ready = watchdog.get("/_/ready");
        assert_eq!((ready.status, ready.body.as_str()), (200, ""));
        for probe in ["/_/health", "/_/ready"] {
            assert_eq!(watchdog.post(probe, "x").status, 405);
        }
        std::fs::remove_file(&lock).unwrap();
        assert_eq!(watchdog.get("/_/health").status, 503);
        assert_eq!(watchdog.get("/_/ready").status, 503);
        assert_eq!(watchdog.post("/", "still serving").body, "still serving");
    }
}

#[test]
fn a_refused_body_does_not_cost_its_connection() {
    let watchdog = Watchdog::start(Route::Tcp, &[("fprocess", "cat")]);
    let mut client = watchdog.client();
    client.send("POST /_/health HTTP/1.1\r\nHost: w\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.reply(false).status, 405);
    client.send("hi");
    assert_eq!(client.call("GET /_/health HTTP/1.1\r\nHost: w\r\n\r\n").status, 200);
}

#[test]
fn without_a_lock_file_the_probes_still_work() {
    let watchdog = Watchdog::start(Route::Tcp, &[("fprocess", "cat"), ("suppress_lock", "true")]);
    watchdog.wait_log("\"suppress_lock\" is enabled");
    assert!(!watchdog.path(".lock").exists());
    assert_eq!(watchdog.get("/_/health").status, 200);
    assert_eq!(watchdog.get("/_/ready").status, 200);
}

#[test]
fn ready_path_asks_the_function() {
    let upstream = Upstream::start(|seen, stream| {
        assert_eq!(seen.line(), "GET /sick?deep=1 HTTP/1.1");
        stream
            .write_all(b"HTTP/1.1 503 No\r\nContent-Type: t/x\r\nContent-Length: 5\r\n\r\nno db")
            .is_ok()
    });
    let env = [
        ("mode", "http"),
        ("fprocess", "cat"),
        ("upstream_url", upstream.url.as_str()),
        ("ready_path", "/sick?deep=1"),
    ];
    let reply = Watchdog::start(Route::Unix, &env).get("/_/ready");
    assert_eq!((reply.status, reply.body.as_str()), (503, "no db"));
}

#[test]
fn sigterm_serves_on_for_the_pause_and_then_refuses() {
    let env = [("fprocess", "cat"), ("healthcheck_interval", "1s"), ("write_timeout", "4s")];
    let mut watchdog = Watchdog::start(Route::Tcp, &env);
    let mut kept = watchdog.client();
    let started = Instant::now();
    watchdog.signal("TERM");
    watchdog.wait_log("SIGTERM: no new connections in 1s");
    wait_until("the lock file to go", || !watchdog.path(".lock").exists());
    assert_eq!(watchdog.get("/_/health").status, 503);
    assert_eq!(watchdog.get("/_/ready").status, 503);
    assert_eq!(watchdog.post("/", "during").body, "during");
    assert_eq!(kept.call("GET / HTTP/1.1\r\nHost: w\r\n\r\n").status, 200);
    assert_eq!(watchdog.wait_exit().code(), Some(0));
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert!(watchdog.is_refused());
    watchdog.wait_log("Exiting. Active connections: 0");
}

#[test]
fn a_call_under_way_ends_well_and_the_child_lives_until_then() {
    for route in ROUTES {
        let (gate, passed) = mpsc::channel::<()>();
        let passed = Mutex::new(passed);
        let upstream = Upstream::start(move |_, stream| {
            passed.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nContent-Length: 4\r\n\r\ndone")
                .is_ok()
        });
        let dir = tempfile::tempdir().unwrap();
        let command = script(
            &dir,
            "trap 'touch ended; exit 0' TERM; exec 3<&0; touch trapped; cat <&3 & wait",
        );
        let env = [
            ("mode", "http"),
            ("fprocess", command.as_str()),
            ("upstream_url", upstream.url.as_str()),
            ("healthcheck_interval", "0"),
        ];
        let mut watchdog = Watchdog::start_in(dir, route, &env);
        wait_for_file(&watchdog.path("trapped"));
        let mut client = watchdog.client();
        client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        upstream.next();
        watchdog.signal("TERM");
        watchdog.wait_log("draining: 1 requests");
        assert!(!watchdog.path("ended").exists() && !watchdog.has_exited());
        gate.send(()).unwrap();
        let reply = client.reply(false);
        assert_eq!((reply.status, reply.body.as_str()), (200, "done"), "{route:?}");
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(watchdog.wait_exit().code(), Some(0));
        assert!(watchdog.path("ended").exists());
    }
}

#[test]
fn a_server_that_waits_for_its_connections_to_close_ends_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let command = script(
        &dir,
        "trap 'while [ ! -e closed ]; do :; done; exit 0' TERM; exec 3<&0; touch trapped; cat <&3 & wait",
    );
    let env = [("mode", "http"), ("fprocess", command.as_str()), ("upstream_url", url.as_str())];
    let mut watchdog = Watchdog::start_in(dir, Route::Unix, &env);
    // The one that showed that the server listens: it is kept for the first call.
    let (mut kept, _) = listener.accept().unwrap();
    watchdog.wait_ready();
    wait_for_file(&watchdog.path("trapped"));
    watchdog.signal("TERM");
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
    std::fs::write(watchdog.path("closed"), "").unwrap();
    assert_eq!(watchdog.wait_exit().code(), Some(0));
    // One that was killed for its slowness says nothing.
    watchdog.wait_log("Forked function has terminated: exit status 0");
}

#[test]
fn over_a_handed_socket_there_is_no_pause_unless_it_is_asked_for() {
    let mut watchdog = Watchdog::start(Route::Unix, &[("fprocess", "cat")]);
    watchdog.signal("TERM");
    watchdog.wait_log("SIGTERM: no new connections in 0s");
    assert_eq!(watchdog.wait_exit().code(), Some(0));
}

#[test]
fn a_call_that_takes_too_long_is_cut_off_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let command = script(&dir, "touch began; exec sleep 60");
    let env =
        [("fprocess", command.as_str()), ("healthcheck_interval", "0"), ("write_timeout", "300ms")];
    let mut watchdog = Watchdog::start_in(dir, Route::Tcp, &env);
    let mut client = watchdog.client();
    client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
    wait_for_file(&watchdog.path("began"));
    watchdog.signal("TERM");
    assert_eq!(watchdog.wait_exit().code(), Some(0));
    assert!(client.try_reply(false).is_err());
    watchdog.wait_log("Exiting. Active connections: 1");
}

#[test]
fn the_childs_lines_get_their_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let command = script(&dir, "echo out; echo err >&2; printf unended >&2; cat");
    let env =
        [("mode", "http"), ("fprocess", command.as_str()), ("upstream_url", "http://127.0.0.1:1")];
    let watchdog = Watchdog::start_in(dir, Route::Tcp, &env);
    let line = watchdog.wait_log(" stdout: out");
    let stamp = line.strip_suffix("stdout: out").unwrap();
    assert!(
        stamp.len() == 20 && stamp.as_bytes()[4] == b'/' && stamp.as_bytes()[13] == b':',
        "{line}"
    );
    watchdog.wait_log(" stderr: err");
    let dir = tempfile::tempdir().unwrap();
    let command = script(&dir, "echo plain >&2; printf unended >&2");
    let env = [("fprocess", command.as_str()), ("prefix_logs", "false")];
    let watchdog = Watchdog::start_in(dir, Route::Tcp, &env);
    watchdog.get("/");
    wait_until("both lines", || {
        let log = watchdog.log();
        ["plain", "unended"].iter().all(|line| log.lines().any(|logged| logged == *line))
    });
}

#[test]
fn a_line_that_is_too_long_neither_stops_the_log_nor_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let text = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo after >&2; echo done";
    let command = script(&dir, text);
    let env = [("fprocess", command.as_str()), ("log_buffer_size", "100")];
    let watchdog = Watchdog::start_in(dir, Route::Unix, &env);
    assert_eq!(watchdog.get("/").body, "done\n");
    watchdog.wait_log("stderr: after");
    watchdog.wait_log("Error reading stderr: bufio.Scanner: token too long (1 lines of 100 bytes");
    assert!(!watchdog.log().contains("xxx"));
}

#[test]
fn calls_do_not_wait_for_a_log_that_nobody_reads() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pinnace-watchdog"));
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    command.env("TMPDIR", dir.path()).env("mode", "static").env("static_path", dir.path());
    command.env("fprocess", "").env("port", port.to_string()).stderr(writer);
    std::fs::write(dir.path().join("a.txt"), "text").unwrap();
    let upstream = Upstream::saying("hello");
    command.env("mode", "http").env("fprocess", "cat").env("upstream_url", &upstream.url);
    let mut child = command.spawn().unwrap();
    let mut socket = None;
    wait_until("the watchdog", || {
        socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok();
        socket.is_some()
    });
    let mut client = harness::Client::new(harness::Socket::Tcp(socket.unwrap()));
    // More lines than the pipe and the backlog hold together.
    let target = "x".repeat(2000);
    let served = beside(move || {
        let request = format!("GET /{target} HTTP/1.1\r\nHost: w\r\n\r\n");
        (0..300).all(|_| client.call(&request).body == "hello")
    });
    assert!(served.recv_timeout(PATIENCE).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(reader);
}
