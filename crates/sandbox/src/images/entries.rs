//! The entries of a tar, read from a stream.
//!
//! Written against POSIX `pax` and the GNU tar manual with bounds on everything that the stream announces.
//! Entries that by their kind have no content are taken to have none, whatever size they announce, as Go's
//! `archive/tar` does, which wrote most images.

use std::io::{self, Read};

use pinnace_core::limits::{TAR_EXTENSION_BYTES_MAX, TAR_SPARSE_PIECES_MAX};

use super::{
    error::{EntryFault, LoadError},
    pax::Extensions,
};

const BLOCK: usize = 512;

/// Reads a tar to its end, unpacks nothing, and tells each entry in a line: for fuzz targets.
///
/// # Errors
/// It is no tar that would be unpacked.
pub fn listed(reader: impl Read) -> Result<Vec<String>, LoadError> {
    let (mut entries, mut listed) = (Entries::new(reader, "the tar"), Vec::new());
    while let Some(entry) = entries.next()? {
        let mut bytes = 0;
        let mut piece = [0; 4 << 10];
        loop {
            match entries.read(&mut piece)? {
                0 => break,
                read => bytes += read,
            }
        }
        listed.push(format!("{bytes} {entry:?}"));
    }
    let (_, is_marked) = entries.finish()?;
    listed.push(format!("ends with a mark: {is_marked}"));
    Ok(listed)
}

/// Reads a tar entry by entry.
pub(super) struct Entries<R> {
    reader: R,
    what: String,
    /// Bytes of the current entry's content that were not read yet.
    body: u64,
    /// Bytes of padding behind it.
    padding: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    NotYet,
    Marked,
    Unmarked,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of change: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the file once unpacked.
    pub size: u64,
    /// Where the content goes, offset and length, if the file is sparse.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Why it cannot be unpacked, if it cannot.
    pub fault: Option<EntryFault>,
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Another name of an earlier file.
    HardLink,
    /// Character or block device.
    Device,
    /// Named pipe.
    Fifo,
    /// Anything else.
    Unknown,
}

impl<R: Read> Entries<R> {
    /// Reads from `reader`; errors call the tar `what`.
    pub(super) fn new(reader: R, what: impl Into<String>) -> Self {
        Self { reader, what: what.into(), body: 0, padding: 0, end: End::NotYet }
    }

    /// The next entry, or `None` at the end. What was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LoadError> {
        if self.end != End::NotYet {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_body()?;
            let Some(block) = self.header_block()? else {
                if extended {
                    return Err(self.bad("it ends after an extension header"));
                }
                return Ok(None);
            };
            let header = tar::Header::from_byte_slice(&block);
            let size =
                number(&header.as_old().size).ok_or_else(|| self.bad("a size is no number"))?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let records = self.extension(size)?;
                    extensions.take_pax(&records).map_err(|reason| self.bad(reason))?;
                }
                b'L' => extensions.take_long_path(&self.extension(size)?),
                b'K' => extensions.take_long_link(&self.extension(size)?),
                // Global records (git archive's comment) and volume labels say nothing about files.
                b'g' | b'V' => self.begin_body(size)?,
                _ => return self.entry(header, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// Reads from the current entry's content; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LoadError> {
        let wanted = usize::try_from(self.body).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.read_some(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(LoadError::Truncated(self.what.clone()));
        }
        self.body -= read as u64;
        Ok(read)
    }

    /// Reads the stream to its end, which hashes what is left and checks the compression's sums.
    /// Says whether the tar had its end mark; without it, it may have been cut off between two entries.
    pub(super) fn finish(mut self) -> Result<(R, bool), LoadError> {
        self.skip_body()?;
        let mut rest = vec![0; 64 << 10];
        while self.read_some(&mut rest)? > 0 {}
        Ok((self.reader, self.end == End::Marked))
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        header_size: u64,
        extensions: Extensions,
    ) -> Result<Entry, LoadError> {
        let old = header.as_old();
        let flag = old.linkflag[0];
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link.unwrap_or_else(|| {
            header.link_name_bytes().map_or_else(Vec::new, std::borrow::Cow::into_owned)
        });
        let stored = extensions.size.unwrap_or(header_size);
        let field = |bytes: &[u8], name: &str| {
            number(bytes).ok_or_else(|| self.bad(&format!("a {name} is no number")))
        };
        let mut entry = Entry {
            kind: kind(flag, &path),
            mode: u32::try_from(field(&old.mode, "mode")? & 0o7777).unwrap_or(0),
            uid: extensions.uid.map_or_else(|| field(&old.uid, "uid"), Ok)?,
            gid: extensions.gid.map_or_else(|| field(&old.gid, "gid"), Ok)?,
            // Times before 1970 are negative numbers in two's complement.
            mtime: extensions.mtime.map_or_else(
                || field(&old.mtime, "mtime").map(|seconds| (seconds.cast_signed(), 0)),
                Ok,
            )?,
            size: stored,
            sparse: None,
            xattrs: extensions.xattrs,
            fault: extensions.fault,
            path,
            link,
        };
        match flag {
            b'S' => self.read_sparse_map(header, stored, &mut entry)?,
            0 => self.begin_body(stored)?,
            _ if matches!(entry.kind, Kind::File | Kind::Unknown) => self.begin_body(stored)?,
            _ => {}
        }
        Ok(entry)
    }

