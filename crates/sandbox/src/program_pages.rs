//! The memory that this program's own file takes.
//!
//! The kernel maps a program's pages as they are touched, with fifteen neighbours of each, and counts them as the
//! process's until it has no memory left. What only the start needs stays so for ever.

use std::{fs, io, ops::Range};

use crate::sys;

/// Pages of this program's file that the loader made neither writable nor relocated: their content is the file's.
#[derive(Debug)]
pub(crate) struct Unwritten(Range<usize>);

impl Unwritten {
    /// The addresses, whole pages.
    pub(crate) fn addresses(&self) -> Range<usize> {
        self.0.clone()
    }
}

/// Lets go of the pages of this program that have been touched so far. Those that are touched again come back from
/// the file, as they came at first; a few dozen times that takes a microsecond.
///
/// # Errors
/// `/proc` is not there.
pub fn give_back() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for pages in unwritten(&maps, give_back as *const () as usize) {
        sys::forget_pages(&pages);
    }
    Ok(())
}

/// One line of `/proc/self/maps` (proc(5)).
struct Mapping<'a> {
    addresses: Range<usize>,
    permissions: &'a str,
    offset: &'a str,
    /// Device and inode.
    file: (&'a str, &'a str),
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(Self {
            addresses: address(start)?..address(end)?,
            permissions: words.next()?,
            offset: words.next()?,
            file: (words.next()?, words.next()?),
        })
    }

    /// Code is never written: this program asks for no relocations of its text. The mapping of the file's begin is its
    /// constants; those that were relocated and closed afterwards lie further on.
    fn is_unwritten(&self) -> bool {
        match self.permissions {
            "r-xp" => true,
            "r--p" => self.offset.bytes().all(|digit| digit == b'0'),
            _ => false,
        }
    }
}

/// Parts of the file that the code at an address is of.
fn unwritten(maps: &str, code: usize) -> Vec<Unwritten> {
    let mappings: Vec<_> = maps.lines().filter_map(Mapping::parse).collect();
    let Some(own) = mappings.iter().find(|mapping| mapping.addresses.contains(&code)) else {
        return Vec::new();
    };
    let is_own = |mapping: &&Mapping<'_>| mapping.file == own.file && mapping.is_unwritten();
    mappings.iter().filter(is_own).map(|mapping| Unwritten(mapping.addresses.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555564d4f000-555564d71000 rw-p 00000000 00:00 0                  [heap]
7f9cd8600000-7f9cd8610000 r-xp 00000000 fe:00 99                 /usr/lib/another
7f9cd8800000-7f9cd88d8000 r--p 00000000 fe:00 41                 /usr/bin/own
7f9cd88d8000-7f9cd8b46000 r-xp 000d7000 fe:00 41                 /usr/bin/own
7f9cd8b46000-7f9cd8b5b000 r--p 00344000 fe:00 41                 /usr/bin/own
7f9cd8b5b000-7f9cd8b5e000 rw-p 00358000 fe:00 41                 /usr/bin/own
7ffeec166000-7ffeec187000 rw-p 00000000 00:00 0                  [stack]
";

    #[test]
    fn code_and_constants_are_unwritten_and_nothing_else() {
        let found: Vec<_> =
            unwritten(MAPS, 0x7f9c_d88d_8010).iter().map(Unwritten::addresses).collect();
        assert_eq!(found, [0x7f9c_d880_0000..0x7f9c_d88d_8000, 0x7f9c_d88d_8000..0x7f9c_d8b4_6000]);
        assert!(unwritten(MAPS, 0x10).is_empty());
        assert!(unwritten("nonsense\n\n1-2 r-xp\n", 1).is_empty());
    }

    #[test]
    fn what_was_given_back_comes_again() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssFile")).unwrap().to_owned();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident();
        give_back().unwrap();
        assert!(resident() < before);
    }
}
