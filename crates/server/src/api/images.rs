//! `/system/images`: what is in the image store. Not in OpenFaaS, which leaves images to a registry.
//!
//! An archive is unpacked while it arrives; nothing of it is held in memory. A client that accepts
//! newline-delimited JSON is told how far a load or a pull is; one that does not gets one answer at the end.

use std::{
    collections::HashSet,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    body::{Body, BodyDataStream},
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use pinnace_core::{
    image::stored_name,
    limits,
    wire::{ImageSummary, LoadEvent, Pruned, PullRequest},
};
use pinnace_sandbox::images::{ArchiveKind, Cause, LoadError, LoadOptions, StoreError};
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, error::ApiError, json::json};
use crate::{
    builder::pin_owner,
    pace::Pace,
    registry::{PullError, PullFault, Pulling},
};

/// Events that wait for a slow client.
const EVENTS_MAX: usize = 64;

/// Pieces of an archive that wait to be unpacked.
const PIECES_MAX: usize = 16;

const NDJSON: &str = "application/x-ndjson";

/// Which image is meant, and how the archive is to be read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    reference: String,
    kind: String,
}

/// GET `/system/images`.
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<ImageSummary>>, ApiError> {
    let images = api.images.clone();
    let mut listed = blocking(move || images.list()).await??;
    for image in &mut listed {
        image.functions = users(&api, &image.reference);
    }
    Ok(Json(listed))
}

/// DELETE `/system/images?reference=…`.
pub async fn remove(
    State(api): State<Arc<Api>>,
    Query(asked): Query<Asked>,
) -> Result<StatusCode, ApiError> {
    let name = stored_name(&asked.reference).unwrap_or_default();
    let users = users(&api, &name);
    if !users.is_empty() {
        let (image, users) = (asked.reference, users.join(", "));
        let text = format!("image {image} is used by {users}: remove these first");
        return Err(ApiError::new(StatusCode::CONFLICT, text));
    }
    let images = api.images.clone();
    blocking(move || {
        images.remove(&asked.reference)?;
        images.unpin(&pin_owner(&name))?;
        // What a replica still runs on is leased, and stays.
        images.collect_garbage(&HashSet::new())
    })
    .await??;
    Ok(StatusCode::ACCEPTED)
}

/// POST `/system/images?reference=…&kind=archive|rootdir`.
pub async fn load(
    State(api): State<Arc<Api>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let options = options(&api, asked)?;
    refuse_if_too_large(&headers, options.bytes_max)?;
    let archive = Arrival::of(body).await;
    if wants_events(&headers) {
        return Ok(load_with_events(api, archive, options));
    }
    let images = api.images.clone();
    let loaded = blocking(move || images.load(archive, &options, &mut |_| {})).await??;
    Ok(Json(loaded).into_response())
}

fn load_with_events(api: Arc<Api>, archive: Arrival, options: LoadOptions) -> Response {
    let (events, received) = mpsc::channel(EVENTS_MAX);
    spawn_blocking(move || {
        let mut pace = Pace::default();
        let loaded = api.images.load(archive, &options, &mut |progress| {
            if pace.is_due(&progress.step) {
                let (bytes, step) = (progress.bytes, progress.step.into_owned());
                // A client that reads slowly misses some; the next one says more.
                drop(events.try_send(LoadEvent::Progress { bytes, total: None, step }));
            }
        });
        // A client that has left does not undo the load.
        match loaded {
            Ok(images) => {
                for image in images {
                    drop(events.blocking_send(LoadEvent::Loaded { image }));
                }
            }
            Err(error) => {
                drop(events.blocking_send(LoadEvent::Failed { error: error.to_string() }));
            }
        }
    });
    streamed(received)
}

/// POST `/system/images/pull`.
pub async fn pull(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let PullRequest { reference } = json(body).await?;
    let pulling = api.puller.pull(&reference)?;
    if !wants_events(&headers) {
        return Ok(Json([pulling.end().await?]).into_response());
    }
    let (events, received) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(async move {
        // Nobody needs to wait for a pull whose client has left; others may.
        tokio::select! {
            () = tell_of_pull(pulling, &events) => {}
            () = events.closed() => {}
        }
    });
    Ok(streamed(received))
}

async fn tell_of_pull(mut pulling: Pulling, events: &mpsc::Sender<LoadEvent>) {
    let mut pace = Pace::default();
    while let Some(progress) = pulling.news().await {
        let step = progress.step();
        if pace.is_due(&step) {
            let (bytes, total) = (progress.bytes, Some(progress.bytes_total));
            drop(events.try_send(LoadEvent::Progress { bytes, total, step }));
        }
    }
    let last = match pulling.end().await {
        Ok(image) => LoadEvent::Loaded { image },
        Err(error) => LoadEvent::Failed { error: error.to_string() },
    };
    drop(events.send(last).await);
}

