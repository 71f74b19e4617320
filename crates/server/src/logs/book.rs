//! The thread that keeps all logs, and the handle on it.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use pinnace_core::{FunctionRef, limits, wire::LogMessage};
use time::OffsetDateTime;
use tokio::{
    net::unix::pipe,
    sync::{broadcast, mpsc, oneshot},
};

use super::{
    Line, LogQuery, Source,
    files::{LogFiles, Snapshot},
    reader::LineReader,
};
use crate::provider::Refusal;

/// Lines as a client gets them, in order; ends when they end.
pub type LogStream = mpsc::Receiver<LogMessage>;

/// Bytes read from a pipe in one go: what a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads that wait to be written.
const CHUNKS_WAITING_MAX: usize = 64;

/// Lines on their way to one client.
const LINES_UNDERWAY_MAX: usize = 64;

/// Removed functions whose replicas may still say something; more of them are not remembered.
const GONE_MAX: usize = 4096;

/// A handle on the thread that keeps all logs.
#[derive(Clone, Debug)]
pub struct LogBook {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Attach { function: FunctionRef, instance: String, source: Source, pipe: OwnedFd },
    Lines { function: FunctionRef, lines: Vec<Line> },
    Ended { function: FunctionRef },
    Forget { function: FunctionRef },
    Remember { function: FunctionRef },
    Open { function: FunctionRef, query: LogQuery, answer: oneshot::Sender<Opened> },
}

type Opened = Result<(Snapshot, Option<broadcast::Receiver<Arc<Line>>>), Refusal>;

impl LogBook {
    /// Starts the thread. Logs are kept under `dir`, at most `files_max` files of each function.
    ///
    /// # Errors
    /// No thread or no runtime could be made.
    pub fn start(dir: &Path, files_max: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commands, inbox) = mpsc::channel(CHUNKS_WAITING_MAX);
        let keeper = Shelf {
            dir: dir.to_owned(),
            files_max,
            books: HashMap::new(),
            gone: VecDeque::new(),
            commands: commands.clone(),
        };
        thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || runtime.block_on(keeper.run(inbox)))?;
        Ok(Self { commands })
    }

    /// Keeps what a replica prints into this pipe, until its end.
    pub async fn attach(
        &self,
        function: &FunctionRef,
        instance: &str,
        source: Source,
        pipe: OwnedFd,
    ) {
        let (function, instance) = (function.clone(), instance.to_owned());
        drop(self.commands.send(Command::Attach { function, instance, source, pipe }).await);
    }

    /// Removes a function's log once its last replica is silent.
    pub fn forget(&self, function: &FunctionRef) {
        self.tell(Command::Forget { function: function.clone() });
    }

    /// A function of this name is deployed: its log is wanted.
    pub fn remember(&self, function: &FunctionRef) {
        self.tell(Command::Remember { function: function.clone() });
    }

    fn tell(&self, command: Command) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
            let commands = self.commands.clone();
            tokio::spawn(async move { commands.send(command).await });
        }
    }

    /// The lines that a client asks for.
    ///
    /// # Errors
    /// Too many follow this function already, or the server is ending.
    pub async fn open(
        &self,
        function: &FunctionRef,
        query: LogQuery,
    ) -> Result<LogStream, Refusal> {
        let closed = || Refusal::Broken("the log is closed: the server is ending".to_owned());
        let (answer, opened) = oneshot::channel();
        let command = Command::Open { function: function.clone(), query: query.clone(), answer };
        self.commands.send(command).await.map_err(|_| closed())?;
        let (snapshot, live) = opened.await.map_err(|_| closed())??;
        let (lines, stream) = mpsc::channel(LINES_UNDERWAY_MAX);
        tokio::spawn(send_lines(function.clone(), query, snapshot, live, lines));
        Ok(stream)
    }
}

