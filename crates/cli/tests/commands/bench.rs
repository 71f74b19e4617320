//! A place to run the binary in: a directory and an environment of its own, and a deadline.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Longest a run may take. Reached: the test fails.
const RUN_TIME_MAX: Duration = Duration::from_secs(60);

/// A directory to run in.
pub struct Bench {
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails the test if the run failed.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out(), self.stderr);
        self
    }

    /// Fails the test unless the run ended so and said this.
    pub fn failed(self, code: i32, said: &str) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out(), self.stderr);
        assert!(self.stderr.contains(said), "{said:?} is not in: {}", self.stderr);
        self
    }
}

impl Bench {
    /// A bench whose commands speak to this gateway.
    pub fn new(gateway: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        let bench = Self { dir, env: Vec::new() };
        let home = bench.path("home").display().to_string();
        // The machine's own state must not decide a test.
        let state = bench.path("state").display().to_string();
        bench.env("HOME", &home).env("PINNACE_STATE_DIR", &state).env("OPENFAAS_URL", gateway)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without_env(mut self, name: &str) -> Self {
        self.env.retain(|(n, _)| n != name);
        self
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a password into the state directory of a server that listens where the gateway is.
    pub fn password(self, password: &str) -> Self {
        let url = self.env.iter().find(|(name, _)| name == "OPENFAAS_URL").unwrap();
        let listen = url.1.trim_start_matches("http://").to_owned();
        self.file("state/basic-auth-password", password).file("state/run/listen", &listen)
    }

    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Runs `pinnace` with nothing on standard input.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, b"")
    }

    /// Runs `pinnace` with this on standard input.
    pub fn run_with(&self, words: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.spawn(words);
        // A client that was answered early does not read it all.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        finish(child)
    }

    /// Starts `pinnace`, all three streams piped.
    pub fn spawn(&self, words: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_pinnace"))
            .args(words)
            .current_dir(self.dir.path())
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Waits for a run's end.
pub fn finish(mut child: Child) -> Ran {
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let errors = thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        let _ = sender.send(text);
    });
    let Ok(stdout) = receiver.recv_timeout(RUN_TIME_MAX) else {
        child.kill().unwrap();
        panic!("pinnace did not end within {RUN_TIME_MAX:?}");
    };
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let stderr = String::from_utf8_lossy(&errors.join().unwrap()).into_owned();
    Ran { code, stdout, stderr }
}
