//! A caller's bytes: the head of a request, and its body.

use std::fmt::Debug;

use pinnace_proxy::h1::{
    Framing,
    body::{Decoder, Encoder, recode},
    head::{self, HeadFault, RequestHead, write_header},
};

use crate::{
    cuts,
    plain::{self, Head},
};

/// What was taken of a head, apart from where it stood.
#[derive(Debug, PartialEq)]
struct Taken {
    method: String,
    target: String,
    is_http10: bool,
    framing: Framing,
    upgrade: Option<Vec<u8>>,
    passing: Vec<(String, Vec<u8>)>,
    size: usize,
}

impl Taken {
    fn of(head: &RequestHead<'_>, size: usize) -> Self {
        let passing = head.passing().map(|(name, value)| (name.to_owned(), value.to_vec()));
        Self {
            method: head.method.to_owned(),
            target: head.target.to_owned(),
            is_http10: head.is_http10,
            framing: head.framing,
            upgrade: head.upgrade().map(<[u8]>::to_vec),
            passing: passing.collect(),
            size,
        }
    }
}

fn taken(bytes: &[u8]) -> Result<Option<Taken>, HeadFault> {
    head::request(bytes, Taken::of)
}

/// A head is read alike however it arrives, read in one way only, and passed on as what it was; so is its body.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Some(whole) = check_cuts(bytes, taken, |taken| taken.size) else { return };
    check_framing(&whole, &Head::read(&bytes[..whole.size]));
    check_again(&whole);
    check_body(whole.framing, &bytes[whole.size..]);
}

/// What a part of the bytes makes of them is what all of them do, which is answered where it is a head.
pub(crate) fn check_cuts<T: Debug + PartialEq>(
    bytes: &[u8],
    taken: fn(&[u8]) -> Result<Option<T>, HeadFault>,
    size: fn(&T) -> usize,
) -> Option<T> {
    let whole = taken(bytes);
    for place in cuts::places(bytes) {
        match taken(&bytes[..place]) {
            Ok(None) => {
                if let Ok(Some(whole)) = &whole {
                    assert!(size(whole) > place, "a whole head was not taken");
                }
            }
            decided => assert_eq!(decided, whole, "after {place} bytes"),
        }
    }
    whole.ok().flatten()
}

/// No other reader can see the body's end elsewhere.
fn check_framing(taken: &Taken, head: &Head<'_>) {
    let line = [taken.method.as_bytes(), taken.target.as_bytes()].join(&b' ');
    let version: &[u8] = if taken.is_http10 { b" HTTP/1.0" } else { b" HTTP/1.1" };
    assert_eq!(head.line, [&line, version].concat(), "the request's line");
    let (lengths, encodings) = (head.all("content-length"), head.all("transfer-encoding"));
    let length = match taken.framing {
        Framing::Chunked => {
            assert!(encodings.len() == 1 && encodings[0].eq_ignore_ascii_case(b"chunked"));
            assert!(lengths.is_empty() && !taken.is_http10);
            return;
        }
        Framing::Length(length) => Some(length),
        Framing::None => None,
        Framing::UntilClose => panic!("no request ends with its connection"),
    };
    assert!(encodings.is_empty());
    assert_eq!(length.is_some(), !lengths.is_empty());
    for text in lengths {
        assert!(text.iter().all(u8::is_ascii_digit), "a length: {text:?}");
        assert_eq!(std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()), length);
    }
    let hosts = head.all("host").len();
    assert!(hosts == 1 || (hosts == 0 && taken.is_http10), "{hosts} hosts");
}

/// What is passed on is read by the next server as the same.
fn check_again(whole: &Taken) {
    let version = if whole.is_http10 { "1.0" } else { "1.1" };
    let mut text = format!("{} {} HTTP/{version}\r\n", whole.method, whole.target).into_bytes();
    write_headers(&mut text, &whole.passing, whole.framing, whole.upgrade.as_deref());
    let again = taken(&text).expect("what is passed on is taken").expect("it is whole");
    assert_eq!(again.size, text.len());
    let size = whole.size;
    assert_eq!(&Taken { size, ..again }, whole);
}

/// Headers as they are passed on, to the head's end.
pub(crate) fn write_headers(
    text: &mut Vec<u8>,
    passing: &[(String, Vec<u8>)],
    framing: Framing,
    upgrade: Option<&[u8]>,
) {
    for (name, value) in passing {
        write_header(text, name.as_bytes(), value);
    }
    match framing {
        Framing::Length(length) => head::write_number(text, b"Content-Length", length),
        Framing::Chunked => write_header(text, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    if let Some(protocol) = upgrade {
        write_header(text, b"Connection", b"upgrade");
        write_header(text, b"Upgrade", protocol);
    }
    text.extend_from_slice(b"\r\n");
}

/// A body that was read: its data, its trailer, the bytes that it took, and whether it has ended.
type Body = (Vec<u8>, Vec<u8>, usize, bool);

fn decoded<'b>(framing: Framing, pieces: impl Iterator<Item = &'b [u8]>) -> Option<Body> {
    let (mut decoder, mut data, mut size) = (Decoder::new(framing), Vec::new(), 0);
    for piece in pieces {
        size += recode(&mut decoder, Encoder::Plain, piece, &mut data).ok()?;
    }
    // A trailer that has not ended yet is not looked at by anybody.
    let trailer = if decoder.is_ended() { decoder.trailer().to_vec() } else { Vec::new() };
    Some((data, trailer, size, decoder.is_ended()))
}

/// A body is read alike however it is cut, in chunks as the plain reading has it, and comes back when it is written
/// anew.
pub(crate) fn check_body(framing: Framing, bytes: &[u8]) {
    let whole = decoded(framing, std::iter::once(bytes));
    assert_eq!(decoded(framing, cuts::pieces(bytes)), whole, "in pieces");
    let Some((data, trailer, size, is_ended)) = whole else { return };
    if framing == Framing::Chunked {
        let plain = plain::chunked(bytes);
        assert_eq!(is_ended, plain.is_some(), "whether it has ended");
        if let Some(plain) = plain {
            assert_eq!((&data, size), (&plain.0, plain.1));
        }
    }
    let mut text = Vec::new();
    Encoder::Chunked.data(&data, &mut text);
    Encoder::Chunked.end(&trailer, &mut text);
    let again = decoded(Framing::Chunked, std::iter::once(&*text));
    let size = text.len();
    assert_eq!(again, Some((data, trailer, size, true)), "written anew");
}
