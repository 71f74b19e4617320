//! What functions print, kept on disk beyond the replica's life and followed live.
//!
//! One thread reads the pipes of all replicas and writes each function's lines into files of limited
//! size and number. It is neither data plane nor control plane: a slow disk slows functions that print,
//! through their full pipes, and nothing else. With no server a full pipe makes the function wait.

mod book;
mod files;
mod line;
mod reader;

pub use book::{LogBook, LogStream};
pub use line::{Line, Source};

use time::OffsetDateTime;

/// Which lines are asked for.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    /// Of this replica only.
    pub instance: Option<String>,
    /// The last so many only.
    pub tail: Option<usize>,
    /// Not before this time.
    pub since: Option<OffsetDateTime>,
    /// Go on with new lines as they come.
    pub follow: bool,
}

impl LogQuery {
    fn wants(&self, line: &Line) -> bool {
        self.instance.as_ref().is_none_or(|instance| *instance == line.instance)
            && self.since.is_none_or(|since| line.time >= since)
    }
}
