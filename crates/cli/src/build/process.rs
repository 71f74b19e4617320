//! Runs one program of a build and hands its lines on.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use pinnace_core::limits;

use super::{Log, steps::Step};

/// Runs a step in a folder.
///
/// # Errors
/// The program is not there, or says that it failed.
pub fn run(step: &Step, folder: &Path, log: &Log) -> anyhow::Result<()> {
    let mut command = Command::new(step.program);
    command.args(&step.words).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        anyhow::anyhow!("{} does not start: {error}; is it installed?", step.program)
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|pipe| hand_on(pipe, log)));
        scope.spawn(|| stderr.map(|pipe| hand_on(pipe, log)));
    });
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    log.show_last();
    let end = match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    };
    anyhow::bail!("{} ended with {end}; what it wrote says why", step.shown())
}

/// Reads lines to the end; what is longer than a line may be comes as several.
fn hand_on(pipe: impl Read, log: &Log) {
    let most = limits::BUILD_LOG_LINE_BYTES_MAX as u64;
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(most).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => log.line(&String::from_utf8_lossy(&line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(script: &str) -> Step {
        Step { program: "sh", words: vec!["-c".into(), script.into()] }
    }

    #[test]
    fn an_exit_code_is_a_failure() {
        let log = Log::new("f", true, true);
        run(&step("pwd; echo err >&2"), Path::new("/"), &log).unwrap();
        let said = run(&step("exit 3"), Path::new("/"), &log).unwrap_err().to_string();
        assert!(said.contains("sh -c ended with exit code 3"), "{said}");
        let absent = Step { program: "no-such-program-here", words: Vec::new() };
        let said = run(&absent, Path::new("/"), &log).unwrap_err().to_string();
        assert!(said.contains("is it installed?"), "{said}");
    }
}
