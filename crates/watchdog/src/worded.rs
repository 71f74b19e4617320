//! A connection whose refusals have words.
//!
//! The server library answers what it cannot parse with a head alone, which is the one answer in the watchdog's name
//! that says nothing. Over TCP that head is held back, and the connection ends with what the originals send instead: a
//! text, without length or date, up to the end of the connection. The watchdog's own refusals of requests that are
//! no HTTP go the same way.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What a connection ends with, once that is known.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<OnceLock<String>>);

/// A connection that ends with words. Dropping it sends them.
#[derive(Debug)]
pub struct Worded {
    stream: TcpStream,
    last_words: LastWords,
}

impl LastWords {
    /// The connection ends with this: a status line without its version, and the text that explains it.
    pub fn set(&self, status: &str, text: &str) {
        // The first refusal counts: none follows it.
        let _ = self.0.set(format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{text}"
        ));
    }
}

impl Worded {
    /// Over this connection.
    pub fn new(stream: TcpStream, last_words: LastWords) -> Self {
        Self { stream, last_words }
    }

    /// Whether this is the library's own refusal, which is then held back.
    fn holds_back(&self, written: &[u8]) -> bool {
        let Some(status) = wordless_refusal(written) else { return false };
        self.last_words.set(status, status);
        true
    }
}

/// The status line of an answer that closes the connection, has no body, and says nothing else. A function's answer
/// could look like this too; it ends the connection as well.
fn wordless_refusal(written: &[u8]) -> Option<&str> {
    // Too long a line, too large a head, or no HTTP at all.
    let refuses = |code: &str| written.get(9..12) == Some(code.as_bytes());
    if !(refuses("400") || refuses("414") || refuses("431")) {
        return None;
    }
    let text = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let (mut closes, mut is_empty) = (false, false);
    for line in lines {
        match line {
            "Connection: close" => closes = true,
            "Content-Length: 0" => is_empty = true,
            line if line.starts_with("Date: ") => {}
            _ => return None,
        }
    }
    (closes && is_empty).then_some(status)
}

impl AsyncRead for Worded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Worded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.holds_back(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs
            && self.holds_back(buf)
        {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The words are still to come, and close the connection.
        match self.last_words.0.get() {
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}

impl Drop for Worded {
    fn drop(&mut self) {
        if let Some(words) = self.last_words.0.get() {
            // So few bytes always fit; a caller who is gone reads nothing anyhow.
            let _ = self.stream.try_write(words.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_refusal_that_ends_the_connection_is_held_back() {
        let date = "Date: Sat, 28 Nov 2026 01:00:00 GMT\r\n";
        let refusal = |lines: &str| format!("HTTP/1.1 400 Bad Request\r\n{lines}{date}\r\n");
        let held = |text: &str| wordless_refusal(text.as_bytes()).map(str::to_owned);
        let empty = refusal("Connection: close\r\nContent-Length: 0\r\n");
        assert_eq!(held(&empty).as_deref(), Some("400 Bad Request"));
        assert_eq!(held(&refusal("Content-Length: 0\r\n")), None);
        assert_eq!(held(&refusal("Connection: close\r\nContent-Length: 2\r\n")), None);
        assert_eq!(held(&refusal("Connection: close\r\nContent-Length: 0\r\nX-A: 1\r\n")), None);
        assert_eq!(held(&empty.replace("400 Bad", "417 Bad")), None);
        assert_eq!(held(&(empty + "more")), None);
    }
}
