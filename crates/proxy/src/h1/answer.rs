//! Reading an answer whole, for callers within the platform.

use std::io;

use pinnace_core::limits::{PRELIMINARY_ANSWERS_MAX, RESPONSE_HEAD_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{
    body::{Decoder, Encoder, recode},
    head,
};

/// Bytes read in one go.
const INPUT_BYTES: usize = 16 << 10;

/// Bytes of a head: that of a function's answer, and what a gateway adds.
const HEAD_BYTES_MAX: usize = RESPONSE_HEAD_BYTES_MAX + (64 << 10);

/// An answer, as much of it as was wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeAnswer {
    /// Its status.
    pub status: u16,
    /// The headers that go on to the next hop, in their order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the body has more bytes than were kept.
    pub is_cut: bool,
}

impl WholeAnswer {
    /// The value of a header; the first, if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }
}

/// Reads the answer to a request that was not HEAD. Of its body `kept_max` bytes are kept; what is beyond is
/// read and thrown away.
///
/// # Errors
/// It broke off, or is no answer.
pub async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
    kept_max: usize,
) -> io::Result<WholeAnswer> {
    let mut input = vec![0; INPUT_BYTES];
    let mut held = Vec::new();
    let mut preliminary = 0;
    let (mut answer, mut decoder) = loop {
        if let Some((answer, framing, size)) = read_head(&held)? {
            held.drain(..size);
            if answer.status >= 200 {
                break (answer, Decoder::new(framing));
            }
            preliminary += 1;
            if preliminary > PRELIMINARY_ANSWERS_MAX {
                return Err(malformed("it has too many preliminary answers (1xx)"));
            }
            continue;
        }
        if held.len() > HEAD_BYTES_MAX {
            return Err(malformed("its head is too large"));
        }
        match stream.read(&mut input).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            size => held.extend_from_slice(&input[..size]),
        }
    };
    keep(&mut answer, &mut decoder, &held, kept_max)?;
    while !decoder.is_ended() {
        match stream.read(&mut input).await? {
            0 => decoder.end().map_err(io::Error::other)?,
            size => keep(&mut answer, &mut decoder, &input[..size], kept_max)?,
        }
    }
    Ok(answer)
}

fn read_head(bytes: &[u8]) -> io::Result<Option<(WholeAnswer, super::Framing, usize)>> {
    let read = head::response(bytes, |head, size| {
        let headers = head.passing().map(|(name, value)| (name.to_owned(), value.to_vec()));
        let answer = WholeAnswer {
            status: head.status,
            headers: headers.collect(),
            ..WholeAnswer::default()
        };
        (answer, head.framing(false), size)
    });
    read.map_err(malformed)
}

fn keep(
    answer: &mut WholeAnswer,
    decoder: &mut Decoder,
    input: &[u8],
    kept_max: usize,
) -> io::Result<()> {
    recode(decoder, Encoder::Plain, input, &mut answer.body).map_err(malformed)?;
    if answer.body.len() > kept_max {
        answer.body.truncate(kept_max);
        answer.is_cut = true;
    }
    Ok(())
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut text: &[u8], kept_max: usize) -> io::Result<WholeAnswer> {
        read_answer(&mut text, kept_max).await
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end() {
        let chunked = b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = read(chunked, 100).await.unwrap();
        assert_eq!((answer.status, &answer.body[..], answer.is_cut), (200, &b"abcde"[..], false));
        assert_eq!((answer.headers.len(), answer.header("X-a")), (2, Some(&b"1"[..])));
        let cut = read(chunked, 4).await.unwrap();
        assert_eq!((&cut.body[..], cut.is_cut), (&b"abcd"[..], true));
        let plain = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
        assert_eq!(read(plain, 2).await.unwrap().body, b"no");
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nall", 9).await.unwrap().body, b"all");
        assert_eq!(read(b"HTTP/1.1 204 No\r\n\r\n", 9).await.unwrap().body, b"");
    }

    #[tokio::test]
    async fn what_breaks_off_is_an_error() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\nA",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(read(text.as_bytes(), 9).await.is_err(), "{text:?}");
        }
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
        assert!(read(endless.as_bytes(), 9).await.is_err());
    }
}
