//! From the settings to the exit code: starts what the mode needs, serves connections, drains, ends.

use std::{ffi::OsString, io, process::ExitStatus, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use pinnace_core::limits;
use pinnace_proxy::Stream;
use pinnace_sandbox::program_pages;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, watch},
    time::{interval, timeout},
};

use crate::{
    auth::Guard,
    crew::Crew,
    files::Files,
    fork::{Classic, Forker},
    front::{Caller, Front, Work},
    http_mode::{Forwarder, Function},
    journal::Journal,
    listen::{Connection, Handed, Listener, Ready},
    lock::Lock,
    metrics,
    process::Program,
    settings::{Mode, Settings, UNLIMITED},
    spelling,
    worded::{LastWords, Worded},
};

/// How long calls under way may take to be answered when the function's server is gone.
const LAST_ANSWERS_MAX: Duration = Duration::from_millis(200);
/// How long a look takes whether the function's server is still there.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long accepting pauses when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long after the start it is over, and what only it needed is given back.
const START_MAX: Duration = Duration::from_secs(1);

/// Serves until it is asked to end, or the function ends. Returns the exit code.
pub async fn run(
    settings: Settings,
    environment: Vec<(OsString, OsString)>,
    handed: Handed,
    journal: &Journal,
) -> u8 {
    match Server::start(settings, environment, handed, journal).await {
        Ok(server) => {
            tokio::spawn(give_start_back());
            server.serve().await
        }
        Err(failure) => {
            journal.say(format_args!("{}", failure.why));
            failure.exit_code
        }
    }
}

/// Half of the program serves no call: each replica has a watchdog, and its memory counts as the function's.
async fn give_start_back() {
    tokio::time::sleep(START_MAX).await;
    // Where there is no /proc it stays.
    let _ = program_pages::give_back();
}

/// Why nothing is served.
struct StartFailure {
    why: String,
    exit_code: u8,
}

impl From<String> for StartFailure {
    fn from(why: String) -> Self {
        Self { why, exit_code: 1 }
    }
}

struct Server {
    front: Arc<Front>,
    forwarder: Option<Arc<Forwarder>>,
    function: Option<Function>,
    listener: Listener,
    crew: Crew,
    /// Connections look at it: a change means that their next answer is their last.
    last_answer: watch::Sender<()>,
    places: Arc<Semaphore>,
    http: http1::Builder,
    terminate: Signal,
    settings: Settings,
    journal: Journal,
}

/// Why serving has ended.
enum Ending {
    /// SIGTERM.
    Asked,
    /// The function's server is gone.
    FunctionGone,
}

impl Server {
    async fn start(
        settings: Settings,
        environment: Vec<(OsString, OsString)>,
        handed: Handed,
        journal: &Journal,
    ) -> Result<Self, StartFailure> {
        // Before anything can be asked to end.
        let terminate = signal(SignalKind::terminate())
            .map_err(|error| format!("SIGTERM cannot be listened for: {error}"))?;
        tell_mode(&settings, journal);
        let guard = guard(&settings, journal).await?;
        let (listener, ready) = handed.listen(settings.port).await.map_err(|error| {
            let (port, why) = (settings.port, spelling::failure(&error));
            format!("Error ListenAndServe: listen tcp :{port}: bind: {why}")
        })?;
        let program = Program::new(settings.command.clone(), environment);
        if listener.is_handed() && !matches!(settings.mode, Mode::Static(_)) {
            // A platform that waits for "ready" is better told now than at the first call.
            program.check().map_err(|why| format!("fprocess cannot be started: {why}"))?;
        }
        let (work, forwarder, function) = prepare(&settings, program, journal)?;
        let front = Arc::new(Front::new(work, &settings, Lock::new(&settings), guard));
        tell_listening(&settings, &listener, journal);
        put_lock(front.lock(), journal).map_err(|why| StartFailure {
            why,
            exit_code: if matches!(settings.mode, Mode::Classic(_)) { 2 } else { 1 },
        })?;
        // Nobody reaches a port of a function whose calls come over a socket, and its platform counts itself.
        if !listener.is_handed() {
            metrics::listen(Arc::clone(front.metrics()), journal).await;
        }
        if let Some(ready) = ready {
            let forwarder = forwarder.clone();
            tokio::spawn(tell_ready(ready, forwarder, journal.clone()));
        }
        Ok(Self {
            http: http_server(&settings, &listener),
            crew: crew(&settings.mode),
            front,
            forwarder,
            function,
            listener,
            last_answer: watch::Sender::new(()),
            places: Arc::new(Semaphore::new(limits::WATCHDOG_CONNECTIONS_MAX)),
            terminate,
            settings,
            journal: journal.clone(),
        })
    }

