//! Calls over HTTP/2, on either side of a relay that knows HTTP/1.1 alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    convert::Infallible,
    future::poll_fn,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pinnace_core::limits::{CALLER_STREAM_WINDOW_BYTES, STREAM_BUFFER_BYTES_MAX};
use pinnace_proxy::{
    Stream,
    h1::{Asked, Exchange, Inbound, Outgoing, write_header},
    h2::{Caller, Lines, Multiplexed},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A relay of one thread to one function, both ends of HTTP/2.
struct Relay {
    function: SocketAddr,
    lines: Lines,
    failures: Mutex<Vec<String>>,
}

impl Relay {
    async fn start(function: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let lines = Lines::new(8, Duration::from_secs(60));
        let relay = Arc::new(Self { function, lines, failures: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = relay.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        (relay, address)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut caller = Inbound::new(Stream::tcp(stream).unwrap());
        let mut request = Outgoing::default();
        let asked =
            poll_fn(|cx| caller.poll_request::<(), ()>(cx, &mut request, |_, _| Asked::Refuse(())));
        assert!(matches!(asked.await, Ok(Some(Asked::Multiplex))));
        let (stream, early) = caller.into_parts();
        let mut connection = Multiplexed::begin(stream, early).await.unwrap();
        while let Some(Ok(call)) = poll_fn(|cx| connection.poll_call(cx)).await {
            let relay = self.clone();
            tokio::spawn(async move { relay.pass(call).await });
        }
    }

    async fn pass(&self, call: Caller) {
        let mut caller = Inbound::new(Stream::Layered(Box::new(call)));
        let mut request = Outgoing::default();
        let asked = poll_fn(|cx| {
            caller.poll_request::<(), ()>(cx, &mut request, |head, out| {
                write!(out, "{} {} HTTP/1.1\r\n", head.method, head.target).unwrap();
                for (name, value) in head.passing() {
                    write_header(out, name.as_bytes(), value);
                }
                Asked::Relay(())
            })
        });
        let Ok(Some(Asked::Relay(()))) = asked.await else { return };
        let now = Instant::now();
        let mut function = match self.lines.take(now) {
            Some(function) => function,
            None => {
                let stream = Stream::connect([self.function]).await.unwrap();
                self.lines.open(stream, now).await.unwrap()
            }
        };
        let mut exchange = Exchange::new(
            &mut caller,
            &mut function,
            &mut request,
            now + PATIENCE,
            true,
            |head, out| {
                for (name, value) in head.passing() {
                    write_header(out, name.as_bytes(), value);
                }
            },
        );
        if let Err(failure) = poll_fn(|cx| exchange.poll(cx)).await {
            self.failures.lock().unwrap().push(failure.to_string());
        }
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap().clone()
    }
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A function that sends everything back, and a trailer after it; `told` hears of its calls.
async fn function(told: mpsc::UnboundedSender<Request<Incoming>>, echoes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            let service = service_fn(move |request| {
                let told = told.clone();
                async move { Ok::<_, Infallible>(answer(request, &told, echoes).await) }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn answer(
    request: Request<Incoming>,
    told: &mpsc::UnboundedSender<Request<Incoming>>,
    echoes: bool,
) -> Answer {
    if !echoes {
        told.send(request).unwrap();
        return std::future::pending().await;
    }
    let mut trailer = HeaderMap::new();
    trailer.insert("grpc-status", "0".parse().unwrap());
    let end = async move { Some(Ok(trailer)) };
    Response::new(request.into_body().with_trailers(end).boxed())
}

async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post() -> Request<()> {
    Request::post("http://h/function/a").body(()).unwrap()
}

#[tokio::test]
async fn many_calls_share_a_connection_and_come_back_whole() {
    let (told, _calls) = mpsc::unbounded_channel();
    let (relay, address) = Relay::start(function(told, true).await).await;
    let sender = client(address).await;
    for round in 0..300 {
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(post(), false).unwrap();
        body.send_data(Bytes::from(format!("call {round}")), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        let mut body = answer.into_body();
        let mut whole = Vec::new();
        while let Some(data) = body.data().await {
            whole.extend_from_slice(
                &data.unwrap_or_else(|error| {
                    panic!("round {round}: {error}; {:?}", relay.failures())
                }),
            );
        }
        assert_eq!(whole, format!("call {round}").as_bytes());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
    assert_eq!(relay.failures(), Vec::<String>::new());
    assert_eq!(relay.lines.sweep(Instant::now()), 1);
}

#[tokio::test]
async fn a_callers_trailer_reaches_the_function() {
    let (told, mut calls) = mpsc::unbounded_channel();
    let (_relay, address) = Relay::start(function(told, false).await).await;
    let mut sender = client(address).await.ready().await.unwrap();
    let (_answer, mut body) = sender.send_request(post(), false).unwrap();
    body.send_data(Bytes::from_static(b"data"), false).unwrap();
    let mut trailer = HeaderMap::new();
    trailer.insert("x-sum", "42".parse().unwrap());
    trailer.append("x-sum", "43".parse().unwrap());
    body.send_trailers(trailer.clone()).unwrap();
    let call = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    assert_eq!(call.headers()["te"], "trailers");
    let whole = timeout(PATIENCE, call.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(whole.trailers(), Some(&trailer));
    assert_eq!(whole.to_bytes(), "data");
}

#[tokio::test]
async fn a_caller_that_resets_its_call_ends_it_at_the_function() {
    let (told, mut calls) = mpsc::unbounded_channel();
    let (relay, address) = Relay::start(function(told, false).await).await;
    let mut sender = client(address).await.ready().await.unwrap();
    let (answer, mut body) = sender.send_request(post(), false).unwrap();
    body.send_data(Bytes::from_static(b"data"), false).unwrap();
    let mut call = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    let data = timeout(PATIENCE, call.body_mut().frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(data.into_data().unwrap(), "data");
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    let end = timeout(PATIENCE, call.body_mut().frame()).await.unwrap();
    assert!(end.is_some_and(|end| end.is_err()), "the function hears of it");
    assert_eq!(relay.failures(), ["the caller has left"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_from_one_that_ends() {
    // It begins to answer, and is gone.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let function = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"half"), false).unwrap();
        let reset = async { body.send_reset(h2::Reason::INTERNAL_ERROR) };
        tokio::join!(reset, connection.accept());
    });
    let (relay, address) = Relay::start(function).await;
    let mut sender = client(address).await.ready().await.unwrap();
    let (answer, _) = sender.send_request(post(), true).unwrap();
    let ended = timeout(PATIENCE, async {
        let mut body = answer.await?.into_body();
        while let Some(data) = body.data().await {
            data?;
        }
        Ok::<_, h2::Error>(())
    });
    assert!(ended.await.unwrap().is_err(), "{:?}", relay.failures());
}

#[tokio::test]
async fn a_body_that_nobody_reads_waits_at_its_sender() {
    let (told, mut calls) = mpsc::unbounded_channel();
    let (_relay, address) = Relay::start(function(told, false).await).await;
    let mut sender = client(address).await.ready().await.unwrap();
    let (_answer, mut body) = sender.send_request(post(), false).unwrap();
    let mut sent = 0;
    let stuck = async {
        loop {
            body.reserve_capacity(16 << 10);
            while body.capacity() == 0 {
                poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
            }
            let data = Bytes::from(vec![0; body.capacity()]);
            sent += data.len();
            body.send_data(data, false).unwrap();
        }
    };
    drop(timeout(Duration::from_secs(1), stuck).await);
    // What the caller may send ahead, what waits at the relay, and what the function lets come.
    let window_max = CALLER_STREAM_WINDOW_BYTES as usize + STREAM_BUFFER_BYTES_MAX + (2 << 20);
    assert!(sent <= window_max, "{sent} bytes went out, though nobody reads");
    let call = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    let whole = timeout(PATIENCE, call.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(whole.to_bytes().len(), sent);
}
