//! Metrics in Prometheus's text format, under OpenFaaS's names (contract section 11), on a port of their
//! own.
//!
//! A scrape is written piece by piece while it is read, metric after metric: however many functions there
//! are, it takes a few pieces of memory, and one scrape after the other asks the kernel what functions use.

mod functions;
mod process;
mod requests;
mod text;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, TryLockError},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use pinnace_core::{FunctionRef, limits};
use tokio::sync::Semaphore;

use self::functions::Row;
pub use self::requests::{Requests, count};
use crate::{
    catalog::Catalog,
    provider::{Provider, Used},
    queue::{self, AsyncQueue},
};

/// Bytes of text after which a piece is sent off.
const PIECE_BYTES: usize = 64 << 10;

/// Where the numbers come from.
pub struct Metrics {
    /// The functions and their calls.
    pub catalog: Arc<Catalog>,
    /// What they use.
    pub provider: Arc<dyn Provider>,
    /// Requests to the API.
    pub requests: Arc<Requests>,
    /// Asynchronous calls.
    pub queue: Arc<AsyncQueue>,
    scrapes: Arc<Semaphore>,
    used: Arc<Mutex<Arc<HashMap<FunctionRef, Used>>>>,
}

impl Metrics {
    /// Metrics of these.
    #[must_use]
    pub fn new(
        catalog: Arc<Catalog>,
        provider: Arc<dyn Provider>,
        requests: Arc<Requests>,
        queue: Arc<AsyncQueue>,
    ) -> Self {
        let scrapes = Arc::new(Semaphore::new(limits::SCRAPES_MAX));
        Self { catalog, provider, requests, queue, scrapes, used: Arc::default() }
    }

    /// What functions use. If somebody else is asking the kernel just now, what they are told.
    fn used(&self) -> Arc<HashMap<FunctionRef, Used>> {
        match self.used.try_lock() {
            Ok(mut known) => {
                *known = Arc::new(self.provider.used(None));
                known.clone()
            }
            Err(TryLockError::WouldBlock) => {
                self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
            }
            Err(TryLockError::Poisoned(known)) => known.into_inner().clone(),
        }
    }
}

/// Answers `/metrics` and `/healthz`.
pub fn router(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(async || "OK"))
        .with_state(Arc::new(metrics))
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    let Ok(place) = metrics.scrapes.clone().try_acquire_owned() else {
        let most = limits::SCRAPES_MAX;
        let text = format!("{most} scrapes are under way, the most there may be (SCRAPES_MAX)\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let asked = metrics.clone();
    let used = tokio::task::spawn_blocking(move || asked.used()).await.unwrap_or_default();
    let pieces = written(&metrics, &used).map(move |piece| {
        // Held until the last piece is on its way.
        let _place = &place;
        Ok::<_, Infallible>(Bytes::from(piece))
    });
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response()
}

/// The whole text in pieces, each written when the one before is on its way.
fn written(
    metrics: &Metrics,
    used: &HashMap<FunctionRef, Used>,
) -> impl Stream<Item = String> + use<> {
    let rows = metrics.catalog.all().into_iter().map(|entry| {
        let used = used.get(&entry.id).copied();
        Row { entry, used }
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_unstable_by(|a, b| a.entry.id.cmp(&b.entry.id));
    let mut rest = process::written() + &metrics.requests.written();
    queue::metrics::render(&metrics.queue, &mut rest);
    let (mut metric, mut row) = (0, 0);
    let functions = std::iter::from_fn(move || {
        let mut piece = String::new();
        while let Some(current) = functions::METRICS.get(metric) {
            if row == 0 {
                current.begin(&mut piece);
            }
            while let Some(one) = rows.get(row) {
                current.write(&mut piece, one);
                row += 1;
                if piece.len() >= PIECE_BYTES {
                    return Some(piece);
                }
            }
            (metric, row) = (metric + 1, 0);
        }
        (!piece.is_empty()).then_some(piece)
    });
    stream::iter(functions.chain([rest]))
}

#[cfg(test)]
mod tests;