    /// Reads where the pieces of a sparse file in the old GNU form belong.
    fn read_sparse_map(
        &mut self,
        header: &tar::Header,
        stored: u64,
        entry: &mut Entry,
    ) -> Result<(), LoadError> {
        let gnu = header.as_gnu().ok_or_else(|| self.bad("a sparse file has no GNU header"))?;
        let mut pieces = Vec::new();
        for piece in &gnu.sparse {
            self.add_piece(&piece.offset, &piece.numbytes, &mut pieces)?;
        }
        let mut more = gnu.isextended[0] != 0;
        while more {
            let block = self.block()?.ok_or_else(|| LoadError::Truncated(self.what.clone()))?;
            for piece in block[..504].chunks_exact(24) {
                self.add_piece(&piece[..12], &piece[12..], &mut pieces)?;
            }
            more = block[504] != 0;
        }
        entry.size = number(&gnu.realsize).ok_or_else(|| self.bad("a size is no number"))?;
        let mut end = 0;
        let mut sum = 0u64;
        for &(offset, length) in &pieces {
            if offset < end {
                return Err(self.bad("the pieces of a sparse file overlap"));
            }
            end = offset + length;
            sum += length;
        }
        if end > entry.size || sum != stored {
            return Err(self.bad("the pieces of a sparse file do not make up its size"));
        }
        entry.sparse = Some(pieces);
        self.begin_body(stored)
    }

    fn add_piece(
        &self,
        offset: &[u8],
        length: &[u8],
        pieces: &mut Vec<(u64, u64)>,
    ) -> Result<(), LoadError> {
        let offset = number(offset).filter(|&bytes| bytes < 1 << 62);
        let length = number(length).filter(|&bytes| bytes < 1 << 62);
        let (Some(offset), Some(length)) = (offset, length) else {
            return Err(self.bad("a piece of a sparse file is no number"));
        };
        if length > 0 {
            pieces.push((offset, length));
        }
        if pieces.len() > TAR_SPARSE_PIECES_MAX {
            return Err(LoadError::Limit {
                what: self.what.clone(),
                max: TAR_SPARSE_PIECES_MAX as u64,
                unit: "pieces of a sparse file",
                limit: "TAR_SPARSE_PIECES_MAX",
            });
        }
        Ok(())
    }

    fn begin_body(&mut self, size: u64) -> Result<(), LoadError> {
        if size > i64::MAX as u64 {
            return Err(self.bad("a size is impossible"));
        }
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Skips what is left of a content and its padding. A stream that ends within the padding has lost
    /// nothing: umoci writes such layers, and Go reads them.
    fn skip_body(&mut self) -> Result<(), LoadError> {
        let mut scratch = [0; 16 << 10];
        while self.read(&mut scratch)? > 0 {}
        while self.padding > 0 {
            let wanted = usize::try_from(self.padding).unwrap_or(BLOCK).min(BLOCK);
            match self.read_some(&mut scratch[..wanted])? {
                0 => self.padding = 0,
                read => self.padding -= read as u64,
            }
        }
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LoadError> {
        if size > TAR_EXTENSION_BYTES_MAX {
            return Err(LoadError::Limit {
                what: format!("{}: an extension header", self.what),
                max: TAR_EXTENSION_BYTES_MAX,
                unit: "bytes",
                limit: "TAR_EXTENSION_BYTES_MAX",
            });
        }
        self.begin_body(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    /// The next header, checked; `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, LoadError> {
        let Some(block) = self.block()? else {
            self.end = End::Unmarked;
            return Ok(None);
        };
        if block.iter().all(|&byte| byte == 0) {
            self.end = End::Marked;
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block);
        if number(&header.as_old().cksum) != Some(checksum(&block)) {
            return Err(self.bad("the checksum of a header is wrong"));
        }
        Ok(Some(block))
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LoadError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.read_some(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(LoadError::Truncated(self.what.clone())),
                read => filled += read,
            }
        }
        Ok(Some(block))
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, LoadError> {
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LoadError::from_reader(&self.what, error)),
                Ok(read) => return Ok(read),
            }
        }
    }

