//! A small relay between real sockets: what each side says, byte by byte, and what the other one hears.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    future::poll_fn,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pinnace_proxy::{
    Stream,
    h1::{
        Answered, Asked, Exchange, ExchangeFailure, Idle, Inbound, Lent, Outgoing, tunnel,
        write_header,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(30);

/// One worker's side of a relay to one upstream.
struct Relay {
    upstream: SocketAddr,
    idle: Idle,
    failures: Mutex<Vec<String>>,
}

impl Relay {
    /// Starts one; answers where it listens.
    async fn start(upstream: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let idle = Idle::new(8, Duration::from_secs(60));
        let relay = Arc::new(Self { upstream, idle, failures: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = relay.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let relay = accepting.clone();
                tokio::spawn(async move { relay.serve(stream).await });
            }
        });
        (relay, address)
    }

    async fn serve(&self, stream: TcpStream) {
        let mut caller = Inbound::new(Stream::tcp(stream).unwrap());
        let mut request = Outgoing::default();
        loop {
            let asked = poll_fn(|cx| {
                caller.poll_request(cx, &mut request, |head, out| match head.target {
                    "/lent" => Asked::Lend,
                    "/refused" => Asked::Refuse(()),
                    target => {
                        write!(out, "{} {target} HTTP/1.1\r\n", head.method).unwrap();
                        for (name, value) in head.passing() {
                            write_header(out, name.as_bytes(), value);
                        }
                        Asked::Relay(head.method == "GET")
                    }
                })
            })
            .await;
            match asked {
                Ok(None) => return,
                Ok(Some(Asked::Lend)) => lend(&mut caller).await,
                Ok(Some(Asked::Refuse(()))) => {
                    caller.answer(StatusCode::FORBIDDEN, b"", b"no", true).await.unwrap();
                }
                Ok(Some(Asked::Relay(is_idempotent))) => {
                    match self.pass(&mut caller, &mut request, is_idempotent).await {
                        Ok(None) => {}
                        Ok(Some((upstream, early))) => {
                            let (stream, sent) = caller.into_parts();
                            return drop(tunnel(stream, sent, upstream, early, DEADLINE).await);
                        }
                        Err(failure) => {
                            let text = failure.to_string();
                            self.failures.lock().unwrap().push(text.clone());
                            if matches!(failure, ExchangeFailure::Body(_)) {
                                return;
                            }
                            let bad = StatusCode::BAD_GATEWAY;
                            drop(caller.answer(bad, b"", text.as_bytes(), true).await);
                        }
                    }
                }
                Err(fault) => {
                    let text = fault.to_string();
                    let bad = StatusCode::BAD_REQUEST;
                    drop(caller.answer(bad, b"", text.as_bytes(), false).await);
                    return caller.close().await;
                }
            }
            if !caller.can_stay() {
                return caller.close().await;
            }
            caller.finish(Instant::now());
        }
    }

    async fn pass(
        &self,
        caller: &mut Inbound,
        request: &mut Outgoing,
        is_idempotent: bool,
    ) -> Result<Option<(Stream, Vec<u8>)>, ExchangeFailure> {
        let mut reused = self.idle.take(Instant::now());
        loop {
            let is_reused = reused.is_some();
            let mut upstream = match reused.take() {
                Some(upstream) => upstream,
                None => Stream::tcp(TcpStream::connect(self.upstream).await.unwrap()).unwrap(),
            };
            let answer_by = Instant::now() + DEADLINE;
            let mut exchange =
                Exchange::new(caller, &mut upstream, request, answer_by, true, |head, out| {
                    for (name, value) in head.passing() {
                        write_header(out, name.as_bytes(), value);
                    }
                });
            match poll_fn(|cx| exchange.poll(cx)).await {
                Ok(Answered::Reusable) => {
                    self.idle.put(upstream, Instant::now());
                    return Ok(None);
                }
                Ok(Answered::Closed) => return Ok(None),
                Ok(Answered::Switched(early)) => return Ok(Some((upstream, early))),
                Err(ExchangeFailure::Unanswered(_))
                    if is_reused && request.can_repeat(is_idempotent) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The other server that a connection is lent to.
async fn lend(caller: &mut Inbound) {
    let (lent, returned) = Lent::new(caller);
    let returned = Mutex::new(Some(returned));
    let service = service_fn(|request: Request<Incoming>| {
        let returned = returned.lock().unwrap().take().unwrap();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, hyper::Error>(Response::new(returned.with(Full::new(body))))
        })
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(lent), service);
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await.unwrap();
}

/// An upstream's connection, or a caller's.
struct End {
    stream: TcpStream,
    /// Of an upstream: which of its connections this is, from 1.
    serial: usize,
}

impl End {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what was read ends like this; answers all of it.
    async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let read = timeout(PATIENCE, self.stream.read(&mut byte)).await;
            let so_far = String::from_utf8_lossy(&heard).into_owned();
            let read = read.unwrap_or_else(|_| panic!("waits for {end:?} after {so_far:?}"));
            assert_eq!(read.unwrap(), 1, "ended before {end:?}, after {so_far:?}");
            heard.push(byte[0]);
        }
        String::from_utf8(heard).unwrap()
    }

    /// A head.
    async fn head(&mut self) -> String {
        self.hear("\r\n\r\n").await
    }

    /// All until the other side closes.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        read.expect("the connection stays open").unwrap();
        String::from_utf8(rest).unwrap()
    }
}

/// An upstream of which each connection is served like this.
async fn upstream<F>(serve: impl Fn(End) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for serial in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(End { stream, serial }));
        }
    });
    address
}

/// A caller of a relay to such an upstream.
async fn caller_of<F>(
    serve: impl Fn(End) -> F + Send + Sync + 'static,
) -> (End, Arc<Relay>, SocketAddr)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (relay, address) = Relay::start(upstream(serve).await).await;
    (call(address).await, relay, address)
}

async fn call(address: SocketAddr) -> End {
    End { stream: TcpStream::connect(address).await.unwrap(), serial: 0 }
}

/// Answers every request on its connection with the connection's number.
async fn numbered(mut end: End) {
    loop {
        end.head().await;
        let serial = end.serial;
        end.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{serial}")).await;
    }
}

/// Tells the test what each connection heard up to some end, then answers `ok`.
async fn told(mut end: End, until: &'static str, heard: Arc<Mutex<Vec<String>>>) {
    loop {
        let request = end.hear(until).await;
        heard.lock().unwrap().push(request);
        end.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
}

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