/// POST `/system/images/prune`: removes all images that no function names.
pub async fn prune(State(api): State<Arc<Api>>) -> Result<Json<Pruned>, ApiError> {
    Ok(Json(blocking(move || prune_now(&api)).await??))
}

fn prune_now(api: &Api) -> Result<Pruned, StoreError> {
    let mut pruned = Pruned::default();
    for image in api.images.list()? {
        // Asked for each, as late as can be: functions are deployed meanwhile.
        if users(api, &image.reference).is_empty() {
            match api.images.remove(&image.reference) {
                Ok(()) => pruned.references.push(image.reference),
                Err(StoreError::NoImage(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    // What a replica runs on is leased and what a deploy runs is pinned: both stay.
    let collected = api.images.collect_garbage(&HashSet::new())?;
    let partials = api.images.remove_partials(Duration::ZERO)?;
    (pruned.images, pruned.layers) = (collected.images, collected.layers);
    pruned.bytes = collected.bytes + partials;
    Ok(pruned)
}

fn wants_events(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    accepted.any(|accept| accept.to_str().is_ok_and(|accept| accept.contains(NDJSON)))
}

fn streamed(events: mpsc::Receiver<LoadEvent>) -> Response {
    let lines = ReceiverStream::new(events).map(|event| {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))];
    (kind, Body::from_stream(lines)).into_response()
}

fn options(api: &Api, asked: Asked) -> Result<LoadOptions, ApiError> {
    let kind = match asked.kind.as_str() {
        "" | "archive" => ArchiveKind::Image,
        "rootdir" => ArchiveKind::RootDir,
        other => {
            let text = format!("kind {other:?} is none of archive and rootdir");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, text));
        }
    };
    let reference = Some(asked.reference).filter(|reference| !reference.is_empty());
    Ok(LoadOptions { kind, reference, bytes_max: api.image_bytes_max, ..LoadOptions::default() })
}

fn refuse_if_too_large(headers: &HeaderMap, bytes_max: u64) -> Result<(), ApiError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > bytes_max => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the archive has {length} bytes, at most {bytes_max} (`--image-bytes-max`)"),
        )),
        _ => Ok(()),
    }
}

fn users(api: &Api, reference: &str) -> Vec<String> {
    let mut users: Vec<String> = api
        .deployments
        .catalog
        .all()
        .iter()
        .filter(|entry| stored_name(entry.deployed().spec.image()).as_deref() == Some(reference))
        .map(|entry| entry.id.to_string())
        .collect();
    users.sort();
    users
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "the image store failed");
        let text = "the image store failed; the server's log says why";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    })
}

/// An archive as it arrives, for a thread that may wait for it.
struct Arrival {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Arrival {
    /// Begins to take an archive in; resolves with its first piece.
    ///
    /// The answer must not begin before: a client that asked to be told to go on (`Expect`) would take it
    /// for the last word and send nothing.
    async fn of(body: Body) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let mut body = body.into_data_stream();
        let mut next = next_piece(&mut body).await;
        tokio::spawn(async move {
            while let Some(piece) = next {
                let last = piece.is_err();
                if sender.send(piece).await.is_err() || last {
                    return;
                }
                next = next_piece(&mut body).await;
            }
        });
        Self { pieces, piece: Bytes::new() }
    }
}

async fn next_piece(body: &mut BodyDataStream) -> Option<io::Result<Bytes>> {
    match tokio::time::timeout(limits::BODY_IDLE_MAX, body.next()).await {
        Ok(piece) => piece.map(|piece| piece.map_err(io::Error::other)),
        Err(_) => {
            let text = format!("nothing came for {} s", limits::BODY_IDLE_MAX.as_secs());
            Some(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
        }
    }
}

impl Read for Arrival {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => return Err(error),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        let status = match error.cause() {
            Cause::Archive | Cause::Stream => StatusCode::BAD_REQUEST,
            Cause::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Cause::Host => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PullError> for ApiError {
    fn from(error: PullError) -> Self {
        let status = match error.kind() {
            PullFault::Reference => StatusCode::BAD_REQUEST,
            PullFault::NotFound => StatusCode::NOT_FOUND,
            PullFault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            PullFault::Busy => StatusCode::TOO_MANY_REQUESTS,
            PullFault::Host => StatusCode::INSUFFICIENT_STORAGE,
            // Whoever asks us is allowed; we are not.
            PullFault::Denied | PullFault::Image | PullFault::Registry => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::BadReference(_) => StatusCode::BAD_REQUEST,
            StoreError::NoImage(_) => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
