//! The metrics port: a small server of one page.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use super::Metrics;
use crate::{
    answer::{self, Answer},
    journal::Journal,
    listen::bind,
    spelling,
};

/// The port, which no setting moves.
const PORT: u16 = 8081;
/// Longest wait for a request, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_millis(500);
/// More readers at once wait.
const READERS_MAX: usize = 16;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

/// Listens, and serves in the background. A port that is taken costs the function its metrics, not its calls.
pub async fn listen(metrics: Arc<Metrics>, journal: &Journal) {
    match bind(PORT).await {
        Ok(listener) => {
            journal.say(format_args!("Metrics listening on port: {PORT}"));
            tokio::spawn(serve(listener, metrics));
        }
        Err(error) => {
            let why = spelling::failure(&error);
            journal.say(format_args!(
                "metrics error ListenAndServe: listen tcp :{PORT}: bind: {why} (calls are served without)"
            ));
        }
    }
}

async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let places = Arc::new(Semaphore::new(READERS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, Arc::clone(&metrics));
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, metrics: Arc<Metrics>) {
    // The kernel ends a connection whose reader takes nothing.
    let patience_ms = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
    let _: io::Result<()> =
        rustix::net::sockopt::set_tcp_user_timeout(&stream, patience_ms).map_err(io::Error::from);
    let service = service_fn(move |request: Request<Incoming>| {
        let page = page(&request, &metrics);
        async move {
            let _ = timeout(PATIENCE, drain(request.into_body())).await;
            Ok::<_, Infallible>(page)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).title_case_headers(true);
    // How it ends is the reader's affair.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}

/// A body is of no use here, but must be gone before the connection's next request.
async fn drain(mut body: Incoming) {
    use http_body_util::BodyExt;
    let mut left_bytes = 64 << 10;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
        let Some(left) = usize::checked_sub(left_bytes, bytes) else { return };
        left_bytes = left;
    }
}

fn page(request: &Request<Incoming>, metrics: &Metrics) -> Response<Answer> {
    if request.uri().path() != "/metrics" {
        return crate::status::not_found();
    }
    let mut response = answer::bare(StatusCode::OK);
    if request.method() != Method::HEAD {
        *response.body_mut() = Answer::memory(metrics.text());
        // As the originals frame it.
        let chunked = HeaderValue::from_static("chunked");
        response.headers_mut().insert(header::TRANSFER_ENCODING, chunked);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, TEXT_FORMAT);
    response
}
