//! A registry that misbehaves as a test tells it to, and remembers what it was asked.
//!
//! It serves one image as it should, but for requests that a test answers itself.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::images::Parts;

/// Between two bytes of a trickle.
const TRICKLE: Duration = Duration::from_millis(20);

/// First byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header names in lower case, with their values.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// An answer, and how it is given.
#[derive(Clone, Debug)]
pub enum Reply {
    /// As it should be.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// All of it is announced, from the first byte that was asked for, and so many bytes are sent.
    Cut(Vec<u8>, usize),
    /// A byte at a time.
    Trickle(Vec<u8>),
    /// Without end, and without an announced length.
    Endless,
    /// With another length than the body has.
    Announced(usize, Vec<u8>),
    /// Nothing before the gate is opened, then as it should be.
    Held(Gate, Vec<u8>),
}

/// Holds answers back.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// Answers a request in its own way, or leaves it to the registry.
type Answer = dyn Fn(&Asked) -> Option<Reply> + Send + Sync;

struct Shared {
    parts: Parts,
    answer: Mutex<Arc<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

/// The registry. It goes on until the test's process ends.
pub struct FaultyRegistry {
    shared: Arc<Shared>,
    host: String,
}

impl Gate {
    /// Lets everything pass from now on.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub fn pass(&self) {
        let closed = lock(&self.0.0);
        drop(self.0.1.wait_while(closed, |is_open| !*is_open));
    }
}

impl Asked {
    /// Whether it is for the blob of this digest.
    #[must_use]
    pub fn is_blob(&self, digest: &str) -> bool {
        self.path.contains("/blobs/") && self.path.ends_with(digest)
    }

    /// Whether it is for a manifest.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }

    /// The first byte that is asked for.
    #[must_use]
    pub fn from(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

impl FaultyRegistry {
    /// A registry of this image under every name, which behaves until it is told otherwise.
    ///
    /// # Panics
    /// No port is free.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let host = listener.local_addr().expect("it is bound").to_string();
        let (answer, asked): (Arc<Answer>, _) = (Arc::new(|_: &Asked| None), Mutex::default());
        let shared = Arc::new(Shared { parts, answer: Mutex::new(answer), asked });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A caller that leaves is part of the game.
                std::thread::spawn(move || drop(serving.serve(&stream)));
            }
        });
        Self { shared, host }
    }

    /// The registry as references name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The image it serves.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.shared.parts
    }

    /// Answers requests in another way from now on.
    pub fn answer(&self, answer: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) {
        *lock(&self.shared.answer) = Arc::new(answer);
    }

    /// Behaves again from now on.
    pub fn behave(&self) {
        self.answer(|_| None);
    }

    /// What was asked since the last call of this.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.shared.asked))
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut first = [0];
        stream.peek(&mut first)?;
        if first == [TLS_HANDSHAKE] {
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
        let asked = read(stream)?;
        lock(&self.asked).push(asked.clone());
        let answer = lock(&self.answer).clone();
        let reply = answer(&asked).unwrap_or_else(|| self.proper(&asked));
        write(stream, &asked, reply)?;
        stream.shutdown(Shutdown::Both)
    }

    fn proper(&self, asked: &Asked) -> Reply {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        if asked.is_manifest() {
            let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
            let headers =
                vec![("Content-Type", kind), ("Docker-Content-Digest", self.parts.digest())];
            return Reply::Whole(200, headers, self.parts.manifest.clone());
        }
        match self.parts.blobs.get(last) {
            Some(blob) => Reply::Cut(blob.clone(), blob.len()),
            None => Reply::Whole(404, Vec::new(), Vec::new()),
        }
    }
}

fn read(stream: &TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(Asked { method, path, headers, body })
}

fn write(mut stream: &TcpStream, asked: &Asked, reply: Reply) -> std::io::Result<()> {
    let head = |status: u16, length: usize| {
        format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nContent-Length: {length}\r\n")
    };
    match reply {
        Reply::Whole(status, headers, body) => {
            let mut head = head(status, body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            stream.write_all((head + "\r\n").as_bytes())?;
            stream.write_all(&body)
        }
        Reply::Cut(body, bytes) => {
            let from = asked.from().min(body.len());
            let left = &body[from..];
            let head = if from == 0 {
                head(200, left.len())
            } else {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                format!("{}Content-Range: {range}\r\n", head(206, left.len()))
            };
            stream.write_all((head + "\r\n").as_bytes())?;
            stream.write_all(&left[..bytes.min(left.len())])
        }
        Reply::Trickle(body) => {
            stream.write_all((head(200, body.len()) + "\r\n").as_bytes())?;
            for byte in body {
                stream.write_all(&[byte])?;
                std::thread::park_timeout(TRICKLE);
            }
            Ok(())
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 Said\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let piece = [b'x'; 0x4000];
            loop {
                stream.write_all(b"4000\r\n")?;
                stream.write_all(&piece)?;
                stream.write_all(b"\r\n")?;
            }
        }
        Reply::Announced(length, body) => {
            stream.write_all((head(200, length) + "\r\n").as_bytes())?;
            stream.write_all(&body)
        }
        Reply::Held(gate, body) => {
            gate.pass();
            write(stream, asked, Reply::Cut(body.clone(), body.len()))
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
