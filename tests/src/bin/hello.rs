//! The function that benchmarks and tests call: a static HTTP server that does what its path says.
//!
//! It serves on TCP port `PORT` (8080), or, with `LISTEN_FDS`, on the listening unix socket that it was
//! given as descriptor 3, and then writes a byte to descriptor 4. With `HELLO_PROTOCOL=h2c` it speaks HTTP/2
//! alone. `HELLO_AT_START` makes it misbehave before it serves: `exit 3`, `abort`, `eat`, `idle`; or serve badly: `raw`.
//!
//! | path | does |
//! |---|---|
//! | `/` | answers `hello` |
//! | `/echo` | sends the body back as it comes |
//! | `/request` | answers what arrived: method, path, headers |
//! | `/env` | answers its environment |
//! | `/read/PATH` | answers a file or the names in a directory |
//! | `/write/PATH` | writes the body to a file |
//! | `/say/TEXT` | writes TEXT to standard output, and `error: TEXT` to standard error |
//! | `/ticks/N` | answers N lines, one each 20 ms |
//! | `/events` | answers an event (SSE), and another whenever `/next` is called |
//! | `/hold` | answers a line and never ends; says `caller left` when its caller does |
//! | `/trailers` | answers the trailer of the request, with a trailer of its own |
//! | `/redirect` | answers 302 |
//! | `/test.Echo/…` | sends the messages of a gRPC call back as they come |
//! | `/wait/MS` | answers after so long |
//! | `/fails/N` | answers 503 and `Retry-After: 1` so many times, then as `/request` |
//! | `/status/N` | answers with this status |
//! | `/dial/HOST:PORT` | sends the body there, and answers what comes from there until the end |
//! | `/exit/N` | ends the process with code N |
//! | `/abort` | ends it by a signal |
//! | `/eat/MIB` | takes so much memory |
//! | `/zeros/MIB` | answers so many mebibytes |
//! | `/size/PATH` | answers how many bytes a file has |
//!
//! With `raw`: `/garbage` answers no HTTP, `/half-head` and `/half-body` close in the middle, `/wide-head`
//! answers with a head of 2 MiB, `/hang` never answers, all else is answered `raw`.

use std::{
    convert::Infallible,
    env, fs,
    io::{Read, Write},
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    pin::Pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::HeaderValue,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf, unix::AsyncFd},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Notify,
};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 2 << 20;

static MEBIBYTE: &[u8] = &[0; 1 << 20];

/// What `/next` wakes.
static NEXT: LazyLock<Notify> = LazyLock::new(Notify::new);

type Body = BoxBody<Bytes, hyper::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    if let Ok(what) = env::var("HELLO_AT_START") {
        misbehave(&what).await;
    }
    if env::var_os("LISTEN_FDS").is_some() {
        serve_unix().await
    } else {
        let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
        serve_tcp(port).await
    }
}

async fn serve_tcp(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(TokioIo::new(stream)));
    }
}

async fn serve_unix() -> std::io::Result<()> {
    const AF_UNIX: i32 = 1;
    const SOCK_STREAM: i32 = 1;
    let mut handed = listenfd::ListenFd::from_env();
    let listener = handed.take_unix_listener(0)?;
    let listener = listener.ok_or_else(|| std::io::Error::other("no listener was handed over"))?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    if let Some(ready) = handed.take_custom::<UnixStream>(1, AF_UNIX, SOCK_STREAM, "unix stream")? {
        (&ready).write_all(b"1")?;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(TokioIo::new(Reading::new(stream)?)));
    }
}

/// A unix connection that is registered for reading only, as most event loops do it. Registered for writing
/// too it would be woken whenever the caller has read an answer.
struct Reading {
    socket: AsyncFd<UnixStream>,
    room: Option<AsyncFd<UnixStream>>,
}

impl Reading {
    fn new(stream: tokio::net::UnixStream) -> std::io::Result<Self> {
        Ok(Self { socket: registered(stream.into_std()?, Interest::READABLE)?, room: None })
    }
}

