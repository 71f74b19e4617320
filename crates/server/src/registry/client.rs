//! HTTP to registries: connections, certificates, and patience with those who are slow.

use std::{
    error::Error,
    io::{self, ErrorKind},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use pinnace_core::limits;
use rustls::CertificateError;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{PullError, PullFault};
use crate::tls::{TlsFault, chain};

/// How long an unused connection is kept.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(15);

/// Sends requests to registries.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    idle: Duration,
}

/// What came back. Whoever reads the body waits no longer than the idle time allows.
pub(super) type Answer = Response<Paced>;

/// A body that must keep coming.
pub(super) struct Paced {
    body: Incoming,
    idle: Duration,
    window: Window,
    from: String,
}

/// Bytes that came since a time.
#[derive(Clone, Copy)]
struct Window {
    end: Instant,
    bytes: u64,
}

impl Client {
    /// A client that waits so long for a sign of life. Its certificates are the system's, or those of the
    /// file that `SSL_CERT_FILE` names. Blocks while it reads them.
    pub(super) fn new(idle: Duration) -> Result<Self, PullError> {
        let provider = rustls::crypto::ring::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| PullError::new(PullFault::Host, format!("no TLS: {error}")))?;
        // A host without certificates can still speak to registries of its own.
        let tls = match tls.clone().with_native_roots() {
            Ok(tls) => tls,
            Err(error) => {
                tracing::warn!(%error, "this host has no CA certificates; SSL_CERT_FILE can name some");
                tls.with_root_certificates(rustls::RootCertStore::empty())
            }
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(limits::REGISTRY_CONNECT_TIME_MAX));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_KEPT)
            .pool_max_idle_per_host(limits::PULL_LAYERS_MAX)
            .build(https);
        Ok(Self { http, idle })
    }

    /// Sends a request and waits for the answer's head.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, PullError> {
        let from = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let agent = HeaderValue::from_static(concat!("pinnace/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let answer = match timeout(self.idle, self.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| no_answer(&from, &error))?,
            Err(_) => return Err(silent(&from, self.idle)),
        };
        let window = Window::new(self.idle);
        Ok(answer.map(|body| Paced { body, idle: self.idle, window, from }))
    }

    /// Whether a host speaks TLS.
    pub(super) async fn speaks_tls(&self, authority: &str) -> Result<bool, PullError> {
        let url = Uri::builder().scheme("https").authority(authority).path_and_query("/v2/");
        let url = url.build().map_err(|_| PullError::registry(format!("{authority}: no host")))?;
        let request = Request::get(url).body(Full::default());
        let request = request.map_err(|error| PullError::registry(error.to_string()))?;
        match timeout(self.idle, self.http.request(request)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if is_not_tls(&error) => Ok(false),
            Ok(Err(error)) => Err(no_answer(authority, &error)),
            Err(_) => Err(silent(authority, self.idle)),
        }
    }
}

impl Window {
    fn new(idle: Duration) -> Self {
        Self { end: Instant::now() + idle, bytes: 0 }
    }
}

impl Paced {
    /// The next piece, `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            if Instant::now() >= self.window.end {
                if self.window.bytes < limits::REGISTRY_WINDOW_BYTES_MIN {
                    return Err(slow(&self.from, self.idle));
                }
                self.window = Window::new(self.idle);
            }
            match timeout_at(self.window.end, self.body.frame()).await {
                Err(_) => {}
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    let text =
                        format!("the connection to {} broke: {}", self.from, innermost(&error));
                    return Err(PullError::passing(text, None));
                }
                Ok(Some(Ok(frame))) => {
                    // Trailers mean nothing here.
                    if let Ok(piece) = frame.into_data() {
                        self.window.bytes += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// All of it, if it is not longer than `bytes_max`; errors call it `what`.
    pub(super) async fn all(mut self, bytes_max: u64, what: &str) -> Result<Vec<u8>, PullError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            if (all.len() + piece.len()) as u64 > bytes_max {
                let text = format!("{what} has more than {bytes_max} bytes");
                return Err(PullError::registry(text));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

fn silent(from: &str, idle: Duration) -> PullError {
    let text = format!("{from} did not answer for {} s (--registry-idle)", idle.as_secs_f32());
    PullError::passing(text, None)
}

fn slow(from: &str, idle: Duration) -> PullError {
    let text = format!(
        "{from} is too slow: less than {} bytes in {} s (--registry-idle)",
        limits::REGISTRY_WINDOW_BYTES_MIN,
        idle.as_secs_f32()
    );
    PullError::passing(text, None)
}

/// Why no answer came. One that broke off may come next time; a host that is not there will not soon.
fn no_answer(from: &str, error: &legacy::Error) -> PullError {
    let why = innermost(error);
    if let (Some(tls), Some(why)) = (tls_error(error), TlsFault::behind(error)) {
        let hint = match tls {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "; SSL_CERT_FILE can name a file with the certificate of its authority"
            }
            _ => "",
        };
        return PullError::registry(format!("no secure connection to {from}: {why}{hint}"));
    }
    if error.is_connect() {
        return PullError::registry(format!("no connection to {from}: {why}"));
    }
    PullError::passing(format!("the connection to {from} broke: {why}"), None)
}

/// The last error of the chain, which says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn tls_error(error: &legacy::Error) -> Option<&rustls::Error> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Whether the other side took the first words of TLS for nonsense.
fn is_not_tls(error: &legacy::Error) -> bool {
    if !error.is_connect() {
        return false;
    }
    if let Some(tls) = tls_error(error) {
        return matches!(tls, rustls::Error::InvalidMessage(_));
    }
    let last = chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).last();
    last.is_some_and(|error| {
        matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
    })
}
