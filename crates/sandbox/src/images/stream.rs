//! Readers that count, bound, hash and decompress what flows through them.

use std::{
    cell::Cell,
    io::{self, BufReader, Cursor, Read},
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::{Progress, error::LoadError};

/// How many bytes of the archive lie between two reports.
const REPORT_BYTES: u64 = 1 << 20;
/// Largest window of a zstd stream, as a power of two: what decoders accept by default. Bounds memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const READ_BYTES: usize = 128 << 10;

/// The archive as it comes in: counted, bounded, and reported.
pub(super) struct Metered<'a, R> {
    inner: R,
    bytes: u64,
    bytes_max: u64,
    reported: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(inner: R, bytes_max: u64, progress: &'a mut dyn FnMut(Progress)) -> Self {
        progress(Progress { bytes: 0, step: "reading".into() });
        Self { inner, bytes: 0, bytes_max, reported: 0, progress }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.inner.read(buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(LoadError::Read(error).into_io()),
        };
        self.bytes += read as u64;
        if self.bytes > self.bytes_max {
            return Err(LoadError::Limit {
                what: "the archive is too large".into(),
                max: self.bytes_max,
                unit: "bytes",
                limit: "IMAGE_BYTES_MAX, --image-bytes-max",
            }
            .into_io());
        }
        if self.bytes - self.reported >= REPORT_BYTES {
            self.reported = self.bytes;
            (self.progress)(Progress { bytes: self.bytes, step: "reading".into() });
        }
        Ok(read)
    }
}

/// How many bytes one load may still unpack.
pub(super) struct Budget {
    left: Cell<u64>,
    max: u64,
}

impl Budget {
    pub(super) fn new(max: u64) -> Self {
        Self { left: Cell::new(max), max }
    }

    /// Takes from what is left.
    pub(super) fn take(&self, bytes: u64) -> Result<(), LoadError> {
        self.check(bytes)?;
        self.left.set(self.left.get() - bytes);
        Ok(())
    }

    /// Whether so much is left; for sizes that are announced.
    pub(super) fn check(&self, bytes: u64) -> Result<(), LoadError> {
        if bytes <= self.left.get() {
            return Ok(());
        }
        Err(LoadError::Limit {
            what: "the image is too large once unpacked".into(),
            max: self.max,
            unit: "bytes",
            limit: "IMAGE_UNPACKED_BYTES_MAX",
        })
    }
}

/// Takes what is read from a budget.
pub(super) struct Bounded<'a, R> {
    inner: R,
    budget: &'a Budget,
}

impl<'a, R: Read> Bounded<'a, R> {
    pub(super) fn new(inner: R, budget: &'a Budget) -> Self {
        Self { inner, budget }
    }
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.budget.take(read as u64).map_err(LoadError::into_io)?;
        Ok(read)
    }
}

/// Hashes what is read.
pub(super) struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Digest of all that was read, `sha256:…`.
    pub(super) fn digest(self) -> String {
        digest_name(self.hasher)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The finished hash as images write it, `sha256:…`.
pub(super) fn digest_name(hasher: Sha256) -> String {
    use std::fmt::Write as _;
    hasher.finalize().iter().fold("sha256:".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Digest of bytes in memory, `sha256:…`.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    digest_name(Sha256::new_with_prefix(bytes))
}

/// The 64 hexadecimal digits of a `sha256:…`, if it is one.
pub(super) fn sha256_hex(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| is_sha256_hex(hex))
}

/// Whether these are the 64 lower-case hexadecimal digits of a SHA-256.
pub(super) fn is_sha256_hex(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Decompresses gzip and zstd, found by their first bytes; anything else is handed on.
pub(super) fn decoded<'a, R: Read + 'a>(mut reader: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut start)?;
    let gzip = start.starts_with(&[0x1f, 0x8b]);
    let zstd = matches!(start[..], [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
    let whole = BufReader::with_capacity(READ_BYTES, Cursor::new(start).chain(reader));
    if gzip {
        return Ok(Box::new(MultiGzDecoder::new(whole)));
    }
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn through(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoded(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn content_decides_how_it_is_decompressed() {
        let text = b"some text, some text, some text".repeat(20);
        let mut two_members = gzip(&text[..100]);
        two_members.extend(gzip(&text[100..]));
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for packed in [text.clone(), gzip(&text), two_members, zstd] {
            assert_eq!(through(&packed).unwrap(), text);
        }
        for short in [&b""[..], b"a", b"\x1f"] {
            assert_eq!(through(short).unwrap(), short);
        }
    }

    #[test]
    fn cut_streams_are_told_as_cut() {
        let text = b"some text, some text, some text".repeat(20);
        for packed in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let error = through(&packed[..packed.len() - 3]).unwrap_err();
            assert!(matches!(LoadError::from_reader("x", error), LoadError::Truncated(_)));
        }
    }

    #[test]
    fn budgets_and_meters_stop() {
        let budget = Budget::new(10);
        let mut out = Vec::new();
        let error = Bounded::new(&[0u8; 11][..], &budget).read_to_end(&mut out).unwrap_err();
        assert!(matches!(LoadError::from_reader("x", error), LoadError::Limit { max: 10, .. }));
        let mut none = |_: Progress| {};
        let error = Metered::new(&[0u8; 11][..], 10, &mut none).read_to_end(&mut out).unwrap_err();
        assert!(matches!(LoadError::from_reader("x", error), LoadError::Limit { max: 10, .. }));
    }

    #[test]
    fn digests_read_as_images_write_them() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of(b""), empty);
        assert!(sha256_hex(empty).is_some());
        for bad in ["sha256:../x", "sha512:00", &empty.to_uppercase(), &empty[..70]] {
            assert_eq!(sha256_hex(bad), None, "{bad}");
        }
    }
}
