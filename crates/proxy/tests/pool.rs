//! Pools against an upstream that sees every connection and every byte.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::Error;
use pinnace_proxy::{Pool, SendFailure, Sent, Stream};

const PATIENCE: Duration = Duration::from_secs(20);
const KEPT: Duration = Duration::from_secs(60);

/// A request's body: bytes, or some bytes without an end.
#[derive(Debug)]
enum Given {
    Whole(Option<Bytes>),
    Endless,
}

impl Default for Given {
    fn default() -> Self {
        Self::Whole(None)
    }
}

impl Body for Given {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Endless => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

/// A connection as the upstream has it.
struct End {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    /// Counted from 1.
    serial: usize,
    /// Requests that came over it before.
    served: usize,
}

impl End {
    /// Request line and headers of the next request.
    fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// Answers with the connection's serial number.
    fn answer(&mut self) {
        let serial = self.serial.to_string();
        let length = serial.len();
        self.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{serial}"));
    }

    /// Whether the other side has closed it.
    fn is_ended(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.reader.read(&mut [0]).is_ok_and(|read| read == 0)
    }
}

/// What each connection is served by: it gets a request's head and says whether to go on.
fn upstream(serve: impl Fn(&mut End, &str) -> bool + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            let reader = BufReader::new(stream.try_clone().unwrap());
            let mut end = End { stream, reader, serial: index + 1, served: 0 };
            thread::spawn(move || {
                while let Some(head) = end.head() {
                    if !serve(&mut end, &head) {
                        return;
                    }
                    end.served += 1;
                }
            });
        }
    });
    address
}

fn plain() -> SocketAddr {
    upstream(|end, _| {
        end.answer();
        true
    })
}

async fn connect(address: SocketAddr) -> std::io::Result<Stream> {
    Ok(Stream::Tcp(tokio::net::TcpStream::connect(address).await?))
}

fn request(method: Method, body: Given) -> Request<Given> {
    Request::builder().method(method).uri("/").header("x-call-id", "7").body(body).unwrap()
}

fn get() -> Request<Given> {
    request(Method::GET, Given::default())
}

fn post(text: &'static str) -> Request<Given> {
    let mut post = request(Method::POST, Given::Whole(Some(Bytes::from_static(text.as_bytes()))));
    post.headers_mut().insert("content-length", text.len().into());
    post
}

async fn send(
    pool: &Pool<Given>,
    address: SocketAddr,
    request: Request<Given>,
) -> Result<Sent<Given>, SendFailure> {
    let sent = pool.send(request, || connect(address));
    tokio::time::timeout(PATIENCE, sent).await.expect("the request hangs")
}

/// Reads the answer to its end and gives the connection back.
async fn finish(pool: &Pool<Given>, sent: Sent<Given>) -> String {
    let body = sent.response.into_body().collect().await.unwrap().to_bytes();
    pool.give_back(sent.lease);
    String::from_utf8(body.to_vec()).unwrap()
}

async fn call(pool: &Pool<Given>, address: SocketAddr, request: Request<Given>) -> String {
    let sent = send(pool, address, request).await.unwrap();
    finish(pool, sent).await
}

