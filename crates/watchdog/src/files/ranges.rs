//! Parts of a file that a caller asks for (RFC 9110 section 14).

use std::{
    collections::hash_map::RandomState,
    fmt::Write as _,
    fs::File,
    hash::{BuildHasher, Hasher},
    io,
    os::unix::fs::FileExt,
};

use pinnace_core::limits::RANGES_MAX;

/// Bytes of several ranges together that are sent as parts; for more the whole file is sent.
const PARTS_BYTES_MAX: u64 = 4 << 20;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Its first byte.
    pub from: u64,
    /// How many.
    pub bytes: u64,
}

/// What a Range header means for a file of a certain size.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file.
    All,
    /// One part.
    One(Range),
    /// Several parts.
    Several(Vec<Range>),
    /// Nothing that the file has; why, as a line.
    Impossible(&'static str),
}

impl Range {
    /// `bytes 1-4/18`.
    pub fn header(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.from, self.from + self.bytes - 1)
    }
}

/// Reads a Range header.
pub fn wanted(header: &str, size: u64) -> Wanted {
    let Some(list) = header.strip_prefix("bytes=") else {
        return Wanted::Impossible("invalid range\n");
    };
    let mut ranges = Vec::new();
    let mut some = false;
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        some = true;
        match parse(part, size) {
            None => return Wanted::Impossible("invalid range\n"),
            Some(range) if range.bytes == 0 => {}
            Some(range) => ranges.push(range),
        }
        if ranges.len() > RANGES_MAX {
            return Wanted::All;
        }
    }
    let total: u64 = ranges.iter().map(|range| range.bytes).fold(0, u64::saturating_add);
    match ranges[..] {
        [] if some && size > 0 => Wanted::Impossible("invalid range: failed to overlap\n"),
        [] => Wanted::All,
        [one] => Wanted::One(one),
        // Parts that overlap are more than the file: the file is less work for both.
        _ if total > size || total > PARTS_BYTES_MAX => Wanted::All,
        _ => Wanted::Several(ranges),
    }
}

/// One range; empty if the file ends before it; `None` if it is malformed.
fn parse(part: &str, size: u64) -> Option<Range> {
    let (from, to) = part.split_once('-')?;
    let (from, to) = (from.trim(), to.trim());
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    if from.is_empty() {
        let bytes = number(to)?.min(size);
        return Some(Range { from: size - bytes, bytes });
    }
    let from = number(from)?;
    let last = match to {
        "" => u64::MAX,
        to => number(to)?,
    };
    if from >= size {
        return Some(Range { from, bytes: 0 });
    }
    (last >= from).then(|| Range { from, bytes: last.min(size - 1) - from + 1 })
}

/// Several parts as one body, and the line that stands between them.
///
/// # Errors
/// The file cannot be read.
pub fn multipart(
    file: &File,
    ranges: &[Range],
    size: u64,
    content_type: &str,
) -> io::Result<(Vec<u8>, String)> {
    let boundary = boundary();
    let mut text = Vec::new();
    for range in ranges {
        let between = if text.is_empty() { "" } else { "\r\n" };
        let head = format!(
            "{between}--{boundary}\r\nContent-Range: {}\r\nContent-Type: {content_type}\r\n\r\n",
            range.header(size)
        );
        text.extend_from_slice(head.as_bytes());
        let begin = text.len();
        text.resize(begin + usize::try_from(range.bytes).unwrap_or(0), 0);
        file.read_exact_at(&mut text[begin..], range.from)?;
    }
    text.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok((text, boundary))
}

/// Sixty digits that no file can have foreseen.
fn boundary() -> String {
    let mut boundary = String::new();
    while boundary.len() < 60 {
        let _ = write!(boundary, "{:015x}", RandomState::new().build_hasher().finish() >> 4);
    }
    boundary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let one = |from, bytes| Wanted::One(Range { from, bytes });
        let impossible = Wanted::Impossible("invalid range: failed to overlap\n");
        for (header, meant) in [
            ("bytes=1-4", one(1, 4)),
            ("bytes=-5", one(13, 5)),
            ("bytes=-50", one(0, 18)),
            ("bytes=10-", one(10, 8)),
            ("bytes=0-99", one(0, 18)),
            ("bytes=100-", impossible),
            ("bytes=4-1", Wanted::Impossible("invalid range\n")),
            ("bytes=+1-4", Wanted::Impossible("invalid range\n")),
            ("lines=1-4", Wanted::Impossible("invalid range\n")),
            ("bytes=", Wanted::All),
            ("bytes=0-,0-", Wanted::All),
            ("bytes=0-0, 100-", one(0, 1)),
        ] {
            assert_eq!(wanted(header, 18), meant, "{header}");
        }
        let several =
            Wanted::Several(vec![Range { from: 0, bytes: 1 }, Range { from: 2, bytes: 2 }]);
        assert_eq!(wanted("bytes=0-0,2-3", 18), several);
        let many = format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1));
        assert_eq!(wanted(&many, 18), Wanted::All);
        assert_eq!(wanted("bytes=0-0", 0), Wanted::All);
    }

    #[test]
    fn parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "<html>").unwrap();
        let ranges = [Range { from: 0, bytes: 1 }, Range { from: 2, bytes: 2 }];
        let (text, boundary) = multipart(&File::open(path).unwrap(), &ranges, 6, "t/x").unwrap();
        assert_eq!(boundary.len(), 60);
        let text = String::from_utf8(text).unwrap().replace(&boundary, "B");
        assert_eq!(
            text,
            "--B\r\nContent-Range: bytes 0-0/6\r\nContent-Type: t/x\r\n\r\n<\r\n--B\r\nContent-Range: bytes \
             2-3/6\r\nContent-Type: t/x\r\n\r\ntm\r\n--B--\r\n"
        );
    }
}
