//! A gateway that answers as a test tells it, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Longest wait for a client that has stopped: a test then fails instead of hanging.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// A request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server. Its threads end with the test's process.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// A server that answers each request by a function of it.
    pub fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let url = listen(move |stream| serve(&stream, &answer, &log));
        Self { url, seen }
    }

    /// A server that hands each connection to a function.
    pub fn raw(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self { url: listen(handle), seen: Arc::default() }
    }

    /// What it was asked.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Methods and targets of what it was asked.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

fn listen(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(READ_TIME_MAX)).unwrap();
            let handle = handle.clone();
            thread::spawn(move || handle(stream));
        }
    });
    url
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&Seen) -> Reply, log: &Mutex<Vec<Seen>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(mut seen) = read_head(&mut reader) {
        if seen.header("expect").is_some() {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        seen.body = read_body(&mut reader, &seen);
        let reply = answer(&seen);
        log.lock().unwrap().push(seen);
        if send(stream, &reply).is_err() {
            return;
        }
    }
}

/// Writes an answer with its length.
pub fn send(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} x\r\n", reply.status);
    for (name, value) in &reply.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", reply.body.len()));
    // In one piece: what the kernel holds back is lost when the connection is closed with bytes unread.
    stream.write_all(&[text.as_bytes(), &reply.body].concat())
}

/// Reads a request's head; `None` at the connection's end.
pub fn read_head(reader: &mut impl BufRead) -> Option<Seen> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => break,
        }
    }
    Some(Seen { method, target, headers, body: Vec::new() })
}

/// Reads a request's body.
pub fn read_body(reader: &mut impl BufRead, head: &Seen) -> Vec<u8> {
    let mut body = Vec::new();
    if head.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(reader) {
            body.extend(chunk);
        }
    } else if let Some(length) = head.header("content-length") {
        body.resize(length.parse().unwrap(), 0);
        reader.read_exact(&mut body).unwrap();
    }
    body
}

/// Reads one chunk; `None` for the last.
pub fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let length = usize::from_str_radix(line.trim(), 16).expect("a chunk's length");
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).unwrap();
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}
