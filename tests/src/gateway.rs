//! A running platform of a test's own.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    http::{self, Answer},
    images::Image,
    wait::eventually,
};

/// How long a platform may take until it answers.
const START_MAX: Duration = Duration::from_secs(30);

/// How long it may take to end, draining included.
const END_MAX: Duration = Duration::from_secs(45);

/// How long a function may take until it serves.
pub const READY_MAX: Duration = Duration::from_secs(30);

/// A platform under test. When it is dropped, it is ended and everything of it removed.
pub struct Gateway {
    server: Option<Child>,
    state: tempfile::TempDir,
    log: PathBuf,
    address: SocketAddr,
    metrics: SocketAddr,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    /// A program that becomes the next, if there is one.
    runner: Vec<String>,
    program: Vec<String>,
}

/// A function to deploy.
#[derive(Clone, Debug)]
pub struct Function {
    deployment: Value,
}

impl Function {
    /// A function of an image.
    #[must_use]
    pub fn new(name: &str, image: &str) -> Self {
        Self {
            deployment: json!({ "service": name, "image": image, "labels": {}, "annotations": {} }),
        }
    }

    /// A command over the host's own programs. Words are split at single spaces.
    #[must_use]
    pub fn host(name: &str, fprocess: &str) -> Self {
        Self::new(name, "host").with("envProcess", fprocess.into())
    }

    /// Sets a field of the deployment.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.deployment[field] = value;
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.deployment["envVars"][name] = value.into();
        self
    }

    /// Sets a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.deployment["labels"][name] = value.into();
        self
    }

    /// Sets an annotation.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.deployment["annotations"][name] = value.into();
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.deployment["service"].as_str().unwrap_or_default()
    }
}

/// The `pinnace` binary under test: `PINNACE_BIN`, or the one beside this test.
///
/// # Panics
/// There is none.
#[must_use]
pub fn pinnace() -> PathBuf {
    let path = std::env::var_os("PINNACE_BIN")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::current_exe().ok()?.parent()?.parent()?.join("pinnace")));
    let path = path.expect("a test runs from target/TARGET/PROFILE/deps");
    assert!(path.is_file(), "{} is missing; run: cargo xtask test", path.display());
    path
}

/// The `pinnace-watchdog` under test: `PINNACE_WATCHDOG`, or the one of this build.
///
/// # Panics
/// There is none.
#[must_use]
pub fn watchdog() -> PathBuf {
    let beside = || {
        let this = std::env::current_exe().ok()?;
        let folders = [this.parent(), this.parent().and_then(std::path::Path::parent)];
        let paths = folders.into_iter().flatten().map(|folder| folder.join("pinnace-watchdog"));
        paths.into_iter().find(|path| path.is_file())
    };
    let path = std::env::var_os("PINNACE_WATCHDOG").map(PathBuf::from).or_else(beside);
    path.expect("pinnace-watchdog was not built; run: cargo xtask test")
}

impl Gateway {
    /// Starts a platform and waits until it answers.
    ///
    /// # Panics
    /// It does not; the message shows its log.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further flags of `pinnace up`.
    ///
    /// # Panics
    /// It does not answer in time; the message shows its log.
    #[must_use]
    pub fn start_with(flags: &[&str]) -> Self {
        let mut gateway = Self::prepared(flags);
        gateway.up();
        gateway
    }

    /// Starts one with further flags and variables of its environment.
    ///
    /// # Panics
    /// It does not answer in time; the message shows its log.
    #[must_use]
    pub fn start_in(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut gateway = Self::prepared(flags);
        let pairs = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        gateway.environment = pairs.collect();
        gateway.up();
        gateway
    }

    /// Starts one as an ordinary user, from a copy of the binary which that user may read.
    ///
    /// # Panics
    /// It does not answer in time; the message shows its log.
    #[must_use]
    pub fn start_as(user: u32, flags: &[&str]) -> Self {
        let mut gateway = Self::prepared_as(user, flags);
        gateway.up();
        gateway
    }

