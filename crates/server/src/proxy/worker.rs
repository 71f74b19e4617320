//! One thread of the data plane: its own runtime, listener and connections to replicas.
//!
//! The kernel shares new connections out among listeners of one port by a hash, which can put all of a
//! handful onto one thread. A worker that has two more than the emptiest hands the newcomer over.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    os::unix::net::UnixStream as StdUnixStream,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use pinnace_proxy::Stream;
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use crate::certificate::Certificate;
use crate::proxy::{
    call::Calls,
    connection::{self, Desk},
    ending::Connections,
    gateway::FromFunction,
    stamp::Peer,
    sweeping::Sweeping,
};

/// How many more connections than the emptiest worker one may have before it hands newcomers over.
const IMBALANCE_MAX: usize = 2;

/// Wait before the next accept after the kernel refused one (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Which part of a worker's connections makes room at once when all places are taken.
const ROOM_PART: usize = 64;

/// How often the log says at most that all places are taken.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Answers everything that is no call of a function. Runs elsewhere than on the workers.
pub trait Control: Send + Sync {
    /// Answers one request, of a client or of a function.
    fn answer(
        &self,
        request: Request<Incoming>,
        by_function: bool,
    ) -> futures_util::future::BoxFuture<'static, Response<axum::body::Body>>;
}

/// What all workers share.
pub struct Shared {
    /// The control plane.
    pub control: Arc<dyn Control>,
    /// What clients are served with over TLS, if they are.
    pub certificate: Option<Arc<Certificate>>,
    /// Each worker's places for client connections; when all are taken by calls further ones wait in the
    /// kernel.
    pub places: Box<[Arc<Semaphore>]>,
    /// How many places each worker has.
    pub connections_max: usize,
    /// Turns true when the server is asked to end.
    pub ending: watch::Receiver<bool>,
}

/// A connection on its way to another worker, with its place there: so no more are under way than places.
pub struct HandedOver {
    /// Where it is spoken to.
    pub(super) stream: Handed,
    /// Its other end.
    pub(super) peer: SocketAddr,
    /// Its place.
    pub(super) place: OwnedSemaphorePermit,
    /// Which function it comes from, if by the gateway.
    pub(super) function: Option<FromFunction>,
}

/// What is handed over.
pub(super) enum Handed {
    /// A client's connection, or a function's.
    Tcp(StdStream),
    /// One of the platform itself.
    Own(StdUnixStream),
}

/// A worker that is about to start.
pub struct Worker {
    /// The way of its calls.
    pub calls: Calls,
    /// Its listeners, one per address.
    pub listeners: Vec<StdListener>,
    /// Connections that other workers hand over.
    pub inbox: mpsc::UnboundedReceiver<HandedOver>,
    /// The other workers' inboxes, and its own, by number.
    pub outboxes: Vec<mpsc::UnboundedSender<HandedOver>>,
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
        let doors = Doors::open(&self.listeners)?;
        let number = self.calls.worker;
        let places = self.shared.places[number].clone();
        let calls = Arc::new(self.calls);
        let connections = Arc::new(Connections::default());
        let crowd = Crowd {
            connections: connections.clone(),
            connections_max: self.shared.connections_max,
            told: Cell::new(None),
        };
        let mut ending = self.shared.ending.clone();
        let mut sweep = Sweeping::clock();
        loop {
            tokio::select! {
                accepted = accept(&doors, &places, &crowd) => {
                    let (stream, peer, place) = accepted;
                    match emptier(&self.shared.places, number) {
                        Some((other, place)) => {
                            hand_over(&self.outboxes[other], stream, peer, place);
                        }
                        None => {
                            let peer = Peer::new(peer, None);
                            let stream = Stream::tcp(stream);
                            serve(&calls, &self.shared, &connections, stream, peer, place);
                        }
                    }
                }
                Some(handed) = self.inbox.recv() => {
                    take_over(&calls, &self.shared, &connections, handed);
                }
                () = calls.sweeping.due(&mut sweep) => close_idle(&calls),
                _ = ending.wait_for(|ending| *ending) => break,
            }
        }
        drop(doors);
        self.inbox.close();
        while let Ok(handed) = self.inbox.try_recv() {
            take_over(&calls, &self.shared, &connections, handed);
        }
        connections.end();
        let all = u32::try_from(self.shared.connections_max).unwrap_or(u32::MAX);
        drop(places.acquire_many(all).await);
        Ok(())
    }
}

