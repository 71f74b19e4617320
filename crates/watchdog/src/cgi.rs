//! The variables by which a forked process learns about its request (contract section 8.8).

use std::ffi::CStr;

use http::{HeaderMap, HeaderValue, Method, Uri, header, request::Parts};

use crate::target;

/// How the names of these variables begin.
pub const PREFIX: &[u8] = b"Http_";

/// The variables of one request, one after the other as the kernel takes them: `NAME=VALUE` and a zero.
#[derive(Debug, Default)]
pub struct Variables {
    text: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// The path has `%00` in it; no header can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has a zero byte, which no environment variable can hold")]
pub struct ZeroByte;

/// A header that means nothing, and whose variable does.
const PROXY: &str = "proxy";

/// Bytes set aside at first, which those of most requests fit in.
const USUAL_BYTES: usize = 1 << 10;

impl Variables {
    /// `Http_X_Call_Id` and the like: the first value of each header, and the facts of the request line.
    ///
    /// A header whose variable would stand for one of these facts is left out: a caller must not be able to
    /// pretend a query that it did not send. So is `Proxy`: many clients, Python's among them, would send what they
    /// send through `Http_Proxy` (CVE-2016-5385).
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        let mut variables = Self::of_headers(headers, &["method", "path", "query"]);
        variables.push_facts(method, uri);
        variables
    }

    /// Those of the classic watchdog, which tells host and length too; an unknown length is -1.
    pub fn of_classic(head: &Parts, length: Option<u64>) -> Self {
        let facts = ["method", "path", "query", "content-length", "contentlength"];
        let mut variables = Self::of_headers(&head.headers, &facts);
        let length = length.map_or_else(|| "-1".to_owned(), |length| length.to_string());
        variables.push("ContentLength", length.as_bytes());
        variables.push("content-length", length.as_bytes());
        variables.push_facts(&head.method, &head.uri);
        let host = head.headers.get(header::HOST).map(HeaderValue::as_bytes);
        if let Some(host) = host.filter(|host| !host.is_empty()) {
            variables.push("host", host);
        }
        variables
    }

    fn of_headers(headers: &HeaderMap, facts: &[&str]) -> Self {
        let (text, ends) = (Vec::with_capacity(USUAL_BYTES), Vec::with_capacity(16));
        let mut variables = Self { text, ends };
        let mut may_repeat = false;
        for name in headers.keys() {
            if *name == header::HOST || *name == *PROXY || facts.contains(&name.as_str()) {
                continue;
            }
            if let Some(value) = headers.get(name) {
                may_repeat |= name.as_str().contains('_');
                variables.push(name.as_str(), value.as_bytes());
            }
        }
        if may_repeat {
            variables.keep_last_of_each_name();
        }
        variables
    }

    fn push_facts(&mut self, method: &Method, uri: &Uri) {
        self.push("method", method.as_str().as_bytes());
        match target::decode(uri.path()) {
            Some(path) => self.push("path", &path),
            None => self.push("path", uri.path().as_bytes()),
        }
        if let Some(query) = uri.query().filter(|query| !query.is_empty()) {
            self.push("query", query.as_bytes());
        }
    }

    /// `x-call-id` becomes `Http_X_Call_Id`: capitals as Go writes header names, then `_` for each `-`.
    fn push(&mut self, header: &str, value: &[u8]) {
        self.text.extend_from_slice(PREFIX);
        let mut first = true;
        for byte in header.bytes() {
            self.text.push(match byte {
                b'-' => b'_',
                byte if first => byte.to_ascii_uppercase(),
                byte => byte,
            });
            first = byte == b'-';
        }
        self.text.push(b'=');
        self.text.extend_from_slice(value);
        self.text.push(0);
        self.ends.push(self.text.len());
    }

    /// `a-1` and `a_1` have the same name.
    fn keep_last_of_each_name(&mut self) {
        let whole = std::mem::take(self);
        let all: Vec<_> = whole.each().collect();
        for (at, variable) in all.iter().enumerate() {
            if !all[at + 1..].iter().any(|later| name(later) == name(variable)) {
                self.text.extend_from_slice(variable);
                self.ends.push(self.text.len());
            }
        }
    }

    /// Each with the zero at its end.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.text[begin..*end])
    }

    /// Whether there is one of the same name as this `NAME=VALUE`.
    pub fn overrides(&self, variable: &CStr) -> bool {
        self.each().any(|other| name(other) == name(variable.to_bytes()))
    }

    /// Adds each to the environment of a process.
    ///
    /// # Errors
    /// [`ZeroByte`].
    pub fn put_into<'a>(&'a self, environment: &mut Vec<&'a CStr>) -> Result<(), ZeroByte> {
        for variable in self.each() {
            environment.push(CStr::from_bytes_with_nul(variable).map_err(|_| ZeroByte)?);
        }
        Ok(())
    }
}

fn name(variable: &[u8]) -> &[u8] {
    variable.split(|byte| *byte == b'=').next().unwrap_or_default()
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
        let variables = Variables::of(&Method::GET, &uri.parse().unwrap(), &map);
        let mut environment = Vec::new();
        variables.put_into(&mut environment).unwrap();
        let text = |variable: &&CStr| variable.to_string_lossy().into_owned();
        let mut listed: Vec<_> = environment.iter().map(text).collect();
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
        assert_eq!(listed("/?", headers), ["Http_Method=GET", "Http_Path=/"]);
    }

    #[test]
    fn the_classic_watchdog_tells_host_and_length() {
        let request = http::Request::post("/p?q=1").header("host", "w:1");
        let request = request.header("content-length", "9").header("x-a", "1").body(()).unwrap();
        let (head, ()) = request.into_parts();
        let listed = |length| {
            let variables = Variables::of_classic(&head, length);
            let mut environment = Vec::new();
            variables.put_into(&mut environment).unwrap();
            let text = |variable: &&CStr| variable.to_string_lossy().into_owned();
            let mut listed: Vec<_> = environment.iter().map(text).collect();
            listed.sort();
            listed
        };
        assert_eq!(
            listed(Some(9)),
            [
                "Http_ContentLength=9",
                "Http_Content_Length=9",
                "Http_Host=w:1",
                "Http_Method=POST",
                "Http_Path=/p",
                "Http_Query=q=1",
                "Http_X_A=1",
            ]
        );
        assert!(listed(None).contains(&"Http_ContentLength=-1".to_owned()));
    }

    #[test]
    fn of_headers_of_one_name_the_last_counts() {
        let headers: &[(&str, &[u8])] = &[("a-1", b"x"), ("b_1", b"y"), ("a_1", b"z")];
        let expected = ["Http_A_1=z", "Http_B_1=y", "Http_Method=GET", "Http_Path=/"];
        assert_eq!(listed("/", headers), expected);
        let replaced = Variables::of(&Method::GET, &Uri::from_static("/"), &HeaderMap::new());
        assert!(replaced.overrides(c"Http_Path=/own"));
        assert!(!replaced.overrides(c"Http_Pat=/"));
    }

    #[test]
    fn bytes_beyond_ascii_pass_and_zeros_do_not() {
        let mut map = HeaderMap::new();
        map.insert("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let latin = Variables::of(&Method::GET, &Uri::from_static("/"), &map);
        let mut environment = Vec::new();
        latin.put_into(&mut environment).unwrap();
        assert_eq!(environment[0].to_bytes(), b"Http_X_Latin=caf\xe9");
        let zero = Variables::of(&Method::GET, &Uri::from_static("/a%00b"), &map);
        assert!(zero.put_into(&mut environment).is_err());
    }
}
