//! Which requests call a function, decided on the raw path before any router.

use crate::tokens;

/// What a request's target asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/function/NAME[/rest]`.
    Function {
        /// `name` or `name.namespace`, as sent.
        segment: &'a str,
        /// The path and query after the segment, as sent: empty, or beginning with a slash or `?`.
        rest: &'a str,
    },
    /// `/async-function/NAME[/rest]`, or `/async-function/CALL-ID`.
    Async {
        /// `name`, `name.namespace` or a call's id, as sent.
        segment: &'a str,
        /// The path and query after the segment, as sent: empty, or beginning with a slash or `?`.
        rest: &'a str,
    },
    /// Anything else: the control plane's.
    Control,
}

const PREFIX: &str = "/function/";
/// How the paths of asynchronous calls begin.
pub(super) const ASYNC_PREFIX: &str = "/async-function/";

impl<'a> Route<'a> {
    /// Reads a target as it was sent: nothing is decoded, so `%2F` stays what it is.
    #[must_use]
    pub fn of(target: &'a str) -> Self {
        let target = origin_form(target);
        if let Some(tail) = target.strip_prefix(PREFIX) {
            let (segment, rest) = split(tail);
            Self::Function { segment, rest }
        } else if let Some(tail) = target.strip_prefix(ASYNC_PREFIX) {
            let (segment, rest) = split(tail);
            Self::Async { segment, rest }
        } else {
            Self::Control
        }
    }
}

/// Whether a target is one of the issuer of tokens, which functions reach too.
#[must_use]
pub fn is_issuer(target: &str) -> bool {
    let path = origin_form(target).split(['?', '#']).next().unwrap_or_default();
    tokens::PATHS.contains(&path)
}

fn split(tail: &str) -> (&str, &str) {
    tail.split_at(tail.find(['/', '?', '#']).unwrap_or(tail.len()))
}

/// The path and query of a target; a whole URL is taken too (RFC 9112 section 3.2.2).
fn origin_form(target: &str) -> &str {
    if target.starts_with('/') {
        return target;
    }
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return target;
    }
    match rest.find(['/', '?', '#']) {
        Some(at) if rest[at..].starts_with('/') => &rest[at..],
        _ => "/",
    }
}

/// Whom a target names that is a whole URL: this counts, and not what `Host` says (RFC 9112 section 3.2.2).
#[must_use]
pub fn authority(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return None;
    }
    let (_, rest) = target.split_once("://")?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// Writes the target that the function sees: the rest of the path, and the query, untouched. False if it
/// holds a fragment, which no request may (RFC 9112 section 3.2).
#[must_use]
pub fn write_target(rest: &str, out: &mut Vec<u8>) -> bool {
    if !rest.starts_with('/') {
        out.push(b'/');
    }
    out.extend_from_slice(rest.as_bytes());
    !rest.contains('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(target: &str) -> Option<(&str, &str)> {
        match Route::of(target) {
            Route::Function { segment, rest } => Some((segment, rest)),
            Route::Async { .. } | Route::Control => None,
        }
    }

    #[test]
    fn asynchronous_paths() {
        let asked = |segment, rest| Route::Async { segment, rest };
        assert_eq!(Route::of("/async-function/env"), asked("env", ""));
        assert_eq!(Route::of("/async-function/env.dev/a%2F?b"), asked("env.dev", "/a%2F?b"));
        assert_eq!(Route::of("http://h/async-function/"), asked("", ""));
        assert_eq!(Route::of("/async-function"), Route::Control);
        assert_eq!(Route::of("/async-functions/a"), Route::Control);
    }

    #[test]
    fn paths() {
        assert_eq!(function("/function/env"), Some(("env", "")));
        assert_eq!(function("/function/env/"), Some(("env", "/")));
        assert_eq!(function("/function/env?a=/b"), Some(("env", "?a=/b")));
        assert_eq!(function("/function/env.dev/a/b"), Some(("env.dev", "/a/b")));
        assert_eq!(function("/function/env/a%2Fb//c/../d"), Some(("env", "/a%2Fb//c/../d")));
        assert_eq!(function("/function/.openfaas-fn"), Some((".openfaas-fn", "")));
        assert_eq!(function("/function/"), Some(("", "")));
        assert_eq!(function("http://h:1/function/env/x?y"), Some(("env", "/x?y")));
        assert_eq!(function("HTTPS://h/function/env"), Some(("env", "")));
        assert_eq!(function("/function"), None);
        assert_eq!(function("/system/functions"), None);
        assert_eq!(function("/functions/x"), None);
        assert_eq!(function("http://h"), None);
        assert_eq!(function("http://h?/function/env"), None);
        assert_eq!(function("http://h#/function/env"), None);
        assert_eq!(function("ftp://h/function/env"), None);
        assert_eq!(function("*"), None);
        assert_eq!(function("/x?http://h/function/env"), None);
    }

    #[test]
    fn what_functions_reach_beside_functions() {
        for path in ["/oauth/token", "/.well-known/jwks.json?a", "http://gateway:8080/oauth/token"]
        {
            assert!(is_issuer(path), "{path}");
        }
        for path in
            ["/", "/system/info", "/oauth/token/", "/oauth/../system/info", "/x?/oauth/token"]
        {
            assert!(!is_issuer(path), "{path}");
        }
    }

    #[test]
    fn a_whole_url_names_whom_it_asks() {
        assert_eq!(authority("http://h:1/function/env"), Some("h:1"));
        assert_eq!(authority("https://a:b@[::1]:1?x"), Some("[::1]:1"));
        assert_eq!(authority("/function/env?x=http://h"), None);
        assert_eq!(authority("*"), None);
    }

    #[test]
    fn targets_keep_every_byte() {
        let check = |rest: &str, expected: &str| {
            let mut out = Vec::new();
            assert!(write_target(rest, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check("", "/");
        check("?a=b", "/?a=b");
        check("/?a=b&c=%20", "/?a=b&c=%20");
        check("/a%2Fb//c/../d", "/a%2Fb//c/../d");
        check("//evil?", "//evil?");
        assert!(!write_target("/a#b", &mut Vec::new()));
    }
}
