//! HTTP around the thumbnail: what is asked for, and what is answered.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap},
};
use tokio::sync::Semaphore;

use crate::thumbnail::{self, Fault, Format, SIDE_MAX, Wanted};

/// Most bytes of an image that is sent.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How long a client may take to send an image.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Images that are received or held at once; further callers wait. With [`MAKING_MAX`] it bounds memory:
/// two progressive JPEGs of 24 megapixels at once took 284 MB.
const HELD_MAX: usize = 8;

/// Images that are decoded at once.
const MAKING_MAX: usize = 2;

/// Width and height of the box if the caller names none, in pixels.
const SIDE_DEFAULT: u32 = 200;

const USAGE: &str = "\
Send a JPEG, PNG or WebP image, get a thumbnail:

  curl --data-binary @photo.jpg 'URL?width=200&height=150' -o small.jpg

  width, height   box that the picture is fitted into, in pixels (default 200)
  size            both at once
  format          jpeg, png or webp (default: what Accept asks for, else that of the input)
";

/// Answers requests; the permits are shared by all connections.
pub struct Answerer {
    held: Semaphore,
    making: Semaphore,
}

impl Default for Answerer {
    fn default() -> Self {
        Self { held: Semaphore::new(HELD_MAX), making: Semaphore::new(MAKING_MAX) }
    }
}

/// A refusal: a status and a sentence.
#[derive(Debug)]
struct Refusal(StatusCode, String);

type Answer = Response<Full<Bytes>>;

impl Answerer {
    /// Answers one request; faults are answered too.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        match *request.method() {
            Method::GET | Method::HEAD => text(StatusCode::OK, USAGE.to_owned()),
            Method::POST | Method::PUT => match self.thumbnail(request).await {
                Ok(answer) => answer,
                Err(Refusal(status, sentence)) => text(status, sentence + "\n"),
            },
            _ => {
                let sentence = "POST an image; GET answers how\n".to_owned();
                let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, sentence);
                let allowed = hyper::header::HeaderValue::from_static("GET, HEAD, POST, PUT");
                answer.headers_mut().insert(ALLOW, allowed);
                answer
            }
        }
    }

    async fn thumbnail(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let wanted = wanted(request.uri().query().unwrap_or(""), request.headers())?;
        let broken = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the function is ending".into());
        let _held = self.held.acquire().await.map_err(broken)?;
        let file = receive(request.into_body()).await?;
        let _making = self.making.acquire().await.map_err(broken)?;
        // Decoding takes the processor for milliseconds; other connections go on meanwhile.
        let made = tokio::task::spawn_blocking(move || thumbnail::make(&file, &wanted))
            .await
            .map_err(|_| {
                Refusal(StatusCode::UNPROCESSABLE_ENTITY, "the image broke its decoder".to_owned())
            })?
            .map_err(|fault| Refusal(status_of(&fault), fault.to_string()))?;
        Ok(with_type(StatusCode::OK, made.format.media_type(), made.bytes.into()))
    }
}

/// Receives a body. One that is too long is read to its end and dropped: closing the connection on a
/// caller that still sends would cost it the answer.
async fn receive(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let (mut file, mut size) = (Vec::new(), 0);
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            size += data.len();
            if size <= BODY_BYTES_MAX {
                file.extend_from_slice(&data);
            } else {
                file = Vec::new();
            }
        }
        Ok::<_, hyper::Error>(())
    };
    match tokio::time::timeout(BODY_TIME_MAX, reading).await {
        Ok(Ok(())) if size <= BODY_BYTES_MAX => Ok(file),
        Ok(Ok(())) => Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the image has {size} bytes, at most {} MiB are taken", BODY_BYTES_MAX >> 20),
        )),
        Ok(Err(error)) => {
            Err(Refusal(StatusCode::BAD_REQUEST, format!("the image did not arrive: {error}")))
        }
        Err(_) => Err(Refusal(
            StatusCode::REQUEST_TIMEOUT,
            format!("the image took longer than {} s to arrive", BODY_TIME_MAX.as_secs()),
        )),
    }
}

