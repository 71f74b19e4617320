//! What passes, and in which form.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;

use crate::relay::*;

#[tokio::test]
async fn requests_follow_each_other_on_one_connection_pipelined_too() {
    let (mut caller, relay, _) = caller_of(numbered).await;
    let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    for _ in 0..3 {
        caller.say(get).await;
        caller.hear("\r\n\r\n1").await;
    }
    caller.say(&get.repeat(3)).await;
    for _ in 0..3 {
        caller.hear("\r\n\r\n1").await;
    }
    assert_eq!(relay.idle.count(), 1);
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let (mut caller, _, _) = caller_of(numbered).await;
    for byte in "GET /a HTTP/1.1\r\nHost: h\r\n\r\n".chars() {
        caller.say(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    caller.hear("\r\n\r\n1").await;
}

#[tokio::test]
async fn bodies_are_framed_anew() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let (mut caller, _, _) = caller_of(move |end| told(end, "end", hearing.clone())).await;
    caller.say("POST /l HTTP/1.1\r\nHost: h\r\ncontent-LENGTH:  6\r\n\r\n").await;
    caller.say("in").await;
    caller.say("+end").await;
    caller.hear("ok").await;
    let request = heard.lock().unwrap().remove(0);
    assert_eq!(request, "POST /l HTTP/1.1\r\nHost: h\r\ncontent-length: 6\r\n\r\nin+end");
    // The upstream answers as soon as it has heard enough.
    caller.say("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    caller.say("00000003;ext=\"1\"\r\nend\r\n").await;
    caller.hear("ok").await;
    let request = heard.lock().unwrap().remove(0);
    let head = "POST /c HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nend";
    assert_eq!(request, head);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let (mut caller, _, _) = caller_of(move |mut end: End| {
        let hearing = hearing.clone();
        async move {
            let request = end.hear("X-After: 1\r\n\r\n").await;
            hearing.lock().unwrap().push(request);
            end.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            end.say("2\r\nhi\r\n0\r\nGrpc-Status: 0\r\n\r\n").await;
            end.rest().await;
        }
    })
    .await;
    caller.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    caller.say("2\r\nho\r\n0\r\nX-After: 1\r\n\r\n").await;
    let answer = caller.hear("0\r\nGrpc-Status: 0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nGrpc-Status: 0\r\n\r\n"), "{answer}");
    assert!(heard.lock().unwrap()[0].ends_with("2\r\nho\r\n0\r\nX-After: 1\r\n\r\n"));
}

#[tokio::test]
async fn each_caller_is_told_the_end_in_its_own_way() {
    let serve = |mut end: End| async move {
        loop {
            let head = end.head().await;
            if head.contains("/close") {
                return end.say("HTTP/1.1 200 OK\r\n\r\nbody").await;
            }
            end.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            end.say("4\r\nbody\r\n0\r\n\r\n").await;
        }
    };
    let (mut caller, relay, address) = caller_of(serve).await;
    for path in ["/close", "/chunks"] {
        caller.say(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let answer = caller.hear("0\r\n\r\n").await;
        assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "{answer}");
        let mut old = call(address).await;
        old.say(&format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).await;
        let answer = old.rest().await;
        assert!(answer.ends_with("connection: close\r\n\r\nbody"), "{answer}");
        assert!(!answer.contains("chunked"), "{answer}");
    }
    assert_eq!(relay.idle.count(), 1, "those that ended by close are not kept");
}

