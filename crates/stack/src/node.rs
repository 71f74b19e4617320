//! YAML as a tree that remembers its lines and the spelling of its scalars.
//!
//! A typed parser stops at the first value of a wrong type. Read as a tree first, a file's faults are all
//! found in one go, each with its line, and `1.10` stays `1.10` where a string is wanted.

use std::fmt;

use pinnace_core::limits;
use serde::{Deserialize, de};

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its line, from 1.
    pub line: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, or `null`.
    Null,
    /// A scalar; its text as written, without quotes.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the file's order.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no YAML: the line, if known, and what is wrong.
    pub fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        if text.len() as u64 > limits::STACK_FILE_BYTES_MAX {
            let most = limits::STACK_FILE_BYTES_MAX;
            return Err((None, format!("is more than {most} bytes after substitution")));
        }
        let raw: Raw = serde_saphyr::from_str(text).map_err(|error| {
            let plain = error.without_snippet().render();
            let plain = plain.lines().next().unwrap_or("is no YAML").to_owned();
            // The parser's advice is for programmers.
            let plain = plain.split(", set ").next().unwrap_or(&plain).to_owned();
            let plain = plain.split(" at line ").next().unwrap_or(&plain).to_owned();
            (error.location().map(|at| at.line()), plain)
        })?;
        Ok(raw.spelled(text))
    }

    /// The text of a scalar; empty for null.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text) => Some(text),
            Kind::Null => Some(""),
            _ => None,
        }
    }

    /// What it is, in a word.
    pub fn word(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a scalar",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// A value as the parser hands it over: of a number it knows the value and where it was written.
struct Raw {
    line: u64,
    bytes: Option<(usize, usize)>,
    kind: RawKind,
}

enum RawKind {
    Null,
    Text(String),
    /// A number or boolean, with its value as text in case its place is unknown.
    Typed(String),
    List(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

impl Raw {
    fn spelled(self, source: &str) -> Node {
        let kind = match self.kind {
            RawKind::Null => Kind::Null,
            RawKind::Text(text) => Kind::Scalar(text),
            RawKind::Typed(value) => {
                let written = self.bytes.and_then(|(at, length)| source.get(at..at + length));
                Kind::Scalar(written.map_or(value, str::to_owned))
            }
            RawKind::List(list) => {
                Kind::List(list.into_iter().map(|item| item.spelled(source)).collect())
            }
            RawKind::Map(map) => Kind::Map(
                map.into_iter().map(|(k, v)| (k.spelled(source), v.spelled(source))).collect(),
            ),
        };
        Node { line: self.line, kind }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<RawKind>::deserialize(deserializer)?;
        let span = spanned.defined.span();
        let bytes = span.byte_offset().zip(span.byte_len());
        let bytes = bytes.and_then(|(at, length)| {
            Some((usize::try_from(at).ok()?, usize::try_from(length).ok()?))
        });
        Ok(Self { line: spanned.referenced.line(), bytes, kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for RawKind {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> de::Visitor<'de> for Shape {
    type Value = RawKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_none<E>(self) -> Result<RawKind, E> {
        Ok(RawKind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawKind, E> {
        Ok(RawKind::Typed(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawKind, E> {
        Ok(RawKind::Text(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<RawKind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(RawKind::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<RawKind, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(RawKind::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(u64, String, Kind)> {
        let Kind::Map(map) = Node::parse(text).unwrap().kind else { panic!("no mapping") };
        map.into_iter().map(|(k, v)| (k.line, k.text().unwrap().to_owned(), v.kind)).collect()
    }

    fn scalar(text: &str) -> Kind {
        Kind::Scalar(text.to_owned())
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let found =
            entries("a: 1.10\nb: yes\n\nc: '007'\nd: 0x10\ne: ~\nf: 1_000\né: 12:30\n1.0: x\n");
        let expected = [
            (1, "a", scalar("1.10")),
            (2, "b", scalar("yes")),
            (4, "c", scalar("007")),
            (5, "d", scalar("0x10")),
            (6, "e", Kind::Null),
            (7, "f", scalar("1_000")),
            (8, "é", scalar("12:30")),
            (9, "1.0", scalar("x")),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(line, key, kind)| (line, key.to_owned(), kind)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn aliases_and_merges_are_followed() {
        let found = entries("a: &x\n  k: 2.50\nb: *x\nc:\n  <<: *x\n  z: 1\n");
        let Kind::Map(merged) = &found[2].2 else { panic!("no mapping") };
        assert!(merged.iter().any(|(k, v)| k.text() == Some("k") && v.text() == Some("2.50")));
        let Kind::Map(aliased) = &found[1].2 else { panic!("no mapping") };
        assert_eq!(
            aliased[0].1,
            Node { line: 3, kind: scalar("2.50") },
            "the line where it is used"
        );
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let (line, said) = Node::parse("a: 1\na: 2\n").unwrap_err();
        assert_eq!((line, said.as_str()), (Some(2), "duplicate mapping key: a"));
        assert_eq!(Node::parse("a:\n\t- x\n").unwrap_err().0, Some(2));
        let big = format!("a: {}", "x".repeat(limits::STACK_FILE_BYTES_MAX as usize));
        assert!(Node::parse(&big).unwrap_err().1.contains("after substitution"));
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..9 {
            let item = format!("*a{}", n - 1);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", vec![item; 10].join(", ")));
        }
        assert!(Node::parse(&text).is_err());
    }

    #[test]
    fn aliases_of_a_long_text_are_refused() {
        let long = "x".repeat(500_000);
        let text = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(50_000));
        let (_, said) = Node::parse(&text).unwrap_err();
        assert!(!said.is_empty());
    }
}
