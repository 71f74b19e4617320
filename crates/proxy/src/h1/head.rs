//! Request and answer heads, read in place (RFC 9112 sections 2 to 6).
//!
//! One pass over the headers sorts out those that belong to the connection (RFC 9110 section 7.6.1) and
//! those that frame the body. A message whose end two readers could see in different places is refused.

use std::mem::MaybeUninit;

use httparse::{Header, Status};
use pinnace_core::limits::{CONNECTION_NAMES_MAX, HEADERS_MAX};

use super::Framing;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Not as HTTP/1 is written.
    #[error("it is no HTTP/1.1 message: {0}")]
    Malformed(httparse::Error),
    /// More headers than are taken.
    #[error("it has more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    /// More bytes than are taken.
    #[error("its line and headers are longer than {0} bytes")]
    TooLarge(usize),
    /// `Content-Length` that is no number, or two that differ.
    #[error("its Content-Length is no number, or there are two that differ")]
    Length,
    /// A coding other than `chunked`, or one where there may be none.
    #[error("its Transfer-Encoding is not exactly `chunked`")]
    Encoding,
    /// Both ways of telling the body's end.
    #[error("it has both Content-Length and Transfer-Encoding")]
    LengthAndEncoding,
    /// No `Host`, or more than one (RFC 9112 section 3.2).
    #[error("it has no Host, or more than one")]
    Hosts,
    /// `Connection` names too much.
    #[error("its Connection names more than {CONNECTION_NAMES_MAX} headers")]
    ConnectionNames,
    /// An end that cannot be found.
    #[error("the connection ended within it")]
    Short,
    /// It took too long.
    #[error("it did not arrive in time")]
    Slow,
}

/// A request's line and headers, where they were received.
#[derive(Debug)]
pub struct RequestHead<'b> {
    /// The method, as sent.
    pub method: &'b str,
    /// The target, as sent: a path, or a whole URL.
    pub target: &'b str,
    /// Whether it is of HTTP/1.0.
    pub is_http10: bool,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether the caller waits to be told to send the body.
    pub expects_continue: bool,
    hop: Hop<'b>,
}

/// An answer's line and headers, where they were received.
#[derive(Debug)]
pub struct ResponseHead<'b> {
    /// The status.
    pub status: u16,
    /// The words after it.
    pub reason: &'b str,
    hop: Hop<'b>,
}

/// A message's headers, and what they say of its connection and of its body's end.
#[derive(Debug, Default)]
struct Hop<'b> {
    headers: &'b [Header<'b>],
    is_http10: bool,
    close: bool,
    keep_alive: bool,
    upgrade_named: bool,
    upgrade: Option<&'b [u8]>,
    /// Headers that `Connection` names, beside the usual words.
    named: Vec<&'b [u8]>,
    length: Option<u64>,
    encodings: u32,
    chunked: bool,
    expects_continue: bool,
    takes_trailers: bool,
    hosts: u32,
}

enum Kind {
    EndToEnd,
    Host,
    Connection,
    Upgrade,
    Length,
    Encoding,
    Expect,
    Te,
    OtherHop,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("trailer") => Self::OtherHop,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::OtherHop,
            14 if is("content-length") => Self::Length,
            16 if is("proxy-connection") => Self::OtherHop,
            17 if is("transfer-encoding") => Self::Encoding,
            18 if is("proxy-authenticate") => Self::OtherHop,
            19 if is("proxy-authorization") => Self::OtherHop,
            _ => Self::EndToEnd,
        }
    }
}

