//! What the watchdog makes of its caller's bytes. The first letter says which of it.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use pinnace_proxy::h1::head;
use pinnace_watchdog::{
    cgi::Variables,
    keys::{Document, Keys},
    marshal,
    ranges::{Range, Wanted, wanted},
    sniff, target, token,
};

use crate::plain::Head;

/// A process learns of its request what was sent and nothing else, a file's parts lie within it, and nobody makes a
/// token that counts.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Some((letter, rest)) = bytes.split_first() else { return };
    match letter {
        b'v' => check_request(rest),
        b'r' => check_ranges(rest),
        b't' => check_token(rest),
        b's' => {
            HeaderValue::from_str(sniff::content_type(rest)).expect("a type is a header's value");
        }
        b'e' => check_escapes(rest),
        _ => {}
    }
}

fn check_request(bytes: &[u8]) {
    let taken = head::request(bytes, |head, size| {
        let method = Method::from_bytes(head.method.as_bytes()).ok()?;
        Some((method, head.target.parse::<Uri>().ok()?, size))
    });
    let Ok(Some(Some((method, uri, size)))) = taken else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in Head::read(&bytes[..size]).headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) else { return };
        headers.append(name, value);
    }
    check_variables(&Variables::of(&method, &uri, &headers), &method, &uri);
    check_marshalled(&headers, &bytes[size..]);
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) =
        (method.clone(), uri.clone(), headers);
    let classic = Variables::of_classic(&request.into_parts().0, Some(7));
    check_variables(&classic, &method, &uri);
    let mut environment = Vec::new();
    if classic.put_into(&mut environment).is_ok() {
        assert!(environment.contains(&c"Http_ContentLength=7"), "the length is the watchdog's");
    }
}

fn check_variables(variables: &Variables, method: &Method, uri: &Uri) {
    let path = target::decode(uri.path()).unwrap_or_else(|| uri.path().into());
    let mut environment: Vec<&CStr> = Vec::new();
    let is_whole = variables.put_into(&mut environment).is_ok();
    assert_eq!(is_whole, !path.contains(&0), "a zero byte");
    let (mut names, mut found) = (BTreeSet::new(), Vec::new());
    for variable in environment {
        let text = variable.to_bytes();
        let equals = text.iter().position(|byte| *byte == b'=').expect("a variable has a value");
        let (name, value) = (&text[..equals], &text[equals + 1..]);
        assert!(name.starts_with(b"Http_") && name.iter().all(u8::is_ascii_graphic), "{name:?}");
        assert!(names.insert(name), "{name:?} twice");
        found.push((name, value));
    }
    let value = |wanted: &[u8]| found.iter().find(|(name, _)| *name == wanted).map(|(_, v)| *v);
    if is_whole {
        assert_eq!(value(b"Http_Method"), Some(method.as_str().as_bytes()));
        assert_eq!(value(b"Http_Path"), Some(&*path));
        let query = uri.query().filter(|query| !query.is_empty());
        assert_eq!(value(b"Http_Query"), query.map(str::as_bytes));
    }
}

fn check_marshalled(headers: &HeaderMap, body: &[u8]) {
    let text = marshal::request(headers, body);
    let read: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
    let raw = read["body"]["raw"].as_str().expect("the body is there");
    assert_eq!(raw.len(), body.len().div_ceil(3) * 4);
    let names = headers.keys().filter(|name| **name != http::header::HOST).count();
    let told = read["header"].as_object().expect("the headers are there").len();
    assert_eq!(told, names, "headers");
}

/// The file's size in a line, and the header.
fn check_ranges(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((size, header)) = text.split_once('\n') else { return };
    let Ok(size) = size.parse::<u64>() else { return };
    let within = |range: &Range| {
        let end = range.from.checked_add(range.bytes);
        assert!(range.bytes > 0 && end.is_some_and(|end| end <= size), "{range:?} of {size}");
        HeaderValue::from_str(&range.header(size)).expect("it is a header's value");
        range.bytes
    };
    match wanted(header, size) {
        Wanted::All | Wanted::Impossible(_) => {}
        Wanted::One(range) => drop(within(&range)),
        Wanted::Several(ranges) => assert!(ranges.iter().map(within).sum::<u64>() <= size),
    }
}

/// A token's header, claims and signature, in lines; or a whole token.
fn check_token(bytes: &[u8]) {
    const KEYS: &str = include_str!("../keys.json");
    let document: Document = serde_json::from_str(KEYS).expect("the keys are JSON");
    let keys = Keys::read(&document);
    assert_eq!(keys.ids().count(), 3, "the keys are keys");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let made: Vec<_> = bytes.split(|byte| *byte == b'\n').map(base64).collect();
    for text in [bytes, made.join(".").as_bytes()] {
        assert!(token::verify(text, &keys, "https://issuer", now).is_err(), "a token was made");
    }
    if let Ok(document) = serde_json::from_slice(bytes) {
        let _ = Keys::read(&document).ids().count();
    }
}

/// Base 64 as tokens have it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |n: u32| char::from(LETTERS[(bits >> (18 - 6 * n)) as usize & 63]);
        text.extend((0..=three.len() as u32).map(letter));
    }
    text
}

fn check_escapes(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let decoded = target::decode(text);
    assert_eq!(target::is_sound(text), decoded.is_some());
    if let Some(decoded) = decoded {
        assert!(decoded.len() <= text.len());
        let escaped: String = decoded.iter().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(target::decode(&escaped), Some(decoded));
    }
    let html = target::escape_html(text);
    assert!(!html.contains(['<', '>', '"', '\'']));
}
