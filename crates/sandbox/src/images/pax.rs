//! Extension headers of a tar: PAX records and GNU long names, which change the entry after them.

use super::error::EntryFault;

/// What extension headers said about the entry that follows.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// Path.
    pub path: Option<Vec<u8>>,
    /// Target of a link.
    pub link: Option<Vec<u8>>,
    /// Bytes of content.
    pub size: Option<u64>,
    /// Owner.
    pub uid: Option<u64>,
    /// Group.
    pub gid: Option<u64>,
    /// Time of change: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Something said that the entry cannot be unpacked as it stands.
    pub fault: Option<EntryFault>,
}

impl Extensions {
    /// Takes over the records of a PAX header. Later ones replace earlier ones.
    pub(super) fn take_pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("a PAX record is malformed")?;
            self.take_record(key, value)?;
            records = rest;
        }
        Ok(())
    }

    /// Takes over a GNU long name (`L`).
    pub(super) fn take_long_path(&mut self, name: &[u8]) {
        self.path.get_or_insert_with(|| until_nul(name).to_vec());
    }

    /// Takes over a GNU long link target (`K`).
    pub(super) fn take_long_link(&mut self, name: &[u8]) {
        self.link.get_or_insert_with(|| until_nul(name).to_vec());
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or("a PAX size is no number")?),
            b"uid" => self.uid = Some(decimal(value).ok_or("a PAX uid is no number")?),
            b"gid" => self.gid = Some(decimal(value).ok_or("a PAX gid is no number")?),
            b"mtime" => self.mtime = Some(time(value).ok_or("a PAX mtime is no time")?),
            _ if key.starts_with(b"GNU.sparse.") => {
                self.fault = Some(EntryFault::Unsupported(
                    "a sparse file in PAX form; write the tar without --sparse",
                ));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(earlier, _)| earlier != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Splits `LENGTH KEY=VALUE\n` off the front.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let (whole, rest) = records.split_at_checked(length)?;
    let text = whole.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|&byte| byte == b'=')?;
    Some((&text[..equals], &text[equals + 1..], rest))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, perhaps negative.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read() {
        let mut extensions = Extensions::default();
        extensions
            .take_pax(
                b"10 path=a\n18 uid=4294967295\n22 mtime=1350244992.5\n29 SCHILY.xattr.user.a=b\nc=d\n",
            )
            .unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"a"[..]));
        assert_eq!(extensions.uid, Some(4_294_967_295));
        assert_eq!(extensions.mtime, Some((1_350_244_992, 500_000_000)));
        assert_eq!(extensions.xattrs, [(b"user.a".to_vec(), b"b\nc=d".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            "1 a=b\n",
            "99 a=b\n",
            "6 a=b",
            "x a=b\n",
            "5 ab\n",
            "0 ",
            " =\n",
            "9 size=x\n",
            "-6 a=b\n",
        ] {
            assert!(Extensions::default().take_pax(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_go_before_1970() {
        assert_eq!(time(b"-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"7.0000000019"), Some((7, 1)));
        for bad in ["", "x", "1.x", "1.-1", "99999999999999999999"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extensions::default().take_pax(&bytes);
        }
    }
}
