//! The thumbnail server as a function's caller sees it.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, Command, Stdio},
};

const ASTRONAUT: &[u8] = include_bytes!("../astronaut.jpg");

/// A running server on a port that was free.
struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thumbnail"));
        let mut child = command.env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request and answers its status, its media type and its body.
    fn call(&self, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        let rest =
            format!("Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}\r\n{rest}").as_bytes()).unwrap();
        // A body that is refused half-way may not be taken whole.
        let _ = stream.write_all(body);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        split(&answer)
    }

    /// Asks the process to end and answers whether it did so well.
    fn terminate(mut self) -> bool {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn split(answer: &[u8]) -> (u16, String, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let media_type = head.split("content-type: ").nth(1).unwrap().lines().next().unwrap();
    (status, media_type.to_owned(), answer[end + 4..].to_vec())
}

#[test]
fn an_image_goes_in_and_a_thumbnail_comes_out() {
    let server = Server::start();
    let (status, media_type, body) = server.call("POST /?width=120&height=90 HTTP/1.1", ASTRONAUT);
    assert_eq!((status, media_type.as_str()), (200, "image/jpeg"));
    let small = image::load_from_memory(&body).unwrap();
    assert_eq!((small.width(), small.height()), (90, 90));

    let head = "POST / HTTP/1.1\r\nAccept: image/webp";
    let (status, media_type, body) = server.call(head, ASTRONAUT);
    assert_eq!((status, media_type.as_str()), (200, "image/webp"));
    let small = image::load_from_memory(&body).unwrap();
    assert_eq!((small.width(), small.height()), (200, 200));
}

#[test]
fn what_is_no_image_is_refused_with_a_sentence() {
    let server = Server::start();
    let refused = |head: &str, body: &[u8]| {
        let (status, media_type, sentence) = server.call(head, body);
        assert_eq!(media_type, "text/plain; charset=utf-8");
        (status, String::from_utf8(sentence).unwrap())
    };
    let (status, sentence) = refused("POST / HTTP/1.1", b"words");
    assert!(
        status == 415 && sentence.contains("no JPEG, PNG or WebP image"),
        "{status} {sentence}"
    );
    let (status, sentence) = refused("POST / HTTP/1.1", &ASTRONAUT[..300]);
    assert!(status == 422 && sentence.contains("cannot be read"), "{status} {sentence}");
    let (status, sentence) = refused("POST / HTTP/1.1", &vec![0; 17 << 20]);
    assert!(status == 413 && sentence.contains("16 MiB"), "{status} {sentence}");
    let (status, sentence) = refused("POST /?size=big HTTP/1.1", ASTRONAUT);
    assert!(status == 400 && sentence.contains("size=big"), "{status} {sentence}");
    let (status, sentence) = refused("DELETE / HTTP/1.1", b"");
    assert!(status == 405 && sentence.contains("POST an image"), "{status} {sentence}");
    let (status, sentence) = refused("GET / HTTP/1.1", b"");
    assert!(status == 200 && sentence.contains("curl"), "{status} {sentence}");
}

#[test]
fn sigterm_ends_it_when_the_calls_under_way_are_answered() {
    let server = Server::start();
    let mut stream = server.connect();
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", ASTRONAUT.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&ASTRONAUT[..1000]).unwrap();
    // A second call, answered, shows that the first has been accepted: the server takes them in order.
    assert_eq!(server.call("GET / HTTP/1.1", b"").0, 200);
    let rest = std::thread::spawn(move || {
        stream.write_all(&ASTRONAUT[1000..]).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        split(&answer)
    });
    assert!(server.terminate());
    assert_eq!(rest.join().unwrap().0, 200);
}
