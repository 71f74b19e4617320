//! Which requests call a function, decided on the raw path before any router.

use http::Uri;

/// What a request's path asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/function/NAME[/rest]`: the function's segment, and where the rest begins in the path.
    Function {
        /// `name` or `name.namespace`, as sent.
        segment: &'a str,
        /// The path after the segment: empty, or beginning with a slash.
        rest: &'a str,
    },
    /// Anything else: the control plane's.
    Control,
}

const PREFIX: &str = "/function/";

impl<'a> Route<'a> {
    /// Reads a path as it was sent: nothing is decoded, so `%2F` stays what it is.
    #[must_use]
    pub fn of(path: &'a str) -> Self {
        let Some(tail) = path.strip_prefix(PREFIX) else { return Self::Control };
        let end = tail.find('/').unwrap_or(tail.len());
        let (segment, rest) = tail.split_at(end);
        Self::Function { segment, rest }
    }
}

/// The target that the function sees: the rest of the path, and the query untouched.
#[must_use]
pub fn target(rest: &str, query: Option<&str>) -> Option<Uri> {
    let path = if rest.is_empty() { "/" } else { rest };
    let Some(query) = query else { return Uri::try_from(path).ok() };
    let mut target = String::with_capacity(path.len() + 1 + query.len());
    target.push_str(path);
    target.push('?');
    target.push_str(query);
    Uri::try_from(target).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(path: &str) -> Option<(&str, &str)> {
        match Route::of(path) {
            Route::Function { segment, rest } => Some((segment, rest)),
            Route::Control => None,
        }
    }

    #[test]
    fn paths() {
        assert_eq!(function("/function/env"), Some(("env", "")));
        assert_eq!(function("/function/env/"), Some(("env", "/")));
        assert_eq!(function("/function/env.dev/a/b"), Some(("env.dev", "/a/b")));
        assert_eq!(function("/function/env/a%2Fb//c/../d"), Some(("env", "/a%2Fb//c/../d")));
        assert_eq!(function("/function/.openfaas-fn"), Some((".openfaas-fn", "")));
        assert_eq!(function("/function/"), Some(("", "")));
        assert_eq!(function("/function"), None);
        assert_eq!(function("/system/functions"), None);
        assert_eq!(function("/functions/x"), None);
    }

    #[test]
    fn targets_keep_every_byte() {
        let check = |rest, query, expected: &str| {
            assert_eq!(target(rest, query).unwrap().to_string(), expected);
        };
        check("", None, "/");
        check("/", Some("a=b&c=%20"), "/?a=b&c=%20");
        check("/a%2Fb//c/../d", None, "/a%2Fb//c/../d");
        check("//evil", Some(""), "//evil?");
    }
}