#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types that do not own their descriptor"
)]
fn registered(stream: UnixStream, interest: Interest) -> std::io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for Reading {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            let read = guard.try_io(|socket| socket.get_ref().read(buf.initialize_unfilled()));
            if let Ok(read) = read {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Reading {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        loop {
            match self.socket.get_ref().write(buf) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
            if self.room.is_none() {
                let copy = self.socket.get_ref().try_clone()?;
                self.room = Some(registered(copy, Interest::WRITABLE)?);
            }
            let Some(room) = &self.room else { continue };
            ready!(room.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(std::net::Shutdown::Write))
    }
}

async fn connection<S>(stream: TokioIo<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    // A caller that leaves is no fault of this server.
    if env::var("HELLO_PROTOCOL").is_ok_and(|protocol| protocol == "h2c") {
        let server = http2::Builder::new(TokioExecutor::new());
        return drop(server.serve_connection(stream, service).await);
    }
    let mut server = http1::Builder::new();
    // Heads may be as large as the platform lets them be.
    server.max_buf_size(HEAD_BYTES_MAX);
    drop(server.serve_connection(stream, service).await);
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let (what, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    match what {
        "" => text("hello\n"),
        "echo" => Response::new(request.into_body().boxed()),
        "request" => text(described(&request)),
        "env" => {
            text(env::vars().map(|(name, value)| format!("{name}={value}\n")).collect::<String>())
        }
        "read" => read(&format!("/{rest}")),
        "write" => write(&format!("/{rest}"), request).await,
        "say" => say(rest),
        "ticks" => ticks(number(rest)),
        "events" => events(),
        "next" => {
            NEXT.notify_one();
            text("told\n")
        }
        "hold" => hold(),
        "trailers" => trailers(request).await,
        "redirect" => redirect(),
        "test.Echo" => grpc_echo(request),
        "wait" => {
            tokio::time::sleep(Duration::from_millis(number(rest))).await;
            text("waited\n")
        }
        "fails" => fails(number(rest), &request),
        "status" => {
            let status =
                StatusCode::from_u16(number(rest) as u16).unwrap_or(StatusCode::BAD_REQUEST);
            refused(status, format!("status {rest}\n"))
        }
        "dial" => dial(rest, request).await,
        "exit" => std::process::exit(number(rest) as i32),
        "abort" => std::process::abort(),
        "zeros" => zeros(number(rest)),
        "size" => match fs::metadata(format!("/{rest}")) {
            Ok(file) => text(format!("{}\n", file.len())),
            Err(error) => refused(StatusCode::NOT_FOUND, format!("/{rest}: {error}\n")),
        },
        "eat" => text(format!("{}\n", eat(number(rest)))),
        _ => refused(StatusCode::NOT_FOUND, format!("no such path: {path}\n")),
    }
}

/// Fails until it was called so often.
fn fails(often: u64, request: &Request<Incoming>) -> Response<Body> {
    static CALLED: AtomicU64 = AtomicU64::new(0);
    if CALLED.fetch_add(1, Ordering::Relaxed) >= often {
        return text(described(request));
    }
    let mut answer = refused(StatusCode::SERVICE_UNAVAILABLE, "not yet\n".to_owned());
    answer.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("1"));
    answer
}

fn text(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed())
}

fn refused(status: StatusCode, sentence: String) -> Response<Body> {
    let mut answer = text(sentence);
    *answer.status_mut() = status;
    answer
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(1)
}

fn described(request: &Request<Incoming>) -> String {
    let mut lines = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    lines
}

fn read(path: &str) -> Response<Body> {
    let content = match fs::read_dir(path) {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            Ok((names.join("\n") + "\n").into_bytes())
        }
        Err(_) => fs::read(path),
    };
    match content {
        Ok(content) => text(content),
        Err(error) => refused(StatusCode::FORBIDDEN, format!("{path}: {error}\n")),
    }
}

async fn write(path: &str, request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = request.into_body().collect().await else {
        return refused(StatusCode::BAD_REQUEST, "the body ended early\n".to_owned());
    };
    match fs::write(path, body.to_bytes()) {
        Ok(()) => text("written\n"),
        Err(error) => refused(StatusCode::FORBIDDEN, format!("{path}: {error}\n")),
    }
}

async fn dial(place: &str, request: Request<Incoming>) -> Response<Body> {
    /// Longer than anything that is refused takes to be.
    const PATIENCE: Duration = Duration::from_secs(5);
    let Ok(body) = request.into_body().collect().await else {
        return refused(StatusCode::BAD_REQUEST, "the body ended early\n".to_owned());
    };
    let dialled = tokio::time::timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(place).await?;
        stream.write_all(&body.to_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    });
    match dialled.await {
        Ok(Ok(answer)) => text(answer),
        Ok(Err(error)) => refused(StatusCode::BAD_GATEWAY, format!("{place}: {error}\n")),
        Err(_) => refused(StatusCode::GATEWAY_TIMEOUT, format!("{place}: silence\n")),
    }
}

