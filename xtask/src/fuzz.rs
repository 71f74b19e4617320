//! Fuzz targets, on the stable compiler: libFuzzer's engine over the coverage that rustc can count by itself.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root, run};

/// Every target, a program of `pinnace-fuzz`.
const TARGETS: [&str; 8] = [
    "request-head",
    "response-head",
    "header-rules",
    "route",
    "json",
    "stack-yaml",
    "cgi",
    "small-parsers",
];

/// What makes the compiler count coverage in the way that libFuzzer reads. The programs are not static: started
/// static, libFuzzer jumps to functions of sanitizers that are not there.
const FLAGS: &str = "-Cpasses=sancov-module \
                     -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table";

/// How many run at a time.
const SIDE_BY_SIDE: usize = 2;

/// Runs every target for so many seconds. What was found before is tried first, and kept in `target/fuzz/corpus`.
///
/// # Errors
/// They cannot be built, or one found something; it was shown, with how to try it again.
pub fn fuzz(seconds: u32) -> Result<()> {
    let folder = root().join("target/fuzz");
    let host = host()?;
    run(cargo(&["build", "--profile", "fuzz", "--package", "pinnace-fuzz", "--bins"])
        .args(["--features", "libfuzzer", "--target", &host])
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", FLAGS))?;
    let programs = folder.join(host).join("fuzz");
    let mut found = Vec::new();
    for targets in TARGETS.chunks(SIDE_BY_SIDE) {
        let started: Vec<_> = targets
            .iter()
            .map(|target| Running::start(target, &programs, &folder, seconds))
            .collect::<Result<_>>()?;
        for running in started {
            found.extend(running.finish()?);
        }
    }
    if !found.is_empty() {
        bail!("fuzzing found something: {}", found.join(", "));
    }
    Ok(())
}

fn host() -> Result<String> {
    let version = crate::run::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names its host")?.to_owned())
}

/// A target that runs.
struct Running {
    target: &'static str,
    program: PathBuf,
    log: PathBuf,
    findings: PathBuf,
    child: Child,
}

impl Running {
    fn start(target: &'static str, programs: &Path, folder: &Path, seconds: u32) -> Result<Self> {
        let corpus = folder.join("corpus").join(target);
        let findings = folder.join("findings").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&findings)?;
        let program = programs.join(target);
        let log = folder.join(format!("{target}.log"));
        let file = File::create(&log)?;
        let fuzz = root().join("fuzz");
        let mut command = Command::new(&program);
        command
            .args(["-timeout=5", "-rss_limit_mb=512", "-max_len=4096", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .arg(format!("-dict={}", fuzz.join("words.dict").display()))
            .arg(&corpus)
            .arg(fuzz.join("seeds").join(target))
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        eprintln!("$ {target} for {seconds} s, its log in {}", log.display());
        Ok(Self { target, program, log, findings, child })
    }

    /// Waits for its end, shows what it did, and answers its name if it found something.
    fn finish(mut self) -> Result<Option<String>> {
        let status = self.child.wait()?;
        let log = String::from_utf8_lossy(&fs::read(&self.log)?).into_owned();
        if status.success() {
            let last = log.lines().rfind(|line| line.contains("cov:")).unwrap_or_default();
            eprintln!("{}: nothing found; {}", self.target, last.trim());
            return Ok(None);
        }
        let lines: Vec<_> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        for finding in fs::read_dir(&self.findings)?.flatten() {
            eprintln!("try it again: {} {}", self.program.display(), finding.path().display());
        }
        Ok(Some(self.target.to_owned()))
    }
}
