//! The function's own server, within the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};

use super::PATIENCE;

/// A server that answers as the test says.
pub struct Upstream {
    pub url: String,
    /// What came, in order.
    pub seen: mpsc::Receiver<Seen>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Request line and header lines, names as sent.
    pub head: Vec<String>,
    pub body: String,
    /// Serial number of its connection, from 1.
    pub connection: usize,
}

impl Seen {
    pub fn line(&self) -> &str {
        &self.head[0]
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let find = |line: &'_ str| line.split_once(':').is_some_and(|(n, _)| n == name);
        self.head[1..]
            .iter()
            .find(|line| find(line))
            .map(|line| line.split_once(':').unwrap().1.trim())
    }
}

impl Upstream {
    /// Answers each request; the connection ends when `answer` says false.
    pub fn start(answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    pub fn on(
        listener: TcpListener,
        answer: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, seen) = mpsc::channel();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for (serial, stream) in listener.incoming().enumerate() {
                let (answer, sender) = (Arc::clone(&answer), sender.clone());
                let Ok(stream) = stream else { return };
                thread::spawn(move || serve(stream, serial + 1, &*answer, &sender));
            }
        });
        Self { url, seen }
    }

    /// Answers every request with 200 and this text.
    pub fn saying(text: &'static str) -> Self {
        Self::start(move |_, stream| {
            let length = text.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all((head + text).as_bytes()).is_ok()
        })
    }

    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    answer: &dyn Fn(&Seen, &mut TcpStream) -> bool,
    sender: &mpsc::Sender<Seen>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(head) = head(&mut reader) {
        let body = body(&head, &mut reader);
        let seen = Seen { head, body, connection };
        let _ = sender.send(seen.clone());
        if !answer(&seen, &mut stream) {
            return;
        }
    }
}

fn head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(head),
            line => head.push(line.to_owned()),
        }
    }
}

fn body(head: &[String], reader: &mut impl BufRead) -> String {
    let value = |name: &str| {
        let find = |line: &&String| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        head[1..].iter().find(find).map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let mut body = Vec::new();
    if value("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).unwrap();
            let Ok(size) = u64::from_str_radix(size.trim(), 16) else { break };
            reader.take(size).read_to_end(&mut body).unwrap();
            reader.read_line(&mut String::new()).unwrap();
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = value("content-length") {
        reader.take(length.parse().unwrap()).read_to_end(&mut body).unwrap();
    }
    String::from_utf8(body).unwrap()
}
