//! The long part of an init's life: one loop over the function, the signals and the server.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use pinnace_core::{Exit, limits};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, SocketFlags, SocketType, socket_with, sockopt::set_socket_recv_buffer_size,
    },
    process::{WaitOptions, WaitStatus, wait},
};

use super::{knock::Knock, launch::Started, record};
use crate::{
    cgroup,
    channel::{Channel, Listener},
    protocol::{FromInit, SandboxSpec, ToInit},
    sys::{self, Signals},
};

/// An init at work.
#[derive(Debug)]
pub(super) struct Watch {
    function: Started,
    stop_signal: i32,
    memory_bytes: u64,
    control: Listener,
    exit_file: OwnedFd,
    oom_events: Option<OwnedFd>,
    /// Where the function reaches the platform on the host's network. Kept for the servers, so that nobody
    /// else gets the address and calls wait while there is none.
    gateway: Option<OwnedFd>,
    /// Made ahead for the first server that attaches.
    sockets: Vec<OwnedFd>,
    signals: Signals,
    server: Option<Server>,
    ready: bool,
    /// Set while its port is to be tried.
    knock: Option<Knock>,
    /// When a function that was asked to stop is ended.
    kill_at: Option<Instant>,
    stopping: bool,
    /// Set once the function has ended.
    ended: Option<Ended>,
}

/// What an init has been given to keep.
#[derive(Debug)]
pub(super) struct Ends {
    /// Where servers connect.
    pub(super) control: Listener,
    /// exit.json.
    pub(super) exit_file: OwnedFd,
    /// The kernel's count of processes that it ended for want of memory.
    pub(super) oom_events: Option<OwnedFd>,
    /// The gateway's listener on the host's network, if the function is there.
    pub(super) gateway: Option<OwnedFd>,
    /// Sockets for connections to the function.
    pub(super) sockets: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Server {
    channel: Channel,
    /// Whether it has the log pipes.
    attached: bool,
}

#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// How long its last output is kept for a server that is not there.
    leave_at: Instant,
}

/// Whether the connection to the server is still good.
type Still = io::Result<()>;

impl Watch {
    pub(super) fn new(spec: &SandboxSpec, function: Started, ends: Ends, signals: Signals) -> Self {
        let Ends { control, exit_file, oom_events, gateway, sockets } = ends;
        Self {
            function,
            stop_signal: spec.stop_signal,
            memory_bytes: spec.bounds.memory_bytes,
            control,
            exit_file,
            oom_events,
            gateway,
            sockets,
            signals,
            server: None,
            ready: false,
            knock: spec.port.map(|port| Knock::new(port, Instant::now())),
            kill_at: None,
            stopping: false,
            ended: None,
        }
    }

