//! One thread of the data plane: its own runtime, listener and connections to replicas.
//!
//! The kernel shares new connections out among listeners of one port by a hash, which can put all of a
//! handful onto one thread. A worker that has two more than the emptiest hands the newcomer over.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use crate::proxy::{call::Calls, connection, ending::Connections};

/// How many more connections than the emptiest worker one may have before it hands newcomers over.
const IMBALANCE_MAX: usize = 2;

/// Wait before the next accept after the kernel refused one (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How often idle connections to replicas are looked through.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Answers everything that is no call of a function. Runs elsewhere than on the workers.
pub trait Control: Send + Sync {
    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> futures_util::future::BoxFuture<'static, Response<axum::body::Body>>;
}

/// What all workers share.
pub struct Shared {
    /// The control plane.
    pub control: Arc<dyn Control>,
    /// Connections that each worker serves now.
    pub live: Box<[AtomicUsize]>,
    /// Client connections that one worker serves at once; further ones wait in the kernel.
    pub connections_max: usize,
    /// Turns true when the server is asked to end.
    pub ending: watch::Receiver<bool>,
}

/// A worker that is about to start.
pub struct Worker {
    /// The way of its calls.
    pub calls: Calls,
    /// Its listener.
    pub listener: StdListener,
    /// Connections that other workers hand over.
    pub inbox: mpsc::UnboundedReceiver<(StdStream, SocketAddr)>,
    /// The other workers' inboxes, and its own, by number.
    pub outboxes: Vec<mpsc::UnboundedSender<(StdStream, SocketAddr)>>,
    /// What all share.
    pub shared: Arc<Shared>,
}

impl Worker {
    /// Starts the thread. It ends when the server is ending and its last connection is closed.
    ///
    /// # Errors
    /// No thread or no runtime could be made.
    pub fn start(self) -> io::Result<thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("worker-{}", self.calls.worker);
        thread::Builder::new().name(name).spawn(move || {
            if let Err(error) = runtime.block_on(self.run()) {
                tracing::error!(%error, "a worker cannot accept connections");
            }
        })
    }

    async fn run(mut self) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(self.shared.connections_max));
        let number = self.calls.worker;
        let calls = Arc::new(self.calls);
        let connections = Arc::new(Connections::default());
        let mut ending = self.shared.ending.clone();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                accepted = accept(&listener, &places) => {
                    let (stream, peer, place) = accepted;
                    match emptier(&self.shared.live, number) {
                        Some(other) => hand_over(&self.outboxes[other], stream, peer),
                        None => serve(&calls, &self.shared, &connections, stream, peer, place),
                    }
                }
                Some((stream, peer)) = self.inbox.recv() => {
                    take_over(&calls, &self.shared, &connections, stream, peer, &places);
                }
                _ = sweep.tick() => close_idle(&calls),
                _ = ending.wait_for(|ending| *ending) => break,
            }
        }
        drop(listener);
        self.inbox.close();
        while let Some((stream, peer)) = self.inbox.recv().await {
            take_over(&calls, &self.shared, &connections, stream, peer, &places);
        }
        connections.end();
        let all = u32::try_from(self.shared.connections_max).unwrap_or(u32::MAX);
        drop(places.acquire_many(all).await);
        Ok(())
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The worker with the fewest connections, if it has so many fewer than this one.
fn emptier(live: &[AtomicUsize], own: usize) -> Option<usize> {
    let count = |worker: usize| live[worker].load(Ordering::Relaxed);
    let emptiest = (0..live.len()).min_by_key(|worker| count(*worker))?;
    (count(emptiest) + IMBALANCE_MAX <= count(own)).then_some(emptiest)
}

fn hand_over(
    outbox: &mpsc::UnboundedSender<(StdStream, SocketAddr)>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // The inbox is bounded by its owner's places: what waits there has left the kernel's backlog, but is
    // no more than other workers could accept.
    match stream.into_std() {
        Ok(stream) => drop(outbox.send((stream, peer))),
        Err(error) => tracing::debug!(%error, "a connection was lost on the way to its worker"),
    }
}

fn close_idle(calls: &Calls) {
    let now = Instant::now();
    calls.catalog.each_ready(|replica| replica.sweep(calls.worker, now));
}

/// Serves a connection that another worker accepted, once there is a place for it.
fn take_over(
    calls: &Arc<Calls>,
    shared: &Arc<Shared>,
    connections: &Connections,
    stream: StdStream,
    peer: SocketAddr,
    places: &Arc<Semaphore>,
) {
    match (TcpStream::from_std(stream), places.clone().try_acquire_owned()) {
        (Ok(stream), Ok(place)) => serve(calls, shared, connections, stream, peer, place),
        (Ok(_), Err(_)) => tracing::warn!(
            %peer,
            most = shared.connections_max,
            "a connection was closed: its worker serves the most it may (the descriptor limit decides)"
        ),
        (Err(error), _) => {
            tracing::debug!(%error, "a connection was lost on the way to its worker");
        }
    }
}

fn serve(
    calls: &Arc<Calls>,
    shared: &Arc<Shared>,
    connections: &Connections,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    let (calls, shared) = (calls.clone(), shared.clone());
    let ear = connections.ear();
    tokio::spawn(async move {
        let live = &shared.live[calls.worker];
        live.fetch_add(1, Ordering::Relaxed);
        connection::serve(&calls, &*shared.control, ear, stream, peer).await;
        live.fetch_sub(1, Ordering::Relaxed);
        drop(place);
    });
}
