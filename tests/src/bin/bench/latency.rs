//! One caller with one connection, timed call by call.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Longest time that a call may take.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// A kept-alive connection that calls one path again and again.
pub struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Caller {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn connect(address: &str, path: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALL_TIME_MAX))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, buffer: vec![0; 16 << 10] })
    }

    /// Calls once and answers how long it took until the whole answer was there, in microseconds.
    ///
    /// # Errors
    /// The connection broke, or the answer was not 200 with a `Content-Length`.
    pub fn call(&mut self) -> Result<f64> {
        let begin = Instant::now();
        self.stream.write_all(&self.request)?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..])?;
            if read == 0 {
                bail!("the connection ended early");
            }
            filled += read;
            if is_whole(&self.buffer[..filled])? {
                return Ok(begin.elapsed().as_secs_f64() * 1e6);
            }
            if filled == self.buffer.len() {
                bail!("the answer is longer than {filled} bytes");
            }
        }
    }
}

/// Whether an answer has arrived to its end.
fn is_whole(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    if !head.starts_with("http/1.1 200") {
        bail!("the answer was {}", head.lines().next().unwrap_or_default());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("the answer has no Content-Length")?.trim().parse()?;
    Ok(answer.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
        let with = |body: &[u8]| is_whole(&[head.as_slice(), body].concat());
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n").unwrap());
        assert!(!with(b"o").unwrap());
        assert!(with(b"ok").unwrap());
        assert!(is_whole(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").is_err());
    }
}
