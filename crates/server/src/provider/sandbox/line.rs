//! The link to the spawner that serves now. Requests of many tasks share it; a number in each brings the
//! answers back to who asked.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pinnace_sandbox::protocol::{FromSpawner, ToSpawner};
use tokio::sync::oneshot;

use super::{
    link::{Link, Received},
    spawner::{StartFailure, Started},
};

/// A link, and who waits for an answer over it.
#[derive(Debug)]
pub struct Line {
    link: Link,
    waiting: Mutex<HashMap<u64, Asker>>,
    asked: AtomicU64,
}

/// Who waits for the answer to a request.
#[derive(Debug)]
pub enum Asker {
    /// For a sandbox.
    Start(oneshot::Sender<Result<Started, StartFailure>>),
    /// For a slot.
    Prepare(oneshot::Sender<Result<(), String>>),
}

impl Line {
    /// A line that nobody has asked anything over.
    pub fn new(link: Link) -> Self {
        Self { link, waiting: Mutex::default(), asked: AtomicU64::new(0) }
    }

    /// Asks, waiting until there is room.
    pub async fn ask(&self, asker: Asker, fds: &[OwnedFd], message: impl FnOnce(u64) -> ToSpawner) {
        let request = self.expect(asker);
        if let Err(error) = self.link.send(&message(request), fds).await
            && let Some(asker) = self.asker(request)
        {
            match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => asker.tell_of_death(),
                _ => asker.refuse(format!("the spawner cannot be asked: {error}")),
            }
        }
    }

    /// Asks at once. Whether that could be done; if not, nothing was asked.
    pub fn try_ask(
        &self,
        asker: Asker,
        fds: &[OwnedFd],
        message: impl FnOnce(u64) -> ToSpawner,
    ) -> Result<(), Asker> {
        let request = self.expect(asker);
        let lent: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        match self.link.try_send(&message(request), &lent) {
            Ok(()) => Ok(()),
            Err(_) => self.asker(request).map_or(Ok(()), Err),
        }
    }

    /// Says something that has no answer.
    ///
    /// # Errors
    /// The spawner is gone.
    pub async fn say(&self, message: &ToSpawner, fds: &[OwnedFd]) -> io::Result<()> {
        self.link.send(message, fds).await
    }

    /// What the spawner says next; `None` when it is gone.
    ///
    /// # Errors
    /// What came is no such message.
    pub async fn hear(&self) -> io::Result<Option<Received<FromSpawner>>> {
        self.link.recv().await
    }

    /// Who asked this, and has no answer yet.
    pub fn asker(&self, request: u64) -> Option<Asker> {
        self.waiting().remove(&request)
    }

    /// Tells all who wait that the spawner has died.
    pub fn tell_of_death(&self) {
        for (_, asker) in std::mem::take(&mut *self.waiting()) {
            asker.tell_of_death();
        }
    }

    fn expect(&self, asker: Asker) -> u64 {
        let request = self.asked.fetch_add(1, Ordering::Relaxed);
        self.waiting().insert(request, asker);
        request
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Asker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    // One that has left has no use for an answer.

    /// Tells it that it does not get what it asked for, and why.
    pub fn refuse(self, reason: String) {
        match self {
            Self::Start(answer) => drop(answer.send(Err(StartFailure::Refused(reason)))),
            Self::Prepare(answer) => drop(answer.send(Err(reason))),
        }
    }

    fn tell_of_death(self) {
        match self {
            Self::Start(answer) => drop(answer.send(Err(StartFailure::SpawnerDied))),
            Self::Prepare(answer) => drop(answer.send(Err("the spawner died".to_owned()))),
        }
    }
}
