//! How the original watchdogs spell durations, sizes, exits and failures in answers and log lines.
//!
//! Callers and log rules match on these words, so they are part of the contract (sections 8.2, 8.3, 8.5).

use std::{
    fmt::Write,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// A duration as Go prints it: `1m30s`, `1.5s`, `600ms`, `0s`.
pub fn duration(value: Duration) -> String {
    if value.is_zero() {
        return "0s".to_owned();
    }
    if value < Duration::from_secs(1) {
        let (unit, per_unit) = match value.as_nanos() {
            0..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return decimal(value.as_nanos(), per_unit) + unit;
    }
    let seconds = value.as_secs();
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m", seconds / 60 % 60);
    }
    let rest = u128::from(seconds % 60) * 1_000_000_000 + u128::from(value.subsec_nanos());
    text + &decimal(rest, 1_000_000_000) + "s"
}

/// `value / per_unit` with no more decimals than it has.
fn decimal(value: u128, per_unit: u128) -> String {
    let whole = value / per_unit;
    let fraction = value % per_unit;
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = per_unit.ilog10() as usize;
    let text = format!("{whole}.{fraction:0digits$}");
    text.trim_end_matches('0').to_owned()
}

/// A size in decimal units with four digits: `81B`, `1.5kB`, `123.5kB`; `-1B` if it is not known.
pub fn size(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return "-1B".to_owned() };
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].iter();
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1000.0 {
        let Some(larger) = units.next() else { break };
        unit = larger;
        value /= 1000.0;
    }
    let decimals = match value {
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// How a process ended: `exit status 3`, `signal: killed`.
pub fn exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => {
            let dumped = if status.core_dumped() { " (core dumped)" } else { "" };
            format!("signal: {}{dumped}", signal(number))
        }
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn signal(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// An error of the system: `connection refused`, without Rust's number behind it.
pub fn failure(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::NotFound => "no such file or directory",
        Kind::PermissionDenied => "permission denied",
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset => "connection reset by peer",
        Kind::AddrInUse => "address already in use",
        Kind::ArgumentListTooLong => "argument list too long",
        Kind::TimedOut => "i/o timeout",
        Kind::BrokenPipe => "broken pipe",
        _ => return unnumbered(error),
    };
    words.to_owned()
}

/// The C library's words for it, in small letters, as Go has them.
fn unnumbered(error: &io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.rsplit_once(" (os error")) {
        (Some(_), Some((words, _))) => {
            let mut letters = words.chars();
            let first = letters.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(letters).collect()
        }
        _ => text,
    }
}

/// Why a command could not be started.
pub fn start_failure(program: &str, error: &io::Error) -> String {
    if program.contains('/') {
        return format!("fork/exec {program}: {}", failure(error));
    }
    match look_up(program) {
        Some(path) => format!("fork/exec {}: {}", path.display(), failure(error)),
        None => format!("exec: {program:?}: executable file not found in $PATH"),
    }
}

/// The file that a command without a slash stands for, by `PATH`.
pub fn look_up(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

/// Whether this is a file that this process may execute.
pub fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_words_and_no_numbers() {
        let of = |number| failure(&io::Error::from_raw_os_error(number));
        assert_eq!(
            [of(8), of(24), of(2)],
            ["exec format error", "too many open files", "no such file or directory"]
        );
        assert_eq!(failure(&io::Error::other("its own words")), "its own words");
    }

    #[test]
    fn durations() {
        let check = |ms: u64, text: &str| {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        };
        check(0, "0s");
        check(600, "600ms");
        check(1500, "1.5s");
        check(30_000, "30s");
        check(90_000, "1m30s");
        check(7_200_000, "2h0m0s");
        check(3_600_050, "1h0m0.05s");
        assert_eq!(duration(Duration::from_nanos(1_500)), "1.5µs");
        assert_eq!(duration(Duration::from_nanos(7)), "7ns");
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (81, "81B"),
            (999, "999B"),
            (1000, "1kB"),
            (1500, "1.5kB"),
            (123_456, "123.5kB"),
            (5_000_000, "5MB"),
            (12_345_678, "12.35MB"),
        ] {
            assert_eq!(size(Some(bytes)), text);
        }
        assert_eq!(size(None), "-1B");
    }

    #[test]
    fn exits_and_failures() {
        assert_eq!(exit(ExitStatus::from_raw(3 << 8)), "exit status 3");
        assert_eq!(exit(ExitStatus::from_raw(9)), "signal: killed");
        assert_eq!(
            exit(ExitStatus::from_raw(11 | 0x80)),
            "signal: segmentation fault (core dumped)"
        );
        let missing = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(
            start_failure("no-such-command-here", &missing),
            "exec: \"no-such-command-here\": executable file not found in $PATH"
        );
        assert_eq!(start_failure("/x", &missing), "fork/exec /x: no such file or directory");
        let long = io::Error::from_raw_os_error(7);
        assert!(start_failure("sh", &long).ends_with("/sh: argument list too long"));
    }
}
