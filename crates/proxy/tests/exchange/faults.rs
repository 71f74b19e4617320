//! What goes wrong on either side, and connections that are lent or refused.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::relay::*;

#[tokio::test]
async fn a_stale_connection_costs_an_idempotent_request_nothing() {
    let serve = |mut end: End| async move {
        end.head().await;
        end.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n").await;
        end.say(&end.serial.to_string()).await;
        if end.serial == 1 {
            // The next request is taken, and the connection closed without an answer.
            end.head().await;
        } else {
            end.rest().await;
        }
    };
    for (request, answer) in [("GET /", "\r\n\r\n2"), ("POST /", "before an answer began")] {
        let (mut caller, relay, _) = caller_of(serve).await;
        caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        caller.hear("\r\n\r\n1").await;
        assert_eq!(relay.idle.count(), 1);
        caller.say(&format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        caller.hear(answer).await;
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_used() {
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut end: End| {
        let closed = closed.clone();
        async move {
            end.head().await;
            end.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n").await;
            end.say(&end.serial.to_string()).await;
            drop(end);
            closed.send(()).unwrap();
        }
    };
    let (mut caller, _, _) = caller_of(serve).await;
    for serial in 1..4 {
        // A POST: it could not be sent twice.
        caller.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").await;
        caller.hear(&format!("\r\n\r\n{serial}")).await;
        is_closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_spoil_its_connection() {
    let serve = |mut end: End| async move {
        end.head().await;
        end.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n").await;
        end.rest().await;
    };
    let (mut caller, relay, _) = caller_of(serve).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    caller.hear("ok").await;
    assert_eq!(relay.idle.count(), 0);
}

#[tokio::test]
async fn a_broken_answer_breaks_off_for_the_caller_too() {
    for answer in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\nA\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ] {
        let serve = move |mut end: End| async move {
            end.head().await;
            end.say(&format!("HTTP/1.1 200 OK\r\n{answer}")).await;
        };
        let (mut caller, _, _) = caller_of(serve).await;
        caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let heard = caller.rest().await;
        assert!(!heard.ends_with("0\r\n\r\n"), "{heard}");
    }
}

#[tokio::test]
async fn a_body_that_is_malformed_from_its_beginning_is_no_answer() {
    for body in ["zz", "2\nok", "2\r\nokZZ", "2 junk\r\nok"] {
        let serve = move |mut end: End| async move {
            end.head().await;
            let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            end.say(&format!("{chunked}{body}")).await;
            end.rest().await;
        };
        let (mut caller, relay, _) = caller_of(serve).await;
        caller.say("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        assert!(!caller.rest().await.contains("200 OK"), "{body}");
        assert!(relay.failures.lock().unwrap()[0].contains("malformed"));
    }
}

#[tokio::test]
async fn preliminary_answers_without_end_are_no_answer() {
    let serve = |mut end: End| async move {
        end.head().await;
        let flood = "HTTP/1.1 103 E\r\n\r\n".repeat(1000);
        while end.stream.write_all(flood.as_bytes()).await.is_ok() {}
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let answer = caller.rest().await;
    assert!(answer.contains("preliminary answers"), "{answer}");
}

#[tokio::test]
async fn an_answer_s_head_may_come_byte_by_byte() {
    let serve = |mut end: End| async move {
        end.head().await;
        for byte in "HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".chars() {
            end.say(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        end.rest().await;
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(caller.hear("\r\n\r\nx").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn empty_lines_before_a_request_are_passed_over() {
    let (mut caller, _, _) = caller_of(numbered).await;
    let get = "\r\n\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n";
    caller.say(&get.repeat(2)).await;
    caller.say("\r\n").await;
    caller.say(get).await;
    for _ in 0..3 {
        caller.hear("\r\n\r\n1").await;
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_in_words() {
    for (answer, words) in [
        ("", "before an answer began"),
        ("HTTP/1.1 200", "the connection ended within it"),
        ("SSH-2.0-x\r\n\r\n", "no HTTP/1.1 message"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length"),
    ] {
        let serve = move |mut end: End| async move {
            end.head().await;
            end.say(answer).await;
        };
        let (mut caller, _, _) = caller_of(serve).await;
        caller.say("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        let heard = caller.rest().await;
        assert!(heard.starts_with("HTTP/1.1 502 ") && heard.contains(words), "{answer}: {heard}");
    }
}

#[tokio::test]
async fn a_malformed_body_is_refused_and_the_upstream_never_sees_its_end() {
    let heard = Arc::new(Mutex::new(String::new()));
    let hearing = heard.clone();
    let serve = move |mut end: End| {
        let hearing = hearing.clone();
        async move { *hearing.lock().unwrap() = end.rest().await }
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    caller.say("3\r\nabc\r\nzz\r\n").await;
    let answer = caller.rest().await;
    assert!(answer.contains("chunks are malformed"), "{answer}");
    assert!(!heard.lock().unwrap().contains("0\r\n\r\n"));
}

#[tokio::test]
async fn a_caller_that_leaves_takes_the_call_with_it() {
    let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut end: End| {
        let gone = gone.clone();
        async move {
            end.head().await;
            gone.send("called").unwrap();
            end.rest().await;
            gone.send("gone").unwrap();
        }
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(is_gone.recv().await, Some("called"));
    drop(caller);
    let heard = timeout(PATIENCE, is_gone.recv()).await;
    assert_eq!(heard.expect("the upstream is left waiting"), Some("gone"));
}

#[tokio::test]
async fn large_bodies_pass_whole_and_slowness_passes_through() {
    const SIZE: usize = 24 << 20;
    let serve = |mut end: End| async move {
        end.head().await;
        let mut body = vec![0; SIZE];
        end.stream.read_exact(&mut body).await.unwrap();
        end.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        end.stream.write_all(&body).await.unwrap();
        end.rest().await;
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say(&format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let body: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    caller.stream.write_all(&body).await.unwrap();
    caller.head().await;
    let mut back = vec![0; SIZE];
    caller.stream.read_exact(&mut back).await.unwrap();
    assert!(back == body);
}

#[tokio::test]
async fn a_connection_is_lent_for_one_request_and_goes_on() {
    let (mut caller, _, _) = caller_of(numbered).await;
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let lent = "POST /lent HTTP/1.1\r\nHost: h\r\n";
    for _ in 0..2 {
        caller.say(&format!("{get}{lent}Content-Length: 4\r\n\r\nbody{get}")).await;
        caller.hear("\r\n\r\n1").await;
        caller.hear("\r\n\r\nbody").await;
        caller.hear("\r\n\r\n1").await;
        caller.say(&format!("{lent}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")).await;
        caller.say(&format!("0\r\n\r\n{get}")).await;
        caller.hear("\r\n\r\nabc").await;
        caller.hear("\r\n\r\n1").await;
    }
    caller.say(&format!("{lent}Connection: close\r\nContent-Length: 2\r\n\r\nhi")).await;
    assert!(caller.rest().await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn a_lent_connection_gives_a_slow_reader_the_whole_answer() {
    const SIZE: usize = 16 << 20;
    let (mut caller, _, _) = caller_of(numbered).await;
    let lent = format!("POST /lent HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n");
    caller.say(&lent).await;
    caller.stream.write_all(&vec![b'x'; SIZE]).await.unwrap();
    caller.head().await;
    let mut left = SIZE;
    while left > 0 {
        let mut part = vec![0; left.min(100_000)];
        caller.stream.read_exact(&mut part).await.expect("the answer is whole");
        left -= part.len();
        tokio::task::yield_now().await;
    }
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    caller.hear("\r\n\r\n1").await;
}

#[tokio::test]
async fn a_refused_body_does_not_cost_its_sender_the_reason() {
    let (mut caller, _, address) = caller_of(numbered).await;
    caller.say("POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
    let answer = caller.hear("\r\n\r\nno").await;
    assert!(!answer.contains("connection: close"), "the body was there: {answer}");
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    caller.hear("\r\n\r\n1").await;

    let mut caller = call(address).await;
    caller.say("POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n").await;
    caller.stream.write_all(&vec![b'x'; 2_000_000]).await.unwrap();
    let answer = caller.hear("\r\n\r\nno").await;
    assert!(answer.contains("connection: close"), "{answer}");
    caller.stream.write_all(&vec![b'x'; 2_000_000]).await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_connection_closed() {
    for request in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\nA: \0\r\n\r\n", "\u{16}\u{3}\u{1}\r\n"] {
        let (mut caller, _, _) = caller_of(numbered).await;
        caller.say(request).await;
        let answer = caller.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
        assert!(answer.contains("no HTTP/1.1 message"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_end_each_with_its_own_word() {
    let silent = |end: End| async move {
        let _kept = end;
        std::future::pending::<()>().await;
    };
    let (mut caller, _, _) = caller_of(silent).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut heard = [0; 256];
    let read = caller.stream.read(&mut heard).await.unwrap();
    let answer = String::from_utf8_lossy(&heard[..read]).into_owned();
    assert!(answer.contains("did not begin in time"), "{answer}");

    let (mut caller, _, _) = caller_of(silent).await;
    caller.say("GET / HTTP/1.1\r\nHost: ").await;
    let read = caller.stream.read(&mut heard).await.unwrap();
    let answer = String::from_utf8_lossy(&heard[..read]).into_owned();
    assert!(answer.contains("did not arrive in time"), "{answer}");

    let (mut caller, _, _) = caller_of(silent).await;
    assert_eq!(caller.stream.read(&mut heard).await.unwrap(), 0, "an idle connection is closed");
}
