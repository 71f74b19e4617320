//! A function's bytes: the head of an answer, and its body.

use pinnace_proxy::h1::{
    Framing,
    head::{self, HeadFault, ResponseHead},
};

use crate::{
    plain::Head,
    request_head::{check_body, check_cuts, write_headers},
};

#[derive(Debug, PartialEq)]
struct Taken {
    status: u16,
    reason: String,
    framing: Framing,
    framing_to_head: Framing,
    length: Option<u64>,
    keeps_alive: bool,
    upgrade: Option<Vec<u8>>,
    passing: Vec<(String, Vec<u8>)>,
    size: usize,
}

impl Taken {
    fn of(head: &ResponseHead<'_>, size: usize) -> Self {
        let passing = head.passing().map(|(name, value)| (name.to_owned(), value.to_vec()));
        Self {
            status: head.status,
            reason: head.reason.to_owned(),
            framing: head.framing(false),
            framing_to_head: head.framing(true),
            length: head.length(),
            keeps_alive: head.keeps_alive(),
            upgrade: head.upgrade().map(<[u8]>::to_vec),
            passing: passing.collect(),
            size,
        }
    }
}

fn taken(bytes: &[u8]) -> Result<Option<Taken>, HeadFault> {
    head::response(bytes, Taken::of)
}

/// An answer's head is read alike however it arrives, its body ends in one place, and a connection on which that
/// could be doubted is not used again.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Some(whole) = check_cuts(bytes, taken, |taken| taken.size) else { return };
    check_framing(&whole, &Head::read(&bytes[..whole.size]));
    check_again(&whole);
    check_body(whole.framing, &bytes[whole.size..]);
}

fn check_framing(taken: &Taken, head: &Head<'_>) {
    assert!((100..1000).contains(&taken.status), "status {}", taken.status);
    assert!(!taken.reason.contains(['\r', '\n', '\0']), "reason {:?}", taken.reason);
    let has_none = taken.status < 200 || taken.status == 204 || taken.status == 304;
    let (lengths, encodings) = (head.all("content-length"), head.all("transfer-encoding"));
    assert_eq!(taken.framing_to_head, Framing::None);
    for text in &lengths {
        assert!(text.iter().all(u8::is_ascii_digit), "a length: {text:?}");
        let length = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        assert_eq!(length, taken.length);
    }
    match taken.framing {
        Framing::None => assert!(has_none),
        Framing::Chunked => assert!(encodings.len() == 1 && !has_none),
        Framing::Length(length) => {
            assert!(encodings.is_empty() && taken.length == Some(length) && !has_none);
        }
        Framing::UntilClose => {
            assert!(encodings.is_empty() && lengths.is_empty() && !has_none);
        }
    }
    let is_http10 = head.line.starts_with(b"HTTP/1.0");
    if !encodings.is_empty() && (is_http10 || !lengths.is_empty()) {
        assert!(!taken.keeps_alive, "a body whose end could be elsewhere");
    }
    if head.named().iter().any(|named| named == b"close") {
        assert!(!taken.keeps_alive, "it says that it closes");
    }
}

/// What is passed on is read by the caller as the same.
fn check_again(whole: &Taken) {
    let mut text = format!("HTTP/1.1 {} {}\r\n", whole.status, whole.reason).into_bytes();
    write_headers(&mut text, &whole.passing, whole.framing, whole.upgrade.as_deref());
    let again = taken(&text).expect("what is passed on is taken").expect("it is whole");
    assert_eq!(again.size, text.len());
    let same = |taken: &Taken| {
        let Taken { status, framing, framing_to_head, .. } = *taken;
        (status, framing, framing_to_head)
    };
    assert_eq!(same(&again), same(whole));
    assert_eq!((again.reason, again.upgrade), (whole.reason.clone(), whole.upgrade.clone()));
    assert_eq!(again.passing, whole.passing);
}