    fn bad(&self, reason: &str) -> LoadError {
        LoadError::Tar { what: self.what.clone(), reason: reason.to_owned() }
    }
}

fn kind(flag: u8, path: &[u8]) -> Kind {
    match flag {
        // Tars from before POSIX mark directories by a slash only.
        0 if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => Kind::Unknown,
    }
}

/// Sum of a header's bytes, its checksum field counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(&block[..148]) + 8 * u64::from(b' ') + sum(&block[156..])
}

/// A number field: octal text, or base 256 when its first bit is set. An empty field is 0.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        // Whatever stands above 64 bits must be the sign only: all ones or all zeros.
        let plain = high.iter().enumerate().all(|(i, &b)| b == if i == 0 { 0x80 } else { 0 });
        let negative = high.iter().all(|&byte| byte == 0xff);
        if !high.is_empty() && !plain && !negative {
            return None;
        }
        let first = if high.is_empty() { low[0] & 0x7f } else { low[0] };
        return Some(low[1..].iter().fold(u64::from(first), |sum, &b| sum << 8 | u64::from(b)));
    }
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let text = str::from_utf8(&field[..end]).ok()?.trim_matches(' ');
    if text.is_empty() {
        return Some(0);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(text, 8).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content).unwrap();
    }

    fn all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, LoadError> {
        let mut entries = Entries::new(bytes, "the tar");
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            let mut content = Vec::new();
            let mut buffer = [0; 100];
            loop {
                match entries.read(&mut buffer)? {
                    0 => break,
                    read => content.extend_from_slice(&buffer[..read]),
                }
            }
            found.push((entry, content));
        }
        Ok(found)
    }

    #[test]
    fn long_names_and_contents_come_through() {
        let long = "directory/".repeat(30) + "file";
        let bytes = archive(|builder| {
            file(builder, &long, b"one");
            file(builder, "b", &[7; 1000]);
            file(builder, "empty", b"");
        });
        let found = all(&bytes).unwrap();
        assert_eq!(found[0].0.path, long.as_bytes());
        assert_eq!(found[0].1, b"one");
        assert_eq!(found[1].1, [7; 1000]);
        assert_eq!((found[2].0.path.as_slice(), found.len()), (&b"empty"[..], 3));
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = archive(|builder| {
            file(builder, "a", &[1; 700]);
            file(builder, "b", &[2; 20]);
        });
        for cut in 0..bytes.len() - 1024 {
            let mut entries = Entries::new(&bytes[..cut], "the tar");
            let whole = loop {
                match entries.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break entries.finish().map(|(_, marked)| marked),
                    Err(error) => break Err(error),
                }
            };
            assert!(matches!(whole, Ok(false) | Err(LoadError::Truncated(_))), "{cut}");
        }
    }

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(&[0; 8]), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]), Some(65_536));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 1, 0x86, 0xa0]), Some(100_000));
        assert_eq!(number(&[0xff; 12]), Some(u64::MAX));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        for bad in [&b"-1\0"[..], b"9\0", b"+7\0", b"1 1\0", b"x\0"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn announced_sizes_are_bounded() {
        for (flag, size) in [(b'L', 2 << 20), (b'x', 1 << 40), (b'K', u64::MAX >> 1)] {
            let mut header = tar::Header::new_gnu();
            header.set_path("a").unwrap();
            header.set_entry_type(tar::EntryType::new(flag));
            header.set_size(size);
            header.set_cksum();
            assert!(matches!(all(header.as_bytes()), Err(LoadError::Limit { .. })), "{flag}");
        }
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.as_old_mut().size = [0xff; 12];
        header.set_cksum();
        assert!(matches!(all(header.as_bytes()), Err(LoadError::Tar { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_bytes_make_it_panic(
            changes in proptest::collection::vec((0usize..4096, any::<u8>()), 0..8),
            resum in any::<bool>(),
        ) {
            let mut bytes = archive(|builder| {
                file(builder, &"x/".repeat(70), b"");
                file(builder, "b", &[2; 600]);
            });
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if resum {
                let first: &mut [u8; 512] = bytes.first_chunk_mut().unwrap();
                let sum = format!("{:06o}\0 ", checksum(first));
                first[148..156].copy_from_slice(sum.as_bytes());
            }
            let _ = all(&bytes);
        }
    }
}
