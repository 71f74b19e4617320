//! A build's log: what its commands print, line by line, and what the builder says itself.

use pinnace_core::limits::BUILD_LINE_BYTES_MAX;
use tokio::sync::mpsc;

use super::{BuildEvent, Built};
use crate::provider::sandbox::Printed;

/// Where a build tells what happens. Who reads slowly makes it wait.
#[derive(Clone, Debug)]
pub struct Log(mpsc::Sender<BuildEvent>);

impl Log {
    /// A log that is read at the other end.
    pub fn new(events: mpsc::Sender<BuildEvent>) -> Self {
        Self(events)
    }

    /// Says a line. Where nobody listens it is lost: the build is ended for that.
    pub async fn say(&self, line: impl Into<String>) {
        drop(self.0.send(BuildEvent::Line(line.into())).await);
    }

    /// Says how the build has ended.
    pub async fn end(&self, ended: Result<Built, String>) {
        drop(self.0.send(BuildEvent::Ended(ended)).await);
    }

    /// Says what a command prints, until it prints no more.
    pub async fn follow(&self, mut printed: mpsc::Receiver<Printed>) {
        let mut streams = [Lines::default(), Lines::default()];
        while let Some(Printed { is_error, bytes }) = printed.recv().await {
            for line in streams[usize::from(is_error)].take(&bytes) {
                self.say(line).await;
            }
        }
        for line in streams.into_iter().filter_map(Lines::rest) {
            self.say(line).await;
        }
    }
}

/// A stream of bytes, taken apart into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// The lines that these bytes complete.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.0.extend_from_slice(piece);
            let is_whole = piece.ends_with(b"\n");
            while self.0.len() > BUILD_LINE_BYTES_MAX {
                let rest = self.0.split_off(BUILD_LINE_BYTES_MAX);
                lines.extend(std::mem::replace(self, Self(rest)).rest());
            }
            if is_whole {
                lines.push(text(&std::mem::take(&mut self.0)));
            }
        }
        lines
    }

    /// A last line without an end.
    fn rest(self) -> Option<String> {
        (!self.0.is_empty()).then(|| text(&self.0))
    }
}

/// A line without its end. Of what was overwritten by a carriage return (progress bars) the last state stays.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let last = line.rsplit(|&byte| byte == b'\r').next().unwrap_or(line);
    String::from_utf8_lossy(last).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"a\nb"), ["a"]);
        assert_eq!(lines.take(b"c\r\n\n10%\r20%\nd"), ["bc", "", "20%"]);
        assert_eq!(lines.rest().as_deref(), Some("d"));
        assert_eq!(Lines::default().rest(), None);
    }

    #[test]
    fn long_lines_are_cut_up() {
        let mut lines = Lines::default();
        let long = vec![b'x'; 2 * BUILD_LINE_BYTES_MAX + 1];
        let cut = lines.take(&long);
        assert_eq!(cut.iter().map(String::len).collect::<Vec<_>>(), [BUILD_LINE_BYTES_MAX; 2]);
        assert_eq!(lines.take(b"\n"), ["x"]);
    }
}