/// Sends what was kept, then what comes.
async fn send_lines(
    function: FunctionRef,
    query: LogQuery,
    snapshot: Snapshot,
    live: Option<broadcast::Receiver<Arc<Line>>>,
    lines: mpsc::Sender<LogMessage>,
) {
    let history = {
        let (function, query, lines) = (function.clone(), query.clone(), lines.clone());
        tokio::task::spawn_blocking(move || {
            snapshot.read(&query, |line| lines.blocking_send(line.message(&function)).is_ok());
        })
    };
    if history.await.is_err() {
        return;
    }
    let Some(mut live) = live else { return };
    loop {
        let received = tokio::select! {
            received = live.recv() => received,
            () = lines.closed() => return,
        };
        let line = match received {
            Ok(line) if query.wants(&line) => Line::clone(&line),
            Ok(_) => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                Line::platform("", format!("{missed} lines left out: the reader was too slow"))
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if lines.send(line.message(&function)).await.is_err() {
            return;
        }
    }
}

/// All logs, on their thread.
struct Shelf {
    dir: PathBuf,
    files_max: usize,
    books: HashMap<FunctionRef, Book>,
    /// Functions that were removed: a replica that was being started then may attach its pipes later.
    gone: VecDeque<FunctionRef>,
    commands: mpsc::Sender<Command>,
}

/// The log of one function.
struct Book {
    files: LogFiles,
    /// There once somebody has followed it: it has room for all lines that a follower may be behind.
    live: Option<broadcast::Sender<Arc<Line>>>,
    pipes: usize,
    forgotten: bool,
    lost_lines: u64,
}

impl Shelf {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Attach { function, instance, source, pipe } => {
                    self.attach(function, instance, source, pipe);
                }
                Command::Lines { function, lines } => self.book(&function).keep(&lines),
                Command::Ended { function } => {
                    self.book(&function).pipes -= 1;
                    self.clear(&function);
                }
                Command::Forget { function } => {
                    self.book(&function).forgotten = true;
                    self.clear(&function);
                    self.gone.truncate(GONE_MAX - 1);
                    self.gone.push_front(function);
                }
                Command::Remember { function } => {
                    self.gone.retain(|gone| *gone != function);
                    if let Some(book) = self.books.get_mut(&function) {
                        book.forgotten = false;
                    }
                }
                Command::Open { function, query, answer } => {
                    let opened = self.book(&function).open(query.follow, &function);
                    drop(answer.send(opened));
                    self.clear(&function);
                }
            }
        }
    }

    fn book(&mut self, function: &FunctionRef) -> &mut Book {
        self.books.entry(function.clone()).or_insert_with(|| {
            let dir = self.dir.join(function.namespace()).join(function.name());
            Book {
                files: LogFiles::new(dir, self.files_max),
                forgotten: self.gone.contains(function),
                live: None,
                pipes: 0,
                lost_lines: 0,
            }
        })
    }

    /// Puts a book away that nobody writes or follows; burns it if its function is gone.
    fn clear(&mut self, function: &FunctionRef) {
        let Some(book) = self.books.get_mut(function) else { return };
        if book.pipes > 0 {
            return;
        }
        if book.forgotten {
            book.files.remove();
        }
        if book.forgotten || book.followers() == 0 {
            self.books.remove(function);
        }
    }

    fn attach(&mut self, function: FunctionRef, instance: String, source: Source, pipe: OwnedFd) {
        let receiver = match pipe::Receiver::from_owned_fd(pipe) {
            Ok(receiver) => receiver,
            Err(error) => {
                tracing::error!(%function, %instance, %error, "a replica's output cannot be read");
                return;
            }
        };
        let book = self.book(&function);
        book.pipes += 1;
        let reader = LineReader::new(instance, source);
        tokio::spawn(read_pipe(function, receiver, reader, self.commands.clone()));
    }
}

impl Book {
    fn keep(&mut self, lines: &[Line]) {
        let mut text = String::new();
        if self.lost_lines > 0 {
            let lost = format!("{} lines lost: the disk took none", self.lost_lines);
            Line::platform("-", lost).write_to(&mut text);
        }
        lines.iter().for_each(|line| line.write_to(&mut text));
        match self.files.write(&text) {
            Ok(()) => self.lost_lines = 0,
            Err(error) => {
                if self.lost_lines == 0 {
                    tracing::error!(%error, "log lines are lost");
                }
                self.lost_lines += lines.len() as u64;
            }
        }
        if let Some(live) = self.live.as_ref().filter(|live| live.receiver_count() > 0) {
            for line in lines {
                drop(live.send(Arc::new(line.clone())));
            }
        }
    }

    fn followers(&self) -> usize {
        self.live.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    fn open(&mut self, follow: bool, function: &FunctionRef) -> Opened {
        if follow && self.followers() >= limits::LOG_FOLLOWERS_PER_FUNCTION_MAX {
            return Err(Refusal::Busy(format!(
                "{} clients follow the log of function {function} already, the most that may \
                 (LOG_FOLLOWERS_PER_FUNCTION_MAX); end one, or ask with follow=false",
                limits::LOG_FOLLOWERS_PER_FUNCTION_MAX
            )));
        }
        let live = follow.then(|| {
            let new = || broadcast::Sender::new(limits::LOG_LINES_BEHIND_MAX);
            self.live.get_or_insert_with(new).subscribe()
        });
        Ok((self.files.snapshot(), live))
    }
}

thread_local! {
    /// What all pipes are read into, in turn: each would have a buffer of its own that is empty nearly always.
    static CHUNK: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK_BYTES]);
}

