//! What a process writes to its standard error, on its way to the log.

use std::{io, os::fd::OwnedFd, pin::pin, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::timeout;

use crate::{
    journal::{Journal, Source},
    lines,
    process::receiver,
    settings::LogSettings,
};

/// How long nobody listens: most processes say nothing and end sooner, and to listen to a pipe costs a task and
/// three system calls. What is said meanwhile stays in the pipe; a process that fills it waits for the rest of this
/// time.
const UNHEARD_FOR: Duration = Duration::from_millis(20);

/// The reading end of a process's standard error. Dropping it has what is left logged.
#[derive(Debug)]
pub struct Errors {
    /// `None` once it is listened to.
    pipe: Option<OwnedFd>,
    logs: LogSettings,
    journal: Journal,
}

impl Errors {
    /// Of a process that has just started; they are logged as `logs` says.
    pub fn of(stderr: OwnedFd, logs: LogSettings, journal: &Journal) -> Self {
        Self { pipe: Some(stderr), logs, journal: journal.clone() }
    }

    /// Runs `work`, the process's own end, and listens meanwhile if that lasts.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Ok(done) = timeout(UNHEARD_FOR, &mut work).await {
            return done;
        }
        self.listen();
        work.await
    }

    fn listen(&mut self) {
        match self.pipe.take().map(receiver) {
            Some(Ok(pipe)) => {
                let pump = lines::pump(pipe, Source::Err, self.logs, self.journal.clone());
                tokio::spawn(pump);
            }
            Some(Err(error)) => {
                self.journal.say(format_args!("Standard error cannot be read: {error}"));
            }
            None => {}
        }
    }
}

/// Whether nothing is in a pipe and nobody is left who could write to it.
fn is_over(pipe: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents() == PollFlags::HUP)
}

impl Drop for Errors {
    fn drop(&mut self) {
        if self.pipe.as_ref().is_some_and(|pipe| !is_over(pipe).unwrap_or(false)) {
            self.listen();
        }
    }
}
