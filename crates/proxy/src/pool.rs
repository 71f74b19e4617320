//! Connections to one upstream, kept by one worker thread.
//!
//! The most recently used idle connection is taken first, so that a pool shrinks to what is needed. A
//! connection comes back when its answer's body has ended and it can take the next request; anything
//! else closes it.

use std::{
    future::Future,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;

use crate::Stream;

/// Idle connections of one worker to one upstream. `B` is the requests' body; its default is empty.
#[derive(Debug)]
pub struct Pool<B> {
    idle: Mutex<IdleOnes<B>>,
    kept: Duration,
    client: Builder,
}

#[derive(Debug)]
struct IdleOnes<B> {
    connections: Vec<Idle<B>>,
    /// Most that are kept; 0 once the pool is closed.
    max: usize,
}

#[derive(Debug)]
struct Idle<B> {
    sender: SendRequest<B>,
    driver: Driver,
    since: Instant,
}

/// An answer, and the lease of the connection it comes over.
#[derive(Debug)]
pub struct Sent<B> {
    /// Head and body of the answer.
    pub response: Response<Incoming>,
    /// Give it back when the body has ended; dropping it before closes the connection, unless the
    /// answer was 101: then the connection is whose who takes the upgrade.
    pub lease: Lease<B>,
}

/// A connection in use.
#[derive(Debug)]
pub struct Lease<B> {
    sender: SendRequest<B>,
    driver: Driver,
    reused: bool,
}

/// The task that reads and writes a connection; ends with this. Without its sender alone it would go on
/// until the request's body has ended, which may be never.
#[derive(Debug)]
struct Driver(Option<AbortHandle>);

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum SendFailure {
    /// No connection could be made.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The connection failed before an answer began.
    #[error("the connection failed before an answer began: {0}")]
    Exchange(#[source] hyper::Error),
}

impl SendFailure {
    /// Whether the request's own body was what failed, for example because its sender left.
    #[must_use]
    pub fn is_from_request_body(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_user())
    }
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// A pool that keeps at most `idle_max` connections, each unused for at most `kept`.
    #[must_use]
    pub fn new(idle_max: usize, kept: Duration) -> Self {
        let idle = IdleOnes { connections: Vec::new(), max: idle_max };
        Self { idle: Mutex::new(idle), kept, client: Builder::new() }
    }

    /// Sends header names as `Content-Type`, not `content-type`, for upstreams that tell them apart.
    #[must_use]
    pub fn title_case_headers(mut self) -> Self {
        self.client.title_case_headers(true);
        self
    }

    /// Sends a request over an idle connection, or over a new one that `connect` makes.
    ///
    /// It is sent a second time only where nothing can have happened twice: the connection was reused,
    /// no byte of an answer came, and either no byte of the request was written, or its method is
    /// idempotent and it has no body.
    ///
    /// # Errors
    /// No connection could be made, or it failed before an answer began.
    pub async fn send<C, F>(
        &self,
        mut request: Request<B>,
        connect: C,
    ) -> Result<Sent<B>, SendFailure>
    where
        C: Fn() -> F,
        F: Future<Output = io::Result<Stream>>,
    {
        if let Some(mut lease) = self.take() {
            let spare = spare_of(&request);
            match lease.sender.try_send_request(request).await {
                Ok(response) => return Ok(Sent::new(response, lease)),
                Err(mut failed) => match failed.take_message().or(spare) {
                    Some(unsent) => request = unsent,
                    None => return Err(SendFailure::Exchange(failed.into_error())),
                },
            }
        }
        let stream = connect().await.map_err(SendFailure::Connect)?;
        let mut lease = self.open(stream).await.map_err(SendFailure::Exchange)?;
        let response = lease.sender.send_request(request).await.map_err(SendFailure::Exchange)?;
        Ok(Sent::new(response, lease))
    }

    /// Opens a connection ahead of its first use, over a stream that is already there.
    ///
    /// # Errors
    /// The HTTP client refused the stream.
    pub async fn adopt(&self, stream: Stream) -> Result<(), hyper::Error> {
        let lease = self.open(stream).await?;
        self.put(lease);
        Ok(())
    }

    /// Takes a connection back once the answer's body has ended.
    ///
    /// Where the upstream answered before it had read the whole request the connection is still busy:
    /// it is closed, for nobody can say when it would be free.
    pub fn give_back(&self, lease: Lease<B>) {
        if lease.sender.is_ready() {
            self.put(lease);
        }
    }

    /// Closes connections that were unused for too long.
    pub fn sweep(&self, now: Instant) {
        self.idle().connections.retain(|idle| self.fresh(idle, now));
    }

    /// Closes the idle connections now, and those in use when they come back.
    pub fn close(&self) {
        let mut idle = self.idle();
        idle.max = 0;
        idle.connections.clear();
    }

    /// Number of idle connections.
    #[must_use]
    pub fn idle_count(&self) -> usize {
        self.idle().connections.len()
    }

    async fn open(&self, stream: Stream) -> Result<Lease<B>, hyper::Error> {
        let (mut sender, connection) = self.client.handshake(TokioIo::new(stream)).await?;
        // The task ends with its connection; its error is the caller's, who has it from `send_request`.
        let driver = Driver(Some(tokio::spawn(connection.with_upgrades()).abort_handle()));
        sender.ready().await?;
        Ok(Lease { sender, driver, reused: false })
    }

    fn take(&self) -> Option<Lease<B>> {
        let idle = &mut self.idle().connections;
        // The clock is read only if there is something to judge by it.
        let now = if idle.is_empty() { return None } else { Instant::now() };
        while let Some(candidate) = idle.pop() {
            if self.fresh(&candidate, now) {
                let Idle { sender, driver, .. } = candidate;
                return Some(Lease { sender, driver, reused: true });
            }
        }
        None
    }

    fn put(&self, lease: Lease<B>) {
        let mut idle = self.idle();
        if idle.connections.len() < idle.max {
            let Lease { sender, driver, .. } = lease;
            idle.connections.push(Idle { sender, driver, since: Instant::now() });
        }
    }

    fn fresh(&self, idle: &Idle<B>, now: Instant) -> bool {
        idle.sender.is_ready() && now.saturating_duration_since(idle.since) < self.kept
    }

    fn idle(&self) -> MutexGuard<'_, IdleOnes<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Sent<B> {
    fn new(response: Response<Incoming>, mut lease: Lease<B>) -> Self {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // It ends by itself once it has handed over the stream.
            lease.driver.0 = None;
        }
        Self { response, lease }
    }
}

impl<B> Lease<B> {
    /// Whether the connection had served a request before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }
}

/// A second copy of a request that may be sent twice: idempotent (RFC 9110 section 9.2.2), no body.
fn spare_of<B: Body + Default>(request: &Request<B>) -> Option<Request<B>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut spare = Request::new(B::default());
    spare.method_mut().clone_from(request.method());
    spare.uri_mut().clone_from(request.uri());
    spare.headers_mut().clone_from(request.headers());
    Some(spare)
}