fn say(words: &str) -> Response<Body> {
    println!("{words}");
    eprintln!("error: {words}");
    text("said\n")
}

fn ticks(count: u64) -> Response<Body> {
    let lines = futures_util::stream::unfold(0, move |tick| async move {
        if tick == count {
            return None;
        }
        if tick > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("tick {tick}\n")))), tick + 1))
    });
    Response::new(BodyExt::boxed(StreamBody::new(lines)))
}

fn events() -> Response<Body> {
    let events = futures_util::stream::unfold(0, |number| async move {
        if number > 0 {
            NEXT.notified().await;
        }
        Some((Ok(Frame::data(Bytes::from(format!("data: {number}\n\n")))), number + 1))
    });
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(events)));
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert("content-type", kind);
    answer
}

fn hold() -> Response<Body> {
    struct Told;
    impl Drop for Told {
        fn drop(&mut self) {
            println!("caller left");
        }
    }
    let held = futures_util::stream::unfold((true, Told), |(is_first, told)| async move {
        if !is_first {
            std::future::pending::<()>().await;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"held\n"))), (false, told)))
    });
    Response::new(BodyExt::boxed(StreamBody::new(held)))
}

async fn trailers(request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = request.into_body().collect().await else {
        return refused(StatusCode::BAD_REQUEST, "the body ended early\n".to_owned());
    };
    let mut lines = String::new();
    for (name, value) in body.trailers().into_iter().flatten() {
        lines += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let mut own = HeaderMap::new();
    own.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from(lines + "end\n"))), Ok(Frame::trailers(own))];
    let mut answer =
        Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
    answer.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    answer
}

fn redirect() -> Response<Body> {
    let mut answer = refused(StatusCode::FOUND, "elsewhere\n".to_owned());
    let place = HeaderValue::from_static("http://example.com/a%2Fb");
    answer.headers_mut().insert("location", place);
    answer
}

fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get("content-type").cloned();
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("0"));
    let end = async move { Some(Ok(status)) };
    let mut answer = Response::new(request.into_body().with_trailers(end).boxed());
    if let Some(kind) = kind {
        answer.headers_mut().insert("content-type", kind);
    }
    answer
}

fn zeros(mebibytes: u64) -> Response<Body> {
    let pieces = futures_util::stream::iter(0..mebibytes);
    let pieces =
        futures_util::StreamExt::map(pieces, |_| Ok(Frame::data(Bytes::from_static(MEBIBYTE))));
    Response::new(BodyExt::boxed(StreamBody::new(pieces)))
}

/// Takes memory, page by page, and answers its bytes.
fn eat(mebibytes: u64) -> usize {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for part in 0..mebibytes {
        eaten.push(vec![part as u8 | 1; 1 << 20]);
    }
    std::hint::black_box(&eaten).iter().map(Vec::len).sum()
}

async fn misbehave(what: &str) {
    println!("about to: {what}");
    match what.split_once(' ').unwrap_or((what, "")) {
        ("exit", code) => std::process::exit(number(code) as i32),
        ("abort", _) => std::process::abort(),
        ("eat", _) => drop(eat(1 << 20)),
        ("raw", _) => serve_raw(),
        _ => std::future::pending::<()>().await,
    }
}

/// Answers as no server should.
fn serve_raw() {
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) else { return };
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer_raw(stream));
    }
}

fn answer_raw(mut stream: std::net::TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let answer = match head.split(' ').nth(1)? {
        "/garbage" => "\x16\x03\x01 this is no HTTP\r\n\r\n".to_owned(),
        "/half-head" => "HTTP/1.1 200 OK\r\nContent-Le".to_owned(),
        "/half-body" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf".to_owned(),
        "/wide-head" => format!("HTTP/1.1 200 OK\r\nX-Wide: {}\r\n\r\n", "x".repeat(2 << 20)),
        "/hang" => loop {
            std::thread::park();
        },
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nraw\n".to_owned(),
    };
    stream.write_all(answer.as_bytes()).ok()
}
