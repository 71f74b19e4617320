//! A request as one JSON text (`marshal_request`): headers by name, and the body in base64.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header::HOST};
use serde::Serialize;

#[derive(Serialize)]
struct Marshalled {
    header: BTreeMap<String, Vec<String>>,
    body: Body,
}

#[derive(Serialize)]
struct Body {
    raw: String,
}

/// The text, as Go writes JSON: names in their order, and what HTML would take for its own escaped.
pub fn request(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut header = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in headers.iter().filter(|(name, _)| **name != HOST) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        header.entry(canonical(name.as_str())).or_default().push(value);
    }
    let marshalled = Marshalled { header, body: Body { raw: STANDARD.encode(body) } };
    // Text by text cannot fail.
    let text = serde_json::to_string(&marshalled).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped += &format!("\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped.into_bytes()
}

/// `x-call-id` becomes `X-Call-Id`.
pub fn canonical(name: &str) -> String {
    let mut first = true;
    let letter = |letter: char| {
        let begins = std::mem::replace(&mut first, letter == '-');
        if begins { letter.to_ascii_uppercase() } else { letter }
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn names_are_canonical_and_html_is_escaped() {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("w"));
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("<&>\""));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let text = String::from_utf8(request(&headers, b"hello")).unwrap();
        assert_eq!(
            text,
            r#"{"header":{"Accept":["*/*"],"X-A":["1","\u003c\u0026\u003e\""]},"body":{"raw":"aGVsbG8="}}"#
        );
        let empty = String::from_utf8(request(&HeaderMap::new(), b"")).unwrap();
        assert_eq!(empty, r#"{"header":{},"body":{"raw":""}}"#);
    }
}