    async fn serve(mut self) -> u8 {
        match self.accept_until_end().await {
            Ending::FunctionGone => {
                // They fail, but with an answer.
                let _ = timeout(LAST_ANSWERS_MAX, self.front.gate().idle()).await;
                1
            }
            Ending::Asked => self.drain().await,
        }
    }

    async fn accept_until_end(&mut self) -> Ending {
        let stuck_max = self.settings.write_timeout;
        let mut sweep = interval(limits::IDLE_CONNECTION_KEPT);
        loop {
            tokio::select! {
                accepted = accept(&self.listener, &self.places, stuck_max) => {
                    self.connect(accepted).await;
                }
                _ = self.terminate.recv() => return Ending::Asked,
                ended = ended(&mut self.function, &self.journal) => {
                    self.function = None;
                    if !self.is_served_without(ended).await {
                        return Ending::FunctionGone;
                    }
                }
                _ = sweep.tick(), if self.forwarder.is_some() => self.sweep(),
            }
        }
    }

    /// A command that ends well may have left its server behind it: then calls go on.
    async fn is_served_without(&self, ended: Option<ExitStatus>) -> bool {
        let Some(forwarder) = &self.forwarder else { return false };
        let well = ended.is_some_and(|status| status.success());
        let served = well && timeout(LOOK_MAX, forwarder.is_reachable()).await.unwrap_or(false);
        if served {
            self.journal.say(format_args!(
                "The function's server goes on without the command that started it"
            ));
        }
        served
    }

    fn sweep(&self) {
        if let Some(forwarder) = &self.forwarder {
            forwarder.sweep();
        }
    }

