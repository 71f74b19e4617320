//! How the bodies of answers are framed for callers by TCP: as the originals do, so that who looks closely sees no
//! difference. Over a socket that was handed over, a length that is known is told.

use std::time::Duration;

use http::{HeaderValue, Method, Response, Version, header};
use http_body::Body as _;

use crate::{answer::Answer, front::Peer};

/// A body of a process that is larger goes in chunks.
const COUNTED_BYTES: u64 = 2048;
/// A body of the function's server whose length it did not tell, and that is shorter than this, gets its length.
pub const COUNTED_RELAYED_BYTES: usize = 512;
/// How long the beginning of an answer is held in case it is all of it. The originals hold it until the buffer is
/// full, so that what is written slowly arrives late.
pub const HELD_FOR: Duration = Duration::from_millis(10);

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    may_be_chunked: bool,
}

impl Asked {
    /// By a request.
    pub fn by(method: &Method, version: Version, peer: Option<Peer>) -> Self {
        let may_be_chunked =
            peer.is_some() && *method != Method::HEAD && version == Version::HTTP_11;
        Self { may_be_chunked }
    }

    /// Puts the answer of a process in order.
    pub fn frame(self, response: &mut Response<Answer>) {
        let large = response.body().size_hint().exact().is_some_and(|size| size > COUNTED_BYTES);
        if self.may_be_chunked && large {
            let chunked = HeaderValue::from_static("chunked");
            response.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_bodies_by_tcp_go_in_chunks() {
        let address = "127.0.0.1:1".parse().unwrap();
        let peer = Some(Peer { local: address, remote: address });
        let is_chunked = |method: Method, version, peer, bytes| {
            let mut response = Response::new(Answer::memory(vec![b'x'; bytes]));
            Asked::by(&method, version, peer).frame(&mut response);
            response.headers().contains_key("transfer-encoding")
        };
        assert!(is_chunked(Method::GET, Version::HTTP_11, peer, 2049));
        assert!(!is_chunked(Method::GET, Version::HTTP_11, peer, 2048));
        assert!(!is_chunked(Method::GET, Version::HTTP_11, None, 2049));
        assert!(!is_chunked(Method::HEAD, Version::HTTP_11, peer, 2049));
        assert!(!is_chunked(Method::GET, Version::HTTP_10, peer, 2049));
    }
}
