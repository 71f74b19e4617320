//! A process of the function.
//!
//! It leads a process group of its own, so that ending it ends what it has started too. It borrows the watchdog's
//! memory until its exec, so that nothing is copied.
//!
//! Most processes have ended when their output has, so that their end is asked for before it is waited for:
//! tokio's own processes take eight system calls more for each call.

use std::{
    ffi::{CStr, CString, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, process::ExitStatusExt},
    },
    process::ExitStatus,
    time::Duration,
};

use pinnace_sandbox::command::{self, Command};
use rustix::{
    io::ioctl_fionbio,
    pipe::{PIPE_BUF, PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::unix::pipe::{Receiver, Sender},
    runtime::Handle,
    time::sleep,
};

use crate::{
    cgi::{self, Variables},
    spelling,
};

/// The function's command with its environment.
#[derive(Debug)]
pub struct Program {
    words: Vec<String>,
    /// The words as the kernel takes them, as the environment.
    argv: Vec<CString>,
    /// The file it stands for; looked up again at each start while it is not there.
    file: Option<CString>,
    environment: Vec<CString>,
    /// What of the environment a request's variables may replace.
    replaceable: Vec<CString>,
}

/// A started process. Dropping it before it was waited for ends its group.
#[derive(Debug)]
pub struct Process {
    /// `None` once it was waited for: the number may be another's then.
    pid: Option<Pid>,
}

/// The ends of its pipes.
#[derive(Debug)]
pub struct Pipes {
    /// Its standard input, if that is [`Input::Open`].
    pub stdin: Option<Sender>,
    /// Its standard output.
    pub stdout: Receiver,
    /// Its standard error, not yet listened to.
    pub stderr: OwnedFd,
}

/// The same where output and errors are one.
#[derive(Debug)]
pub struct CombinedPipes {
    /// Its standard input, if that is [`Input::Open`].
    pub stdin: Option<Sender>,
    /// Its standard output and standard error.
    pub output: Receiver,
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

    /// The process's end, and ours if it is to be written to.
    fn pipe(self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let Self::Ready(bytes) = self else { return Ok((reader, Some(writer))) };
        // An empty pipe takes them whole.
        rustix::io::write(&writer, bytes)?;
        Ok((reader, None))
    }
}

impl Program {
    /// Takes the command as it was split. `words` has at least one, maybe empty, word.
    pub fn new(words: Vec<String>, environment: Vec<(OsString, OsString)>) -> Self {
        let file = words.first().and_then(|word| terminated(resolve(word)?));
        let argv = words.iter().filter_map(terminated).collect();
        let joined = environment.into_iter().filter_map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            terminated(variable)
        });
        let (replaceable, environment) =
            joined.partition(|variable| variable.as_bytes().starts_with(cgi::PREFIX));
        Self { words, argv, file, environment, replaceable }
    }

    /// Starts it with these variables beside its own environment.
    ///
    /// # Errors
    /// A sentence as Go would write it.
    pub fn start(
        &self,
        variables: &Variables,
        input: Input<'_>,
    ) -> Result<(Process, Pipes), String> {
        self.started(|file| {
            let (stdin, into) = input.pipe()?;
            let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
            let process = self.start_file(file, variables, [&stdin, &stdout, &stderr])?;
            let stdin = into.map(sender).transpose()?;
            Ok((process, Pipes { stdin, stdout: receiver(out)?, stderr: err }))
        })
    }

    /// Starts it with output and errors in one pipe, in the order in which they are written.
    ///
    /// # Errors
    /// A sentence as Go would write it.
    pub fn start_combined(
        &self,
        variables: &Variables,
        input: Input<'_>,
    ) -> Result<(Process, CombinedPipes), String> {
        self.started(|file| {
            let (stdin, into) = input.pipe()?;
            let (out, output) = pipe_with(PipeFlags::CLOEXEC)?;
            let process = self.start_file(file, variables, [&stdin, &output, &output])?;
            let stdin = into.map(sender).transpose()?;
            Ok((process, CombinedPipes { stdin, output: receiver(out)? }))
        })
    }

    fn started<T>(&self, start: impl Fn(&CStr) -> io::Result<T>) -> Result<T, String> {
        let name = self.words.first().ok_or("no command is set")?;
        let started = || {
            let file = self.file.clone().or_else(|| terminated(resolve(name)?));
            start(&file.ok_or(io::ErrorKind::NotFound)?)
        };
        started().map_err(|error| spelling::start_failure(name, &error))
    }

    fn start_file(
        &self,
        file: &CStr,
        variables: &Variables,
        stdio: [&OwnedFd; 3],
    ) -> io::Result<Process> {
        let mut environment = Vec::with_capacity(self.environment.len() + 32);
        environment.extend(self.environment.iter().map(CString::as_c_str));
        let kept = self.replaceable.iter().map(CString::as_c_str);
        environment.extend(kept.filter(|variable| !variables.overrides(variable)));
        variables.put_into(&mut environment).map_err(io::Error::other)?;
        let stdio = stdio.map(AsFd::as_fd);
        let pid = command::start(&Command { file, argv: &self.argv, envp: &environment, stdio })?;
        Ok(Process { pid: Some(pid) })
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

fn sender(pipe: OwnedFd) -> io::Result<Sender> {
    ioctl_fionbio(&pipe, true)?;
    Sender::from_owned_fd_unchecked(pipe)
}

/// Our end of a pipe that a process writes to.
///
/// # Errors
/// It cannot be registered.
pub fn receiver(pipe: OwnedFd) -> io::Result<Receiver> {
    ioctl_fionbio(&pipe, true)?;
    Receiver::from_owned_fd_unchecked(pipe)
}

fn resolve(name: &str) -> Option<OsString> {
    match name.contains('/') {
        true => Some(name.into()),
        false => spelling::look_up(name).map(OsString::from),
    }
}

/// As the kernel takes it. What came from there, as words and environment did, has no zeros in it.
fn terminated(text: impl Into<OsString>) -> Option<CString> {
    CString::new(text.into().into_vec()).ok()
}

impl Process {
    /// Waits for its end. After that its group is left alone: the number may be another's.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let pid = self.pid.ok_or_else(|| io::Error::other("it was waited for before"))?;
        let status = end_of(pid).await?;
        self.pid = None;
        Ok(status)
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // It has not been waited for, so the number is still its own.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends the process and all that it has started.
    pub fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Between two looks whether a process has ended, where the kernel cannot tell.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for a process. May be left and begun again.
async fn end_of(pid: Pid) -> io::Result<ExitStatus> {
    if let Some(status) = ended(pid)? {
        return Ok(status);
    }
    if let Ok(pidfd) = watched(pid) {
        let _ended = pidfd.readable().await?;
    }
    loop {
        if let Some(status) = ended(pid)? {
            return Ok(status);
        }
        // Nothing tells where there is no descriptor to be had.
        sleep(LOOK_EVERY).await;
    }
}

fn watched(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, and an OwnedFd keeps its descriptor for life"
    )]
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// How it ended, if it has; then it is gone.
fn ended(pid: Pid) -> rustix::io::Result<Option<ExitStatus>> {
    let status = waitpid(Some(pid), WaitOptions::NOHANG)?;
    Ok(status.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // One that nobody has waited for stays in the kernel's table until somebody does.
        if let Some(pid) = self.pid
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(end_of(pid));
        }
    }
}
