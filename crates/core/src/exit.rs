//! Why a replica is no more, in words a person understands.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// How a replica ended. Displayed as a sentence part: "replica x …".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Exit {
    /// The function's process ended by itself.
    Code {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the function's process.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel ended it because the memory limit was reached.
    OutOfMemory {
        /// The limit, in bytes.
        limit_bytes: u64,
    },
    /// It ran, but accepted no connection in time.
    NeverListened {
        /// Where it should have listened: `port 8080` or `its socket`.
        place: String,
        /// How long was waited.
        waited: Duration,
    },
    /// It did not answer when it was asked whether it is healthy.
    Unhealthy {
        /// What was asked, and what came of it.
        reason: String,
        /// How often in a row.
        times: u32,
    },
    /// Its process could not be started at all.
    CannotStart {
        /// What failed, on what.
        reason: String,
    },
    /// The platform stopped it: scaled down, replaced or removed.
    Stopped,
    /// It vanished without a word: its init was killed, or the machine restarted.
    Lost,
}

impl Exit {
    /// Whether the end was nobody's wish, so that a replacement must wait its back-off.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Stopped)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code { code: 0 } => {
                write!(f, "ended by itself with exit code 0; a function must keep serving")
            }
            Self::Code { code: 126 } => {
                write!(f, "ended with exit code 126: its command is not executable")
            }
            Self::Code { code: 127 } => {
                write!(f, "ended with exit code 127: its command was not found")
            }
            Self::Code { code } => write!(f, "crashed with exit code {code}"),
            Self::Signal { signal } => write!(f, "was ended by {}", signal_name(*signal)),
            Self::OutOfMemory { limit_bytes } => write!(
                f,
                "ran out of memory (limit {} MiB); raise limits.memory or use less",
                limit_bytes >> 20
            ),
            Self::NeverListened { place, waited } => write!(
                f,
                "did not listen on {place} within {} s; serve HTTP there, or give it an fprocess",
                waited.as_secs_f32()
            ),
            Self::Unhealthy { reason, times } => {
                write!(f, "was not healthy: {reason}, {times} times in a row; it is replaced")
            }
            Self::CannotStart { reason } => write!(f, "could not be started: {reason}"),
            Self::Stopped => write!(f, "was stopped"),
            Self::Lost => write!(f, "vanished: its sandbox was ended from outside"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL (illegal instruction)",
        6 => "SIGABRT (it aborted)",
        7 => "SIGBUS (bus error)",
        8 => "SIGFPE (arithmetic error)",
        9 => "SIGKILL",
        11 => "SIGSEGV (segmentation fault)",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS (a system call the sandbox forbids)",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let said = |exit: Exit| format!("replica a-1 {exit}");
        assert_eq!(
            said(Exit::OutOfMemory { limit_bytes: 128 << 20 }),
            "replica a-1 ran out of memory (limit 128 MiB); raise limits.memory or use less"
        );
        assert_eq!(
            said(Exit::Signal { signal: 11 }),
            "replica a-1 was ended by SIGSEGV (segmentation fault)"
        );
        assert_eq!(said(Exit::Code { code: 3 }), "replica a-1 crashed with exit code 3");
        let never =
            Exit::NeverListened { place: "port 8080".into(), waited: Duration::from_secs(60) };
        assert!(said(never).contains("did not listen on port 8080 within 60 s"));
    }

    #[test]
    fn exits_keep_their_meaning_on_disk() {
        let exit = Exit::OutOfMemory { limit_bytes: 5 };
        let text = serde_json::to_string(&exit).unwrap();
        assert_eq!(text, r#"{"why":"out_of_memory","limit_bytes":5}"#);
        assert_eq!(serde_json::from_str::<Exit>(&text).unwrap(), exit);
    }
}
