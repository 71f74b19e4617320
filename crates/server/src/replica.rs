//! A running copy of a function, as the way of an invocation sees it: where to send, and how much fits.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use futures_util::future::BoxFuture;
use pinnace_core::{FunctionSpec, limits};
use pinnace_proxy::{Stream, h1::Idle, h2::Lines};
use tokio::{sync::Notify, time::Instant};

/// A replica that serves.
pub struct Replica {
    /// Its id, unique on this host.
    pub id: String,
    /// The deploy it belongs to.
    pub revision: u64,
    /// When it first accepted a connection.
    pub ready_at: std::time::Instant,
    endpoint: Endpoint,
    idle: Box<[Idle]>,
    lines: Box<[Lines]>,
    in_flight: AtomicU32,
    in_flight_max: u32,
    speaks_h2c: bool,
    draining: AtomicBool,
    drained: Notify,
}

/// Where a replica is reached.
#[derive(Clone)]
pub enum Endpoint {
    /// At an address that this process can connect to.
    Tcp(SocketAddr),
    /// By whatever way its provider has: a unix socket, a socket of its network namespace.
    Via(Arc<dyn Connector>),
}

/// Makes connections to one replica.
pub trait Connector: Send + Sync {
    /// A new connection.
    fn connect(&self) -> BoxFuture<'_, io::Result<Stream>>;
}

impl Replica {
    /// A replica that has just accepted its first connection.
    #[must_use]
    pub fn new(
        id: String,
        revision: u64,
        endpoint: Endpoint,
        spec: &FunctionSpec,
        workers: usize,
    ) -> Self {
        let concurrency = spec.concurrency;
        // A replica that takes one call at a time must not have its one place held by a connection that
        // another worker keeps idle.
        let idle_max =
            if concurrency == Some(1) { 0 } else { limits::IDLE_CONNECTIONS_PER_REPLICA_MAX };
        let idle = |_| Idle::new(idle_max, limits::IDLE_CONNECTION_KEPT);
        let lines_max = limits::LINES_PER_REPLICA_MAX.min(idle_max);
        let lines = |_| Lines::new(lines_max, limits::IDLE_CONNECTION_KEPT);
        Self {
            id,
            revision,
            ready_at: crate::clock::now(),
            endpoint,
            idle: (0..workers.max(1)).map(idle).collect(),
            lines: (0..workers.max(1)).map(lines).collect(),
            in_flight: AtomicU32::new(0),
            in_flight_max: concurrency.unwrap_or(u32::MAX),
            speaks_h2c: spec.speaks_h2c,
            draining: AtomicBool::new(false),
            drained: Notify::new(),
        }
    }

    /// The idle connections of one worker.
    #[must_use]
    pub fn idle(&self, worker: usize) -> &Idle {
        &self.idle[worker]
    }

    /// A new connection.
    ///
    /// # Errors
    /// It does not accept one.
    pub async fn connect(&self) -> io::Result<Stream> {
        self.endpoint.connect().await
    }

    /// Whether all calls go to it over HTTP/2.
    #[must_use]
    pub fn speaks_h2c(&self) -> bool {
        self.speaks_h2c
    }

    /// A connection for one call, over one of HTTP/2 that a worker has with it already or makes now.
    ///
    /// # Errors
    /// It does not accept one.
    pub async fn open_line(&self, worker: usize) -> io::Result<Stream> {
        let lines = &self.lines[worker];
        if let Some(call) = lines.take(Instant::now()) {
            return Ok(call);
        }
        let stream = self.connect().await?;
        lines.open(stream, Instant::now()).await
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Takes a place for a call, if one is free.
    #[must_use]
    pub fn reserve(&self) -> bool {
        let fits = |count: u32| (count < self.in_flight_max).then_some(count + 1);
        if self.in_flight.fetch_update(Ordering::SeqCst, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        // Someone who found this replica before it began to drain must not slip in behind the drain:
        // both sides write first and look at the other's word second.
        let open = !self.draining.load(Ordering::SeqCst);
        if !open {
            self.release();
        }
        open
    }

    /// Gives a place back.
    pub fn release(&self) {
        let left = self.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.draining.load(Ordering::SeqCst) {
            self.drained.notify_waiters();
        }
    }

    /// Takes no further calls, and waits until none is under way.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        loop {
            let drained = self.drained.notified();
            if self.in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }

    /// Closes connections that one worker left unused for too long; answers how many stay.
    pub fn sweep(&self, worker: usize, now: Instant) -> usize {
        self.idle[worker].sweep(now) + self.lines[worker].sweep(now)
    }
}

impl Endpoint {
    /// A new connection.
    ///
    /// # Errors
    /// Nobody accepts it.
    pub async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(address) => Stream::connect([*address]).await,
            Self::Via(connector) => connector.connect().await,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "Tcp({address})"),
            Self::Via(_) => write!(f, "Via(its provider)"),
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({} of revision {})", self.id, self.revision)
    }
}
