//! `docker run`, by a daemon of our own.
//!
//! The daemon lives in process, mount and network namespaces of its own, with a `/run` and an `/etc/docker`
//! of its own. What it starts ends with it, whatever happens, and what it leaves outside of its folder is
//! its control group alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pinnace_tests::images::{Layer, root_directory};
use tempfile::TempDir;

use super::{LOOK_EVERY, START_MAX, find};

/// The image that is run.
const IMAGE: &str = "bench-hello";
/// How long the kernel may take to let go of a control group whose processes have ended.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// Makes the private places, starts the daemon, and ends when its standard input does. As the first process
/// of its namespace it takes all others with it.
const LIFE: &str = "mount -t tmpfs run /run && mount -t tmpfs docker /etc/docker || exit 1
\"$@\" &
read -r _ || exit 0";

/// A running daemon that has the function's image.
pub struct Docker {
    client: PathBuf,
    daemon: Child,
    /// Of the containers, below the root of each hierarchy.
    group: String,
    folder: TempDir,
}

impl Docker {
    /// Starts the daemon and gives it the image.
    ///
    /// # Errors
    /// A part is not installed, or the daemon does not run on this machine; its last words are told.
    pub fn start(hello: &Path) -> Result<Self> {
        let client = find("docker")?;
        let folder = tempfile::Builder::new().prefix("bench-docker-").tempdir()?;
        let group = format!("bench-docker-{}", std::process::id());
        let daemon = daemon(&find("dockerd")?, folder.path(), &group)?;
        let mut docker = Self { client, daemon, group, folder };
        docker.wait_until_it_answers()?;
        docker.import(hello)?;
        Ok(docker)
    }

    /// Runs the image once and answers how long that took, in microseconds.
    ///
    /// # Errors
    /// docker failed.
    pub fn run(&self) -> Result<f64> {
        let begin = Instant::now();
        let output = self.client(&["run", "--rm", "--network", "none", IMAGE])?;
        let took = begin.elapsed().as_secs_f64() * 1e6;
        succeeded("docker run", &output)?;
        Ok(took)
    }

    fn import(&self, hello: &Path) -> Result<()> {
        let archive = self.folder.path().join("image.tar");
        let layer = Layer::default().file("hello", 0o755, &fs::read(hello)?);
        fs::write(&archive, root_directory(layer))?;
        let archive = archive.to_string_lossy();
        let entry = "ENTRYPOINT [\"/hello\"]";
        let ends = "ENV HELLO_AT_START=\"exit 0\"";
        let arguments = ["import", "--change", entry, "--change", ends, &archive, IMAGE];
        succeeded("docker import", &self.client(&arguments)?)
    }

    fn client(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.client);
        command.arg("--host").arg(format!("unix://{}", socket(self.folder.path()).display()));
        command.args(arguments).env("DOCKER_CONFIG", self.folder.path()).stdin(Stdio::null());
        command.output().with_context(|| format!("cannot run {}", self.client.display()))
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let end = Instant::now() + START_MAX;
        loop {
            if self.client(&["version"])?.status.success() {
                return Ok(());
            }
            let ended = self.daemon.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(log(self.folder.path())).unwrap_or_default();
                bail!("dockerd does not answer; it said last: {}", last_words(&log));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        drop(self.daemon.stdin.take());
        // It ends when the last process of its namespace has ended.
        let _ = self.daemon.wait();
        let end = Instant::now() + RELEASE_MAX;
        for group in groups(&self.group) {
            while remove(&group).is_err() {
                if Instant::now() > end {
                    eprintln!("  the control group {} could not be removed", group.display());
                    break;
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        }
    }
}

fn daemon(dockerd: &Path, folder: &Path, group: &str) -> Result<Child> {
    let log = fs::File::create(log(folder))?;
    let mut command = Command::new(find("unshare")?);
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    command.args(["sh", "-c", LIFE, "sh"]).arg(dockerd);
    command.arg("--data-root").arg(folder.join("data"));
    command.arg("--exec-root").arg("/run/docker").arg("--pidfile").arg("/run/docker.pid");
    command.arg(format!("--host=unix://{}", socket(folder).display()));
    command.arg(format!("--cgroup-parent=/{group}"));
    command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
    command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("cannot run unshare")
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("docker.sock")
}

fn log(folder: &Path) -> PathBuf {
    folder.join("dockerd.log")
}

fn succeeded(what: &str, output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The last line of a log.
fn last_words(log: &str) -> &str {
    log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing")
}

/// The control groups of this name, one in each hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = hierarchies.chain([root]).map(|hierarchy| hierarchy.join(name));
    // One hierarchy may be there under several names, which are links.
    let mut there: Vec<_> = named.filter_map(|group| group.canonicalize().ok()).collect();
    there.sort();
    there.dedup();
    there
}

/// Removes a control group with those below it.
fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_last_line_with_any() {
        assert_eq!(last_words("starting\nno overlay\n\n"), "no overlay");
        assert_eq!(last_words(""), "nothing");
    }

    #[test]
    fn a_failed_command_is_told_with_what_it_said() {
        let run = |script: &str| Command::new("sh").args(["-c", script]).output().unwrap();
        assert!(succeeded("true", &run("exit 0")).is_ok());
        let error = succeeded("docker run", &run("echo why >&2; exit 3")).unwrap_err();
        assert_eq!(error.to_string(), "docker run failed: why");
    }
}