#[tokio::test]
async fn the_connection_used_last_is_used_first() {
    let (address, pool) = (plain(), Pool::new(8, KEPT));
    let first = send(&pool, address, get()).await.unwrap();
    let second = send(&pool, address, get()).await.unwrap();
    assert!(!first.lease.is_reused() && !second.lease.is_reused());
    assert_eq!(finish(&pool, first).await, "1");
    assert_eq!(finish(&pool, second).await, "2");
    assert_eq!(pool.idle_count(), 2);
    for _ in 0..3 {
        let sent = send(&pool, address, get()).await.unwrap();
        assert!(sent.lease.is_reused());
        assert_eq!(finish(&pool, sent).await, "2");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_whatever_ended_the_body() {
    let address = upstream(|end, _| {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
        let serial = end.serial;
        match end.served {
            0 => end.say(&format!("{chunked}{serial}\r\n0\r\n\r\n")),
            1 => end.say("HTTP/1.1 204 No Content\r\n\r\n"),
            _ => end.answer(),
        }
        true
    });
    let pool = Pool::new(8, KEPT);
    for body in ["1", "", "1"] {
        assert_eq!(call(&pool, address, get()).await, body);
        assert_eq!(pool.idle_count(), 1);
    }
}

/// An upstream whose first connection is closed, when the test says so, while it is idle.
fn closing(bodies: mpsc::Sender<String>) -> (SocketAddr, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (close, closes) = mpsc::channel();
    let (closed, has_closed) = mpsc::channel();
    let closes = std::sync::Mutex::new((closes, closed));
    let address = upstream(move |end, head| {
        if head.starts_with("POST") {
            let mut body = [0; 4];
            end.reader.read_exact(&mut body).unwrap();
            bodies.send(String::from_utf8(body.to_vec()).unwrap()).unwrap();
        }
        end.answer();
        if end.serial > 1 {
            return true;
        }
        let control = closes.lock().unwrap();
        control.0.recv_timeout(PATIENCE).unwrap();
        end.stream.shutdown(std::net::Shutdown::Both).unwrap();
        control.1.send(()).unwrap();
        false
    });
    (address, close, has_closed)
}

#[tokio::test]
async fn a_request_of_which_no_byte_was_written_is_sent_again_a_post_too() {
    for request in [get as fn() -> _, || post("body")] {
        let (bodies, seen) = mpsc::channel();
        let (address, close, has_closed) = closing(bodies);
        let pool = Pool::new(8, KEPT);
        assert_eq!(call(&pool, address, get()).await, "1");
        // Closed while this thread does not look, and seen by the runtime only now: the pool still takes
        // the connection for a good one when the request is put on it.
        close.send(()).unwrap();
        has_closed.recv_timeout(PATIENCE).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(pool.idle_count(), 1);
        let is_post = *request().method() == Method::POST;
        assert_eq!(call(&pool, address, request()).await, "2");
        drop(pool);
        let all: Vec<_> = seen.try_iter().collect();
        assert_eq!(all, if is_post { vec!["body"] } else { vec![] });
    }
}

/// An upstream that takes the second request of its first connection and closes without an answer.
fn swallowing(heads: mpsc::Sender<String>) -> SocketAddr {
    upstream(move |end, head| {
        heads.send(head.lines().next().unwrap().to_owned()).unwrap();
        if end.serial == 1 && end.served == 1 {
            return false;
        }
        end.answer();
        true
    })
}

#[tokio::test]
async fn an_idempotent_request_without_a_body_is_sent_again_after_it_was_written() {
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let (heads, seen) = mpsc::channel();
        let (address, pool) = (swallowing(heads), Pool::new(8, KEPT));
        call(&pool, address, get()).await;
        let sent = send(&pool, address, request(method.clone(), Given::default())).await.unwrap();
        assert_eq!(sent.response.status(), 200);
        assert!(!sent.lease.is_reused());
        let line = format!("{method} / HTTP/1.1");
        assert_eq!(seen.try_iter().skip(1).collect::<Vec<_>>(), [line.clone(), line]);
    }
}

#[tokio::test]
async fn a_post_is_never_sent_again_after_it_was_written() {
    for body in [Given::default(), Given::Whole(Some(Bytes::from_static(b"body")))] {
        let (heads, seen) = mpsc::channel();
        let (address, pool) = (swallowing(heads), Pool::new(8, KEPT));
        call(&pool, address, get()).await;
        let failure = send(&pool, address, request(Method::POST, body)).await.unwrap_err();
        assert!(matches!(failure, SendFailure::Exchange(_)), "{failure}");
        assert!(!failure.is_from_request_body());
        assert_eq!(seen.try_iter().skip(1).collect::<Vec<_>>(), ["POST / HTTP/1.1"]);
    }
}

#[tokio::test]
async fn nothing_is_sent_again_over_a_connection_that_was_new() {
    let (heads, seen) = mpsc::channel();
    let address = upstream(move |_, head| {
        heads.send(head.to_owned()).unwrap();
        false
    });
    let failure = send(&Pool::new(8, KEPT), address, get()).await.unwrap_err();
    assert!(matches!(failure, SendFailure::Exchange(_)), "{failure}");
    assert_eq!(seen.try_iter().count(), 1);
}

#[tokio::test]
async fn nobody_there_is_a_failure_to_connect() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = send(&Pool::new(8, KEPT), nobody, get()).await.unwrap_err();
    assert!(matches!(failure, SendFailure::Connect(_)), "{failure}");
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_not_used() {
    let (address, pool) = (plain(), Pool::new(8, Duration::ZERO));
    assert_eq!(call(&pool, address, get()).await, "1");
    assert_eq!(call(&pool, address, get()).await, "2");
    let pool = Pool::new(8, KEPT);
    assert_eq!(call(&pool, address, get()).await, "3");
    pool.sweep(Instant::now() + KEPT / 2);
    assert_eq!(pool.idle_count(), 1);
    pool.sweep(Instant::now() + KEPT);
    assert_eq!(pool.idle_count(), 0);
    assert_eq!(call(&pool, address, get()).await, "4");
}

#[tokio::test]
async fn a_closed_pool_keeps_nothing_and_still_sends() {
    let (address, pool) = (plain(), Pool::new(8, KEPT));
    assert_eq!(call(&pool, address, get()).await, "1");
    pool.close();
    assert_eq!(pool.idle_count(), 0);
    for connection in ["2", "3"] {
        assert_eq!(call(&pool, address, get()).await, connection);
        assert_eq!(pool.idle_count(), 0);
    }
}

#[tokio::test]
async fn no_more_than_idle_max_are_kept() {
    let (address, pool) = (plain(), Pool::new(1, KEPT));
    let first = send(&pool, address, get()).await.unwrap();
    let second = send(&pool, address, get()).await.unwrap();
    finish(&pool, first).await;
    finish(&pool, second).await;
    assert_eq!(pool.idle_count(), 1);
    assert_eq!(call(&pool, address, get()).await, "1");
}

/// An upstream that answers at once and reports the end of each connection.
fn watched() -> (SocketAddr, mpsc::Receiver<bool>) {
    let (ends, ended) = mpsc::channel();
    let address = upstream(move |end, _| {
        end.answer();
        ends.send(end.is_ended()).unwrap();
        false
    });
    (address, ended)
}

#[tokio::test]
async fn a_connection_that_is_still_busy_is_closed_when_it_is_given_back() {
    let (address, ended) = watched();
    let pool = Pool::new(8, KEPT);
    let mut early = request(Method::POST, Given::Endless);
    early.headers_mut().insert("content-length", 4.into());
    let sent = send(&pool, address, early).await.unwrap();
    assert_eq!(finish(&pool, sent).await, "1");
    assert_eq!(pool.idle_count(), 0);
    let ended = tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE));
    assert!(ended.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_lease_that_is_dropped_closes_its_connection() {
    let (address, ended) = watched();
    let pool = Pool::new(8, KEPT);
    let sent = send(&pool, address, get()).await.unwrap();
    drop(sent);
    assert_eq!(pool.idle_count(), 0);
    let ended = tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE));
    assert!(ended.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_connection_opened_ahead_serves_the_first_request() {
    let (address, pool) = (plain(), Pool::new(8, KEPT));
    pool.adopt(connect(address).await.unwrap()).await.unwrap();
    assert_eq!(pool.idle_count(), 1);
    let sent = send(&pool, address, get()).await.unwrap();
    assert!(sent.lease.is_reused());
    assert_eq!(finish(&pool, sent).await, "1");
}

#[tokio::test]
async fn header_names_are_written_as_asked() {
    let (heads, seen) = mpsc::channel();
    let address = upstream(move |end, head| {
        heads.send(head.to_owned()).unwrap();
        end.answer();
        true
    });
    call(&Pool::new(8, KEPT), address, get()).await;
    assert!(seen.recv().unwrap().contains("\r\nx-call-id: 7\r\n"));
    call(&Pool::new(8, KEPT).title_case_headers(), address, get()).await;
    assert!(seen.recv().unwrap().contains("\r\nX-Call-Id: 7\r\n"));
}
