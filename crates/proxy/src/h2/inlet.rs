//! What comes on a stream of HTTP/2, read as HTTP/1.1 has it: a head, and the body after it.

use std::{
    io::{self, Write},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use http::HeaderMap;

use super::failed;
use crate::h1::{Framing, write_header};

/// A stream on its way in.
#[derive(Debug)]
pub struct Inlet {
    /// `None` once the body has ended.
    body: Option<RecvStream>,
    is_chunked: bool,
    /// Whether a chunk was begun, whose end is still to be written.
    in_chunk: bool,
    /// Written anew, goes before `data`.
    text: Vec<u8>,
    data: Bytes,
}

impl Inlet {
    /// A message whose head is `text`, and whose body is told to be framed like this.
    pub fn new(text: Vec<u8>, body: RecvStream, framing: Framing) -> Self {
        let body = (framing != Framing::None).then_some(body);
        let is_chunked = framing == Framing::Chunked;
        Self { body, is_chunked, in_chunk: false, text, data: Bytes::new() }
    }

    /// Reads what is there; 0 is the message's end.
    ///
    /// # Errors
    /// The stream was reset, or its connection failed.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        loop {
            filled += self.hand_out(&mut buffer[filled..])?;
            if filled == buffer.len() || (self.body.is_none() && self.is_empty()) {
                return Poll::Ready(Ok(filled));
            }
            if self.is_empty() {
                match self.poll_more(cx) {
                    Poll::Ready(Ok(())) => {}
                    // A failure is told again, when it stands alone.
                    _ if filled > 0 => return Poll::Ready(Ok(filled)),
                    other => ready!(other)?,
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.data.is_empty()
    }

    fn hand_out(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let text = self.text.len().min(buffer.len());
        buffer[..text].copy_from_slice(&self.text[..text]);
        self.text.drain(..text);
        let size = self.data.len().min(buffer.len() - text);
        buffer[text..text + size].copy_from_slice(&self.data[..size]);
        self.data.advance(size);
        if let Some(body) = &mut self.body
            && size > 0
        {
            body.flow_control().release_capacity(size).map_err(failed)?;
        }
        Ok(text + size)
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        if let Some(data) = ready!(body.poll_data(cx)) {
            self.data = data.map_err(failed)?;
            if self.is_chunked && !self.data.is_empty() {
                let end = if std::mem::replace(&mut self.in_chunk, true) { "\r\n" } else { "" };
                // Writing to memory cannot fail.
                let _ = write!(self.text, "{end}{:x}\r\n", self.data.len());
            }
            return Poll::Ready(Ok(()));
        }
        let trailer = ready!(body.poll_trailers(cx)).map_err(failed)?;
        self.body = None;
        if self.is_chunked {
            let end = if self.in_chunk { "\r\n" } else { "" };
            let _ = write!(self.text, "{end}0\r\n");
            write_fields(&trailer.unwrap_or_default(), &mut self.text);
            self.text.extend_from_slice(b"\r\n");
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes headers as lines.
pub fn write_fields(headers: &HeaderMap, output: &mut Vec<u8>) {
    for (name, value) in headers {
        write_header(output, name.as_str().as_bytes(), value.as_bytes());
    }
}
