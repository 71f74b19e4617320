//! Mode http, over both ways in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use harness::{PATIENCE, ROUTES, Reply, Route, Upstream, Watchdog, beside, wait_until};

/// `cat` ends when the watchdog does; the real server is within the test.
fn start(route: Route, upstream: &Upstream, more: &[(&str, &str)]) -> Watchdog {
    let mut env = vec![("mode", "http"), ("fprocess", "cat"), ("upstream_url", &upstream.url)];
    env.extend_from_slice(more);
    Watchdog::start(route, &env)
}

fn assert_internal(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.body.as_str()), (status, ""));
    assert_eq!(reply.header("x-openfaas-internal"), Some("of-watchdog"));
    assert!(reply.header("x-duration-seconds").is_some());
}

#[test]
fn a_call_goes_through_with_canonical_names_and_its_duration() {
    for route in ROUTES {
        let upstream = Upstream::saying("hello");
        let watchdog = start(route, &upstream, &[]);
        let mut client = watchdog.client();
        let reply = client.call(
            "POST /a%2Fb?x=1 HTTP/1.1\r\nHost: Fn.Example\r\nx-call-id: 7\r\nx_under: u\r\nContent-Length: 2\r\n\r\nhi",
        );
        assert_eq!((reply.status, reply.body.as_str()), (200, "hello"), "{route:?}");
        let took: f64 = reply.header("x-duration-seconds").unwrap().parse().unwrap();
        assert!(took > 0.0 && took < PATIENCE.as_secs_f64());
        let seen = upstream.next();
        assert_eq!(seen.line(), "POST /a%2Fb?x=1 HTTP/1.1");
        assert_eq!(seen.header("Host"), Some("Fn.Example"));
        assert_eq!(seen.header("X-Call-Id"), Some("7"));
        assert_eq!(seen.header("X_under"), Some("u"));
        assert_eq!(seen.header("User-Agent"), Some("Go-http-client/1.1"));
        assert_eq!(seen.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!(seen.body, "hi");
        // The same connections serve the next call, at both ends.
        client.call("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        assert_eq!(upstream.next().connection, seen.connection);
        watchdog.wait_log("POST /a%2Fb?x=1 - 200 OK - ContentLength: 5B (");
    }
}

#[test]
fn redirects_and_failures_of_the_function_pass_untouched() {
    let upstream = Upstream::start(|seen, stream| {
        let status = seen.line().split(['/', ' ']).nth(2).unwrap();
        write!(stream, "HTTP/1.1 {status} X\r\nLocation: /l\r\nContent-Length: 1\r\n\r\nb").is_ok()
    });
    let watchdog = start(Route::Unix, &upstream, &[]);
    for status in [302, 404, 503] {
        let reply = watchdog.get(&format!("/{status}"));
        assert_eq!((reply.status, reply.header("location")), (status, Some("/l")));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn a_body_is_handed_on_as_it_comes_both_ways() {
    for route in ROUTES {
        let (gate, passed) = mpsc::channel::<()>();
        let passed = Mutex::new(passed);
        let upstream = Upstream::start(move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}3\r\none\r\n").as_bytes()).unwrap();
            passed.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").is_ok()
        });
        let watchdog = start(route, &upstream, &[]);
        let mut client = watchdog.client();
        client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        assert_eq!(client.head().unwrap().status, 200);
        assert_eq!(client.chunk().unwrap(), b"one");
        gate.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"two");
        assert_eq!(client.chunk().unwrap(), b"");
    }
}

#[test]
fn over_the_limit_is_429_and_a_place_is_free_again_after() {
    for route in ROUTES {
        let (gate, passed) = mpsc::channel::<()>();
        let passed = Mutex::new(passed);
        let upstream = Upstream::start(move |seen, stream| {
            if seen.line().starts_with("GET /slow") {
                passed.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
        });
        let watchdog = start(route, &upstream, &[("max_inflight", "1")]);
        let mut slow = watchdog.client();
        slow.send("GET /slow HTTP/1.1\r\nHost: w\r\n\r\n");
        upstream.next();
        let reply = watchdog.get("/x");
        assert_eq!(reply.status, 429);
        let words = "Concurrent request limit exceeded. Max concurrent requests: 1\n";
        assert_eq!(reply.body, words);
        assert_eq!(reply.header("content-type"), Some("text/plain"));
        assert_eq!(reply.header("x-openfaas-internal"), Some("faas-middleware"));
        assert_eq!(watchdog.get("/_/ready").status, 429);
        assert_eq!(watchdog.get("/_/health").status, 200);
        gate.send(()).unwrap();
        assert_eq!(slow.reply(false).status, 200);
        assert_eq!(watchdog.get("/x").status, 200);
    }
}

#[test]
fn exec_timeout_is_504_and_cancels_the_call_to_the_function() {
    for route in ROUTES {
        let (gone, cancelled) = mpsc::channel();
        let gone = Mutex::new(gone);
        let upstream = Upstream::start(move |_, stream| {
            gone.lock().unwrap().send(stream.read(&mut [0]).unwrap_or(0)).unwrap();
            false
        });
        let watchdog = start(route, &upstream, &[("exec_timeout", "200ms")]);
        let started = Instant::now();
        assert_internal(&watchdog.get("/"), 504);
        assert!(started.elapsed() >= Duration::from_millis(200));
        assert_eq!(cancelled.recv_timeout(PATIENCE).unwrap(), 0);
        watchdog.wait_log("Upstream HTTP killed due to exec_timeout: 200ms");
    }
}

#[test]
fn a_server_that_is_stopped_is_504_at_limits_that_are_equal_as_by_default() {
    // As of a stopped process: the kernel takes connections and nobody answers.
    let stopped = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", stopped.local_addr().unwrap());
    for route in ROUTES {
        let env = [
            ("mode", "http"),
            ("fprocess", "cat"),
            ("upstream_url", url.as_str()),
            ("exec_timeout", "200ms"),
            ("write_timeout", "200ms"),
        ];
        let watchdog = Watchdog::start(route, &env);
        assert_internal(&watchdog.get("/"), 504);
        assert_internal(&watchdog.post("/", "body"), 504);
        watchdog.wait_log("Upstream HTTP killed due to exec_timeout: 200ms");
    }
}

#[test]
fn x_timeout_shortens_but_neither_lengthens_nor_lifts() {
    let upstream = Upstream::start(|_, stream| {
        let _ = stream.read(&mut [0]);
        false
    });
    let watchdog = start(Route::Unix, &upstream, &[("exec_timeout", "30s")]);
    let with = |watchdog: &Watchdog, value: &str| {
        watchdog.call(&format!("GET / HTTP/1.1\r\nHost: w\r\nX-Timeout: {value}\r\n\r\n"))
    };
    assert_internal(&with(&watchdog, "100ms"), 504);
    let watchdog = start(Route::Unix, &upstream, &[("exec_timeout", "100ms")]);
    for value in ["10s", "0s", "-1s", "1", "soon"] {
        assert_internal(&with(&watchdog, value), 504);
    }
}

#[test]
fn exec_timeout_within_a_body_breaks_the_answer_off() {
    for route in ROUTES {
        let upstream = Upstream::start(|_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}4\r\nhalf\r\n").as_bytes()).unwrap();
            let _ = stream.read(&mut [0]);
            false
        });
        let watchdog = start(route, &upstream, &[("exec_timeout", "200ms")]);
        let reply = watchdog.get("/");
        assert_eq!((reply.status, reply.body.as_str(), reply.complete), (200, "half", false));
    }
}

