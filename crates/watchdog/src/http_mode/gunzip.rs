//! Unpacks a gzip body that the caller did not ask for: the watchdog asked in its stead.

use std::io::Write;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body::Frame;

use crate::answer::Broken;

/// Most bytes that are unpacked before they are handed on: gzip can grow a thousandfold.
const PLAIN_PART_BYTES_MAX: usize = 16 << 20;

/// A gzip stream that is being unpacked.
#[derive(Debug)]
pub struct Gunzip {
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

impl Default for Gunzip {
    fn default() -> Self {
        Self { decoder: Some(MultiGzDecoder::new(Vec::new())) }
    }
}

impl Gunzip {
    /// The plain form of the next part; `None` at the end.
    pub fn unpack(
        &mut self,
        next: Option<Result<Frame<Bytes>, Broken>>,
    ) -> Option<Result<Bytes, Broken>> {
        match next {
            Some(Ok(frame)) => Some(self.write(frame.data_ref().map_or(&[], Bytes::as_ref))),
            Some(Err(broken)) => Some(Err(broken)),
            None => self.finish(),
        }
    }

    fn write(&mut self, packed: &[u8]) -> Result<Bytes, Broken> {
        let Some(decoder) = &mut self.decoder else { return Ok(Bytes::new()) };
        for piece in packed.chunks(4 << 10) {
            decoder.write_all(piece).map_err(Broken::Gzip)?;
            if decoder.get_ref().len() > PLAIN_PART_BYTES_MAX {
                return Err(Broken::Gzip(std::io::Error::other("it unpacks to too much at once")));
            }
        }
        decoder.flush().map_err(Broken::Gzip)?;
        Ok(std::mem::take(decoder.get_mut()).into())
    }

    fn finish(&mut self) -> Option<Result<Bytes, Broken>> {
        let rest = self.decoder.take()?.finish().map_err(Broken::Gzip);
        match rest {
            Ok(rest) if rest.is_empty() => None,
            rest => Some(rest.map(Bytes::from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(parts: &[&[u8]]) -> Result<Vec<u8>, Broken> {
        let (mut gunzip, mut plain) = (Gunzip::default(), Vec::new());
        for part in parts {
            let frame = Frame::data(Bytes::copy_from_slice(part));
            plain.extend_from_slice(&gunzip.unpack(Some(Ok(frame))).unwrap()?);
        }
        while let Some(rest) = gunzip.unpack(None) {
            plain.extend_from_slice(&rest?);
        }
        Ok(plain)
    }

    #[test]
    fn parts_of_any_size_unpack() {
        let packed = packed(b"hello hello hello");
        let bytes: Vec<&[u8]> = packed.chunks(1).collect();
        assert_eq!(unpacked(&bytes).unwrap(), b"hello hello hello");
        assert_eq!(unpacked(&[&packed]).unwrap(), b"hello hello hello");
    }

    #[test]
    fn what_is_no_gzip_or_cut_short_breaks_off() {
        assert!(unpacked(&[b"garbage that is no gzip"]).is_err());
        let packed = packed(&[b'x'; 4096]);
        assert!(unpacked(&[&packed[..packed.len() - 4]]).is_err());
    }

    #[test]
    fn a_part_that_grows_without_end_breaks_off() {
        let packed = packed(&vec![0; PLAIN_PART_BYTES_MAX * 2]);
        assert!(unpacked(&[&packed]).is_err());
    }
}
