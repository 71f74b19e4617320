//! A second reading of what HTTP/1.1 sends, as plain and as strict as RFC 9112 has it: what the platform's parsers
//! took is held against it.

/// A message's first line and its headers, in order, names in lower case.
#[derive(Debug)]
pub struct Head<'b> {
    /// The first line.
    pub line: &'b [u8],
    /// Names and values, without the blanks around these.
    pub headers: Vec<(String, &'b [u8])>,
}

/// Headers that belong to a connection (RFC 9110 section 7.6.1), and those that frame a body.
pub const HOP: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl<'b> Head<'b> {
    /// Reads a head that was taken.
    ///
    /// # Panics
    /// It should not have been.
    pub fn read(bytes: &'b [u8]) -> Self {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let mut line = || {
            let line = lines.next().expect("a head ends with an empty line");
            line.strip_suffix(b"\r").unwrap_or(line)
        };
        let mut first = line();
        while first.is_empty() {
            first = line();
        }
        let mut headers = Vec::new();
        loop {
            let line = line();
            if line.is_empty() {
                break;
            }
            headers.push(header(line));
        }
        let rest: Vec<_> = lines.collect();
        assert!(rest == [b""], "bytes behind the head: {rest:?}");
        Self { line: first, headers }
    }

    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<&'b [u8]> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| *value).collect()
    }

    /// What `Connection` names, in lower case.
    pub fn named(&self) -> Vec<Vec<u8>> {
        let values = self.all("connection").into_iter();
        let tokens = values.flat_map(|value| value.split(|byte| *byte == b','));
        let tokens = tokens.map(|token| token.trim_ascii().to_ascii_lowercase());
        tokens.filter(|token| !token.is_empty()).collect()
    }

    /// Whether a header belongs to the connection.
    pub fn is_hop(&self, name: &str) -> bool {
        HOP.contains(&name) || self.named().iter().any(|named| named == name.as_bytes())
    }
}

fn header(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.expect("a header has a colon"));
    let value = value[1..].trim_ascii();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    assert!(!name.is_empty() && name.iter().all(is_token), "a name: {name:?}");
    assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "a value: {value:?}");
    (String::from_utf8_lossy(name).to_ascii_lowercase(), value)
}

/// A body in chunks, if it is one: its data, and the bytes that it takes. Extensions are not judged.
pub fn chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut data, mut rest) = (Vec::new(), bytes);
    loop {
        let (line, tail) = line(rest)?;
        let size = line.split(|byte| *byte == b';').next()?;
        let size = std::str::from_utf8(size).ok()?.trim_end_matches([' ', '\t']);
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            rest = tail;
            break;
        }
        let (chunk, tail) = tail.split_at_checked(size)?;
        data.extend_from_slice(chunk);
        rest = tail.strip_prefix(b"\r\n")?;
    }
    loop {
        let (line, tail) = line(rest)?;
        rest = tail;
        if line.is_empty() {
            return Some((data, bytes.len() - rest.len()));
        }
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}