#[test]
fn a_function_that_breaks_off_is_not_passed_on_as_complete() {
    let upstream = Upstream::start(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}4\r\nhalf\r\n").as_bytes()).unwrap();
        false
    });
    let reply = start(Route::Unix, &upstream, &[]).get("/");
    assert_eq!((reply.status, reply.complete), (200, false));
}

#[test]
fn no_listener_and_no_answer_are_500() {
    for route in ROUTES {
        let upstream = Upstream::start(|_, _| false);
        let watchdog = start(route, &upstream, &[]);
        assert_internal(&watchdog.post("/", "x"), 500);
        watchdog.wait_log("Upstream HTTP request error: EOF");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let watchdog = Watchdog::start(
        Route::Tcp,
        &[("mode", "http"), ("fprocess", "cat"), ("upstream_url", &url)],
    );
    assert_internal(&watchdog.get("/"), 500);
    watchdog.wait_log("connection refused");
}

#[test]
fn a_caller_that_stops_within_its_body_is_504() {
    for route in ROUTES {
        let upstream = Upstream::saying("never");
        let watchdog = start(route, &upstream, &[("read_timeout", "200ms")]);
        let reply = watchdog.call("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\nhello");
        assert_internal(&reply, 504);
    }
}

#[test]
fn a_buffered_body_reaches_the_function_with_its_length() {
    let upstream = Upstream::saying("ok");
    let watchdog = start(Route::Unix, &upstream, &[("http_buffer_req_body", "true")]);
    let chunked =
        "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    assert_eq!(watchdog.call(chunked).status, 200);
    let seen = upstream.next();
    assert_eq!((seen.header("Content-Length"), seen.body.as_str()), (Some("2"), "hi"));
}

#[test]
fn events_have_no_exec_timeout_and_pass_their_trailers() {
    for route in ROUTES {
        let (gate, passed) = mpsc::channel::<()>();
        let passed = Mutex::new(passed);
        let upstream = Upstream::start(move |_, stream| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}9\r\ndata: 1\n\n\r\n").as_bytes()).unwrap();
            passed.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            stream.write_all(b"0\r\nX-T: end\r\n\r\n").is_ok()
        });
        let limits = [("exec_timeout", "50ms"), ("write_timeout", "50ms"), ("max_inflight", "1")];
        let watchdog = start(route, &upstream, &limits);
        let mut client = watchdog.client();
        let started = Instant::now();
        client.send(
            "GET / HTTP/1.1\r\nHost: w\r\nAccept: text/event-stream\r\nTE: trailers\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n",
        );
        let head = client.head().unwrap();
        assert_eq!((head.status, head.header("x-duration-seconds")), (200, None));
        assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
        let seen = upstream.next();
        let forwarded = (route == Route::Tcp).then_some("127.0.0.1");
        assert_eq!((seen.header("X-Forwarded-For"), seen.header("X-Hop")), (forwarded, None));
        wait_until("both limits to pass", || started.elapsed() > Duration::from_millis(150));
        gate.send(()).unwrap();
        assert_eq!(client.chunk().unwrap(), b"");
        assert_eq!(client.line().unwrap().to_ascii_lowercase(), "x-t: end");
        watchdog.wait_log("GET / - 200 - Bytes: 9B");
        // Its place is free again.
        wait_until("a free place", || watchdog.get("/_/ready").status == 200);
    }
}

