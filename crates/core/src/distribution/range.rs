//! Parts of things: chunks of an upload, ranges of a blob, pages of a list.

use crate::limits::REGISTRY_PAGE_MAX;

/// What a request may add to an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes that are to come, if that is known.
    pub bytes: Option<u64>,
    /// Bytes that may come at most.
    pub bytes_max: u64,
}

/// Why a request may add nothing to an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkFault {
    /// `Content-Range` is not `FIRST-LAST`.
    Form,
    /// It does not begin where the upload stands.
    OutOfOrder,
    /// The range and the length of the body differ.
    Length,
    /// The blob would be larger than it may be.
    TooLarge,
}

/// Judges what a request would add to an upload that has `offset` bytes: by its `Content-Range`, if it has one, and the
/// length of its body, if it names it. The blob may have `blob_bytes_max` bytes.
///
/// # Errors
/// It may not.
pub fn chunk(
    offset: u64,
    content_range: Option<&str>,
    length: Option<u64>,
    blob_bytes_max: u64,
) -> Result<Chunk, ChunkFault> {
    let range = content_range.map(|text| first_and_last(text).ok_or(ChunkFault::Form));
    let range = range.transpose()?;
    if range.is_some_and(|(first, _)| first != offset) {
        return Err(ChunkFault::OutOfOrder);
    }
    let ranged = range.map(|(first, last)| (last - first).saturating_add(1));
    if ranged.zip(length).is_some_and(|(ranged, length)| ranged != length) {
        return Err(ChunkFault::Length);
    }
    let (bytes, left) = (ranged.or(length), blob_bytes_max.saturating_sub(offset));
    match bytes {
        Some(bytes) if bytes > left => Err(ChunkFault::TooLarge),
        _ => Ok(Chunk { bytes, bytes_max: bytes.unwrap_or(left) }),
    }
}

/// `FIRST-LAST`, both digits alone and in order.
fn first_and_last(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (digits(first)?, digits(last)?);
    (first <= last).then_some((first, last))
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The part of a blob that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it.
    Whole,
    /// From a byte up to and with another.
    Part {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// Nothing that it has.
    Beyond,
}

impl ByteRange {
    /// Reads a header `Range` (RFC 9110 section 14.2), of content of so many bytes. What it is allowed to ignore, such as
    /// several ranges at once, is the whole.
    #[must_use]
    pub fn read(header: Option<&str>, bytes: u64) -> Self {
        let range = header.and_then(|header| header.strip_prefix("bytes="));
        let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
            return Self::Whole;
        };
        let end = bytes.saturating_sub(1);
        match (digits(first), digits(last)) {
            _ if first.is_empty() && last.is_empty() => Self::Whole,
            (None, Some(0)) if first.is_empty() => Self::Beyond,
            (None, Some(count)) if first.is_empty() => {
                Self::part(bytes.saturating_sub(count), end, bytes)
            }
            (Some(first), None) if last.is_empty() => Self::part(first, end, bytes),
            (Some(first), Some(last)) if first <= last => Self::part(first, last.min(end), bytes),
            // It may be ignored too; a client that wrote this would not be served by all of a large blob.
            (Some(_), Some(_)) => Self::Beyond,
            _ => Self::Whole,
        }
    }

    fn part(first: u64, last: u64, bytes: u64) -> Self {
        if first < bytes { Self::Part { first, last } } else { Self::Beyond }
    }
}

/// Which part of a list a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries at most.
    pub entries_max: usize,
    /// The entry after which it begins.
    pub last: Option<String>,
}

