//! Modes streaming and serializing, over both ways in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use std::{
    fs,
    time::{Duration, Instant},
};

use harness::{ROUTES, Route, Watchdog, script, wait_for_file, wait_until};

fn start_script(route: Route, mode: &str, text: &str, more: &[(&str, &str)]) -> Watchdog {
    let dir = tempfile::tempdir().unwrap();
    let command = script(&dir, text);
    let mut env = vec![("mode", mode), ("fprocess", command.as_str())];
    env.extend_from_slice(more);
    Watchdog::start_in(dir, route, &env)
}

/// Whether a process is alive, by the number it wrote into a file.
fn is_alive(watchdog: &Watchdog, file: &str) -> bool {
    let pid = fs::read_to_string(watchdog.path(file)).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn the_body_goes_in_and_the_output_comes_out() {
    for route in ROUTES {
        for mode in ["streaming", "serializing"] {
            let mut watchdog = Watchdog::start(route, &[("mode", mode), ("fprocess", "cat")]);
            if route == Route::Unix {
                watchdog.wait_ready();
            }
            let reply = watchdog.post("/a?b=c", "hello");
            assert_eq!((reply.status, reply.body.as_str()), (200, "hello"), "{route:?} {mode}");
            assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
            let timed = reply.header("x-duration-seconds").is_some();
            assert_eq!(timed, mode == "serializing");
            assert_eq!(watchdog.get("/").body, "");
            watchdog.wait_log("POST /a?b=c - 200 - ContentLength: 5B (");
        }
    }
}

#[test]
fn a_large_body_goes_through_whole() {
    let body = "x".repeat(3_000_000);
    for mode in ["streaming", "serializing"] {
        let watchdog = Watchdog::start(Route::Unix, &[("mode", mode), ("fprocess", "wc -c")]);
        assert_eq!(watchdog.post("/", &body).body.trim(), "3000000");
    }
    let watchdog = Watchdog::start(Route::Tcp, &[("mode", "serializing"), ("fprocess", "cat")]);
    assert_eq!(watchdog.post("/", &body).body, body);
}

#[test]
fn a_body_goes_through_whole_whatever_its_length() {
    // Up to the size of a pipe's least room a body is there before the process is.
    for mode in ["streaming", "serializing"] {
        let watchdog = Watchdog::start(Route::Unix, &[("mode", mode), ("fprocess", "cat")]);
        for length in [1, 4095, 4096, 4097, 70_000] {
            let body = "x".repeat(length);
            assert_eq!(watchdog.post("/", &body).body, body, "{mode} {length}");
        }
    }
}

#[test]
fn many_connections_are_served_at_once_whichever_thread_has_them() {
    for mode in ["streaming", "serializing"] {
        let mut watchdog = Watchdog::start(Route::Unix, &[("mode", mode), ("fprocess", "cat")]);
        let mut clients: Vec<_> = (0..12).map(|_| watchdog.client()).collect();
        for round in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                let body = format!("{round} {number}");
                let length = body.len();
                client.send(&format!(
                    "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n{body}"
                ));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.reply(false).body, format!("{round} {number}"), "{mode}");
            }
        }
        // Each thread hears of the end.
        watchdog.signal("TERM");
        assert!(watchdog.wait_exit().success(), "{}", watchdog.log());
    }
}

#[test]
fn a_process_learns_about_its_request_but_not_about_the_socket() {
    for route in ROUTES {
        let env = [("fprocess", "env"), ("mode", "serializing"), ("MY_OWN", "a b=c")];
        let watchdog = Watchdog::start(route, &env);
        let reply = watchdog.call(
            "GET /a%20b?q=%20x HTTP/1.1\r\nHost: w\r\nx-call-id: 7\r\nX-A: 1\r\nX-A: 2\r\nQuery: evil\r\n\r\n",
        );
        let lines: Vec<_> = reply.body.lines().collect();
        for line in [
            "Http_Method=GET",
            "Http_Path=/a b",
            "Http_Query=q=%20x",
            "Http_X_Call_Id=7",
            "Http_X_A=1",
            "MY_OWN=a b=c",
            "fprocess=env",
        ] {
            assert!(lines.contains(&line), "{line} in {lines:?}");
        }
        assert!(!reply.body.contains("LISTEN_"), "{}", reply.body);
        assert!(!reply.body.contains("Http_Host"));
    }
}