impl<'b> Hop<'b> {
    fn of(headers: &'b [Header<'b>], version: Option<u8>) -> Result<Self, HeadFault> {
        let mut hop = Self { headers, is_http10: version == Some(0), ..Self::default() };
        for header in headers {
            match Kind::of(header.name.as_bytes()) {
                Kind::EndToEnd | Kind::OtherHop => {}
                Kind::Host => hop.hosts += 1,
                Kind::Connection => hop.connection(header.value)?,
                Kind::Upgrade => hop.upgrade = Some(header.value),
                Kind::Length => hop.length(header.value)?,
                Kind::Te => hop.takes_trailers |= names_trailers(header.value),
                Kind::Encoding => {
                    hop.encodings += 1;
                    hop.chunked = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                }
                Kind::Expect => {
                    hop.expects_continue |= header.value.eq_ignore_ascii_case(b"100-continue");
                }
            }
        }
        if hop.encodings > 0 && (hop.encodings > 1 || !hop.chunked) {
            return Err(HeadFault::Encoding);
        }
        Ok(hop)
    }

    fn connection(&mut self, value: &'b [u8]) -> Result<(), HeadFault> {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |known: &str| token.eq_ignore_ascii_case(known.as_bytes());
            if is("close") {
                self.close = true;
            } else if is("keep-alive") {
                self.keep_alive = true;
            } else if is("upgrade") {
                self.upgrade_named = true;
            } else if !token.is_empty() {
                if self.named.len() == CONNECTION_NAMES_MAX {
                    return Err(HeadFault::ConnectionNames);
                }
                self.named.push(token);
            }
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let length = number(value).ok_or(HeadFault::Length)?;
        match self.length.replace(length) {
            Some(other) if other != length => Err(HeadFault::Length),
            _ => Ok(()),
        }
    }

    fn passes(&self, header: &Header<'_>) -> bool {
        match Kind::of(header.name.as_bytes()) {
            Kind::Host => true,
            Kind::EndToEnd => !self.names(header),
            Kind::Expect => !self.expects_continue && !self.names(header),
            _ => false,
        }
    }

    /// Whether `Connection` names this header.
    fn names(&self, header: &Header<'_>) -> bool {
        self.named.iter().any(|name| name.eq_ignore_ascii_case(header.name.as_bytes()))
    }

    fn upgrade(&self) -> Option<&'b [u8]> {
        self.upgrade.filter(|_| self.upgrade_named)
    }

    fn passing(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        let passing = self.headers.iter().filter(|header| self.passes(header));
        passing.map(|header| (header.name, header.value))
    }

    fn keeps_alive(&self) -> bool {
        !self.close && (!self.is_http10 || self.keep_alive)
    }
}

fn names_trailers(te: &[u8]) -> bool {
    let mut codings = te.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Decimal digits, and nothing else.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn fault(error: httparse::Error) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooManyHeaders,
        other => HeadFault::Malformed(other),
    }
}

/// Reads a request's head, if it is there to its end, and shows it with the bytes it takes.
///
/// # Errors
/// It is refused.
pub fn request<T>(
    bytes: &[u8],
    show: impl FnOnce(&RequestHead<'_>, usize) -> T,
) -> Result<Option<T>, HeadFault> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let Status::Complete(size) =
        parsed.parse_with_uninit_headers(bytes, &mut headers).map_err(fault)?
    else {
        return Ok(None);
    };
    let mut hop = Hop::of(parsed.headers, parsed.version)?;
    let is_http10 = hop.is_http10;
    let framing = match (hop.chunked, hop.length) {
        (true, Some(_)) => return Err(HeadFault::LengthAndEncoding),
        (true, None) if is_http10 => return Err(HeadFault::Encoding),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::None,
    };
    if hop.hosts > 1 || (hop.hosts == 0 && !is_http10) {
        return Err(HeadFault::Hosts);
    }
    // What HTTP/1.0 asks for is to be ignored (RFC 9110 section 7.8), and the bytes of a body could not be
    // told from those of the other protocol.
    if is_http10 || framing != Framing::None {
        hop.upgrade = None;
    }
    let head = RequestHead {
        method: parsed.method.unwrap_or_default(),
        target: parsed.path.unwrap_or_default(),
        is_http10,
        framing,
        expects_continue: hop.expects_continue && !is_http10,
        hop,
    };
    Ok(Some(show(&head, size)))
}

/// Reads an answer's head, if it is there to its end, and shows it with the bytes it takes.
///
/// # Errors
/// It is refused.
pub fn response<T>(
    bytes: &[u8],
    show: impl FnOnce(&ResponseHead<'_>, usize) -> T,
) -> Result<Option<T>, HeadFault> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers);
    let Status::Complete(size) = status.map_err(fault)? else { return Ok(None) };
    let hop = Hop::of(parsed.headers, parsed.version)?;
    // Three digits are read, of which the first is not 0 (RFC 9110 section 15).
    let status = parsed.code.filter(|status| *status >= 100);
    let head = ResponseHead {
        status: status.ok_or(HeadFault::Malformed(httparse::Error::Status))?,
        reason: parsed.reason.unwrap_or_default(),
        hop,
    };
    Ok(Some(show(&head, size)))
}

/// A trailer without the fields that may not stand in one (RFC 9110 section 6.5.1): those of framing and of
/// the connection. `None` if it is malformed.
pub fn clean_trailer(trailer: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let Ok(Status::Complete((size, fields))) = httparse::parse_headers(trailer, &mut headers)
    else {
        return None;
    };
    if size != trailer.len() {
        return None;
    }
    let mut clean = Vec::new();
    for field in fields {
        if matches!(Kind::of(field.name.as_bytes()), Kind::EndToEnd) {
            write_header(&mut clean, field.name.as_bytes(), field.value);
        }
    }
    clean.extend_from_slice(b"\r\n");
    Some(clean)
}

