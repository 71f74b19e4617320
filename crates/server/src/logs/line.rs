//! One line of a log, and its form in a file: `TIME INSTANCE SOURCE text`.

use pinnace_core::{FunctionRef, wire::LogMessage};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A line that a replica printed, or that the platform says about its log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When it was read.
    pub time: OffsetDateTime,
    /// The replica.
    pub instance: String,
    /// Where it came from.
    pub source: Source,
    /// The text, without its line feed.
    pub text: String,
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The platform: lines were lost.
    Platform,
}

impl Source {
    const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Platform];

    /// Its word in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Platform => "pinnace",
        }
    }
}

impl Line {
    /// A sentence of the platform about a function's log.
    #[must_use]
    pub fn platform(instance: &str, text: String) -> Self {
        let time = OffsetDateTime::now_utc();
        Self { time, instance: instance.to_owned(), source: Source::Platform, text }
    }

    /// Appends the line as it stands in a file.
    pub fn write_to(&self, buffer: &mut String) {
        buffer.push_str(&timestamp(self.time));
        for part in [self.instance.as_str(), self.source.as_str(), self.text.as_str()] {
            buffer.push(' ');
            buffer.push_str(part);
        }
        buffer.push('\n');
    }

    /// Reads a line of a file. `None` if it is none, such as one that a full disk cut short.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (time, rest) = text.split_once(' ')?;
        let (instance, rest) = rest.split_once(' ')?;
        let (word, text) = rest.split_once(' ')?;
        let source = Source::ALL.into_iter().find(|source| source.as_str() == word)?;
        let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
        Some(Self { time, instance: instance.to_owned(), source, text: text.to_owned() })
    }

    /// The line as clients get it.
    #[must_use]
    pub fn message(self, function: &FunctionRef) -> LogMessage {
        LogMessage {
            name: function.name().to_owned(),
            namespace: function.namespace().to_owned(),
            timestamp: timestamp(self.time),
            instance: self.instance,
            text: self.text,
        }
    }
}

fn timestamp(time: OffsetDateTime) -> String {
    // RFC 3339 can say every year that a clock of this century can.
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_from_files_as_they_were() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_789).unwrap();
        for text in ["hello", "", " spaces  kept ", "ünï\u{fffd}"] {
            let (instance, source) = ("a-1".to_owned(), Source::Stderr);
            let line = Line { time, instance, source, text: text.to_owned() };
            let mut buffer = String::new();
            line.write_to(&mut buffer);
            assert_eq!(Line::read(buffer.trim_end_matches('\n')), Some(line));
        }
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        for text in ["", "2026", "2026-01-01T00:00:00Z a", "yesterday a stdout x", "\0\0\0\0"] {
            assert_eq!(Line::read(text), None, "{text:?}");
        }
    }
}
