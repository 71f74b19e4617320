//! Heads between HTTP/1.1 and HTTP/2 (RFC 9113 section 8).

use std::io;

use bytes::Bytes;
use h2::RecvStream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, COOKIE, HOST, TE},
    request, response,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{inlet::write_fields, malformed};
use crate::h1::{Framing, RequestHead, ResponseHead, write_framing, write_header};

/// Who is called where the caller's own word for it cannot stand in HTTP/2.
const NAMELESS: &str = "function";

/// Writes a caller's request as HTTP/1.1, and answers how its body is framed there.
pub fn write_request(parts: &request::Parts, body: &RecvStream, output: &mut Vec<u8>) -> Framing {
    output.extend_from_slice(parts.method.as_str().as_bytes());
    output.push(b' ');
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    output.extend_from_slice(target.as_bytes());
    output.extend_from_slice(b" HTTP/1.1\r\n");
    let mut headers = parts.headers.clone();
    if let Some(authority) = parts.uri.authority() {
        headers.remove(HOST);
        write_header(output, b"host", authority.as_str().as_bytes());
    }
    // HTTP/2 cuts it up (RFC 9113 section 8.2.3).
    let crumbs: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        write_header(output, b"cookie", &crumbs.join(&b"; "[..]));
        headers.remove(COOKIE);
    }
    let framing = framing(&headers, body);
    headers.remove(CONTENT_LENGTH);
    write_fields(&headers, output);
    write_framing(output, framing);
    output.extend_from_slice(b"\r\n");
    framing
}

/// Writes a function's answer as HTTP/1.1, and answers how its body is framed there. `to_head`: the request's
/// method was HEAD.
pub fn write_response(
    parts: &response::Parts,
    body: &RecvStream,
    to_head: bool,
    output: &mut Vec<u8>,
) -> io::Result<Framing> {
    if parts.status.is_informational() {
        return Err(malformed("as HTTP/2: its answer's status is preliminary"));
    }
    output.extend_from_slice(b"HTTP/1.1 ");
    output.extend_from_slice(parts.status.as_str().as_bytes());
    output.push(b' ');
    let reason = parts.status.canonical_reason().unwrap_or_default();
    output.extend_from_slice(reason.as_bytes());
    // One stream is one call.
    output.extend_from_slice(b"\r\nconnection: close\r\n");
    let mut headers = parts.headers.clone();
    let bare = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match framing(&headers, body) {
        Framing::None if to_head || bare => Framing::None,
        Framing::None => Framing::Length(0),
        framed => framed,
    };
    if framing != Framing::None {
        headers.remove(CONTENT_LENGTH);
    }
    write_fields(&headers, output);
    write_framing(output, framing);
    output.extend_from_slice(b"\r\n");
    Ok(framing)
}

/// How a body is framed as HTTP/1.1: in chunks, which can have a trailer, unless its length is known.
fn framing(headers: &HeaderMap, body: &RecvStream) -> Framing {
    if body.is_end_stream() {
        return Framing::None;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    length.map_or(Framing::Chunked, Framing::Length)
}

/// A request to a function.
///
/// # Errors
/// Something of it cannot stand in HTTP/2.
pub fn request(head: &RequestHead<'_>) -> io::Result<Request<()>> {
    let mut headers = HeaderMap::new();
    let mut authority = None;
    for (name, value) in head.passing() {
        let (name, value) = field(name.as_bytes(), value)?;
        if name == HOST {
            authority = Authority::try_from(value.as_bytes()).ok();
        } else {
            headers.append(name, value);
        }
    }
    // Some servers take it for a proof that nobody on the way drops trailers.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Framing::Length(length) = head.framing {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let target = Bytes::copy_from_slice(head.target.as_bytes());
    let target = PathAndQuery::from_maybe_shared(target).map_err(malformed)?;
    let uri = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority.unwrap_or_else(|| Authority::from_static(NAMELESS)))
        .path_and_query(target);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(malformed)?;
    *request.uri_mut() = uri.build().map_err(malformed)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// An answer to a caller.
///
/// # Errors
/// Something of it cannot stand in HTTP/2.
pub fn response(head: &ResponseHead<'_>) -> io::Result<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(malformed)?;
    for (name, value) in head.passing() {
        let (name, value) = field(name.as_bytes(), value)?;
        response.headers_mut().append(name, value);
    }
    if let Some(length) = head.length().filter(|_| !matches!(head.status, 100..200 | 204)) {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    Ok(response)
}

/// A trailer's fields, from lines as a decoder has them.
///
/// # Errors
/// Something of it cannot stand in HTTP/2.
pub fn fields(lines: &[u8]) -> io::Result<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        let (name, value) = field(&line[..colon], value)?;
        fields.append(name, value);
    }
    Ok(fields)
}

fn field(name: &[u8], value: &[u8]) -> io::Result<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name).map_err(malformed)?;
    Ok((name, HeaderValue::from_bytes(value).map_err(malformed)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{with_request_head, with_response_head};

    #[test]
    fn a_request_leaves_its_connections_headers_behind() {
        let head = "POST /a%2Fb//..?q HTTP/1.1\r\nHost: h:1\r\nX-Own: 1\r\nx-own: 2\r\n\
             Connection: close, X-Gone\r\nX-Gone: 1\r\nContent-Length: 5\r\n\r\n";
        let request = with_request_head(head.as_bytes(), request).unwrap().unwrap();
        assert_eq!(request.uri(), "http://h:1/a%2Fb//..?q");
        let names: Vec<_> = request.headers().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["x-own", "x-own", "te", "content-length"]);
    }

    #[test]
    fn a_host_that_is_none_is_replaced() {
        let head = "GET / HTTP/1.1\r\nHost: a b\r\n\r\n";
        let request = with_request_head(head.as_bytes(), request).unwrap().unwrap();
        assert_eq!(request.uri().authority().unwrap(), NAMELESS);
    }

    #[test]
    fn answers_keep_their_length_and_lose_their_framing() {
        let head =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nA: b\r\n\r\n";
        let chunked = with_response_head(head.as_bytes(), response).unwrap().unwrap();
        assert_eq!(chunked.headers().len(), 1);
        let head = "HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n";
        let unchanged = with_response_head(head.as_bytes(), response).unwrap().unwrap();
        assert_eq!(unchanged.headers()["content-length"], "7");
    }

    #[test]
    fn trailers_are_read_line_by_line() {
        let fields = fields(b"Grpc-Status: 0\r\ngrpc-message: a: b\r\n").unwrap();
        assert_eq!(fields["grpc-status"], "0");
        assert_eq!(fields["grpc-message"], "a: b");
        assert!(super::fields(b": x\r\n").is_err());
    }
}
