//! A caller that sees every byte.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
};

use super::PATIENCE;

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub struct Client {
    socket: Socket,
    /// Bytes that came and are not yet looked at.
    held: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names as they were sent.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Whether the body came to its end.
    pub complete: bool,
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Client {
    pub fn new(socket: Socket) -> Self {
        match &socket {
            Socket::Tcp(stream) => stream.set_read_timeout(Some(PATIENCE)).unwrap(),
            Socket::Unix(stream) => stream.set_read_timeout(Some(PATIENCE)).unwrap(),
        }
        Self { socket, held: Vec::new() }
    }

    pub fn send(&mut self, text: &str) {
        self.try_send(text).unwrap();
    }

    pub fn try_send(&mut self, text: &str) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(text.as_bytes()),
            Socket::Unix(stream) => stream.write_all(text.as_bytes()),
        }
    }

    pub fn call(&mut self, request: &str) -> Reply {
        self.send(request);
        let head = request.starts_with("HEAD ");
        self.reply(head)
    }

    /// Closes the half that sends.
    pub fn end_sending(&self) {
        match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }

    /// The next answer; interim ones are skipped.
    pub fn reply(&mut self, to_head: bool) -> Reply {
        self.try_reply(to_head).unwrap()
    }

    pub fn try_reply(&mut self, to_head: bool) -> io::Result<Reply> {
        let mut reply = self.head()?;
        while reply.status / 100 == 1 && reply.status != 101 {
            reply = self.head()?;
        }
        if to_head || matches!(reply.status, 101 | 204 | 304) {
            reply.complete = true;
            return Ok(reply);
        }
        let body = match reply.header("content-length") {
            Some(length) => self.sized(length.parse().unwrap()),
            None => self.chunks(&mut reply),
        };
        reply.complete = body.1;
        reply.body = body.0.iter().map(|byte| char::from(*byte)).collect();
        if let Ok(text) = String::from_utf8(body.0) {
            reply.body = text;
        }
        Ok(reply)
    }

    /// A line of the answer without its end.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.held.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.more()?;
        }
    }

    /// The next bytes, as many as wanted.
    pub fn exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.held.len() < bytes {
            self.more()?;
        }
        Ok(self.held.drain(..bytes).collect())
    }

    /// One chunk of a chunked body; empty at its end.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        let chunk = self.exactly(size)?;
        if size > 0 {
            self.line()?;
        }
        Ok(chunk)
    }

    /// The first chunk of an answer.
    pub fn chunk_after_head(&mut self) -> Vec<u8> {
        self.head().unwrap();
        self.chunk().unwrap()
    }

    /// Head of an answer, interim or not.
    pub fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = self.fields()?;
        Ok(Reply { status, headers, body: String::new(), complete: false, trailers: Vec::new() })
    }

    /// Whether the other side closes the connection.
    pub fn is_closed(&mut self) -> bool {
        self.held.is_empty() && self.more().is_err()
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn sized(&mut self, bytes: usize) -> (Vec<u8>, bool) {
        while self.held.len() < bytes {
            if self.more().is_err() {
                return (std::mem::take(&mut self.held), false);
            }
        }
        (self.held.drain(..bytes).collect(), true)
    }

    fn chunks(&mut self, reply: &mut Reply) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            match self.chunk() {
                Err(_) => return (body, false),
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => body.extend(chunk),
            }
        }
        match self.fields() {
            Ok(trailers) => reply.trailers = trailers,
            Err(_) => return (body, false),
        }
        (body, true)
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut chunk)?,
            Socket::Unix(stream) => stream.read(&mut chunk)?,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.held.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}
