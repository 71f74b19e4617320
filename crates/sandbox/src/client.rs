//! The server's side: finding or starting the spawner, attaching to inits, reading how a replica ended.
//!
//! These calls wait, each within a limit. A server that waits for many things takes the [`Channel`] out
//! and polls it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, Command, Stdio},
};

use pinnace_core::limits;

use crate::{
    channel::Channel,
    failed::Doing as _,
    network::{Policy, Standing},
    patience,
    protocol::{FromSpawner, ToSpawner},
    spawner::Config,
};

/// A connection to the spawner.
#[derive(Debug)]
pub struct SpawnerLink {
    /// Where sandboxes are asked for.
    pub channel: Channel,
    /// The spawner's process, if this server started it. It must be waited for when it ends.
    pub process: Option<Child>,
}

impl SpawnerLink {
    /// Connects to the spawner that serves there, or starts one from `program`, with `log` as its standard
    /// error.
    ///
    /// # Errors
    /// If it ends at once (it has then said why there), or does not listen within
    /// `SPAWNER_START_TIME_MAX`.
    pub fn open(program: &Path, config: &Config, log: impl Into<Stdio>) -> io::Result<Self> {
        if let Ok(channel) = Channel::connect(&config.socket) {
            return Ok(Self { channel, process: None });
        }
        let mut process = Command::new(program)
            .args(config.to_args())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .doing(|| format!("start {}", program.display()))?;
        let opened = patience::until(limits::SPAWNER_START_TIME_MAX, || {
            match (Channel::connect(&config.socket), process.try_wait()) {
                (Ok(channel), _) => Some(Ok(channel)),
                (Err(_), Ok(Some(status))) => {
                    let text = format!("the spawner {} ended at once: {status}", program.display());
                    Some(Err(io::Error::other(text)))
                }
                (Err(_), _) => None,
            }
        });
        match opened {
            Some(opened) => Ok(Self { channel: opened?, process: Some(process) }),
            None => {
                process.kill()?;
                process.wait()?;
                let text = format!("the spawner {} does not listen", program.display());
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }

    /// Fetches the sockets that the spawner keeps.
    ///
    /// # Errors
    /// If the spawner is gone or answers something else.
    pub fn lend(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        self.channel.send(&ToSpawner::Lend, &[])?;
        match self.channel.recv::<FromSpawner>()? {
            Some((FromSpawner::Lent { names }, sockets)) if names.len() == sockets.len() => {
                Ok(names.into_iter().zip(sockets).collect())
            }
            other => Err(unexpected(other.map(|(said, _)| said))),
        }
    }

    /// Has the spawner find or make the network. The listener is the gateway's, if it is a new one.
    ///
    /// # Errors
    /// If the spawner is gone or answers something else.
    pub fn network(&self, policy: Policy) -> io::Result<(Standing, Option<OwnedFd>)> {
        self.channel.send(&ToSpawner::Network { policy }, &[])?;
        match self.channel.recv::<FromSpawner>()? {
            Some((FromSpawner::Network { standing }, listener)) => {
                Ok((standing, listener.into_iter().next()))
            }
            other => Err(unexpected(other.map(|(said, _)| said))),
        }
    }

    /// Has the spawner keep these sockets, in place of those before.
    ///
    /// # Errors
    /// If the spawner is gone or answers something else.
    pub fn keep(&self, sockets: &[(String, OwnedFd)]) -> io::Result<()> {
        let names = sockets.iter().map(|(name, _)| name.clone()).collect();
        let fds: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        self.channel.send(&ToSpawner::Keep { names }, &fds)?;
        match self.channel.recv::<FromSpawner>()? {
            Some((FromSpawner::Kept, _)) => Ok(()),
            other => Err(unexpected(other.map(|(said, _)| said))),
        }
    }
}

fn unexpected<T: std::fmt::Debug>(said: Option<T>) -> io::Error {
    match said {
        Some(said) => io::Error::new(io::ErrorKind::InvalidData, format!("unexpected {said:?}")),
        None => io::Error::new(io::ErrorKind::UnexpectedEof, "the other end has closed"),
    }
}
