//! The door by which the platform itself calls functions: a connection to a worker, like any other, so that all
//! rules of the way of an invocation hold for it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream as StdUnixStream,
    sync::Arc,
};

use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc},
};

use super::worker::{Handed, HandedOver};

/// The door.
#[derive(Clone)]
pub struct Door {
    places: Box<[Arc<Semaphore>]>,
    inboxes: Vec<mpsc::UnboundedSender<HandedOver>>,
}

impl Door {
    /// A door to workers with these places for connections and these inboxes.
    #[must_use]
    pub fn new(
        places: Box<[Arc<Semaphore>]>,
        inboxes: Vec<mpsc::UnboundedSender<HandedOver>>,
    ) -> Self {
        Self { places, inboxes }
    }

    /// A connection that speaks HTTP/1.1 to the worker with the most free places. What is asked over it must be
    /// a path of functions.
    ///
    /// # Errors
    /// The server is ending, or has no descriptors.
    pub async fn open(&self) -> io::Result<UnixStream> {
        let closed = || io::Error::new(io::ErrorKind::ConnectionRefused, "the server is ending");
        let free = |worker: &usize| self.places[*worker].available_permits();
        let worker = (0..self.places.len()).max_by_key(free).ok_or_else(closed)?;
        let place = self.places[worker].clone().acquire_owned().await.map_err(|_| closed())?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let handed = HandedOver { stream: Handed::Own(theirs), peer, place, function: None };
        self.inboxes[worker].send(handed).map_err(|_| closed())?;
        UnixStream::from_std(ours)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A door behind which every request is answered like this; `None` closes the connection.
    pub(crate) fn answering<F>(answer: impl Fn(String) -> F + Send + Sync + 'static) -> Door
    where
        F: Future<Output = Option<String>> + Send,
    {
        let (inbox, mut handed) = mpsc::unbounded_channel::<HandedOver>();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Some(HandedOver { stream, place, .. }) = handed.recv().await {
                let Handed::Own(stream) = stream else { continue };
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut stream = UnixStream::from_std(stream).unwrap();
                    let request = read(&mut stream).await;
                    let answered = async {
                        if let Some(text) = answer(request).await {
                            stream.write_all(text.as_bytes()).await.unwrap();
                        }
                    };
                    answered.await;
                    drop(place);
                });
            }
        });
        Door::new([Arc::new(Semaphore::new(10))].into(), vec![inbox])
    }

    /// A request whose body, if it has one, ends with a full stop.
    async fn read(stream: &mut UnixStream) -> String {
        let mut request = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&request);
            let is_whole = text.contains("content-length: 0\r\n") || text.ends_with('.');
            if text.contains("\r\n\r\n") && is_whole {
                return text.into_owned();
            }
            let mut piece = [0; 1024];
            let size = stream.read(&mut piece).await.unwrap();
            request.extend_from_slice(&piece[..size]);
        }
    }
}
