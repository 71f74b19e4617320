//! Starts the real watchdog and talks to it over TCP or over a unix socket that it was handed.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod client;
mod upstream;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

pub use client::{Client, Reply, Socket};
use tempfile::TempDir;
pub use upstream::Upstream;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The two ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Tcp,
    Unix,
}

pub const ROUTES: [Route; 2] = [Route::Tcp, Route::Unix];

/// A running watchdog in a directory of its own.
pub struct Watchdog {
    pub child: Child,
    pub dir: TempDir,
    log: Arc<Mutex<String>>,
    way: Way,
    ready: Option<UnixStream>,
}

enum Way {
    Port(u16),
    Path(PathBuf),
    None,
}

impl Watchdog {
    /// Starts it and waits until it listens.
    pub fn start(route: Route, env: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), route, env)
    }

    /// The same in a directory that is there; `DIR` in values stands for its path.
    pub fn start_in(dir: TempDir, route: Route, env: &[(&str, &str)]) -> Self {
        let mut started = match route {
            Route::Tcp => Self::spawn(dir, command(), env),
            Route::Unix => Self::spawn_with_socket(dir, env),
        };
        if route == Route::Tcp {
            let line = started.wait_log("Listening on port: ");
            let port = line.rsplit(": ").next().unwrap().trim().parse().unwrap();
            started.way = Way::Port(port);
        }
        started.wait_log_or_end("lock");
        started
    }

    /// Starts it and waits for its end.
    pub fn run(env: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = command();
        command.args(arguments);
        let mut started = Self::spawn(tempfile::tempdir().unwrap(), command, env);
        let status = started.wait_exit();
        (status.code(), started.whole_log())
    }

    /// Starts it as an init does: descriptor 3 is the listener, 4 wants to know that it serves.
    fn spawn_with_socket(dir: TempDir, env: &[(&str, &str)]) -> Self {
        let path = dir.path().join("fn.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (ready, its) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            // Whoever starts a watchdog may ignore the ends of its children.
            "trap '' CHLD; exec \"$0\" 3<&0 4>&1 0</dev/null 1>&2",
            env!("CARGO_BIN_EXE_pinnace-watchdog"),
        ]);
        command.stdin(OwnedFd::from(listener)).stdout(OwnedFd::from(its));
        command.env("LISTEN_FDS", "2");
        let mut started = Self::spawn(dir, command, env);
        started.way = Way::Path(path);
        started.ready = Some(ready);
        started
    }

    fn spawn(dir: TempDir, mut command: Command, env: &[(&str, &str)]) -> Self {
        let place = dir.path().to_str().unwrap();
        command.env("TMPDIR", place).env("HOME", place).env("port", "0").current_dir(place);
        for (name, value) in env {
            command.env(name, value.replace("DIR", place));
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), &log);
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, &log);
        }
        Self { child, dir, log, way: Way::None, ready: None }
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        let socket = match &self.way {
            Way::Port(port) => Socket::Tcp(TcpStream::connect(("127.0.0.1", *port)).unwrap()),
            Way::Path(path) => Socket::Unix(UnixStream::connect(path).unwrap()),
            Way::None => panic!("it does not listen"),
        };
        Client::new(socket)
    }

    /// Its answer to one request on a connection of its own.
    pub fn call(&self, request: &str) -> Reply {
        self.client().call(request)
    }

    /// Its answer to a GET.
    pub fn get(&self, target: &str) -> Reply {
        self.call(&format!("GET {target} HTTP/1.1\r\nHost: w\r\n\r\n"))
    }

    /// Its answer to a POST.
    pub fn post(&self, target: &str, body: &str) -> Reply {
        let length = body.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n");
        self.call(&(head + body))
    }

    /// Like [`Self::run`], for one that listens already.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn is_refused(&self) -> bool {
        match &self.way {
            Way::Port(port) => TcpStream::connect(("127.0.0.1", *port)).is_err(),
            Way::Path(path) => UnixStream::connect(path).is_err(),
            Way::None => true,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether it has said that it serves.
    pub fn wait_ready(&mut self) {
        let ready = self.ready.as_mut().unwrap();
        ready.set_read_timeout(Some(PATIENCE)).unwrap();
        ready.read_exact(&mut [0]).unwrap();
        // And closed the descriptor: nobody else has it.
        assert_eq!(ready.read(&mut [0]).unwrap(), 0);
    }

    /// Whether it has not yet said so.
    pub fn is_unready(&mut self) -> bool {
        let ready = self.ready.as_mut().unwrap();
        ready.set_nonblocking(true).unwrap();
        let read = ready.read(&mut [0]);
        ready.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for a log line that holds `text`, and returns it.
    pub fn wait_log(&self, text: &str) -> String {
        let mut found = None;
        wait_until(&format!("a log line with {text:?}"), || {
            let log = self.log.lock().unwrap();
            found = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }

    fn wait_log_or_end(&mut self, text: &str) {
        wait_until("its start", || {
            self.log.lock().unwrap().contains(text) || self.child.try_wait().unwrap().is_some()
        });
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn whole_log(&self) -> String {
        wait_until("the end of its log", || Arc::strong_count(&self.log) == 1);
        self.log()
    }

    /// Sends it a signal by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("its end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Programs of the tests end when their input closes, which its end brings about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinnace-watchdog"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Gathers what is written, each line behind the name of its stream.
fn collect(from: impl Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
}

/// Waits for a condition; fails the test when it does not come.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

pub fn wait_for_file(path: &Path) {
    wait_until(&format!("{}", path.display()), || path.exists());
}

/// A shell script as a command without blanks in it.
pub fn script(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("run.sh");
    std::io::Write::write_all(&mut File::create(&path).unwrap(), text.as_bytes()).unwrap();
    format!("sh {}", path.display())
}

/// Runs something on a thread; its result comes by a channel that a test can wait for.
pub fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver
}
