//! The gateway: where functions reach the platform. Its connections are accepted here and served by the
//! workers, as calls of functions and nothing else.
//!
//! Who calls is known by the address that the connection comes from, which the router vouches for. A function
//! on the host's network has a listener of its own instead, and is known by that one's address: any process of
//! the host may connect there, so that it is known well enough to count connections and not to grant anything.
//! A function has a bounded number of connections, so that it cannot take the places of all others.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener as StdListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pinnace_core::{FunctionRef, limits, network::Network};
use pinnace_sandbox::network::plan::GATEWAY_PORT;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};

use super::worker::{Handed, HandedOver};

/// Wait before the next accept after the kernel refused one (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A replica that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose replica it is.
    pub function: FunctionRef,
    /// Its id.
    pub replica: String,
    /// What it reaches beside the platform.
    pub network: Network,
}

/// The replicas in the network, by their addresses.
#[derive(Debug, Default)]
pub struct Callers {
    known: Mutex<HashMap<Ipv4Addr, Caller>>,
    connections: Mutex<HashMap<Ipv4Addr, usize>>,
}

/// A connection of a function: one of its places, and who it is.
#[derive(Debug)]
pub struct FromFunction {
    callers: Arc<Callers>,
    address: Ipv4Addr,
    /// `None` where a replica calls before it is known.
    pub caller: Option<Caller>,
}

impl Callers {
    /// A replica has this address now.
    pub fn register(&self, address: Ipv4Addr, caller: Caller) {
        lock(&self.known).insert(address, caller);
    }

    /// A replica has ended.
    pub fn forget(&self, replica: &str) {
        lock(&self.known).retain(|_, caller| caller.replica != replica);
    }

    /// A place for a connection from there, unless it has all that it may have.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: Ipv4Addr) -> Option<FromFunction> {
        let mut connections = lock(&self.connections);
        let count = connections.entry(address).or_default();
        if *count >= limits::GATEWAY_CONNECTIONS_PER_REPLICA_MAX {
            return None;
        }
        *count += 1;
        drop(connections);
        let caller = lock(&self.known).get(&address).cloned();
        Some(FromFunction { callers: self.clone(), address, caller })
    }
}

impl FromFunction {
    /// A place for another call of the same replica at the same time, over the same connection.
    #[must_use]
    pub fn another(&self) -> Option<Self> {
        self.callers.enter(self.address)
    }
}

impl Drop for FromFunction {
    fn drop(&mut self) {
        let mut connections = lock(&self.callers.connections);
        if let Some(count) = connections.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts at the gateway, for the workers.
pub struct Gateway {
    /// Where connections go.
    pub hall: Hall,
    /// The listener at the router; a new one takes the place of the one before.
    pub listeners: mpsc::UnboundedReceiver<OwnedFd>,
    /// Further ones, each of one replica on the host's network.
    pub own_listeners: mpsc::UnboundedReceiver<OwnListener>,
    /// Turns true when the server is asked to end.
    pub ending: watch::Receiver<bool>,
}

/// Where connections go that the gateway has accepted.
pub struct Hall {
    /// Who may call.
    pub callers: Arc<Callers>,
    /// Each worker's places for connections.
    pub places: Box<[Arc<Semaphore>]>,
    /// The workers' inboxes, by number.
    pub inboxes: Vec<mpsc::UnboundedSender<HandedOver>>,
}

/// The listener that a replica on the host's network has for itself.
pub struct OwnListener {
    listener: TcpListener,
    address: Ipv4Addr,
    closed: oneshot::Receiver<()>,
}

/// Keeps an [`OwnListener`] accepting until it is dropped.
#[derive(Debug)]
pub struct KeptOpen {
    _open: oneshot::Sender<()>,
}

impl OwnListener {
    /// A listener that is to be at this address.
    ///
    /// # Errors
    /// It is not.
    pub fn new(address: Ipv4Addr, listener: OwnedFd) -> io::Result<(Self, KeptOpen)> {
        // It comes from an init, which its function may have taken over.
        let socket = SockRef::from(&listener);
        let place = socket.local_addr()?.as_socket_ipv4();
        if !socket.is_listener()? || place != Some(SocketAddrV4::new(address, GATEWAY_PORT)) {
            return Err(io::Error::other(format!(
                "what should listen for it at {address}:{GATEWAY_PORT} is something else"
            )));
        }
        let (open, closed) = oneshot::channel();
        Ok((Self { listener: adopt(listener)?, address, closed }, KeptOpen { _open: open }))
    }

    async fn serve(mut self, hall: Arc<Hall>) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    // The init may have shut it down.
                    if accepted.is_err() && !SockRef::from(&self.listener).is_listener().unwrap_or(false) {
                        return;
                    }
                    hall.receive(accepted, Some(self.address)).await;
                }
                _ = &mut self.closed => return,
            }
        }
    }
}