    async fn connect(&mut self, accepted: io::Result<(Connection, Place)>) {
        match accepted {
            Ok((Connection::Unix(stream), place)) => {
                let caller = Caller::default();
                self.spawn(|| Stream::unix(UnixStream::from_std(stream)?), caller, place);
            }
            Ok((Connection::Tcp(stream, peer), place)) => {
                let last_words = LastWords::default();
                let caller = Caller { peer: Some(peer), last_words: Some(last_words.clone()) };
                let worded = || Ok(Worded::new(TcpStream::from_std(stream)?, last_words));
                self.spawn(worded, caller, place);
            }
            Err(error) => {
                self.journal.say(format_args!("A connection cannot be accepted: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// Serves a connection on the thread that has the fewest; `stream` makes it that thread's.
    fn spawn<S>(
        &mut self,
        stream: impl FnOnce() -> io::Result<S> + Send + 'static,
        caller: Caller,
        place: Place,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let front = Arc::clone(&self.front);
        let service = service_fn(move |request: Request<Incoming>| {
            let (front, caller) = (Arc::clone(&front), caller.clone());
            async move { front.answer(request, caller).await }
        });
        let http = self.http.clone();
        let journal = self.journal.clone();
        let mut last_answer = self.last_answer.subscribe();
        let (thread, held) = self.crew.choose();
        thread.spawn(async move {
            let stream = match stream() {
                Ok(stream) => stream,
                Err(error) => {
                    journal.say(format_args!("A connection cannot be served: {error}"));
                    return;
                }
            };
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            let mut connection = std::pin::pin!(connection);
            // How a connection ends is told to nobody: its calls were logged.
            tokio::select! {
                biased;
                _ = connection.as_mut() => {}
                _ = last_answer.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop((place, held));
        });
    }

    /// Serves on for the pause, so that whoever routes calls can notice; then lets the calls under way
    /// finish, and ends the function's server when there are none.
    async fn drain(mut self) -> u8 {
        let pause = self.pause();
        self.front.stop_accepting();
        self.journal
            .say(format_args!("SIGTERM: no new connections in {}", spelling::duration(pause)));
        self.remove_lock();
        let _ = timeout(pause, self.accept_until_end()).await;
        let busy = self.front.gate().busy();
        self.journal.say(format_args!("No new connections allowed, draining: {busy} requests"));
        drop(self.listener);
        let gate = Arc::clone(self.front.gate());
        let drained = async move {
            let _ = self.last_answer.send(());
            self.last_answer.closed().await;
            gate.idle().await;
        };
        if timeout(self.settings.write_timeout, drained).await.is_err() {
            self.journal.say(format_args!("Error in Shutdown: context deadline exceeded"));
        }
        let busy = self.front.gate().busy();
        self.journal.say(format_args!("Exiting. Active connections: {busy}"));
        // Many servers end only when their connections have, and those that are kept would never.
        if let Some(forwarder) = &self.forwarder {
            forwarder.close();
        }
        if let Some(function) = self.function {
            end(function, &self.journal).await;
        }
        0
    }

    /// A platform that hands over the socket has stopped sending calls before it asks for the end.
    fn pause(&self) -> Duration {
        match self.settings.healthcheck_interval {
            None if self.listener.is_handed() => Duration::ZERO,
            _ => self.settings.pause(),
        }
    }

    fn remove_lock(&self) {
        let lock = self.front.lock();
        let path = lock.path().display();
        self.journal.say(format_args!("Removing lock-file : {path}"));
        if let Err(error) = lock.remove() {
            let why = spelling::failure(&error);
            self.journal
                .say(format_args!("Unable to mark server as unhealthy: remove {path}: {why}"));
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
    stuck_max: Duration,
) -> io::Result<(Connection, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept(stuck_max).await?, place))
}

/// Waits for the end of the command of http mode.
async fn ended(function: &mut Option<Function>, journal: &Journal) -> Option<ExitStatus> {
    match function {
        Some(function) => function.ended(journal).await,
        None => std::future::pending().await,
    }
}

/// Asks the function's server to end, and ends it if it does not.
async fn end(mut function: Function, journal: &Journal) {
    function.ask_to_end();
    if timeout(limits::CHILD_STOP_MAX, function.ended(journal)).await.is_err() {
        function.kill();
    }
}

type Prepared = (Work, Option<Arc<Forwarder>>, Option<Function>);

fn prepare(settings: &Settings, program: Program, journal: &Journal) -> Result<Prepared, String> {
    Ok(match &settings.mode {
        Mode::Http(upstream) => {
            let function = Function::start(&program, settings.logs, journal)
                .map_err(|()| "The function was not started: see fprocess".to_owned())?;
            let forwarder = Arc::new(Forwarder::new(upstream.clone(), settings, journal));
            (Work::Forward(Arc::clone(&forwarder)), Some(forwarder), Some(function))
        }
        Mode::Streaming => {
            let forker = Forker::new(program, false, settings, journal);
            (Work::Fork(Arc::new(forker)), None, None)
        }
        Mode::Serializing => {
            let forker = Forker::new(program, true, settings, journal);
            (Work::Fork(Arc::new(forker)), None, None)
        }
        Mode::Classic(own) => {
            let classic = Classic::new(program, own.clone(), settings, journal);
            (Work::Classic(Arc::new(classic)), None, None)
        }
        Mode::Static(root) => {
            journal.say(format_args!("Serving files at: {}", root.display()));
            let files = Files::new(root.clone(), settings.read_timeout);
            (Work::Files(Arc::new(files)), None, None)
        }
    })
}

/// Fetches what calls are judged by, before anything is started that could be called.
async fn guard(settings: &Settings, journal: &Journal) -> Result<Option<Guard>, String> {
    let Some(auth) = &settings.auth else { return Ok(None) };
    let guard = Guard::start(auth, journal).await;
    guard.map(Some).map_err(|why| match settings.mode {
        Mode::Classic(_) => format!("Error creating JWTAuthMiddleware: {why}"),
        _ => format!("Error: error creating JWTAuthMiddleware: {why}"),
    })
}

fn crew(mode: &Mode) -> Crew {
    match mode {
        Mode::Streaming | Mode::Serializing | Mode::Classic(_) => Crew::per_processor(),
        Mode::Http(_) | Mode::Static(_) => Crew::alone(),
    }
}

fn http_server(settings: &Settings, listener: &Listener) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.max_buf_size(limits::REQUEST_HEAD_BYTES_MAX).max_headers(limits::HEADERS_MAX);
    // The gateway at the other end of a socket that was handed over reads any case and has limits of
    // its own; whoever comes by TCP sees what the original shows.
    if listener.is_handed() {
        http.header_read_timeout(None);
    } else {
        http.timer(TokioTimer::new());
        http.header_read_timeout(settings.read_timeout).title_case_headers(true);
    }
    http
}

async fn tell_ready(ready: Ready, forwarder: Option<Arc<Forwarder>>, journal: Journal) {
    if let Some(forwarder) = forwarder {
        forwarder.wait_reachable().await;
    }
    if let Err(error) = ready.say() {
        journal.say(format_args!("The platform cannot be told that the function serves: {error}"));
    }
}

fn put_lock(lock: &Lock, journal: &Journal) -> Result<(), String> {
    if lock.is_suppressed() {
        journal.say(format_args!(
            "Warning: \"suppress_lock\" is enabled. No automated health-checks will be in place for your \
             function."
        ));
        return Ok(());
    }
    let path = lock.path().display();
    journal.say(format_args!("Writing lock-file to: {path}"));
    lock.put().map_err(|error| {
        let why = spelling::failure(&error);
        format!(
            "Cannot write {path}. To disable lock-file set env suppress_lock=true. Error: {why}."
        )
    })
}

fn tell_mode(settings: &Settings, journal: &Journal) {
    let mode = match settings.mode {
        Mode::Http(_) => "http",
        Mode::Streaming => "streaming",
        Mode::Serializing => "serializing",
        Mode::Static(_) => "static",
        Mode::Classic(_) => return,
    };
    let command = settings.command.join(" ");
    journal.say(format_args!("Watchdog mode: {mode}\tfprocess: \"{command}\""));
}

fn tell_listening(settings: &Settings, listener: &Listener, journal: &Journal) {
    let show = |limit: Duration| match limit {
        UNLIMITED => "0s".to_owned(),
        limit => spelling::duration(limit),
    };
    let end = if matches!(settings.mode, Mode::Classic(_)) { "." } else { "" };
    journal.say(format_args!(
        "Timeouts: read: {} write: {} hard: {} health: {}{end}",
        show(settings.read_timeout),
        show(settings.write_timeout),
        show(settings.exec_timeout.unwrap_or_default()),
        show(settings.pause()),
    ));
    if settings.auth.is_some() && !matches!(settings.mode, Mode::Classic(_)) {
        journal.say(format_args!("JWT Auth: true"));
    }
    match listener {
        Listener::Handed(_) => {
            journal.say(format_args!("Listening on the socket that was handed over"));
        }
        Listener::Port(port) => {
            // Port 0 is one that the system chose.
            let port = port.local_addr().map_or(settings.port, |address| address.port());
            journal.say(format_args!("Listening on port: {port}"));
        }
    }
}