/// Writes a header whose value is a number.
pub fn write_number(output: &mut Vec<u8>, name: &[u8], number: u64) {
    write_header(output, name, itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a header.
pub fn write_header(output: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    output.reserve(name.len() + value.len() + 4);
    output.extend_from_slice(name);
    output.extend_from_slice(b": ");
    output.extend_from_slice(value);
    output.extend_from_slice(b"\r\n");
}

impl<'b> RequestHead<'b> {
    /// The headers that go on to the next hop, as they were sent.
    pub fn passing(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        self.hop.passing()
    }

    /// The protocol that it asks to switch to.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        self.hop.upgrade()
    }

    /// Whether the caller takes a trailer after the answer's body.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        self.hop.takes_trailers
    }

    /// Whether the caller would send another request after this one.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        self.hop.keeps_alive()
    }
}

impl<'b> ResponseHead<'b> {
    /// The headers that go on to the caller, as they were sent.
    pub fn passing(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        self.hop.passing()
    }

    /// The protocol that it has switched to.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'b [u8]> {
        self.hop.upgrade()
    }

    /// Whether the upstream takes another request after this one. One that tells the body's end in two ways is
    /// not trusted with it, nor is one of HTTP/1.0 that sends chunks (RFC 9112 section 6.1).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        let is_plain = !self.hop.chunked || (self.hop.length.is_none() && !self.hop.is_http10);
        is_plain && self.hop.keeps_alive()
    }

    /// The length it names, whether or not a body of that length follows.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.hop.length
    }

    /// Whether a body may follow at all.
    #[must_use]
    pub fn may_have_body(&self, to_head: bool) -> bool {
        !to_head && self.status >= 200 && self.status != 204 && self.status != 304
    }

    /// How its body is framed (RFC 9112 section 6.3). `to_head`: the request's method was HEAD.
    #[must_use]
    pub fn framing(&self, to_head: bool) -> Framing {
        match (self.hop.chunked, self.hop.length) {
            _ if !self.may_have_body(to_head) => Framing::None,
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(head: &str) -> Result<Framing, HeadFault> {
        request(head.as_bytes(), |head, _| head.framing).map(Option::unwrap)
    }

    fn with(headers: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
    }

    #[test]
    fn requests_are_framed_in_one_way_or_refused() {
        assert_eq!(framing(&with("")), Ok(Framing::None));
        assert_eq!(framing(&with("Content-Length: 5\r\n")), Ok(Framing::Length(5)));
        let twice = "Content-Length: 5\r\nContent-Length: 5\r\n";
        assert_eq!(framing(&with(twice)), Ok(Framing::Length(5)));
        assert_eq!(framing(&with("Transfer-Encoding: Chunked\r\n")), Ok(Framing::Chunked));
        let faults = [
            ("Content-Length: 5\r\nContent-Length: 6\r\n", HeadFault::Length),
            ("Content-Length: 5, 5\r\n", HeadFault::Length),
            ("Content-Length: +5\r\n", HeadFault::Length),
            ("Content-Length: \r\n", HeadFault::Length),
            ("Content-Length: 99999999999999999999\r\n", HeadFault::Length),
            ("Transfer-Encoding: gzip, chunked\r\n", HeadFault::Encoding),
            ("Transfer-Encoding: identity\r\n", HeadFault::Encoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HeadFault::Encoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", HeadFault::LengthAndEncoding),
            ("Host: other\r\n", HeadFault::Hosts),
        ];
        assert_eq!(framing("GET / HTTP/1.1\r\n\r\n"), Err(HeadFault::Hosts));
        let named = format!("Connection: {}\r\n", "a,".repeat(CONNECTION_NAMES_MAX + 1));
        assert_eq!(framing(&with(&named)), Err(HeadFault::ConnectionNames));
        for (headers, fault) in faults {
            assert_eq!(framing(&with(headers)), Err(fault), "{headers}");
        }
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(framing(old), Err(HeadFault::Encoding));
    }

    #[test]
    fn an_expectation_that_connection_names_stays_behind() {
        let head = with("Connection: expect\r\nExpect: 101-dinner\r\n");
        let names = request(head.as_bytes(), |head, _| head.passing().count());
        assert_eq!(names, Ok(Some(1)), "the host");
    }

    #[test]
    fn a_status_below_100_is_none() {
        let status = |head: &[u8]| response(head, |head, _| head.status);
        let fault = Err(HeadFault::Malformed(httparse::Error::Status));
        assert_eq!(status(b"HTTP/1.1 011 x\r\n\r\n"), fault);
        assert_eq!(status(b"HTTP/1.1 999 x\r\n\r\n"), Ok(Some(999)));
    }

    #[test]
    fn a_connection_is_not_used_again_after_a_body_whose_end_is_in_doubt() {
        let keeps_alive = |head: &str| response(head.as_bytes(), |head, _| head.keeps_alive());
        let old = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n";
        assert_eq!(keeps_alive(&format!("{old}Content-Length: 1\r\n\r\n")), Ok(Some(true)));
        let chunked = format!("{old}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(keeps_alive(&chunked), Ok(Some(false)));
    }

    #[test]
    fn malformed_heads_are_refused_and_short_ones_wait() {
        for head in [
            "GET /\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET / HTTP/1.1\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\n\r\n",
        ] {
            assert!(matches!(framing(head), Err(HeadFault::Malformed(_))), "{head:?}");
        }
        assert_eq!(request(b"GET / HTTP/1.1\r\nHost: h\r\n", |_, _| ()), Ok(None));
        let many = with(&"a: b\r\n".repeat(HEADERS_MAX));
        assert_eq!(framing(&many), Err(HeadFault::TooManyHeaders));
    }

    #[test]
    fn what_belongs_to_the_connection_stays_behind() {
        let head = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Secret, host\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
             x-SECRET: 1\r\nX-Kept: 1\r\nExpect: 100-continue\r\n\r\nrest";
        let shown = request(head.as_bytes(), |head, size| {
            let names: Vec<_> = head.passing().map(|(name, _)| name.to_owned()).collect();
            assert_eq!(head.upgrade(), Some(b"websocket".as_slice()));
            assert!(head.expects_continue && head.keeps_alive());
            (names, size)
        });
        let (names, size) = shown.unwrap().unwrap();
        assert_eq!(names, ["Host", "X-Kept"]);
        assert_eq!(&head[size..], "rest");
    }

    #[test]
    fn who_takes_trailers() {
        let takes = |te: &str| {
            request(with(te).as_bytes(), |head, _| head.takes_trailers()).unwrap().unwrap()
        };
        assert!(takes("TE: trailers\r\n") && takes("te: gzip;q=0.5, Trailers\r\n"));
        assert!(!takes("TE: gzip\r\n") && !takes(""));
    }

    #[test]
    fn an_upgrade_counts_only_if_connection_names_it() {
        let head = with("Upgrade: h2c\r\n");
        assert!(request(head.as_bytes(), |head, _| head.upgrade().is_none()).unwrap().unwrap());
    }

    #[test]
    fn who_keeps_the_connection() {
        let keeps = |text: &str| {
            let text = text.replacen("\r\n", "\r\nHost: h\r\n", 1);
            request(text.as_bytes(), |head, _| head.keeps_alive()).unwrap().unwrap()
        };
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn answers_are_framed_by_status_and_method_too() {
        let framing = |text: &str, to_head| {
            response(text.as_bytes(), |head, _| head.framing(to_head)).unwrap().unwrap()
        };
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(length, false), Framing::Length(5));
        assert_eq!(framing(length, true), Framing::None);
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", false), Framing::UntilClose);
        let both = "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(both, false), Framing::Chunked);
        let unchanged = "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(framing(unchanged, false), Framing::None);
        assert_eq!(framing("HTTP/1.1 204 No Content\r\n\r\n", false), Framing::None);
    }

    proptest::proptest! {
        /// Whatever is taken is written on in a form that is read in the same way, and in no other.
        #[test]
        fn what_is_taken_is_passed_on_unambiguously(
            lines in proptest::collection::vec(
                "(Content-Length|content-length|Transfer-Encoding|Connection|X|Te|Expect|Trailer)\
                 [ \t]?:[ \t]{0,2}(chunked|Chunked|gzip, chunked|[0-9]{1,3}|close, x|x|100-continue|)[ \t]?\r?\n",
                0..5,
            ),
            minor in 0..2,
        ) {
            let head = format!("POST /a HTTP/1.{minor}\r\nHost: h\r\n{}\r\n", lines.concat());
            let taken = request(head.as_bytes(), |head, _| {
                let mut out = b"POST /a HTTP/1.1\r\n".to_vec();
                for (name, value) in head.passing() {
                    write_header(&mut out, name.as_bytes(), value);
                }
                super::super::exchange::write_framing(&mut out, head.framing);
                out.extend_from_slice(b"\r\n");
                (out, head.framing)
            });
            let Ok(Some((out, framing))) = taken else { return Ok(()) };
            let again = request(&out, |head, size| (head.framing, size)).unwrap().unwrap();
            proptest::prop_assert_eq!(again, (framing, out.len()));
            let text = String::from_utf8(out).unwrap().to_lowercase();
            let count = |name: &str| text.matches(name).count();
            let framed = count("content-length") + count("transfer-encoding");
            proptest::prop_assert_eq!(framed, usize::from(framing != Framing::None));
        }

        /// No bytes make a reader panic.
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let _ = request(&bytes, |_, _| ());
            let _ = response(&bytes, |_, _| ());
            let _ = clean_trailer(&bytes);
        }
    }
}