#[test]
fn a_process_inherits_no_socket() {
    for route in ROUTES {
        let watchdog = start_script(route, "serializing", "exec ls -l /proc/self/fd", &[]);
        let reply = watchdog.get("/");
        assert!(reply.body.contains(" 1 -> pipe:"), "{}", reply.body);
        assert!(!reply.body.contains("socket:"), "{}", reply.body);
    }
}

#[test]
fn a_failing_process_is_500_where_its_output_is_held_and_200_where_it_streams() {
    for (script, words) in
        [("echo partial; exit 3", "exit status 3"), ("echo partial; kill -9 $$", "signal: killed")]
    {
        let watchdog = start_script(Route::Unix, "serializing", script, &[]);
        let reply = watchdog.get("/");
        assert_eq!((reply.status, reply.body.as_str()), (500, words));
        assert!(reply.header("x-duration-seconds").is_some());
        watchdog.wait_log(&format!("GET / - 500 - ContentLength: {}B", words.len()));
        let watchdog = start_script(Route::Unix, "streaming", script, &[]);
        let reply = watchdog.get("/");
        assert_eq!((reply.status, reply.body.as_str(), reply.complete), (200, "partial\n", true));
        watchdog.wait_log(words);
        watchdog.wait_log("GET / - 500 - ContentLength: 8B");
    }
}

#[test]
fn a_command_that_cannot_start_is_500_in_both() {
    for mode in ["streaming", "serializing"] {
        let watchdog =
            Watchdog::start(Route::Tcp, &[("mode", mode), ("fprocess", "no-such-command")]);
        let reply = watchdog.get("/");
        assert_eq!(reply.status, 500);
        let words = "exec: \"no-such-command\": executable file not found in $PATH";
        assert_eq!(reply.body.trim_end(), words);
        watchdog.wait_log(words);
    }
}

#[test]
fn what_a_process_says_is_logged_however_soon_it_ends_and_however_much_it_is() {
    for mode in ["streaming", "serializing"] {
        let text = "echo soon >&2\ni=0\nwhile [ $i -lt 5000 ]; do echo \"line $i of many that fill a pipe\"\n\
                    i=$((i+1)); done >&2\nprintf 'the end' >&2\n(sleep 0.1; echo late >&2) >&- &\n";
        let watchdog = start_script(Route::Tcp, mode, text, &[]);
        assert_eq!(watchdog.get("/").status, 200, "{mode}");
        for expected in ["stderr: soon", "stderr: line 4999 of", "stderr: the endlate"] {
            watchdog.wait_log(expected);
        }
        let watchdog = start_script(Route::Tcp, mode, "printf brief >&2\n", &[]);
        assert_eq!(watchdog.get("/").status, 200, "{mode}");
        watchdog.wait_log("stderr: brief");
    }
}

