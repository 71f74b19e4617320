//! The variables by which a forked process learns about its request (contract section 8.8).

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use http::{HeaderMap, Method, Uri, header};

use crate::target;

/// One variable: name and value.
pub type Variable = (OsString, OsString);

/// `Http_X_Call_Id` and the like: the first value of each header, and the facts of the request line.
///
/// A header whose variable would stand for one of these facts is left out: a caller must not be able to
/// pretend a query that it did not send.
pub fn variables(method: &Method, uri: &Uri, headers: &HeaderMap) -> Vec<Variable> {
    let mut variables = Vec::with_capacity(headers.keys_len() + 3);
    for name in headers.keys() {
        if *name == header::HOST || matches!(name.as_str(), "method" | "path" | "query") {
            continue;
        }
        if let Some(value) = headers.get(name) {
            variables.push((variable_name(name.as_str()), os(value.as_bytes())));
        }
    }
    variables.push(("Http_Method".into(), method.as_str().into()));
    let path = target::decode(uri.path()).unwrap_or_else(|| uri.path().as_bytes().to_vec());
    variables.push(("Http_Path".into(), OsString::from_vec(path)));
    if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
        variables.push(("Http_Query".into(), query.into()));
    }
    variables
}

/// `x-call-id` becomes `Http_X_Call_Id`: capitals as Go writes header names, then `_` for each `-`.
fn variable_name(header: &str) -> OsString {
    let mut name = String::with_capacity("Http_".len() + header.len());
    name.push_str("Http_");
    let mut first = true;
    for c in header.chars() {
        name.push(match c {
            '-' => '_',
            c if first => c.to_ascii_uppercase(),
            c => c,
        });
        first = c == '-';
    }
    name.into()
}

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn listed(uri: &str, headers: &[(&'static str, &[u8])]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut listed: Vec<_> = variables(&Method::GET, &uri.parse().unwrap(), &map)
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        listed.sort();
        listed
    }

    #[test]
    fn headers_and_facts() {
        let headers: &[(&str, &[u8])] = &[
            ("host", b"w"),
            ("x-call-id", b"7"),
            ("x_under", b"u"),
            ("x.dot", b"1"),
            ("cookie", b"a=1"),
            ("cookie", b"b=2"),
            ("content-length", b"5"),
        ];
        assert_eq!(
            listed("/a%20b/%2Fc?q=%20x", headers),
            [
                "Http_Content_Length=5",
                "Http_Cookie=a=1",
                "Http_Method=GET",
                "Http_Path=/a b//c",
                "Http_Query=q=%20x",
                "Http_X.dot=1",
                "Http_X_Call_Id=7",
                "Http_X_under=u",
            ]
        );
    }

    #[test]
    fn a_header_cannot_pretend_a_fact() {
        let headers: &[(&str, &[u8])] =
            &[("method", b"EVIL"), ("path", b"/evil"), ("query", b"evil=1"), ("proxy", b"p")];
        assert_eq!(listed("/?", headers), ["Http_Method=GET", "Http_Path=/", "Http_Proxy=p"]);
    }

    #[test]
    fn bytes_beyond_ascii_pass() {
        let mut map = HeaderMap::new();
        map.insert("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let all = variables(&Method::GET, &Uri::from_static("/"), &map);
        assert_eq!(all[0].1, OsString::from_vec(b"caf\xe9".to_vec()));
    }
}
