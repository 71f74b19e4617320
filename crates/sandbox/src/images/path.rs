//! Paths of layer entries, taken apart before anything is done with them.

use pinnace_core::limits::{LAYER_DEPTH_MAX, LAYER_PATH_BYTES_MAX};

use super::error::EntryFault;

/// Longest file name of the usual file systems.
const NAME_BYTES_MAX: usize = 255;
const WHITEOUT: &[u8] = b".wh.";
const RESERVED: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the layer's directory: names joined by single slashes, none of them `.` or `..`, empty for
/// the layer's own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Reads a path from a tar. A leading slash is the layer's own directory, as the image's root is.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, EntryFault> {
        if raw.len() > LAYER_PATH_BYTES_MAX {
            return Err(EntryFault::Length);
        }
        if raw.contains(&0) {
            return Err(EntryFault::NulByte);
        }
        let mut joined = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for name in raw.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(EntryFault::Upwards),
                _ if name.len() > NAME_BYTES_MAX => return Err(EntryFault::Length),
                _ => {}
            }
            depth += 1;
            if depth > LAYER_DEPTH_MAX {
                return Err(EntryFault::TooDeep(LAYER_DEPTH_MAX));
            }
            if !joined.is_empty() {
                joined.push(b'/');
            }
            joined.extend_from_slice(name);
        }
        Ok(Self(joined))
    }

    /// Whether it is the layer's own directory.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory it lies in, and its name there.
    pub(super) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// Whether it lies below a directory of this name at the top.
    pub(super) fn is_below(&self, top: &[u8]) -> bool {
        self.0.strip_prefix(top).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// What the path's names mean to a layer (OCI image-spec, `layer.md`, "Whiteouts").
    pub(super) fn meaning(&self) -> Result<Meaning<'_>, EntryFault> {
        let (parent, name) = self.split();
        for above in parent.split(|&byte| byte == b'/') {
            if above.starts_with(RESERVED) {
                return Ok(Meaning::Nothing);
            }
            if above.starts_with(WHITEOUT) {
                return Err(EntryFault::UnderWhiteout);
            }
        }
        if name == OPAQUE {
            return Ok(Meaning::Opaque);
        }
        if name.starts_with(RESERVED) {
            return Ok(Meaning::Nothing);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Meaning::Plain),
            Some(b"" | b"." | b"..") => Err(EntryFault::Whiteout),
            Some(gone) => Ok(Meaning::Whiteout(gone)),
        }
    }
}

/// What an entry's name says to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// It is what it is.
    Plain,
    /// Lower layers' file of this name is hidden.
    Whiteout(&'a [u8]),
    /// All that lower layers have in its directory is hidden.
    Opaque,
    /// Bookkeeping of the old aufs driver, left out.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<Vec<u8>, EntryFault> {
        EntryPath::parse(raw.as_bytes()).map(|path| path.0)
    }

    #[test]
    fn paths_are_normal_or_refused() {
        for (raw, normal) in [
            ("./a//b/", "a/b"),
            ("/a", "a"),
            ("./", ""),
            ("", ""),
            ("a/./b", "a/b"),
            ("..a", "..a"),
        ] {
            assert_eq!(parse(raw).unwrap(), normal.as_bytes(), "{raw}");
        }
        for raw in ["..", "../a", "a/../b", "a/..", "/..", "./../.wh.x"] {
            assert!(matches!(parse(raw), Err(EntryFault::Upwards)), "{raw}");
        }
        assert!(matches!(parse("a\0b"), Err(EntryFault::NulByte)));
        assert!(matches!(parse(&"n".repeat(256)), Err(EntryFault::Length)));
        assert!(matches!(parse(&"n/".repeat(3000)), Err(EntryFault::Length)));
        assert!(matches!(parse(&"n/".repeat(257)), Err(EntryFault::TooDeep(256))));
        assert!(parse(&"n/".repeat(256)).is_ok());
    }

    #[test]
    fn names_tell_whiteouts() {
        let meaning = |raw: &str| {
            let path = EntryPath::parse(raw.as_bytes()).unwrap();
            path.meaning().map(|meaning| format!("{meaning:?}")).map_err(|e| format!("{e:?}"))
        };
        assert_eq!(meaning("a/b").unwrap(), "Plain");
        assert!(meaning("a/.wh.b").unwrap().starts_with("Whiteout"));
        assert_eq!(meaning("a/.wh..wh..opq").unwrap(), "Opaque");
        assert_eq!(meaning(".wh..wh.plnk/1.2").unwrap(), "Nothing");
        assert_eq!(meaning(".wh..wh.aufs").unwrap(), "Nothing");
        for bad in [".wh.", "a/.wh..", "a/.wh..."] {
            assert_eq!(meaning(bad).unwrap_err(), "Whiteout", "{bad}");
        }
        assert_eq!(meaning(".wh.a/b").unwrap_err(), "UnderWhiteout");
    }

    #[test]
    fn paths_split_and_compare() {
        let path = EntryPath::parse(b"dev/pts/0").unwrap();
        assert_eq!(path.split(), (&b"dev/pts"[..], &b"0"[..]));
        assert!(path.is_below(b"dev"));
        assert!(!EntryPath::parse(b"dev").unwrap().is_below(b"dev"));
        assert!(!EntryPath::parse(b"device/a").unwrap().is_below(b"dev"));
        assert_eq!(EntryPath::parse(b"a").unwrap().split(), (&b""[..], &b"a"[..]));
    }
}
