//! The page that stands for a directory without an index.

use std::{fmt::Write, fs, io, os::unix::ffi::OsStrExt, path::Path};

use pinnace_core::limits::LISTED_FILES_MAX;

use crate::target;

/// The page.
pub fn page(dir: &Path) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)?.take(LISTED_FILES_MAX) {
        let entry = entry?;
        let mut name = entry.file_name().as_bytes().to_vec();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            name.push(b'/');
        }
        names.push(name);
    }
    names.sort();
    let mut page = String::from(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n",
    );
    for name in names {
        let shown = target::escape_html(&String::from_utf8_lossy(&name));
        let _ = writeln!(page, "<a href=\"{}\">{shown}</a>", link(&name));
    }
    page.push_str("</pre>\n");
    Ok(page)
}

/// A relative link to a name. A colon in it must not look like a scheme.
fn link(name: &[u8]) -> String {
    let mut link = String::new();
    if name.contains(&b':') {
        link.push_str("./");
    }
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => {
                link.push(char::from(*byte));
            }
            byte => drop(write!(link, "%{byte:02X}")),
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_escaped() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["b<>.txt", "a:1", "ä"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let page = page(dir.path()).unwrap();
        let lines: Vec<_> = page.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "<a href=\"./a:1\">a:1</a>",
                "<a href=\"b%3C%3E.txt\">b&lt;&gt;.txt</a>",
                "<a href=\"sub/\">sub/</a>",
                "<a href=\"%C3%A4\">ä</a>",
                "</pre>",
            ]
        );
    }
}