    /// Until the end of the sandbox. Returns this process's exit code.
    pub(super) fn run(&mut self) -> i32 {
        // Children that ended before their signal was collected left none.
        self.reap();
        loop {
            if self.may_leave() {
                return 0;
            }
            let Ok(events) = self.wait() else { return 1 };
            for event in events {
                match event {
                    Event::Signal => self.take_signals(),
                    Event::Ready => self.function_is_ready(),
                    Event::Message => self.hear(),
                    Event::Connection => self.meet(),
                }
            }
            let now = Instant::now();
            if let Some(connection) = self.knock.as_mut().and_then(|knock| knock.try_at(now)) {
                self.serves(Some(&connection));
            }
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill_at = None;
                sys::kill_everyone();
            }
        }
    }

    /// What has happened; a new connection last, since it replaces the old one.
    fn wait(&self) -> io::Result<Vec<Event>> {
        let mut sources = vec![(Event::Signal, self.signals.as_fd())];
        sources.extend(self.function.ready.as_ref().map(|pipe| (Event::Ready, pipe.as_fd())));
        sources.extend(self.server.as_ref().map(|s| (Event::Message, s.channel.as_fd())));
        sources.push((Event::Connection, self.control.as_fd()));
        let mut polled: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let leave_at = self.ended.as_ref().map(|ended| ended.leave_at);
        let knock_at = self.knock.as_ref().map(|knock| knock.at);
        let deadline = self.kill_at.or(leave_at).into_iter().chain(knock_at).min();
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = sources.iter().zip(&polled).filter(|(_, p)| !p.revents().is_empty());
        Ok(happened.map(|((event, _), _)| *event).collect())
    }

    fn meet(&mut self) {
        // One that has hung up meanwhile is no matter.
        if let Ok(channel) = self.control.accept() {
            self.server = Some(Server { channel, attached: false });
        }
    }

    fn take_signals(&mut self) {
        while let Some(caught) = self.signals.next() {
            // The function has no business asking its own init to stop: it can just end.
            if caught.signal == libc::SIGTERM && caught.sender == 0 {
                self.stop(limits::GRACE_DEFAULT);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.function.pid && self.ended.is_none() {
                self.function_has_ended(status);
            }
        }
    }

    fn function_has_ended(&mut self, status: WaitStatus) {
        let exit = self.exit_of(status);
        record(&self.exit_file, &exit);
        sys::kill_everyone();
        self.kill_at = None;
        self.knock = None;
        let leave_at = Instant::now() + limits::LAST_WORDS_WAIT_MAX;
        self.ended = Some(Ended { exit, leave_at });
    }

    fn exit_of(&self, status: WaitStatus) -> Exit {
        let starved = self.oom_events.as_ref().is_some_and(|events| cgroup::oom_kills(events) > 0);
        match (status.exit_status(), status.terminating_signal()) {
            _ if self.stopping => Exit::Stopped,
            (Some(0), _) => Exit::Code { code: 0 },
            // Also when the kernel chose a child: what is left says so with an exit code.
            _ if starved => Exit::OutOfMemory { limit_bytes: self.memory_bytes },
            (Some(code), _) => Exit::Code { code },
            (None, signal) => Exit::Signal { signal: signal.unwrap_or(0) },
        }
    }

    /// Whether all is done: the function has ended and a server knows, or none came to hear its last
    /// words in time.
    fn may_leave(&mut self) -> bool {
        let Some(ended) = &self.ended else { return false };
        if let Some(server) = self.server.as_ref().filter(|server| server.attached) {
            // If it does not hear it, it finds exit.json.
            let _ = server.channel.try_send(&FromInit::Exited { exit: ended.exit.clone() }, &[]);
            return true;
        }
        let said = |pipe: &OwnedFd| rustix::io::ioctl_fionread(pipe).is_ok_and(|bytes| bytes > 0);
        let unheard = said(&self.function.stdout) || said(&self.function.stderr);
        let awaited = unheard || self.server.is_some();
        !awaited || ended.leave_at <= Instant::now()
    }

    fn function_is_ready(&mut self) {
        let Some(pipe) = self.function.ready.take() else { return };
        // Closed without a byte: it never will be.
        if matches!(rustix::io::read(&pipe, &mut [0; 1]), Ok(1)) {
            self.serves(None);
        }
    }

    /// Has it known, with a connection to the function if there is one.
    fn serves(&mut self, connection: Option<&OwnedFd>) {
        self.knock = None;
        self.ready = true;
        let fds: Vec<BorrowedFd<'_>> = connection.iter().map(|fd| fd.as_fd()).collect();
        self.tell_server(|server| server.channel.try_send(&FromInit::Ready, &fds));
    }

    /// Tells the server something if it is attached. One that does not read is dropped, since an init
    /// waits for nobody.
    fn tell_server(&mut self, tell: impl FnOnce(&Server) -> Still) {
        if let Some(server) = &self.server
            && server.attached
            && tell(server).is_err()
        {
            self.server = None;
        }
    }

    fn hear(&mut self) {
        let Some(server) = &self.server else { return };
        let still = match server.channel.try_recv::<ToInit>() {
            Ok(Some((message, _))) => self.answer(&message),
            Ok(None) => Err(io::ErrorKind::ConnectionReset.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        };
        if still.is_err() {
            self.server = None;
        }
    }

    fn answer(&mut self, message: &ToInit) -> Still {
        match message {
            ToInit::Attach => self.attach(),
            ToInit::Sockets { count } => self.lend_sockets(*count),
            ToInit::Stop { grace } => {
                self.stop(*grace);
                Ok(())
            }
        }
    }

    fn attach(&mut self) -> Still {
        let Some(server) = &mut self.server else { return Ok(()) };
        let mut fds = vec![self.function.stdout.as_fd(), self.function.stderr.as_fd()];
        fds.extend(self.gateway.iter().chain(&self.sockets).map(AsFd::as_fd));
        server.channel.try_send(&FromInit::Attached { ready: self.ready }, &fds)?;
        server.attached = true;
        self.sockets.clear();
        Ok(())
    }

    fn lend_sockets(&mut self, count: u32) -> Still {
        if count > limits::SOCKETS_PER_REQUEST_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let sockets = sockets(count)?;
        let Some(server) = &self.server else { return Ok(()) };
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        server.channel.try_send(&FromInit::Sockets, &fds)
    }

    fn stop(&mut self, grace: Duration) {
        if self.ended.is_some() {
            return;
        }
        let kill_at = Instant::now() + grace.min(limits::GRACE_MAX);
        self.kill_at = Some(self.kill_at.map_or(kill_at, |before| before.min(kill_at)));
        if !self.stopping {
            self.stopping = true;
            // It may have ended just now, which is what was wished for.
            let _ = sys::send_signal(self.function.pid, self.stop_signal);
        }
    }
}

/// Unconnected TCP sockets in this network namespace.
pub(super) fn sockets(count: u32) -> rustix::io::Result<Vec<OwnedFd>> {
    (0..count).map(|_| socket()).collect()
}

/// An unconnected TCP socket for calls of the function.
pub(super) fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    set_socket_recv_buffer_size(&socket, limits::FUNCTION_RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

/// Something that happened while waiting.
#[derive(Clone, Copy, Debug)]
enum Event {
    Signal,
    Ready,
    Message,
    Connection,
}
