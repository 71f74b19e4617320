//! What builds say, a line at a time: to people, and kept in case of a failure.

use std::{collections::VecDeque, sync::Mutex};

use pinnace_core::limits;

use crate::output::{printable, remark};

/// The log of one build.
#[derive(Debug)]
pub struct Log {
    /// What stands before each line; nothing if there is one build alone.
    prefix: String,
    /// Whether lines are shown only if the build fails.
    is_quiet: bool,
    last: Mutex<VecDeque<String>>,
}

impl Log {
    /// The log of a function's build.
    pub fn new(name: &str, is_alone: bool, is_quiet: bool) -> Self {
        let prefix = if is_alone { String::new() } else { format!("{name} | ") };
        Self { prefix, is_quiet, last: Mutex::default() }
    }

    /// A line that a builder wrote.
    pub fn line(&self, line: &str) {
        let line = line.trim_end();
        // A progress bar writes over its line; the last state is what is left of it.
        let line = line.rsplit('\r').next().unwrap_or_default();
        let mut end = line.len().min(limits::BUILD_LOG_LINE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let line = printable(&line[..end]);
        if !self.is_quiet {
            remark(&format!("{}{line}", self.prefix));
            return;
        }
        let Ok(mut last) = self.last.lock() else { return };
        if last.len() == limits::BUILD_LOG_LINES_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }

    /// What a quiet build said last.
    #[cfg(test)]
    pub fn kept(&self) -> Vec<String> {
        self.last.lock().map(|last| last.iter().cloned().collect()).unwrap_or_default()
    }

    /// Shows what was not, because the build failed.
    pub fn show_last(&self) {
        let Ok(mut last) = self.last.lock() else { return };
        for line in last.drain(..) {
            remark(&format!("{}{line}", self.prefix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_quiet_build_are_kept() {
        let log = Log::new("f", true, true);
        for number in 0..limits::BUILD_LOG_LINES_MAX + 2 {
            log.line(&format!("10%\r{number}\n"));
        }
        log.line(&"ä".repeat(limits::BUILD_LOG_LINE_BYTES_MAX));
        let last = log.last.lock().unwrap();
        assert_eq!(last.len(), limits::BUILD_LOG_LINES_MAX);
        assert_eq!(last[0], "3");
        assert!(last.back().unwrap().len() <= limits::BUILD_LOG_LINE_BYTES_MAX);
    }
}
