//! What a request's target and Host may be, before anything is done with them.
//!
//! The watchdog answers paths with `//` or dot segments by a redirect to the clean path, and refuses
//! broken escapes, as the original does in every mode; encoded forms pass as they were sent.

/// What is to be done with a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Path {
    /// It is passed on.
    Clean,
    /// The caller is sent to this one.
    Redirect(String),
    /// It has a broken escape.
    Broken,
}

/// Judges a request's path (without its query).
pub fn judge(path: &str) -> Path {
    let bytes = path.as_bytes();
    if bytes.contains(&b'%') && decode(path).is_none() {
        return Path::Broken;
    }
    // A segment that is empty or begins with a dot may need cleaning; most paths have none.
    let suspect = bytes.windows(2).any(|pair| pair == b"//" || pair == b"/.");
    if !suspect {
        return Path::Clean;
    }
    match clean(path) {
        cleaned if cleaned == path => Path::Clean,
        cleaned => Path::Redirect(cleaned),
    }
}

/// The path without empty and dot segments; a trailing slash stays.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

/// The bytes that a percent-encoded text stands for; `None` if an escape is broken.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        if *byte != b'%' {
            decoded.push(*byte);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        decoded.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = tail;
    }
    Some(decoded)
}

/// Whether a Host header's value can be one.
pub fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~@".contains(byte))
}

/// Text as it may stand in HTML.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let redirect = |path: &str, to: &str| {
            assert_eq!(judge(path), Path::Redirect(to.to_owned()), "{path}");
        };
        for path in ["/", "/a/b", "/a/", "/%2e%2e/x", "/a/%2e/b", "/a%2F%2Fb", "/.hidden", "/a/..b"]
        {
            assert_eq!(judge(path), Path::Clean, "{path}");
        }
        redirect("//a//b", "/a/b");
        redirect("//", "/");
        redirect("/a//", "/a/");
        redirect("/a/../b", "/b");
        redirect("/../secret.txt", "/secret.txt");
        redirect("/a/./b/", "/a/b/");
        for path in ["/%zz", "/a%2", "/%", "/a%+1"] {
            assert_eq!(judge(path), Path::Broken, "{path}");
        }
    }

    #[test]
    fn decoding() {
        assert_eq!(decode("/a%20b/%C3%BC%2Fc").unwrap(), "/a b/ü/c".as_bytes());
        assert_eq!(decode("+").unwrap(), b"+");
        assert_eq!(decode("%2"), None);
    }

    #[test]
    fn hosts() {
        for host in ["Fn.Example:8080", "[::1]:80", "", "a_b"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a/b", "a\"", "\u{e9}"] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn html() {
        assert_eq!(escape_html("/a?<b>&'\""), "/a?&lt;b&gt;&amp;&#39;&#34;");
    }
}