async fn read_pipe(
    function: FunctionRef,
    receiver: pipe::Receiver,
    mut reader: LineReader,
    commands: mpsc::Sender<Command>,
) {
    loop {
        let mut lines = Vec::new();
        let read = receiver.readable().await.and_then(|()| {
            CHUNK.with_borrow_mut(|chunk| {
                let read = receiver.try_read(chunk)?;
                reader.push(&chunk[..read], OffsetDateTime::now_utc(), &mut lines);
                Ok(read)
            })
        });
        let read = match read {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => {
                tracing::warn!(%function, %error, "a replica's output broke off");
                0
            }
        };
        if read == 0 {
            lines.extend(reader.finish(OffsetDateTime::now_utc()));
        }
        if !lines.is_empty() {
            drop(commands.send(Command::Lines { function: function.clone(), lines }).await);
        }
        if read == 0 {
            drop(commands.send(Command::Ended { function }).await);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use super::*;

    fn function() -> FunctionRef {
        FunctionRef::new("a", "").unwrap()
    }

    async fn next(stream: &mut LogStream) -> Option<String> {
        let received = tokio::time::timeout(Duration::from_secs(5), stream.recv()).await;
        received.expect("a line or the end within 5 s").map(|message| message.text)
    }

    fn pipe() -> (OwnedFd, std::fs::File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (read, std::fs::File::from(write))
    }

    #[tokio::test]
    async fn lines_are_followed_live_and_outlive_the_replica() {
        let dir = tempfile::tempdir().unwrap();
        let book = LogBook::start(dir.path(), 2).unwrap();
        let follow = LogQuery { follow: true, ..LogQuery::default() };
        let mut live = book.open(&function(), follow).await.unwrap();
        let (read, mut write) = pipe();
        book.attach(&function(), "a-1", Source::Stdout, read).await;
        write.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(next(&mut live).await.unwrap(), "one");
        assert_eq!(next(&mut live).await.unwrap(), "two");
        drop(write);
        assert_eq!(next(&mut live).await.unwrap(), "thr", "the end of the pipe ends the line");
        let mut kept = book.open(&function(), LogQuery::default()).await.unwrap();
        for text in ["one", "two", "thr"] {
            assert_eq!(next(&mut kept).await.unwrap(), text);
        }
        assert_eq!(next(&mut kept).await, None, "without follow the stream ends");
    }

    #[tokio::test]
    async fn a_removed_functions_log_goes_when_its_replica_is_silent() {
        let dir = tempfile::tempdir().unwrap();
        let book = LogBook::start(dir.path(), 2).unwrap();
        let (read, mut write) = pipe();
        book.attach(&function(), "a-1", Source::Stderr, read).await;
        book.forget(&function());
        write.write_all(b"last words\n").unwrap();
        drop(write);
        let log = dir.path().join("openfaas-fn/a");
        tokio::time::timeout(Duration::from_secs(5), async {
            while log.exists() || book.commands.capacity() < CHUNKS_WAITING_MAX {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the log is removed within 5 s");
    }

    #[tokio::test]
    async fn a_replica_that_attaches_after_its_function_was_removed_leaves_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let book = LogBook::start(dir.path(), 2).unwrap();
        book.forget(&function());
        let (read, mut write) = pipe();
        book.attach(&function(), "a-1", Source::Stdout, read).await;
        let mut follower = {
            let follow = LogQuery { follow: true, ..LogQuery::default() };
            book.open(&function(), follow).await.unwrap()
        };
        write.write_all(b"late\n").unwrap();
        assert_eq!(next(&mut follower).await.unwrap(), "late");
        let log = dir.path().join("openfaas-fn/a");
        assert!(log.exists());
        drop(write);
        assert_eq!(next(&mut follower).await, None);
        assert!(!log.exists());
    }

    #[tokio::test]
    async fn followers_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let book = LogBook::start(dir.path(), 2).unwrap();
        let follow = LogQuery { follow: true, ..LogQuery::default() };
        let mut open = Vec::new();
        for _ in 0..limits::LOG_FOLLOWERS_PER_FUNCTION_MAX {
            open.push(book.open(&function(), follow.clone()).await.unwrap());
        }
        let refused = book.open(&function(), follow).await.unwrap_err();
        assert!(matches!(refused, Refusal::Busy(_)), "{refused}");
    }
}
