//! A relay as a gateway is one, the other server that it lends connections to, and both its ends.

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

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One worker's side of a relay to one upstream.
pub struct Relay {
    pub upstream: SocketAddr,
    pub idle: Idle,
    pub failures: Mutex<Vec<String>>,
}

impl Relay {
    /// Starts one; answers where it listens.
    pub async fn start(upstream: SocketAddr) -> (Arc<Self>, SocketAddr) {
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

    pub async fn serve(&self, stream: TcpStream) {
        let mut caller = Inbound::new(Stream::tcp(stream).unwrap());
        let mut request = Outgoing::default();
        loop {
            let asked = poll_fn(|cx| {
                caller.poll_request(cx, &mut request, |head, out| match head.target {
                    "/lent" => Asked::Lend,
                    "/held" => Asked::Hold,
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
                Ok(None | Some(Asked::Multiplex)) => return,
                Ok(Some(Asked::Lend)) => lend(&mut caller).await,
                Ok(Some(Asked::Hold)) => {
                    let body = caller.hold(&mut request, 10).await.unwrap();
                    let status =
                        body.as_ref().map_or(StatusCode::PAYLOAD_TOO_LARGE, |_| StatusCode::OK);
                    let body = body.unwrap_or_default();
                    caller.answer(status, b"", &body, true).await.unwrap();
                    if !caller.can_stay() {
                        return caller.close().await;
                    }
                }
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

    pub async fn pass(
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
pub async fn lend(caller: &mut Inbound) {
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
pub struct End {
    pub stream: TcpStream,
    /// Of an upstream: which of its connections this is, from 1.
    pub serial: usize,
}

impl End {
    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what was read ends like this; answers all of it.
    pub async fn hear(&mut self, end: &str) -> String {
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
    pub async fn head(&mut self) -> String {
        self.hear("\r\n\r\n").await
    }

    /// All until the other side closes.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        read.expect("the connection stays open").unwrap();
        String::from_utf8(rest).unwrap()
    }
}

/// An upstream of which each connection is served like this.
pub async fn upstream<F>(serve: impl Fn(End) -> F + Send + Sync + 'static) -> SocketAddr
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
pub async fn caller_of<F>(
    serve: impl Fn(End) -> F + Send + Sync + 'static,
) -> (End, Arc<Relay>, SocketAddr)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (relay, address) = Relay::start(upstream(serve).await).await;
    (call(address).await, relay, address)
}

pub async fn call(address: SocketAddr) -> End {
    End { stream: TcpStream::connect(address).await.unwrap(), serial: 0 }
}

/// Answers every request on its connection with the connection's number.
pub async fn numbered(mut end: End) {
    loop {
        end.head().await;
        let serial = end.serial;
        end.say(&format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{serial}")).await;
    }
}

/// Tells the test what each connection heard up to some end, then answers `ok`.
pub async fn told(mut end: End, until: &'static str, heard: Arc<Mutex<Vec<String>>>) {
    loop {
        let request = end.hear(until).await;
        heard.lock().unwrap().push(request);
        end.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
}
