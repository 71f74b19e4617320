//! The function builder API (contract section 14.5), and the images that it has built as archives.
//!
//! A build that was begun and failed is answered with 200 and its log, as OpenFaaS's clients want it: they show a log
//! under no other status. What was not begun is refused like everything else.

use std::{collections::VecDeque, io, sync::Arc, time::Instant};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use pinnace_core::{
    build::{BuildResult, BuildStatus, PublicKey},
    limits::BUILD_LOG_BYTES_MAX,
};
use pinnace_sandbox::images::LoadError;
use serde::Deserialize;
use tokio::{io::AsyncReadExt as _, sync::watch};

use super::{Api, access, error::ApiError};
use crate::{
    builder::{BuildError, BuildEvent, Building, Built},
    metrics,
};

/// What a request is signed with.
const SIGNATURE: &str = "x-build-signature";

const NDJSON: &str = "application/x-ndjson";

/// Bytes of an archive that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Lines that are told in one object of a streamed answer.
const LINES_AT_ONCE_MAX: usize = 64;

/// Who asks is there as long as this is.
pub struct Here {
    _until_dropped: watch::Sender<()>,
}

/// Tells when who asks has left.
#[derive(Clone)]
pub struct Departure(watch::Receiver<()>);

/// Two ends: of who asks, and of who answers.
pub fn departure() -> (Here, Departure) {
    let (sender, receiver) = watch::channel(());
    (Here { _until_dropped: sender }, Departure(receiver))
}

impl Departure {
    /// Resolves once who asks has left.
    async fn happened(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

/// The paths of the API.
pub fn routes(api: &Arc<Api>) -> Router<Arc<Api>> {
    let archive = get(archive).layer(middleware::from_fn_with_state(api.clone(), access::check));
    Router::new()
        .route("/build", post(build))
        .route("/build/image", archive)
        .route("/publickey", get(public_key))
        .layer(middleware::from_fn_with_state(api.requests.clone(), metrics::count))
}

/// POST `/build`.
async fn build(
    State(api): State<Arc<Api>>,
    Extension(departure): Extension<Departure>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
    // A right signature is worth the password: clients of OpenFaaS's builder have nothing else.
    let is_signed = api.builder.wants_signature() && signature.is_some();
    let refused = if is_signed {
        api.access.refuse_foreign(&headers)
    } else {
        access::admit(&api, &headers).err().map(IntoResponse::into_response)
    };
    if let Some(refused) = refused {
        return Err(refused);
    }
    let refuse = |error: BuildError| ApiError::from(error).into_response();
    let admission = api.builder.admit().map_err(refuse)?;
    let job = api.builder.receive(admission, body.into_data_stream(), signature).await;
    let building = api.builder.begin(job.map_err(refuse)?);
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    if accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(NDJSON))) {
        return Ok(streamed(building));
    }
    tokio::select! {
        result = whole(building) => Ok(Json(result).into_response()),
        // Nobody reads this.
        () = departure.happened() => Err(StatusCode::BAD_REQUEST.into_response()),
    }
}

/// GET `/publickey`.
async fn public_key(State(api): State<Arc<Api>>) -> Json<PublicKey> {
    Json(api.builder.public_key())
}

/// Which image is meant.
#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// GET `/build/image?name=…`: an image of the store as an OCI archive. Not in OpenFaaS.
async fn archive(
    State(api): State<Arc<Api>>,
    Query(named): Query<Named>,
) -> Result<Response, ApiError> {
    let (file, archive) = api.builder.archive(named.name).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (header::CONTENT_LENGTH, HeaderValue::from(archive.bytes)),
    ];
    let pieces = stream::try_unfold((file, archive), async |(mut file, archive)| {
        let mut piece = BytesMut::with_capacity(READ_BYTES);
        let read = file.read_buf(&mut piece).await?;
        io::Result::Ok((read > 0).then(|| (piece.freeze(), (file, archive))))
    });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// A build's answer in one piece.