fn status_of(fault: &Fault) -> StatusCode {
    match fault {
        Fault::NoImage => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Fault::Broken(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Fault::CannotWrite(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Reads what is wanted from the query and the `Accept` header. Parameters that are not ours are ignored.
fn wanted(query: &str, headers: &HeaderMap) -> Result<Wanted, Refusal> {
    let bad = |sentence: String| Refusal(StatusCode::BAD_REQUEST, sentence);
    let mut wanted = Wanted { width: SIDE_DEFAULT, height: SIDE_DEFAULT, format: None };
    let (mut width, mut height, mut named) = (None, None, false);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let side = || match value.parse() {
            Ok(side) if (1..=SIDE_MAX).contains(&side) => Ok(Some(side)),
            _ => Err(bad(format!("{name}={value} is no number of pixels from 1 to {SIDE_MAX}"))),
        };
        match name {
            "width" => width = side()?,
            "height" => height = side()?,
            "size" => (width, height) = (side()?, side()?),
            "format" => {
                wanted.format = Some(Format::named(value).ok_or_else(|| {
                    bad(format!("format={value} is not written; use jpeg, png or webp"))
                })?);
                named = true;
            }
            _ => {}
        }
    }
    // With one side given, the other follows from the picture.
    if width.is_some() || height.is_some() {
        wanted.width = width.unwrap_or(SIDE_MAX);
        wanted.height = height.unwrap_or(SIDE_MAX);
    }
    if !named {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        wanted.format = accepted(accept.unwrap_or("*/*"))?;
    }
    Ok(wanted)
}

/// The format that an `Accept` header likes best (RFC 9110 section 12.5.1); `None` if any will do.
fn accepted(header: &str) -> Result<Option<Format>, Refusal> {
    let mut best: Option<(f32, Option<Format>)> = None;
    for entry in header.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let format = match parts.next().unwrap_or("") {
            "*/*" | "image/*" | "" => None,
            name => match Format::named(name) {
                Some(format) if name.starts_with("image/") => Some(format),
                _ => continue,
            },
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if quality > 0.0 && best.is_none_or(|(least, _)| quality > least) {
            best = Some((quality, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        let sentence = "Accept allows none of image/jpeg, image/png and image/webp";
        Refusal(StatusCode::NOT_ACCEPTABLE, sentence.to_owned())
    })
}

fn text(status: StatusCode, body: String) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

fn with_type(status: StatusCode, media_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let media_type = hyper::header::HeaderValue::from_static(media_type);
    answer.headers_mut().insert(CONTENT_TYPE, media_type);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, accept: &str) -> Result<(u32, u32, Option<Format>), StatusCode> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        match wanted(query, &headers) {
            Ok(wanted) => Ok((wanted.width, wanted.height, wanted.format)),
            Err(Refusal(status, _)) => Err(status),
        }
    }

    #[test]
    fn the_query_names_the_box() {
        assert_eq!(read("", "*/*"), Ok((200, 200, None)));
        assert_eq!(read("size=64", "*/*"), Ok((64, 64, None)));
        assert_eq!(read("width=10&height=20&x=y", "*/*"), Ok((10, 20, None)));
        assert_eq!(read("width=10", "*/*"), Ok((10, SIDE_MAX, None)));
        for bad in ["size=0", "size=-1", "width=2049", "height=a", "size=", "format=gif"] {
            assert_eq!(read(bad, "*/*"), Err(StatusCode::BAD_REQUEST), "{bad}");
        }
    }

    #[test]
    fn accept_chooses_the_format_unless_the_query_does() {
        let format = |query: &str, accept: &str| read(query, accept).map(|(_, _, format)| format);
        assert_eq!(format("", "image/png"), Ok(Some(Format::Png)));
        assert_eq!(format("", "image/png;q=0.5, image/webp"), Ok(Some(Format::Webp)));
        assert_eq!(format("", "text/html, image/*;q=0.1"), Ok(None));
        assert_eq!(format("", "text/html"), Err(StatusCode::NOT_ACCEPTABLE));
        assert_eq!(format("format=jpg", "text/html"), Ok(Some(Format::Jpeg)));
    }
}
