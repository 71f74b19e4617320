//! A small HTTP client whose answers are values, whatever their status.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longest time that a test's call may take, so that a hanging one fails.
const CALL_TIME_MAX: Duration = Duration::from_secs(90);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// A header's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// This answer, if it has the status.
    ///
    /// # Panics
    /// It has another; the message shows the body.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// No connection, or it broke.
pub fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    run(method, url, headers, body, CALL_TIME_MAX)
}

/// As [`send`], within a time.
///
/// # Errors
/// No connection, or it broke, or the time was over.
pub fn send_within(
    time_max: Duration,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, ureq::Error> {
    run(method, url, headers, body, time_max)
}

/// Sends a body as it is read, in chunks, and reads the whole answer.
///
/// # Errors
/// No connection, or it broke.
pub fn upload(
    url: &str,
    headers: &[(&str, &str)],
    mut body: impl Read,
    time_max: Duration,
) -> Result<Answer, ureq::Error> {
    run("POST", url, headers, ureq::SendBody::from_reader(&mut body), time_max)
}

/// Reads an answer's body as it comes into `sink`, and answers its bytes.
///
/// # Errors
/// No connection, or it broke, or the status is not 200.
pub fn download(
    url: &str,
    headers: &[(&str, &str)],
    time_max: Duration,
    sink: &mut impl Write,
) -> Result<u64, ureq::Error> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(time_max)).build().new_agent();
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.call()?;
    Ok(std::io::copy(&mut answer.body_mut().with_config().limit(u64::MAX).reader(), sink)?)
}

fn run(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl ureq::AsSendBody,
    time_max: Duration,
) -> Result<Answer, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .timeout_global(Some(time_max))
        .build()
        .new_agent();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body)?)?;
    let headers = answer.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let headers = headers.collect();
    let mut body = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut body)?;
    Ok(Answer { status: answer.status().as_u16(), headers, body })
}

/// Sends bytes as they are, which no HTTP library would let pass, and reads to the connection's end. The
/// request should ask for that with `Connection: close`.
///
/// # Errors
/// No connection, or it broke.
pub fn send_raw(address: &str, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CALL_TIME_MAX))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a GET and gives the answer's lines one by one as they arrive, head first.
///
/// # Errors
/// No connection.
pub fn lines(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<impl Iterator<Item = String> + use<>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(CALL_TIME_MAX))?;
    let mut head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    Ok(BufReader::new(stream).lines().map_while(Result::ok))
}