/// Where clients come in.
struct Doors {
    listeners: Vec<TcpListener>,
    /// Which is looked at first, the next time.
    first: Cell<usize>,
}

impl Doors {
    fn open(listeners: &[StdListener]) -> io::Result<Self> {
        let adopt = |listener: &StdListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener.try_clone()?)
        };
        let listeners = listeners.iter().map(adopt).collect::<io::Result<_>>()?;
        Ok(Self { listeners, first: Cell::new(0) })
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let count = self.listeners.len();
        // No address, however busy, keeps those of another waiting.
        let first = self.first.replace((self.first.get() + 1) % count.max(1));
        poll_fn(|cx| {
            let turn = (first..first + count).map(|at| &self.listeners[at % count]);
            let mut accepted = turn.map(|listener| listener.poll_accept(cx));
            accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }
}

/// What is done when all places are taken.
struct Crowd {
    connections: Arc<Connections>,
    connections_max: usize,
    /// When the log was last told.
    told: Cell<Option<Instant>>,
}

impl Crowd {
    /// Closes connections without a request, so that newcomers are answered.
    fn make_room(&self) {
        let closed = self.connections.end_idle((self.connections_max / ROOM_PART).max(1));
        let now = Instant::now();
        let lately = self.told.get().is_some_and(|told| now - told < TOLD_EVERY);
        if lately {
            return;
        }
        self.told.set(Some(now));
        tracing::warn!(
            connections_max = self.connections_max,
            closed,
            "as many clients are connected to this worker as the descriptor limit lets it take; those \
             without a request for the longest time are closed, others wait (raise the limit of open files)"
        );
    }
}

async fn accept(
    doors: &Doors,
    places: &Arc<Semaphore>,
    crowd: &Crowd,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        if places.available_permits() == 0 {
            crowd.make_room();
        }
        let Ok(place) = places.clone().acquire_owned().await else { continue };
        match doors.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place at the worker with the most free ones, if it has so many more than this one.
fn emptier(places: &[Arc<Semaphore>], own: usize) -> Option<(usize, OwnedSemaphorePermit)> {
    let free = |worker: usize| places[worker].available_permits();
    let emptiest = (0..places.len()).max_by_key(|worker| free(*worker))?;
    if free(emptiest) < free(own) + IMBALANCE_MAX {
        return None;
    }
    Some((emptiest, places[emptiest].clone().try_acquire_owned().ok()?))
}

fn hand_over(
    outbox: &mpsc::UnboundedSender<HandedOver>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    match stream.into_std() {
        Ok(stream) => {
            let stream = Handed::Tcp(stream);
            drop(outbox.send(HandedOver { stream, peer, place, function: None }));
        }
        Err(error) => tracing::debug!(%error, "a connection was lost on the way to its worker"),
    }
}

fn close_idle(calls: &Calls) {
    let (now, mut left) = (Instant::now(), 0);
    calls.catalog.each_ready(|replica| left += replica.sweep(calls.worker, now));
    if left == 0 {
        calls.sweeping.rest();
    }
}

/// Serves a connection that another worker accepted.
fn take_over(
    calls: &Arc<Calls>,
    shared: &Arc<Shared>,
    connections: &Connections,
    handed: HandedOver,
) {
    let HandedOver { stream, peer, place, function } = handed;
    let (stream, peer) = match stream {
        Handed::Tcp(stream) => {
            (TcpStream::from_std(stream).and_then(Stream::tcp), Peer::new(peer, function))
        }
        Handed::Own(stream) => {
            (UnixStream::from_std(stream).and_then(Stream::unix), Peer::own(peer))
        }
    };
    serve(calls, shared, connections, stream, peer, place);
}

fn serve(
    calls: &Arc<Calls>,
    shared: &Arc<Shared>,
    connections: &Connections,
    stream: io::Result<Stream>,
    peer: Peer,
    place: OwnedSemaphorePermit,
) {
    // A connection that fails here was closed by its client already.
    let Ok(stream) = stream else { return };
    let desk = Desk { calls: calls.clone(), shared: shared.clone() };
    let ear = connections.ear();
    tokio::spawn(async move {
        connection::serve(&desk, ear, stream, peer).await;
        drop(place);
    });
}
