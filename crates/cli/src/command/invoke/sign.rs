//! A signature over a call's body, for functions that check who wrote it: HMAC with SHA-256, as webhooks
//! carry it.

use std::io::Read;

use hmac::{Hmac, KeyInit, Mac};
use pinnace_core::limits;
use sha2::Sha256;

use crate::gateway::CallBody;

/// The header's value for a body and a key.
pub fn signature(body: &[u8], key: &str) -> String {
    // A key of any length is fine.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// A body in one piece: what is signed must be known before its first byte is sent.
///
/// # Errors
/// It cannot be read or is too long.
pub fn whole(body: CallBody) -> anyhow::Result<Vec<u8>> {
    let stream = match body {
        CallBody::None => return Ok(Vec::new()),
        CallBody::Whole(bytes) => return Ok(bytes),
        CallBody::Stream(stream) => stream,
    };
    bounded(stream, limits::SIGNED_BODY_BYTES_MAX)
}

fn bounded(stream: impl Read, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        anyhow::bail!("the body is more than {most} bytes, the most that --sign signs");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_rfc_4231() {
        // Test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature(b"what do ya want for nothing?", "Jefe"), expected);
    }

    #[test]
    fn bodies_in_one_piece() {
        assert_eq!(whole(CallBody::None).unwrap(), b"");
        assert_eq!(whole(CallBody::Stream(Box::new(&b"abc"[..]))).unwrap(), b"abc");
        assert_eq!(bounded(&b"abc"[..], 3).unwrap(), b"abc");
        let said = bounded(std::io::repeat(0), 3).unwrap_err().to_string();
        assert_eq!(said, "the body is more than 3 bytes, the most that --sign signs");
    }
}
