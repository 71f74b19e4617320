//! A bare loop that starts a command, gives it its input and reads its output, again and again.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    thread::ScopedJoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What a function of an image that sets nothing has, for all who start processes: whoever runs a benchmark may
/// have more, and to hand a variable on costs a watchdog more than a bare loop.
pub const FUNCTION_ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/tmp"),
    ("HOSTNAME", "cat-6f7d8c9b5-x2x4z"),
];

/// Runs `program` with `arguments` from so many threads for so long; answers how many processes a second
/// gave back the input that they were given.
///
/// # Errors
/// The program cannot be started, failed, or wrote something else.
pub fn spawned_per_second(
    (program, arguments): (&Path, &[&str]),
    input: &[u8],
    threads: u32,
    duration: Duration,
) -> Result<f64> {
    let begin = Instant::now();
    let end = begin + duration;
    let work = || {
        let mut count = 0_u32;
        while Instant::now() < end {
            once(program, arguments, input)?;
            count += 1;
        }
        Ok(count)
    };
    let counts: Result<Vec<u32>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(ScopedJoinHandle::join);
        ended.map(|count| count.unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    Ok(f64::from(counts?.iter().sum::<u32>()) / begin.elapsed().as_secs_f64())
}

fn once(program: &Path, arguments: &[&str], input: &[u8]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(FUNCTION_ENVIRONMENT);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    let (mut stdin, mut stdout) = pipes.context("it has pipes")?;
    let mut output = Vec::new();
    let written = stdin.write_all(input);
    drop(stdin);
    let read = stdout.read_to_end(&mut output);
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed: {status}", program.display());
    }
    written.and(read)?;
    if output != input {
        bail!("{} wrote {} bytes that it was not given", program.display(), output.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_counted_and_wrong_ones_refused() {
        let run = |script: &str| {
            let command = (Path::new("/bin/sh"), &["-c", script][..]);
            spawned_per_second(command, b"in\n", 2, Duration::from_millis(20))
        };
        assert!(run("cat").unwrap() > 0.0);
        assert!(run("cat; exit 3").unwrap_err().to_string().contains("exit status: 3"));
        assert!(run("cat >/dev/null; echo out").is_err());
        let missing = (Path::new("/no/such/program"), &[][..]);
        assert!(spawned_per_second(missing, b"", 1, Duration::from_millis(20)).is_err());
    }
}
