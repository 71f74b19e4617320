//! What ours is compared with: the function called directly, nginx before it, other watchdogs, and other ways
//! to start a program.

mod docker;
mod migrated;
mod spawning;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pinnace_tests::gateway::free_address;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use docker::Docker;
pub use migrated::{Migrated, asked, migrate};
pub use spawning::{FUNCTION_ENVIRONMENT, spawned_per_second};

/// How long a reference may take to start.
const START_MAX: Duration = Duration::from_secs(20);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process of ours that is ended with this value.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM: nginx's master ends its workers then.
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Running {
    fn wait(child: Child, address: SocketAddr, what: &str) -> Result<Self> {
        let mut running = Self { child, address };
        let end = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("{what} ended before it listened on {address}: {status}");
            }
            if Instant::now() > end {
                bail!("{what} does not listen on {address} after {} s", START_MAX.as_secs());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(running)
    }

    /// The memory that it has.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        crate::crowd::resident_bytes(self.child.id())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// Starts the function without any platform.
///
/// # Errors
/// It cannot be started.
pub fn direct(hello: &Path) -> Result<Running> {
    let mut child = Command::new(hello).env("PORT", "0").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
    let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
    let port: u16 = port.with_context(|| format!("hello said {line:?}"))?;
    Running::wait(child, SocketAddr::from(([127, 0, 0, 1], port)), "hello")
}

/// Starts a watchdog, ours or the original, on TCP before the function, without any platform.
///
/// # Errors
/// It cannot be started.
pub fn watchdog(watchdog: &Path, hello: &Path) -> Result<Running> {
    let (address, behind) = (free_address(), free_address());
    let child = Command::new(watchdog)
        .env("fprocess", hello)
        .env("mode", "http")
        .env("port", address.port().to_string())
        .env("upstream_url", format!("http://{behind}"))
        .env("PORT", behind.port().to_string())
        .env("suppress_lock", "true")
        // How long it goes on after SIGTERM.
        .env("healthcheck_interval", "1ms")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Running::wait(child, address, "the watchdog")
}

/// Starts a watchdog, ours or the original, that starts this command for each call.
///
/// # Errors
/// It cannot be started; the original ends at once if somebody listens on its port for metrics, 8081.
pub fn forking(watchdog: &Path, command: &str, mode: &str) -> Result<Running> {
    let address = free_address();
    let child = Command::new(watchdog)
        .env_clear()
        .envs(FUNCTION_ENVIRONMENT)
        .env("fprocess", command)
        .env("mode", mode)
        .env("port", address.port().to_string())
        .env("suppress_lock", "true")
        // How long it goes on after SIGTERM.
        .env("healthcheck_interval", "1ms")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", watchdog.display()))?;
    Running::wait(child, address, &watchdog.display().to_string())
}

/// nginx with two workers and kept-alive connections to a function.
pub struct Nginx {
    /// The server.
    pub running: Running,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn before(upstream: SocketAddr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-nginx-").tempdir()?;
        let address = free_address();
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, configured(folder.path(), address, upstream))?;
        let mut command = Command::new(find("nginx")?);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { running: Running::wait(child, address, "nginx")?, _folder: folder })
    }
}

fn configured(folder: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes 2;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  upstream function {{
    server {upstream};
    keepalive 256;
    keepalive_requests 100000000;
  }}
  server {{
    listen {address} reuseport;
    location / {{
      proxy_pass http://function;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    )
}

/// A bundle that `runc run` runs: the function, told to end at once.
pub struct Runc {
    folder: TempDir,
    runs: AtomicU32,
}

impl Runc {
    /// Makes the bundle.
    ///
    /// # Errors
    /// runc is not there, or a file cannot be written.
    pub fn bundle(hello: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-runc-").tempdir()?;
        let root = folder.path().join("rootfs");
        fs::create_dir(&root)?;
        fs::copy(hello, root.join("hello"))?;
        let mut spec = Command::new(find("runc")?);
        let made = spec.arg("spec").current_dir(folder.path()).status()?;
        if !made.success() {
            bail!("runc spec failed");
        }
        let path = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/hello"]);
        config["process"]["env"] = json!(["HELLO_AT_START=exit 0"]);
        fs::write(&path, config.to_string())?;
        Ok(Self { folder, runs: AtomicU32::new(0) })
    }

    /// Runs it once and answers how long that took, in microseconds.
    ///
    /// # Errors
    /// runc failed.
    pub fn run(&self) -> Result<f64> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let id = format!("bench-{}-{run}", std::process::id());
        let mut command = Command::new(find("runc")?);
        command.arg("run").arg("--bundle").arg(self.folder.path()).arg(id);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begin = Instant::now();
        let output = command.output()?;
        let took = begin.elapsed().as_secs_f64() * 1e6;
        if !output.status.success() {
            bail!("runc run failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }
}

/// What is there to compare with; says why if it is not.
pub fn if_there<T>(what: &str, made: Result<T>) -> Option<T> {
    made.inspect_err(|why| eprintln!("  {what} is left out: {why:#}")).ok()
}

/// Finds a program as the shell does, and where daemons live.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder: PathBuf| folder.join(program)).find(|path| path.is_file());
    found.with_context(|| format!("{program} is not installed"))
}