async fn whole(mut building: Building) -> BuildResult {
    let begun = Instant::now();
    let mut log = BoundedLog::default();
    let ended = loop {
        match building.events.recv().await {
            Some(BuildEvent::Line(line)) => log.add(line),
            Some(BuildEvent::Ended(ended)) => break ended,
            None => break Err(broken_off()),
        }
    };
    result(&building.image, log.lines(), Some(ended), begun)
}

fn broken_off() -> String {
    "the build broke off; the server's log says why".to_owned()
}

/// A build's answer while it goes on: an object in each line.
fn streamed(building: Building) -> Response {
    let begun = Instant::now();
    let lines = stream::unfold(Some(building), move |building| async move {
        let mut building = building?;
        let (mut log, mut ended) = (Vec::new(), None);
        let mut next = building.events.recv().await;
        loop {
            match next {
                Some(BuildEvent::Line(line)) => log.push(line),
                Some(BuildEvent::Ended(how)) => ended = Some(how),
                None => ended = Some(Err(broken_off())),
            }
            if ended.is_some() || log.len() == LINES_AT_ONCE_MAX {
                break;
            }
            // What is there already goes along.
            match building.events.try_recv() {
                Ok(event) => next = Some(event),
                Err(_) => break,
            }
        }
        let is_last = ended.is_some();
        let told = result(&building.image, log, ended, begun);
        let line = serde_json::to_vec(&told).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        Some((line, (!is_last).then_some(building)))
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))];
    (kind, Body::from_stream(lines)).into_response()
}

fn result(
    image: &str,
    log: Vec<String>,
    ended: Option<Result<Built, String>>,
    begun: Instant,
) -> BuildResult {
    let (status, error, digest) = match &ended {
        None => (BuildStatus::InProgress, String::new(), String::new()),
        Some(Ok(built)) => (BuildStatus::Success, String::new(), built.digest.clone()),
        Some(Err(error)) => (BuildStatus::Failed, error.clone(), String::new()),
    };
    let duration = ended.map(|_| begun.elapsed().as_secs_f64());
    BuildResult { log, image: image.to_owned(), status, error, digest, duration }
}

/// Lines of which the middle is left out where they are too many.
#[derive(Default)]
struct BoundedLog {
    first: Vec<String>,
    last: VecDeque<String>,
    first_bytes: usize,
    last_bytes: usize,
    left_out: usize,
}

impl BoundedLog {
    fn add(&mut self, line: String) {
        const HALF: usize = BUILD_LOG_BYTES_MAX / 2;
        let bytes = line.len() + 1;
        if self.last.is_empty() && self.first_bytes + bytes <= HALF {
            self.first_bytes += bytes;
            return self.first.push(line);
        }
        self.last_bytes += bytes;
        self.last.push_back(line);
        while self.last_bytes > HALF
            && let Some(gone) = self.last.pop_front()
        {
            self.last_bytes -= gone.len() + 1;
            self.left_out += 1;
        }
    }

    fn lines(self) -> Vec<String> {
        let Self { first, last, left_out, .. } = self;
        let gap = (left_out > 0).then(|| {
            format!("… {left_out} lines are left out here (BUILD_LOG_BYTES_MAX); a streamed answer has them")
        });
        first.into_iter().chain(gap).chain(last).collect()
    }
}

impl From<BuildError> for ApiError {
    fn from(error: BuildError) -> Self {
        let status = match error {
            BuildError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            BuildError::Unsigned(_) => StatusCode::UNAUTHORIZED,
            BuildError::Unfit(_) => StatusCode::BAD_REQUEST,
            BuildError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BuildError::Archive(LoadError::Store(error)) => return error.into(),
            BuildError::Archive(error) => return error.into(),
            BuildError::Host(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_long_log_is_left_out() {
        let mut log = BoundedLog::default();
        let line = "x".repeat(1023);
        for _ in 0..BUILD_LOG_BYTES_MAX / 1024 {
            log.add(line.clone());
        }
        log.add("a".repeat(1023));
        log.add("b".repeat(1023));
        let lines = log.lines();
        assert_eq!(lines.len(), BUILD_LOG_BYTES_MAX / 1024 + 1);
        assert!(lines.iter().any(|line| line.starts_with("… 2 lines are left out")));
        assert!(lines.last().is_some_and(|line| line.starts_with('b')));
    }
}