    /// Prepares one of an ordinary user; [`Self::up`] starts it.
    ///
    /// # Panics
    /// This is not root.
    #[must_use]
    pub fn prepared_as(user: u32, flags: &[&str]) -> Self {
        let mut gateway = Self::prepared(flags);
        let folder = gateway.state.path();
        let binary = folder.join("pinnace");
        fs::copy(pinnace(), &binary).expect("the temporary directory is writable");
        let owned = std::os::unix::fs::chown(folder, Some(user), Some(user));
        owned.expect("tests that change the user run as root");
        let binary = binary.to_string_lossy().into_owned();
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        gateway.program = vec!["setpriv".into(), uid, gid, "--clear-groups".into(), binary];
        gateway
    }

    /// Starts one by a program that becomes it, such as `prlimit --nofile=1000`.
    ///
    /// # Panics
    /// It does not answer in time; the message shows its log.
    #[must_use]
    pub fn start_by(program: &[&str], flags: &[&str]) -> Self {
        let mut gateway = Self::prepared(flags);
        gateway.run_by(program);
        gateway.up();
        gateway
    }

    /// Has the binary run by a program that becomes it, from now on.
    pub fn run_by(&mut self, program: &[&str]) {
        self.runner = program.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Prepares one whose state directory a test wants to make itself; [`Self::up`] starts it.
    #[must_use]
    pub fn prepared(flags: &[&str]) -> Self {
        let state = tempfile::Builder::new().prefix("pinnace-test-").tempdir();
        let state = state.expect("the temporary directory is writable");
        Self {
            server: None,
            log: state.path().join("up.log"),
            state,
            address: free_address(),
            metrics: free_address(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: Vec::new(),
            runner: Vec::new(),
            program: vec![pinnace().to_string_lossy().into_owned()],
        }
    }

    /// Starts the server again, after [`Self::kill`] for instance.
    ///
    /// # Panics
    /// It does not answer in time; the message shows its log.
    pub fn up(&mut self) {
        let mut command = self.up_command_with(&[]);
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.expect("the state directory is writable");
        let copy = log.try_clone().expect("a descriptor can be copied");
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        self.server = Some(command.spawn().expect("the binary can be started"));
        eventually(
            &format!("{} answers; see {}", self.url(), self.log.display()),
            START_MAX,
            || {
                let ended =
                    self.server.as_mut().and_then(|server| server.try_wait().ok().flatten());
                assert!(ended.is_none(), "`pinnace up` ended ({ended:?}):\n{}", self.log());
                http::send("GET", &format!("{}/healthz", self.url()), &[], b"")
                    .is_ok_and(|answer| answer.status == 200)
                    .then_some(())
            },
        );
    }

    /// The command that starts this platform, for tests that want it to fail: these values of flags take
    /// the place of the platform's own.
    #[must_use]
    pub fn up_command_with(&self, other: &[(&str, &str)]) -> Command {
        let mut command = self.command();
        command.arg("up").args(&self.flags).env("HOME", self.state.path());
        // Whoever runs the tests may be logged in somewhere.
        command.env_remove("DOCKER_CONFIG").envs(self.environment.iter().cloned());
        let own = [
            ("--listen", self.address.to_string()),
            ("--metrics-listen", self.metrics.to_string()),
            ("--state-dir", self.state_dir().to_string_lossy().into_owned()),
        ];
        for (flag, own) in &own {
            let value = other.iter().find(|(known, _)| known == flag);
            command.arg(flag).arg(value.map_or(own.as_str(), |(_, value)| value));
        }
        command
    }

    /// The binary, run by the user that runs the server.
    fn command(&self) -> Command {
        let mut words = self.runner.iter().chain(&self.program);
        let mut command = Command::new(words.next().expect("there is the binary"));
        command.args(words);
        command
    }

    /// What `pinnace doctor` says to the user that runs the server.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn doctor(&self) -> String {
        let mut command = self.command();
        command.arg("doctor").arg("--state-dir").arg(self.state_dir()).stdin(Stdio::null());
        let output = command.output().expect("the binary can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command of the CLI against this platform.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(pinnace());
        command.args(arguments).env("PINNACE_URL", self.url()).env("OPENFAAS_URL", self.url());
        command.env("HOME", self.state.path()).env("OPENFAAS_CONFIG", self.state.path());
        command.stdin(Stdio::null()).output().expect("the binary can be started")
    }

    /// Logs the CLI in, as [`Self::cli`] then is.
    ///
    /// # Panics
    /// It is refused.
    pub fn login(&self) {
        let output = self.cli(&["login", "--username", "admin", "--password", &self.password()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Ends the server without a word, as a crash does.
    ///
    /// # Panics
    /// It is not running.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().expect("it is our child");
        server.wait().expect("it is our child");
    }

    /// Flags that a server has which is started again.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Asks the server to end (SIGTERM) and waits until it has.
    ///
    /// # Panics
    /// It does not in time.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        kill_process(Pid::from_child(&server), Signal::TERM).expect("it is our child");
        eventually("`pinnace up` ends after SIGTERM", END_MAX, || server.try_wait().ok().flatten());
    }

    /// Runs `pinnace down`.
    ///
    /// # Panics
    /// The binary cannot be started.
    #[must_use]
    pub fn down(&self) -> Output {
        let mut command = self.command();
        command.arg("down").arg("--state-dir").arg(self.state_dir());
        command.stdin(Stdio::null()).output().expect("the binary can be started")
    }

    /// Ends the spawner without a word.
    ///
    /// # Panics
    /// There is none.
    pub fn kill_spawner(&self) {
        let run = self.state_dir().join("run");
        let is_ours = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            read("comm").is_ok_and(|comm| comm.trim() == "pinnace-spawner")
                && read("cmdline").is_ok_and(|line| line.contains(&*run.to_string_lossy()))
        };
        let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let spawner = pids.find(is_ours).expect("a spawner runs");
        let spawner = i32::try_from(spawner).ok().and_then(Pid::from_raw).expect("it is a number");
        // It may have ended since, as is wished for.
        let _ = kill_process(spawner, Signal::KILL);
    }

    /// Process id of the server.
    ///
    /// # Panics
    /// It is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// Address and port it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address and port of its metrics.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// Its metrics.
    ///
    /// # Panics
    /// They are not answered.
    #[must_use]
    pub fn metrics(&self) -> String {
        let answer = http::send("GET", &format!("http://{}/metrics", self.metrics), &[], b"");
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log())).expect(200).text()
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the server wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The password of `admin`.
    ///
    /// # Panics
    /// It is not where it should be.
    #[must_use]
    pub fn password(&self) -> String {
        let path = self.state_dir().join("basic-auth-password");
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// What `admin` shows in the header `Authorization`.
    #[must_use]
    pub fn authorization(&self) -> String {
        let pair = format!("admin:{}", self.password());
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    /// Calls the API as `admin`.
    ///
    /// # Panics
    /// No answer comes.
    pub fn api(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let authorization = self.authorization();
        let headers = [("Authorization", authorization.as_str())];
        let answer = http::send(method, &format!("{}{path}", self.url()), &headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Calls a function with POST; `path` is its name and what follows.
    ///
    /// # Panics
    /// No answer comes.
    pub fn call(&self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
    }

    /// Calls a function.
    ///
    /// # Panics
    /// No answer comes.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = http::send(method, &format!("{}/function/{path}", self.url()), headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Deploys a function and answers what the API said.
    #[must_use]
    pub fn try_deploy(&self, function: &Function) -> Answer {
        self.api("POST", "/system/functions", function.deployment.to_string().as_bytes())
    }

    /// Deploys a function and waits until it serves.
    ///
    /// # Panics
    /// It is refused, or does not serve in time.
    pub fn deploy(&self, function: &Function) {
        let answer = self.try_deploy(function);
        assert!(matches!(answer.status, 200 | 202), "{}: {}", answer.status, answer.text());
        self.until(function.name(), "it serves", |status| {
            status["availableReplicas"].as_u64().is_some_and(|available| available > 0)
        });
    }

    /// Waits until a function's status is as wanted, and answers it.
    ///
    /// # Panics
    /// It is not in time; the message shows the status.
    pub fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.until_within(READY_MAX, name, what, wanted)
    }

    /// Waits so long until a function's status is as wanted, and answers it.
    ///
    /// # Panics
    /// It is not in time; the message shows the status.
    pub fn until_within(
        &self,
        limit: Duration,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, limit, || {
                last = self.status(name)?;
                wanted(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("{name}: {what}: not in time: {last:#}\n{}", self.log()))
    }

    /// A function's status, if it is deployed.
    #[must_use]
    pub fn status(&self, name: &str) -> Option<Value> {
        let answer = self.api("GET", &format!("/system/function/{name}"), b"");
        (answer.status == 200).then(|| answer.json())
    }

    /// Sets how many replicas a function has.
    ///
    /// # Panics
    /// It is refused.
    pub fn scale(&self, name: &str, replicas: u64) {
        let body = json!({ "serviceName": name, "replicas": replicas }).to_string();
        let answer = self.api("POST", &format!("/system/scale-function/{name}"), body.as_bytes());
        assert!(matches!(answer.status, 200 | 202), "{}: {}", answer.status, answer.text());
    }

    /// Removes a function.
    ///
    /// # Panics
    /// It is refused.
    pub fn remove(&self, name: &str) {
        let body = json!({ "functionName": name }).to_string();
        let answer = self.api("DELETE", "/system/functions", body.as_bytes());
        assert!(matches!(answer.status, 200 | 202), "{}: {}", answer.status, answer.text());
    }

    /// Pulls an image and answers the status and the body: the image, or why there is none.
    #[must_use]
    pub fn try_pull(&self, reference: &str) -> Answer {
        let body = json!({ "reference": reference }).to_string();
        self.api("POST", "/system/images/pull", body.as_bytes())
    }

    /// Updates a function and answers what the API said.
    #[must_use]
    pub fn try_update(&self, function: &Function) -> Answer {
        self.api("PUT", "/system/functions", function.deployment.to_string().as_bytes())
    }

    /// Loads an image (`kind` is `archive` or `rootdir`) and answers it as an event, or the refusal.
    #[must_use]
    pub fn try_load(&self, reference: &str, kind: &str, tar: &[u8]) -> Value {
        let path = format!("/system/images?reference={reference}&kind={kind}");
        let answer = self.api("POST", &path, tar);
        match serde_json::from_str::<Vec<Value>>(&answer.text()) {
            Ok(images) => json!({ "event": "loaded", "image": images[0] }),
            Err(_) => {
                json!({ "event": "refused", "status": answer.status, "error": answer.text() })
            }
        }
    }

    /// Loads an image from an OCI layout.
    ///
    /// # Panics
    /// It is refused.
    pub fn load(&self, reference: &str, image: &Image) {
        let event = self.try_load(reference, "archive", &image.oci_layout());
        assert_eq!(event["event"], "loaded", "{event}\n{}", self.log());
    }

    /// Loads the `hello` image and deploys a function of it under this name.
    ///
    /// # Panics
    /// Either is refused, or it does not serve in time.
    pub fn deploy_hello(&self, name: &str) {
        self.load("hello:test", &Image::hello("hello:test"));
        self.deploy(&Function::new(name, "hello:test"));
    }

    /// What a function's replicas logged so far, as one text.
    #[must_use]
    pub fn logs(&self, name: &str) -> String {
        let answer = self.api("GET", &format!("/system/logs?name={name}&follow=false"), b"");
        let mut text = String::new();
        for line in answer.expect(200).text().lines() {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            text += message["text"].as_str().unwrap_or_default();
            text.push('\n');
        }
        text
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // A test that failed must not fail a second time here: errors are let go.
            let _ = kill_process(Pid::from_child(&server), Signal::TERM);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                eventually("it ends", END_MAX, || server.try_wait().ok().flatten())
            }));
            if ended.is_err() {
                drop(server.kill());
                drop(server.wait());
            }
        }
        if self.state_dir().exists() {
            drop(self.down());
        }
    }
}

/// An address of this host's loopback that nothing listens on.
///
/// # Panics
/// No port is free.
#[must_use]
pub fn free_address() -> SocketAddr {
    let bound = |listener: TcpListener| listener.local_addr();
    let address: io::Result<SocketAddr> =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(bound);
    address.expect("a port is free")
}