#[tokio::test]
async fn an_old_caller_may_keep_its_connection() {
    let (mut caller, _, _) = caller_of(numbered).await;
    for _ in 0..2 {
        caller.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = caller.hear("\r\n\r\n1").await;
        assert!(answer.contains("connection: keep-alive\r\n"), "{answer}");
    }
    caller.say("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    let answer = caller.rest().await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_end_at_their_head() {
    let serve = |mut end: End| async move {
        loop {
            let head = end.head().await;
            let answer = match head.split(' ').nth(1).unwrap() {
                "/204" => "204 No Content\r\nContent-Length: 0",
                "/304" => "304 Not Modified\r\nContent-Length: 7",
                _ => "200 OK\r\nContent-Length: 7",
            };
            end.say(&format!("HTTP/1.1 {answer}\r\n\r\n")).await;
        }
    };
    let (mut caller, relay, _) = caller_of(serve).await;
    for (request, length) in
        [("GET /204", None), ("GET /304", Some(7)), ("HEAD /x", Some(7)), ("GET /204", None)]
    {
        caller.say(&format!("{request} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let answer = caller.head().await;
        let named = answer.contains("content-length: 7\r\n");
        assert_eq!(named, length.is_some(), "{request}: {answer}");
    }
    assert_eq!(relay.idle.count(), 1);
}

#[tokio::test]
async fn preliminary_answers_are_kept_back_and_an_unasked_switch_is_refused() {
    let serve = |mut end: End| async move {
        let head = end.head().await;
        end.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await;
        if head.contains("/switch") {
            return end.say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").await;
        }
        end.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(caller.hear("ok").await.starts_with("HTTP/1.1 200 OK\r\n"));
    caller.say("GET /switch HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = caller.hear("asked it to").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn a_call_may_turn_into_two_streams_of_bytes() {
    let serve = |mut end: End| async move {
        let head = end.head().await;
        assert!(head.contains("connection: upgrade\r\nupgrade: chat\r\n"), "{head}");
        let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat";
        end.say(&format!("{switched}\r\n\r\nearly")).await;
        assert_eq!(end.rest().await, "sooner and later");
        end.say(" and late").await;
    };
    let (mut caller, _, _) = caller_of(serve).await;
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: chat\r\n";
    caller.say(&format!("GET / HTTP/1.1\r\nHost: h\r\n{upgrade}\r\nsooner")).await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: chat\r\n"), "{head}");
    caller.say(" and later").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(caller.rest().await, "early and late");
}

#[tokio::test]
async fn an_early_answer_ends_the_upload() {
    let serve = |mut end: End| async move {
        end.head().await;
        end.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
        end.rest().await;
    };
    let (mut caller, relay, _) = caller_of(serve).await;
    caller.say("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nsome").await;
    assert!(caller.rest().await.ends_with("\r\n\r\nbig"));
    assert_eq!(relay.idle.count(), 0, "it may still wait for the body");
}

#[tokio::test]
async fn both_bodies_move_at_the_same_time() {
    let serve = |mut end: End| async move {
        end.head().await;
        end.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        loop {
            let line = end.hear("\r\n").await;
            let data = end.hear("\r\n").await;
            end.say(&format!("{line}{data}")).await;
            if line == "0\r\n" {
                return;
            }
        }
    };
    let (mut caller, _, _) = caller_of(serve).await;
    caller.say("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    caller.head().await;
    for word in ["one", "two", "six"] {
        caller.say(&format!("3\r\n{word}\r\n")).await;
        assert_eq!(caller.hear(&format!("{word}\r\n")).await, format!("3\r\n{word}\r\n"));
    }
    caller.say("0\r\n\r\n").await;
    caller.hear("0\r\n\r\n").await;
}

#[tokio::test]
async fn who_waits_to_be_told_is_told_to_send_the_body() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let (mut caller, _, _) = caller_of(move |end| told(end, "body", hearing.clone())).await;
    let expects = "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    caller.say(&format!("PUT / HTTP/1.1\r\nHost: h\r\n{expects}")).await;
    assert_eq!(caller.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.say("body").await;
    assert!(caller.hear("ok").await.starts_with("HTTP/1.1 200 OK"));
    assert!(!heard.lock().unwrap()[0].contains("xpect"));
}

#[tokio::test]
async fn bodies_are_held_whole_in_whatever_form_they_come() {
    let (mut caller, _, _) = caller_of(numbered).await;
    caller.say("POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab").await;
    caller.say("cd").await;
    caller.hear("content-length: 4\r\n\r\nabcd").await;
    caller.say("POST /held HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n").await;
    caller.say("Transfer-Encoding: chunked\r\n\r\n").await;
    caller.hear("HTTP/1.1 100 Continue\r\n\r\n").await;
    caller.say("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    caller.hear("content-length: 4\r\n\r\nabcd").await;
    caller.hear("\r\n\r\n1").await;
    caller.say("POST /held HTTP/1.1\r\nHost: h\r\n\r\n").await;
    caller.hear("content-length: 0\r\n\r\n").await;
    caller.say("POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\n12345678901").await;
    assert!(caller.rest().await.starts_with("HTTP/1.1 413"), "it is refused before its end");
}