#[test]
fn a_tunnel_carries_both_ways_and_half_an_end() {
    for route in ROUTES {
        let upstream = Upstream::start(|_, stream| {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
            let mut ping = [0; 4];
            stream.read_exact(&mut ping).unwrap();
            stream.write_all(b"pong").unwrap();
            // The caller's end comes through, and ours after it.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            stream.write_all(b"bye").unwrap();
            false
        });
        let watchdog = start(route, &upstream, &[("exec_timeout", "1s")]);
        let mut client = watchdog.client();
        let reply = client.call(
            "GET /ws HTTP/1.1\r\nHost: w\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        assert_eq!((reply.status, reply.header("upgrade")), (101, Some("websocket")));
        client.send("ping");
        assert_eq!(client.exactly(4).unwrap(), b"pong");
        client.end_sending();
        assert_eq!(client.exactly(3).unwrap(), b"bye");
        assert!(client.is_closed());
        let seen = upstream.next();
        assert!(seen.header("Connection").unwrap().eq_ignore_ascii_case("upgrade"));
    }
}

#[test]
fn a_caller_who_leaves_cancels_the_call() {
    for route in ROUTES {
        let (gone, cancelled) = mpsc::channel();
        let gone = Mutex::new(gone);
        let upstream = Upstream::start(move |_, stream| {
            gone.lock().unwrap().send(stream.read(&mut [0]).unwrap_or(0)).unwrap();
            false
        });
        let watchdog = start(route, &upstream, &[("max_inflight", "1")]);
        let mut client = watchdog.client();
        client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        upstream.next();
        drop(client);
        assert_eq!(cancelled.recv_timeout(PATIENCE).unwrap(), 0);
        wait_until("a free place", || watchdog.get("/_/ready").status == 200);
    }
}

#[test]
fn a_caller_who_takes_nothing_is_dropped_after_write_timeout() {
    let (gone, broken) = mpsc::channel();
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: t/x\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 1 << 16]).is_ok() {}
        gone.lock().unwrap().send(()).unwrap();
        false
    });
    let limits = [("write_timeout", "1s"), ("exec_timeout", "0")];
    let watchdog = start(Route::Tcp, &upstream, &limits);
    let mut client = watchdog.client();
    client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
    broken.recv_timeout(PATIENCE).unwrap();
    drop(client);
}

#[test]
fn the_platform_is_told_when_the_function_accepts_connections() {
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    let url = format!("http://{address}");
    drop(reserved);
    let env = [("mode", "http"), ("fprocess", "cat"), ("upstream_url", url.as_str())];
    let mut watchdog = Watchdog::start(Route::Unix, &env);
    // It serves, and has found nobody at least once.
    assert_internal(&watchdog.get("/"), 500);
    assert!(watchdog.is_unready());
    let listener = std::net::TcpListener::bind(address).unwrap();
    let upstream = Upstream::on(listener, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    watchdog.wait_ready();
    assert_eq!(watchdog.get("/").status, 200);
    // The connection by which it was seen is the one that is used.
    assert_eq!(upstream.next().connection, 1);
}

#[test]
fn many_calls_at_once_all_get_their_own_answer() {
    for route in ROUTES {
        let upstream = Upstream::start(|seen, stream| {
            let body = &seen.body;
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: t/x\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .is_ok()
        });
        let watchdog = Arc::new(start(route, &upstream, &[]));
        let results: Vec<_> = (0..16)
            .map(|caller| {
                let watchdog = Arc::clone(&watchdog);
                beside(move || {
                    let mut client = watchdog.client();
                    (0..20).all(|call| {
                        let body = format!("{caller}-{call}");
                        let head = format!(
                            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n",
                            body.len()
                        );
                        client.call(&(head + &body)).body == body
                    })
                })
            })
            .collect();
        assert!(results.iter().all(|result| result.recv_timeout(PATIENCE).unwrap()));
    }
}
