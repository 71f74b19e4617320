//! A call and its answer.

/// A call.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its path below the function.
    pub path: String,
    /// What stands after the question mark, as it was sent.
    pub query: String,
    /// Its headers, their names in small letters.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Request {
    /// A header's value; the name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Body,
}

/// The body of an answer.
pub enum Body {
    /// All of it.
    Whole(Vec<u8>),
    /// Sent piece by piece, as they come.
    Pieces(Box<dyn Iterator<Item = Vec<u8>>>),
}

impl Response {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", Body::Whole(text.into().into_bytes()))
    }

    /// JSON that is written already.
    pub fn json(json: impl Into<String>) -> Self {
        Self::new("application/json", Body::Whole(json.into().into_bytes()))
    }

    /// Bytes of any kind.
    pub fn binary(bytes: Vec<u8>) -> Self {
        Self::new("application/octet-stream", Body::Whole(bytes))
    }

    /// Pieces that are sent as they come.
    pub fn pieces(pieces: impl Iterator<Item = Vec<u8>> + 'static) -> Self {
        Self::new("text/plain; charset=utf-8", Body::Pieces(Box::new(pieces)))
    }

    /// The same with another status.
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The same with a header more, or another value of one.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole body, as tests want it.
    pub fn bytes(self) -> Vec<u8> {
        match self.body {
            Body::Whole(bytes) => bytes,
            Body::Pieces(pieces) => pieces.flatten().collect(),
        }
    }

    fn new(kind: &str, body: Body) -> Self {
        Self { status: 200, headers: vec![("Content-Type".to_owned(), kind.to_owned())], body }
    }
}
