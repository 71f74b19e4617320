//! A request's target: which function it calls, and what that one sees of it.

use http::Uri;
use pinnace_core::FunctionRef;
use pinnace_server::proxy::route::{Route, authority, write_target};

/// Every byte of a target is in one place, names are names, and a whole URL is read as others read it.
///
/// # Panics
/// It is not so.
pub fn check(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else { return };
    match Route::of(target) {
        Route::Function { segment, rest } => check_call("/function/", segment, rest, target),
        Route::Async { segment, rest } => check_call("/async-function/", segment, rest, target),
        Route::Control => {
            let path = target.strip_prefix("http://h").unwrap_or(target);
            assert!(!path.starts_with("/function/") && !path.starts_with("/async-function/"));
        }
    }
    check_authority(target);
}

fn check_call(prefix: &str, segment: &str, rest: &str, target: &str) {
    let path = format!("{prefix}{segment}{rest}");
    assert!(target.ends_with(&path), "{target:?} was taken for {path:?}");
    let before = &target[..target.len() - path.len()];
    let is_url = before.split_once("://").is_some_and(|(scheme, authority)| {
        ["http", "https"].contains(&&*scheme.to_ascii_lowercase())
            && !authority.contains(['/', '?', '#'])
    });
    assert!(before.is_empty() || is_url, "{before:?} before a path");
    assert!(!segment.contains(['/', '?', '#']));
    assert!(rest.is_empty() || rest.starts_with(['/', '?', '#']));
    let mut seen = Vec::new();
    let is_sound = write_target(rest, &mut seen);
    assert_eq!(is_sound, !rest.contains('#'));
    assert!(seen.starts_with(b"/") && seen.ends_with(rest.as_bytes()));
    assert!(seen.len() <= rest.len() + 1);
    if let Ok(function) = FunctionRef::parse(segment) {
        let is_label = |text: &str| {
            let is_letter = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            (1..=63).contains(&text.len())
                && text.bytes().all(is_letter)
                && !text.starts_with('-')
                && !text.ends_with('-')
        };
        assert!(is_label(function.name()) && is_label(function.namespace()), "{function}");
        assert_eq!(FunctionRef::parse(&function.to_string()), Ok(function.clone()));
        let alone = function.is_default_namespace() && segment == function.name();
        assert!(alone || segment == function.to_string(), "{segment:?} for {function}");
    }
}

/// Another reader of URLs sees the same host, where it sees one.
fn check_authority(target: &str) {
    let Some(found) = authority(target) else { return };
    assert!(!found.contains(['/', '?', '#', '@']), "{found:?}");
    if let Ok(uri) = target.parse::<Uri>()
        && let Some(other) = uri.authority()
    {
        let host = other.as_str().rsplit_once('@').map_or(other.as_str(), |(_, host)| host);
        assert_eq!(found, host, "whom {target:?} names");
    }
}
