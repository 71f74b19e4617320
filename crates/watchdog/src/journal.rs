//! What the watchdog writes to its standard output and standard error.
//!
//! Whoever reads these may be slow or gone, and no call may wait for a log. So lines are put into a
//! bounded buffer, and a thread of its own, the only one that may block, writes the buffer out. It
//! gathers lines for a moment first: a call then costs a copy instead of a system call.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    os::fd::BorrowedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pinnace_core::limits::LOG_BACKLOG_BYTES_MAX;
use tokio::sync::Notify;

/// How long lines are gathered before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(5);
/// Bytes that are written without gathering any longer.
const GATHERED_BYTES: usize = 16 << 10;
/// How long the last lines may take when the watchdog ends.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
const THREAD_STACK_BYTES: usize = 64 << 10;

/// The two streams.
#[derive(Clone, Debug)]
pub struct Journal {
    out: Arc<Stream>,
    err: Arc<Stream>,
}

/// Which of the child's streams a line came from, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Source {
    /// Its name in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

impl Journal {
    /// Starts the threads that write.
    pub fn start() -> std::io::Result<Self> {
        let out = Stream::start("log-stdout", rustix::stdio::stdout())?;
        let err = Stream::start("log-stderr", rustix::stdio::stderr())?;
        Ok(Self { out, err })
    }

    /// Writes a line of the watchdog's own. It is left out, and counted, if the log is not read.
    pub fn say(&self, line: fmt::Arguments<'_>) {
        self.err.say(line);
    }

    /// Hands on text of the child, whole lines with their prefix; waits while the log is not read.
    pub async fn pass(&self, source: Source, text: &[u8]) {
        let stream = match source {
            Source::Out => &self.out,
            Source::Err => &self.err,
        };
        stream.pass(text).await;
    }

    /// Writes out what is left, for at most a second.
    pub fn finish(&self) {
        let end = Instant::now() + LAST_WORDS_MAX;
        self.out.finish(end);
        self.err.finish(end);
    }
}

#[derive(Debug)]
struct Stream {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    left_out: u64,
    writing: bool,
    hurry: bool,
    stamp: Stamp,
}

impl Stream {
    fn start(name: &str, fd: BorrowedFd<'static>) -> std::io::Result<Arc<Self>> {
        let stream = Arc::new(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            room: Notify::new(),
        });
        let writer = Arc::clone(&stream);
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || writer.write_for_ever(fd))?;
        Ok(stream)
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        let mut state = self.lock();
        if state.waiting.len() >= LOG_BACKLOG_BYTES_MAX {
            state.left_out += 1;
            return;
        }
        let before = state.waiting.len();
        state.tell_left_out();
        state.line(line);
        self.wake(state, before);
    }

    async fn pass(&self, text: &[u8]) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            if self.put(text) {
                return;
            }
            room.await;
        }
    }

    fn put(&self, text: &[u8]) -> bool {
        let mut state = self.lock();
        if state.waiting.len() >= LOG_BACKLOG_BYTES_MAX {
            return false;
        }
        let before = state.waiting.len();
        state.tell_left_out();
        state.waiting.extend_from_slice(text);
        self.wake(state, before);
        true
    }

    /// The writer sleeps only while nothing waits, and gathers until enough does: to wake it for each
    /// line would cost every call a system call.
    fn wake(&self, state: MutexGuard<'_, State>, before: usize) {
        let enough = before < GATHERED_BYTES && state.waiting.len() >= GATHERED_BYTES;
        drop(state);
        if before == 0 || enough {
            self.filled.notify_one();
        }
    }

    fn finish(&self, end: Instant) {
        let mut state = self.lock();
        state.tell_left_out();
        state.hurry = true;
        self.filled.notify_one();
        while state.writing || !state.waiting.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_for_ever(&self, fd: BorrowedFd<'_>) {
        let mut text = Vec::new();
        loop {
            self.gather(&mut text);
            write_all(fd, &text);
            text.clear();
            self.lock().writing = false;
            self.written.notify_all();
            self.room.notify_waiters();
        }
    }

    fn gather(&self, text: &mut Vec<u8>) {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let end = Instant::now() + GATHERED_FOR;
        while !state.hurry && state.waiting.len() < GATHERED_BYTES {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.filled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.writing = true;
        std::mem::swap(text, &mut state.waiting);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.waiting.extend_from_slice(self.stamp.text(SystemTime::now()).as_bytes());
        // Writing to memory cannot fail.
        let _ = writeln!(self.waiting, "{line}");
    }

    fn tell_left_out(&mut self) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            self.line(format_args!(
                "{left_out} log lines of the watchdog were left out: the log is not read fast enough"
            ));
        }
    }
}

/// A log that cannot be written to has nobody to tell.
fn write_all(fd: BorrowedFd<'_>, mut text: &[u8]) {
    while !text.is_empty() {
        match rustix::io::write(fd, text) {
            Ok(written) => text = &text[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(fd),
            Err(_) => return,
        }
    }
}

fn wait_writable(fd: BorrowedFd<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
}

/// Date and time as they begin a log line, made anew once a second.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    text: String,
}

impl Stamp {
    /// `2026/05/13 10:20:30 `, in UTC.
    pub fn text(&mut self, now: SystemTime) -> &str {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let at = time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(second));
            let (date, time) = (at.date(), at.time());
            let _ = write!(
                self.text,
                "{:04}/{:02}/{:02} {:02}:{:02}:{:02} ",
                date.year(),
                u8::from(date.month()),
                date.day(),
                time.hour(),
                time.minute(),
                time.second()
            );
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_changes_with_the_second() {
        let mut stamp = Stamp::default();
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(stamp.text(at(1_700_000_000_000)), "2023/11/14 22:13:20 ");
        assert_eq!(stamp.text(at(1_700_000_000_999)), "2023/11/14 22:13:20 ");
        assert_eq!(stamp.text(at(1_700_000_001_000)), "2023/11/14 22:13:21 ");
        assert_eq!(Stamp::default().text(UNIX_EPOCH), "1970/01/01 00:00:00 ");
    }

    #[test]
    fn own_lines_are_left_out_and_counted_when_nobody_reads() {
        let state =
            Mutex::new(State { waiting: vec![b'x'; LOG_BACKLOG_BYTES_MAX], ..State::default() });
        let (filled, written, room) = (Condvar::new(), Condvar::new(), Notify::new());
        let stream = Stream { state, filled, written, room };
        stream.say(format_args!("lost"));
        assert!(!stream.put(b"waits"));
        stream.lock().waiting.clear();
        assert!(stream.put(b"line\n"));
        let text = String::from_utf8(stream.lock().waiting.clone()).unwrap();
        assert!(text.contains("1 log lines of the watchdog were left out"), "{text}");
        assert!(text.ends_with("\nline\n") && !text.contains("lost"), "{text}");
    }
}
