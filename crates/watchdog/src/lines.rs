//! The child's output on its way to the log: cut into lines, each with its prefix.

use std::time::SystemTime;

use pinnace_core::limits::LOG_LINE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    journal::{Journal, Source, Stamp},
    settings::LogSettings,
};

/// Bytes read in one go.
const CHUNK_BYTES: usize = 8 << 10;
/// The same before anything was written: most processes say nothing.
const FIRST_CHUNK_BYTES: usize = 512;

/// Cuts text into log lines. Pure: what comes in one end goes out the other.
#[derive(Debug)]
pub struct Lines {
    settings: LogSettings,
    source: Source,
    stamp: Stamp,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    state: State,
    /// Lines left out since [`Lines::take_overlong`] was asked.
    overlong: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At a line's beginning, or within one that is held.
    Held,
    /// Within a line that is too long to be held and is passed on in pieces.
    Passing,
    /// Within a line that is left out.
    LeavingOut,
}

impl Lines {
    /// For one of the child's streams.
    pub fn new(settings: LogSettings, source: Source) -> Self {
        let stamp = Stamp::default();
        Self { settings, source, stamp, begun: Vec::new(), state: State::Held, overlong: 0 }
    }

    /// Takes text in; appends what is to be logged to `out`.
    pub fn feed(&mut self, mut text: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            self.part(&text[..end], now, out);
            self.end_line(now, out);
            text = &text[end + 1..];
        }
        self.part(text, now, out);
    }

    /// The stream has ended: a last line without a line feed is logged too.
    pub fn finish(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        if self.state != State::Held || !self.begun.is_empty() {
            self.end_line(now, out);
        }
    }

    /// How many lines were left out since it was last asked.
    pub fn take_overlong(&mut self) -> u64 {
        std::mem::take(&mut self.overlong)
    }

    fn part(&mut self, part: &[u8], now: SystemTime, out: &mut Vec<u8>) {
        match (self.state, self.settings.line_bytes_max) {
            (State::LeavingOut, _) => {}
            (State::Passing, _) => out.extend_from_slice(part),
            (State::Held, Some(max)) if self.begun.len() + part.len() >= max => {
                self.begun = Vec::new();
                self.state = State::LeavingOut;
                self.overlong += 1;
            }
            (State::Held, None) if self.begun.len() + part.len() > LOG_LINE_BYTES_MAX => {
                self.prefix(now, out);
                out.append(&mut self.begun);
                out.extend_from_slice(part);
                self.state = State::Passing;
            }
            (State::Held, _) => self.begun.extend_from_slice(part),
        }
    }

    fn end_line(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.state, State::Held) {
            State::LeavingOut => return,
            State::Passing => {}
            State::Held => {
                self.prefix(now, out);
                let line = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
                out.extend_from_slice(line);
                self.begun.clear();
            }
        }
        out.push(b'\n');
    }

    fn prefix(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        if self.settings.prefix {
            out.extend_from_slice(self.stamp.text(now).as_bytes());
            out.extend_from_slice(self.source.name().as_bytes());
            out.extend_from_slice(b": ");
        }
    }
}

/// Says that a stream's text will be logged.
pub fn announce(source: Source, journal: &Journal) {
    journal.say(format_args!("Started logging: {} from function.", source.name()));
}

/// Carries one of the child's streams to the log until it ends.
pub async fn pump(
    mut from: impl AsyncRead + Unpin,
    source: Source,
    settings: LogSettings,
    journal: Journal,
) {
    let mut lines = Lines::new(settings, source);
    let (mut chunk, mut out) = (Vec::with_capacity(FIRST_CHUNK_BYTES), Vec::new());
    loop {
        // A stream that fails has ended: its process is gone.
        let read = from.read_buf(&mut chunk).await.unwrap_or(0);
        match read {
            0 => lines.finish(SystemTime::now(), &mut out),
            _ => lines.feed(&chunk, SystemTime::now(), &mut out),
        }
        if !out.is_empty() {
            journal.pass(source, &out).await;
            out.clear();
        }
        tell_overlong(&mut lines, source, settings, &journal);
        if read == 0 {
            return;
        }
        chunk.clear();
        chunk.reserve(CHUNK_BYTES);
    }
}

fn tell_overlong(lines: &mut Lines, source: Source, settings: LogSettings, journal: &Journal) {
    let (count, max) = (lines.take_overlong(), settings.line_bytes_max.unwrap_or(0));
    if count > 0 {
        journal.say(format_args!(
            "Error reading {}: bufio.Scanner: token too long ({count} lines of {max} bytes or more were \
             left out; log_buffer_size moves this limit, -1 lifts it)",
            source.name()
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn logged(prefix: bool, max: Option<usize>, parts: &[&str]) -> (String, u64) {
        let mut lines = Lines::new(LogSettings { prefix, line_bytes_max: max }, Source::Out);
        let mut out = Vec::new();
        for part in parts {
            lines.feed(part.as_bytes(), UNIX_EPOCH, &mut out);
        }
        lines.finish(UNIX_EPOCH, &mut out);
        (String::from_utf8(out).unwrap(), lines.take_overlong())
    }

    #[test]
    fn lines_get_a_prefix_whole_whatever_the_parts() {
        let (text, _) = logged(true, Some(100), &["he", "llo\n\nca", "rriage\r\nlast"]);
        let stamp = "1970/01/01 00:00:00 stdout: ";
        assert_eq!(text, format!("{stamp}hello\n{stamp}\n{stamp}carriage\n{stamp}last\n"));
        assert_eq!(logged(false, Some(100), &["a\r\n", "b\n"]).0, "a\nb\n");
        assert_eq!(logged(true, Some(100), &[]).0, "");
    }

    #[test]
    fn a_line_at_the_limit_is_left_out_and_the_next_is_not() {
        let (text, overlong) = logged(false, Some(4), &["abc\nabcd\nef", "ghi", "j\nk\n"]);
        assert_eq!((text.as_str(), overlong), ("abc\nk\n", 2));
    }

    #[test]
    fn without_a_limit_long_lines_pass_and_are_not_held() {
        let long = "f".repeat(LOG_LINE_BYTES_MAX);
        let mut lines = Lines::new(LogSettings { prefix: true, line_bytes_max: None }, Source::Err);
        let mut out = Vec::new();
        for _ in 0..3 {
            lines.feed(long.as_bytes(), UNIX_EPOCH, &mut out);
            assert!(lines.begun.len() <= LOG_LINE_BYTES_MAX);
        }
        lines.feed(b"\nafter", UNIX_EPOCH, &mut out);
        lines.finish(UNIX_EPOCH, &mut out);
        let text = String::from_utf8(out).unwrap();
        let stamp = "1970/01/01 00:00:00 stderr: ";
        assert_eq!(text, format!("{stamp}{}\n{stamp}after\n", long.repeat(3)));
    }
}