impl Gateway {
    /// Accepts until the server is asked to end.
    pub async fn run(self) {
        let Self { hall, mut listeners, mut own_listeners, mut ending } = self;
        let hall = Arc::new(hall);
        let mut listener = None;
        let mut own = JoinSet::new();
        loop {
            tokio::select! {
                Some(new) = listeners.recv() => match adopt(new) {
                    Ok(new) => listener = Some(new),
                    Err(error) => tracing::error!(%error, "functions do not reach the platform as gateway"),
                },
                Some(new) = own_listeners.recv() => drop(own.spawn(new.serve(hall.clone()))),
                Some(_) = own.join_next() => {}
                accepted = accept(listener.as_ref()) => hall.receive(accepted, None).await,
                () = async { drop(ending.wait_for(|ending| *ending).await) } => return,
            }
        }
    }
}

impl Hall {
    /// Takes what was accepted, at the listener that one replica has for itself if there is an address of it.
    async fn receive(&self, accepted: io::Result<(TcpStream, SocketAddr)>, own: Option<Ipv4Addr>) {
        match accepted {
            Ok((stream, peer)) => self.take(stream, peer, own).await,
            Err(error) => {
                tracing::warn!(%error, "a connection of a function could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Gives a connection to the worker with the most free places.
    async fn take(&self, stream: TcpStream, peer: SocketAddr, own: Option<Ipv4Addr>) {
        let SocketAddr::V4(from) = peer else { return };
        let Some(function) = self.callers.enter(own.unwrap_or(*from.ip())) else {
            refuse(&stream);
            return;
        };
        let free = |worker: &usize| self.places[*worker].available_permits();
        let Some(worker) = (0..self.places.len()).max_by_key(free) else { return };
        let place: Result<OwnedSemaphorePermit, _> =
            self.places[worker].clone().acquire_owned().await;
        if let (Ok(place), Ok(stream)) = (place, stream.into_std()) {
            // A worker that has ended takes no more calls, and closes what is on the way to it.
            let stream = Handed::Tcp(stream);
            let handed = HandedOver { stream, peer, place, function: Some(function) };
            drop(self.inboxes[worker].send(handed));
        }
    }
}

fn adopt(listener: OwnedFd) -> io::Result<TcpListener> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Says why a connection is closed. Its buffer is empty, so nothing is waited for.
fn refuse(stream: &TcpStream) {
    let sentence = format!(
        "this replica has {} connections to the gateway open, the most that it may have \
         (GATEWAY_CONNECTIONS_PER_REPLICA_MAX): close or reuse them",
        limits::GATEWAY_CONNECTIONS_PER_REPLICA_MAX
    );
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\n\
         X-OpenFaaS-Internal: gateway\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{sentence}",
        sentence.len()
    );
    // One that does not take it has left.
    let _ = stream.try_write(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_init_sends_must_be_its_listener() {
        let address = Ipv4Addr::new(127, 100, 0, 1);
        let right = StdListener::bind((address, GATEWAY_PORT)).unwrap();
        let elsewhere = StdListener::bind((address, 0)).unwrap();
        let no_listener = std::net::UdpSocket::bind((address, GATEWAY_PORT)).unwrap();
        assert!(OwnListener::new(address, elsewhere.into()).is_err());
        assert!(OwnListener::new(address, no_listener.into()).is_err());
        let other_address = Ipv4Addr::new(127, 100, 0, 2);
        assert!(OwnListener::new(other_address, right.try_clone().unwrap().into()).is_err());
        assert!(OwnListener::new(address, right.into()).is_ok());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let callers = Arc::new(Callers::default());
        let (one, two) = (Ipv4Addr::new(198, 19, 1, 1), Ipv4Addr::new(198, 19, 1, 2));
        let caller = Caller {
            function: FunctionRef::new("a", "").unwrap(),
            replica: "r".into(),
            network: Network::None,
        };
        callers.register(one, caller.clone());
        let held: Vec<_> = (0..limits::GATEWAY_CONNECTIONS_PER_REPLICA_MAX)
            .map(|_| callers.enter(one).unwrap())
            .collect();
        assert_eq!(held[0].caller, Some(caller));
        assert!(callers.enter(one).is_none());
        assert_eq!(callers.enter(two).unwrap().caller, None);
        drop(held);
        callers.forget("r");
        let first = callers.enter(one).unwrap();
        assert_eq!(first.caller, None);
        let further: Vec<_> = std::iter::from_fn(|| first.another()).collect();
        assert_eq!(further.len(), limits::GATEWAY_CONNECTIONS_PER_REPLICA_MAX - 1);
        drop((first, further));
        assert_eq!(lock(&callers.connections).len(), 0);
    }
}
