//! The threads that serve connections.
//!
//! To start a process holds its thread until the exec, so modes that start one for each call are served by
//! a thread per processor; all others by one. Each thread has a runtime of its own, and a connection stays
//! where it was put: a call wakes nobody but the thread that serves it.

use std::{io, sync::Arc, thread};

use tokio::runtime::{Builder, Handle};

/// More would wait for the kernel's locks of the table of processes.
const THREADS_MAX: usize = 8;

/// The threads, the one that accepts among them.
#[derive(Debug)]
pub struct Crew {
    threads: Vec<Thread>,
    max: usize,
}

#[derive(Debug)]
struct Thread {
    runtime: Handle,
    /// Each connection holds a copy.
    connections: Arc<()>,
}

/// A place on a thread, held while the connection lasts.
pub type Held = Arc<()>;

impl Thread {
    fn of(runtime: Handle) -> Self {
        Self { runtime, connections: Arc::new(()) }
    }

    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let serve = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("calls".to_owned()).spawn(serve)?;
        Ok(Self::of(handle))
    }

    fn busy(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

impl Crew {
    /// The calling thread alone, whatever comes.
    pub fn alone() -> Self {
        Self { threads: vec![Thread::of(Handle::current())], max: 1 }
    }

    /// The calling thread, and others once there are connections for them: one for each processor.
    pub fn per_processor() -> Self {
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { max: processors.min(THREADS_MAX), ..Self::alone() }
    }

    /// The thread with the fewest connections, and the place on it for another.
    pub fn choose(&mut self) -> (Handle, Held) {
        let idle = self.threads.iter().any(|thread| thread.busy() == 0);
        if !idle && self.threads.len() < self.max {
            match Thread::start() {
                Ok(thread) => self.threads.push(thread),
                // Those that are there do the work.
                Err(_) => self.max = self.threads.len(),
            }
        }
        let fewest = self.threads.iter().min_by_key(|thread| thread.busy());
        let thread = fewest.unwrap_or(&self.threads[0]);
        (thread.runtime.clone(), Arc::clone(&thread.connections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_their_places_are_free_again() {
        let mut crew = Crew { max: 2, ..Crew::alone() };
        let (first, one) = crew.choose();
        assert_eq!(crew.threads.len(), 1, "one connection needs no second thread");
        let (second, two) = crew.choose();
        assert_ne!(first.id(), second.id());
        let (_, three) = crew.choose();
        drop((two, three));
        let (again, four) = crew.choose();
        assert_eq!((again.id(), crew.threads.len()), (second.id(), 2));
        let ran = second.spawn(async { Handle::current().id() }).await.unwrap();
        assert_eq!(ran, second.id());
        drop((one, four));
        assert!(crew.threads.iter().all(|thread| thread.busy() == 0));

        let mut alone = Crew::alone();
        let places = [alone.choose(), alone.choose()];
        assert_eq!(places[0].0.id(), places[1].0.id());
    }
}
