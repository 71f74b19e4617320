//! From a pipe to lines: cut at line feeds, limited in length, whatever bytes come.

use pinnace_core::limits;
use time::OffsetDateTime;

use super::{Line, Source};

/// Collects the lines of one stream of one replica.
#[derive(Debug)]
pub(super) struct LineReader {
    instance: String,
    source: Source,
    partial: Vec<u8>,
    cut_bytes: usize,
}

impl LineReader {
    pub(super) fn new(instance: String, source: Source) -> Self {
        Self { instance, source, partial: Vec::new(), cut_bytes: 0 }
    }

    /// Takes bytes in and hands out the lines that they complete.
    pub(super) fn push(&mut self, bytes: &[u8], time: OffsetDateTime, lines: &mut Vec<Line>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.take(&rest[..end]);
            lines.push(self.line(time));
            rest = &rest[end + 1..];
        }
        self.take(rest);
    }

    /// The stream has ended: what is left is a line too.
    pub(super) fn finish(&mut self, time: OffsetDateTime) -> Option<Line> {
        (!self.partial.is_empty()).then(|| self.line(time))
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = limits::LOG_LINE_BYTES_MAX - self.partial.len();
        let (kept, cut) = bytes.split_at(bytes.len().min(room));
        self.partial.extend_from_slice(kept);
        self.cut_bytes += cut.len();
    }

    fn line(&mut self, time: OffsetDateTime) -> Line {
        let mut text = String::from_utf8_lossy(&self.partial).trim_end_matches('\r').to_owned();
        if self.cut_bytes > 0 {
            text.push_str(&format!(" [{} bytes cut]", self.cut_bytes));
        }
        self.partial.clear();
        self.cut_bytes = 0;
        Line { time, instance: self.instance.clone(), source: self.source, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<String> {
        let mut reader = LineReader::new("a-1".into(), Source::Stdout);
        let mut lines = Vec::new();
        let time = OffsetDateTime::UNIX_EPOCH;
        for chunk in chunks {
            reader.push(chunk, time, &mut lines);
        }
        lines.extend(reader.finish(time));
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_put_together_over_reads() {
        assert_eq!(read(&[b"a\nb", b"c\r\n\n", b"end"]), ["a", "bc", "", "end"]);
        assert_eq!(read(&[]), Vec::<String>::new());
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        let long = vec![b'x'; limits::LOG_LINE_BYTES_MAX + 5];
        let lines = read(&[&long, b"yy\nnext\n"]);
        assert!(lines[0].ends_with("x [7 bytes cut]"));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(read(&[b"\xff\xfe ok\n"]), ["\u{fffd}\u{fffd} ok"]);
    }
}