impl Page {
    /// Reads the parameters `n` and `last`.
    ///
    /// # Errors
    /// `n` is no number.
    pub fn read(n: Option<&str>, last: Option<&str>) -> Result<Self, String> {
        let wanted = n.filter(|n| !n.is_empty()).map(|n| {
            // A number that has no room here is more than there may be.
            let is_number = n.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| n.parse().unwrap_or(usize::MAX))
        });
        let entries_max = match wanted {
            None => REGISTRY_PAGE_MAX,
            Some(Some(wanted)) => wanted.min(REGISTRY_PAGE_MAX),
            Some(None) => return Err("`n` is no number of entries".to_owned()),
        };
        Ok(Self { entries_max, last: last.filter(|last| !last.is_empty()).map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_come_in_order_and_are_what_they_say() {
        let open = |bytes_max| Ok(Chunk { bytes: None, bytes_max });
        let sized = |bytes| Ok(Chunk { bytes: Some(bytes), bytes_max: bytes });
        for (offset, range, length, judged) in [
            (0, None, None, open(100)),
            (40, None, None, open(60)),
            (40, None, Some(60), sized(60)),
            (0, Some("0-9"), Some(10), sized(10)),
            (10, Some("10-19"), None, sized(10)),
            (0, None, Some(0), sized(0)),
            (10, Some("0-9"), Some(10), Err(ChunkFault::OutOfOrder)),
            (10, Some("20-29"), Some(10), Err(ChunkFault::OutOfOrder)),
            (10, Some("10-19"), Some(11), Err(ChunkFault::Length)),
            (0, Some("0-99"), Some(100), sized(100)),
            (0, Some("0-100"), None, Err(ChunkFault::TooLarge)),
            (40, None, Some(61), Err(ChunkFault::TooLarge)),
            (200, None, None, open(0)),
            (0, Some("0-18446744073709551615"), None, Err(ChunkFault::TooLarge)),
            (0, Some("0-18446744073709551616"), None, Err(ChunkFault::Form)),
            (0, Some("9-0"), None, Err(ChunkFault::Form)),
            (0, Some("bytes 0-9/10"), None, Err(ChunkFault::Form)),
            (0, Some("+0-9"), None, Err(ChunkFault::Form)),
            (0, Some(""), None, Err(ChunkFault::Form)),
            (0, Some("-"), None, Err(ChunkFault::Form)),
        ] {
            assert_eq!(chunk(offset, range, length, 100), judged, "{offset} {range:?} {length:?}");
        }
    }

    #[test]
    fn ranges_of_a_blob() {
        let part = |first, last| ByteRange::Part { first, last };
        for (header, bytes, range) in [
            ("bytes=0-9", 100, part(0, 9)),
            ("bytes=90-", 100, part(90, 99)),
            ("bytes=90-1000", 100, part(90, 99)),
            ("bytes=-10", 100, part(90, 99)),
            ("bytes=-1000", 100, part(0, 99)),
            ("bytes=100-", 100, ByteRange::Beyond),
            ("bytes=100-200", 100, ByteRange::Beyond),
            ("bytes=-0", 100, ByteRange::Beyond),
            ("bytes=0-", 0, ByteRange::Beyond),
            ("bytes=-5", 0, ByteRange::Beyond),
            ("bytes=9-0", 100, ByteRange::Beyond),
            ("bytes=0-1,5-6", 100, ByteRange::Whole),
            ("bytes=-", 100, ByteRange::Whole),
            ("bytes=a-b", 100, ByteRange::Whole),
            ("lines=0-9", 100, ByteRange::Whole),
        ] {
            assert_eq!(ByteRange::read(Some(header), bytes), range, "{header} of {bytes}");
        }
        assert_eq!(ByteRange::read(None, 100), ByteRange::Whole);
    }

    proptest! {
        #[test]
        fn what_is_sent_lies_within_the_blob(header in "bytes=[0-9-]{0,25}", bytes in 0u64..1000) {
            if let ByteRange::Part { first, last } = ByteRange::read(Some(&header), bytes) {
                prop_assert!(first <= last && last < bytes);
            }
        }

        #[test]
        fn what_is_added_fits(range in "[0-9-]{0,42}", offset: u64, length: Option<u64>, max: u64) {
            if let Ok(chunk) = chunk(offset, Some(&range), length, max) {
                prop_assert!(offset.saturating_add(chunk.bytes_max) <= max.max(offset));
            }
        }
    }

    #[test]
    fn pages() {
        let page = |n, last| Page::read(n, last).map(|page| (page.entries_max, page.last));
        assert_eq!(page(None, None), Ok((REGISTRY_PAGE_MAX, None)));
        assert_eq!(page(Some("3"), Some("a")), Ok((3, Some("a".to_owned()))));
        assert_eq!(page(Some("0"), Some("")), Ok((0, None)));
        let nines = "9".repeat(50);
        assert_eq!(page(Some(&nines), None), Ok((REGISTRY_PAGE_MAX, None)));
        assert!(page(Some("-1"), None).is_err() && page(Some("many"), None).is_err());
    }
}
