//! What a request's target and Host may be, before anything is done with them.
//!
//! Broken escapes are refused, as the originals do in every mode. All else passes as it was sent. The originals send
//! a caller whose path has `//` or dot segments to the clean form of it, so that no function of theirs can serve such
//! a path; here it is the function's affair.

/// Whether all escapes of a path (without its query) are whole.
pub fn is_sound(path: &str) -> bool {
    !path.contains('%') || decode(path).is_some()
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
        for path in ["/", "/a/b/", "/%2e%2e/x", "/a%2F%2Fb", "//a//b", "/a/../b", "/a/./b/"] {
            assert!(is_sound(path), "{path}");
        }
        for path in ["/%zz", "/a%2", "/%", "/a%+1"] {
            assert!(!is_sound(path), "{path}");
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
