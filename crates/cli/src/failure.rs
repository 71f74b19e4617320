//! How a command ends when it fails: what is printed, and the exit code.
//!
//! 1 is a failure, 2 a wrong command line (clap's own errors are 2 as well).

use std::{fmt, io, process::ExitCode};

use crate::output;

/// The command line asks for something that cannot be meant; nothing was done.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A wrong command line, as an error.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Prints an error to standard error, its causes with it, and tells the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_output(error) {
        // `pinnace list | head` has read all it wanted.
        return ExitCode::SUCCESS;
    }
    output::complain(&format!("{error:#}"));
    ExitCode::from(if error.downcast_ref::<Usage>().is_some() { 2 } else { 1 })
}

fn is_closed_output(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let code = |error: anyhow::Error| format!("{:?}", report(&error));
        assert_eq!(code(usage("no")), format!("{:?}", ExitCode::from(2)));
        assert_eq!(code(anyhow::anyhow!("failed")), format!("{:?}", ExitCode::from(1)));
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(code(closed.into()), format!("{:?}", ExitCode::SUCCESS));
    }

    #[test]
    fn usage_is_still_usage_under_a_context() {
        let error = usage("no name").context("deploying");
        assert_eq!(format!("{:?}", report(&error)), format!("{:?}", ExitCode::from(2)));
    }
}