#[test]
fn a_variable_of_the_request_replaces_one_of_the_environment() {
    let own = [("Http_Path", "/own"), ("Http_X_Kept", "kept")];
    let watchdog = start_script(Route::Tcp, "streaming", "env | grep Http_\n", &own);
    let seen = watchdog.get("/asked").body;
    let mut lines: Vec<_> = seen.lines().filter(|line| !line.contains("_User_Agent=")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Http_Method=GET", "Http_Path=/asked", "Http_X_Kept=kept"]);
    let zero = watchdog.get("/a%00b");
    assert_eq!(zero.status, 500);
    assert!(zero.body.contains("the path has a zero byte"), "{}", zero.body);
}

#[test]
fn a_process_finds_its_signals_as_they_are_by_default() {
    let text = "grep -E '^Sig(Blk|Ign):' /proc/self/status\n";
    let watchdog = start_script(Route::Tcp, "streaming", text, &[]);
    let seen = watchdog.get("/").body;
    let set = |name: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let [int, pipe, term] = [2, 13, 15].map(|signal| 1 << (signal - 1));
    assert_eq!((set("SigBlk:"), set("SigIgn:") & (int | pipe | term)), (0, 0), "{seen}");
}

#[test]
fn exec_timeout_ends_the_process_and_what_it_started() {
    let text = "echo $$ > leader; sh -c 'echo $$ > grandchild; exec sleep 60' & \
                while [ ! -s grandchild ]; do :; done; wait";
    for (mode, status) in [("streaming", 504), ("serializing", 500)] {
        let watchdog = start_script(
            Route::Unix,
            mode,
            text,
            // Equal, as they are by default.
            &[("exec_timeout", "400ms"), ("write_timeout", "400ms")],
        );
        let started = Instant::now();
        let reply = watchdog.get("/");
        assert_eq!(reply.status, status, "{mode}");
        assert!(reply.body.starts_with("signal: killed"), "{}", reply.body);
        assert!(started.elapsed() >= Duration::from_millis(400));
        for file in ["leader", "grandchild"] {
            wait_until("the end of the process", || !is_alive(&watchdog, file));
        }
    }
}

#[test]
fn what_holds_the_output_is_waited_for_until_exec_timeout_and_ended_then() {
    let text = "sh -c 'echo $$ > job; echo late; exec sleep 60' & while [ ! -s job ]; do :; done";
    for (mode, status, body) in
        [("streaming", 200, "late\n"), ("serializing", 500, "context deadline exceeded")]
    {
        let watchdog = start_script(Route::Unix, mode, text, &[("exec_timeout", "400ms")]);
        let reply = watchdog.get("/");
        assert_eq!((reply.status, reply.body.as_str()), (status, body), "{mode}");
        assert_eq!(reply.complete, mode == "serializing");
        watchdog.wait_log("context deadline exceeded");
        watchdog.wait_log(&format!("GET / - 500 - ContentLength: {}B", body.len()));
        wait_until("the end of the job", || !is_alive(&watchdog, "job"));
    }
}

#[test]
fn a_job_that_lets_go_of_the_output_outlives_its_call() {
    let text = "sh -c 'while [ ! -e go ]; do :; done; touch finished' >/dev/null 2>&1 & \
                echo $! > job; echo hi";
    for mode in ["streaming", "serializing"] {
        let watchdog = start_script(Route::Unix, mode, text, &[("max_inflight", "1")]);
        assert_eq!(watchdog.get("/").body, "hi\n", "{mode}");
        assert!(is_alive(&watchdog, "job"));
        // Its call is over: it takes no place.
        wait_until("a free place", || watchdog.get("/_/ready").status == 200);
        fs::write(watchdog.path("go"), "").unwrap();
        wait_for_file(&watchdog.path("finished"));
    }
}

#[test]
fn exec_timeout_after_output_breaks_a_streamed_answer_off() {
    for route in ROUTES {
        let watchdog = start_script(
            route,
            "streaming",
            "echo begin; exec sleep 60",
            &[("exec_timeout", "300ms")],
        );
        let reply = watchdog.get("/");
        assert_eq!((reply.status, reply.body.as_str(), reply.complete), (200, "begin\n", false));
        watchdog.wait_log("signal: killed");
    }
}

#[test]
fn output_is_streamed_as_it_comes_and_input_too() {
    for route in ROUTES {
        let watchdog = Watchdog::start(route, &[("fprocess", "cat")]);
        let mut client = watchdog.client();
        client.send("POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        assert_eq!(client.head().unwrap().status, 200);
        assert_eq!(client.chunk().unwrap(), b"one");
        client.send("3\r\ntwo\r\n");
        assert_eq!(client.chunk().unwrap(), b"two");
        client.send("0\r\n\r\n");
        assert_eq!(client.chunk().unwrap(), b"");
        // The connection serves the next call.
        client.line().unwrap();
        assert_eq!(client.call("GET / HTTP/1.1\r\nHost: w\r\n\r\n").status, 200);
    }
}

#[test]
fn a_streamed_answer_that_ends_soon_has_a_length_and_a_longer_one_is_passed_on_in_parts() {
    let watchdog = start_script(Route::Tcp, "streaming", "printf brief\n", &[]);
    assert_eq!(watchdog.get("/").header("content-length"), Some("5"));
    let text = "printf begun; sleep 0.1; printf ' and ended'; exit 3\n";
    let watchdog = start_script(Route::Tcp, "streaming", text, &[]);
    let reply = watchdog.get("/");
    assert_eq!((reply.status, reply.body.as_str()), (200, "begun and ended"));
    assert_eq!(reply.header("content-length"), None);
}

#[test]
fn a_caller_that_stops_within_its_body() {
    let request = "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 10\r\n\r\nhello";
    for route in ROUTES {
        let limits = [("read_timeout", "200ms")];
        let watchdog = start_script(route, "serializing", "touch ran", &limits);
        let reply = watchdog.call(request);
        assert_eq!(reply.status, 500);
        assert!(reply.body.ends_with("i/o timeout"), "{}", reply.body);
        assert!(!watchdog.path("ran").exists());
        let env = [("mode", "streaming"), ("fprocess", "cat"), limits[0]];
        let reply = Watchdog::start(route, &env).call(request);
        assert_eq!((reply.status, reply.body.as_str()), (200, "hello"));
    }
}

#[test]
fn a_process_that_reads_nothing_still_answers_on_a_whole_connection() {
    for mode in ["streaming", "serializing"] {
        let watchdog = start_script(Route::Unix, mode, "exec 0<&-; echo hi", &[]);
        let mut client = watchdog.client();
        let body = "x".repeat(1_000_000);
        let head = format!("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n", body.len());
        let reply = client.call(&(head + &body));
        assert_eq!((reply.status, reply.body.as_str()), (200, "hi\n"), "{mode}");
        assert_eq!(client.call("GET / HTTP/1.1\r\nHost: w\r\n\r\n").body, "hi\n");
    }
}

#[test]
fn a_caller_who_leaves_closes_the_output_and_the_process_may_finish() {
    for mode in ["streaming", "serializing"] {
        let text = "touch began; while [ ! -e left ]; do :; done; touch finished";
        let watchdog = start_script(Route::Unix, mode, text, &[("max_inflight", "1")]);
        let mut client = watchdog.client();
        client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        wait_for_file(&watchdog.path("began"));
        drop(client);
        // Its place is taken as long as its process runs.
        assert_eq!(watchdog.get("/").status, 429);
        fs::write(watchdog.path("left"), "").unwrap();
        wait_for_file(&watchdog.path("finished"));
        wait_until("a free place", || watchdog.get("/_/ready").status == 200);
    }
    // One that writes on is ended by what it writes.
    let text = "echo $$ > leader; while :; do echo more; done";
    let watchdog = start_script(Route::Unix, "streaming", text, &[]);
    let mut client = watchdog.client();
    client.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
    client.chunk_after_head();
    drop(client);
    wait_until("the end of the process", || !is_alive(&watchdog, "leader"));
}

#[test]
fn over_the_limit_is_429() {
    for mode in ["streaming", "serializing"] {
        let text = "touch began; while [ ! -e go ]; do :; done; echo done";
        let watchdog = start_script(Route::Tcp, mode, text, &[("max_inflight", "1")]);
        let mut first = watchdog.client();
        first.send("GET / HTTP/1.1\r\nHost: w\r\n\r\n");
        wait_for_file(&watchdog.path("began"));
        assert_eq!(watchdog.get("/").status, 429);
        fs::write(watchdog.path("go"), "").unwrap();
        assert_eq!(first.reply(false).body, "done\n");
        wait_until("a free place", || watchdog.get("/").body == "done\n");
    }
}

#[test]
fn too_much_output_to_hold_is_an_error_that_names_the_way_out() {
    let limit = 64 << 20;
    let command = format!("head -c {} /dev/zero", limit + 1);
    let env = [("mode", "serializing"), ("fprocess", command.as_str())];
    let reply = Watchdog::start(Route::Unix, &env).get("/");
    assert_eq!(reply.status, 500);
    assert!(reply.body.contains("mode=streaming"), "{}", reply.body);
}

#[test]
fn a_body_too_large_to_hold_is_413() {
    let env = [("mode", "serializing"), ("fprocess", "cat")];
    let watchdog = Watchdog::start(Route::Unix, &env);
    let mut client = watchdog.client();
    client.send("POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    // It stops reading once the limit is passed.
    for _ in 0..65 {
        if client.try_send(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(client.reply(false).status, 413);
}
