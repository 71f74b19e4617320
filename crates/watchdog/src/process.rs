//! A process of the function.
//!
//! It leads a process group of its own, so that ending it ends what it has started too. It is started
//! by `posix_spawn` (no work between fork and exec), which suspends the watchdog only until the exec.
//!
//! Most processes have ended when their output has, so that their end is asked for before it is waited for:
//! tokio's own processes take eight system calls more for each call.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::{
    io::ioctl_fionbio,
    pipe::PIPE_BUF,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::unix::pipe::{Receiver, Sender},
    runtime::Handle,
};

use crate::{cgi::Variable, spelling};

/// The function's command with its environment.
#[derive(Debug)]
pub struct Program {
    words: Vec<String>,
    /// The file it stands for; looked up again at each start while it is not there.
    file: Option<OsString>,
    environment: Vec<Variable>,
}

/// A started process. Dropping it before it was waited for ends its group.
#[derive(Debug)]
pub struct Process {
    /// `None` once it was left to somebody else to wait for.
    child: Option<Child>,
    /// `None` once it was waited for: the number may be another's then.
    group: Option<Pid>,
}

/// The ends of its pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Its standard input, if that is [`Input::Open`].
    pub stdin: Option<Sender>,
    /// Its standard output.
    pub stdout: Receiver,
    /// Its standard error.
    pub stderr: Receiver,
}

/// What a process finds in its standard input.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// What will be written.
    Open,
    /// So many bytes as an empty pipe always takes, then the end. They are there before the process is: it
    /// need not wait for them, and nobody for it.
    Ready(&'a [u8]),
}

impl<'a> Input<'a> {
    /// Of bytes that are all there; they are still to be written if they are many.
    pub fn of(bytes: &'a [u8]) -> Self {
        if bytes.len() <= PIPE_BUF { Self::Ready(bytes) } else { Self::Open }
    }

    fn pipe(self) -> io::Result<Stdio> {
        let Self::Ready(bytes) = self else { return Ok(Stdio::piped()) };
        let (reader, mut writer) = io::pipe()?;
        writer.write_all(bytes)?;
        Ok(Stdio::from(reader))
    }
}

impl Program {
    /// Takes the command as it was split. `words` has at least one, maybe empty, word.
    pub fn new(words: Vec<String>, environment: Vec<Variable>) -> Self {
        let file = words.first().and_then(|word| resolve(word));
        Self { words, file, environment }
    }

    /// Starts it with these variables beside its own environment.
    ///
    /// # Errors
    /// A sentence as Go would write it.
    pub fn start(
        &self,
        variables: Vec<Variable>,
        input: Input<'_>,
    ) -> Result<(Process, Pipes), String> {
        let (name, arguments) = self.words.split_first().ok_or("no command is set")?;
        let file = self.file.clone().or_else(|| resolve(name));
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let file = file.ok_or_else(|| spelling::start_failure(name, &missing()))?;
        let stdin = input.pipe().map_err(|error| spelling::start_failure(name, &error))?;
        let mut command = Command::new(file);
        command
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(variables)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().map_err(|error| spelling::start_failure(name, &error))?;
        let pipes = Pipes::of(&mut child);
        let group = Pid::from_raw(child.id().cast_signed());
        let process = Process { child: Some(child), group };
        Ok((process, pipes.map_err(|error| spelling::start_failure(name, &error))?))
    }

    /// Whether its file is there and can be executed.
    ///
    /// # Errors
    /// A sentence as Go would write it.
    pub fn check(&self) -> Result<(), String> {
        let name = self.words.first().map_or("", String::as_str);
        let file = resolve(name);
        match file.is_some_and(|file| spelling::is_executable(file.as_ref())) {
            true => Ok(()),
            false => Err(spelling::start_failure(name, &io::ErrorKind::NotFound.into())),
        }
    }

    /// The words of the command.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}

impl Pipes {
    fn of(child: &mut Child) -> io::Result<Self> {
        let none = || io::Error::other("it has no pipes");
        let stdin = child.stdin.take().map(OwnedFd::from).map(|fd| {
            ioctl_fionbio(&fd, true)?;
            Sender::from_owned_fd_unchecked(fd)
        });
        let receiver = |fd: Option<OwnedFd>| {
            let fd = fd.ok_or_else(none)?;
            ioctl_fionbio(&fd, true)?;
            Receiver::from_owned_fd_unchecked(fd)
        };
        Ok(Self {
            stdin: stdin.transpose()?,
            stdout: receiver(child.stdout.take().map(OwnedFd::from))?,
            stderr: receiver(child.stderr.take().map(OwnedFd::from))?,
        })
    }
}

fn resolve(name: &str) -> Option<OsString> {
    match name.contains('/') {
        true => Some(name.into()),
        false => spelling::look_up(name).map(OsString::from),
    }
}

impl Process {
    /// Waits for its end. After that its group is left alone: the number may be another's.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let child = self.child.as_mut().ok_or_else(|| io::Error::other("it was left"))?;
        let status = end_of(child).await?;
        self.group = None;
        Ok(status)
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.group {
            // It has not been waited for, so the number is still its own.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends the process and all that it has started.
    pub fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Waits for a process. May be left and begun again.
async fn end_of(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(rustix::io::Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, and an OwnedFd keeps its descriptor for life"
    )]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    let _ended = pidfd.readable().await?;
    child.wait()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // One that nobody has waited for stays in the kernel's table until somebody does.
        if self.group.is_some()
            && let Some(mut child) = self.child.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { end_of(&mut child).await });
        }
    }
}
