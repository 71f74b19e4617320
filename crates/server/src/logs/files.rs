//! The files of one function's log: numbered, limited in size and number.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use pinnace_core::limits;

use super::{Line, LogQuery};

/// The files of one function, open for writing.
#[derive(Debug)]
pub(super) struct LogFiles {
    dir: PathBuf,
    files_max: usize,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    file: File,
    number: u64,
    bytes: u64,
}

/// What was in the files at one moment: paths, and how many bytes of each.
#[derive(Debug, Default)]
pub(super) struct Snapshot(Vec<(PathBuf, u64)>);

impl LogFiles {
    /// The files in `dir`, which is made when the first line is written.
    pub(super) fn new(dir: PathBuf, files_max: usize) -> Self {
        Self { dir, files_max: files_max.max(1), current: None }
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &str) -> io::Result<()> {
        if self.current.as_ref().is_none_or(|c| c.bytes >= limits::LOG_FILE_BYTES_MAX) {
            self.next_file()?;
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        let written = current.file.write_all(lines.as_bytes());
        match &written {
            Ok(()) => current.bytes += lines.len() as u64,
            // A full disk may have taken a part. If it stays all the same, the next line is spoiled, no more.
            Err(_) => drop(current.file.set_len(current.bytes)),
        }
        written
    }

    /// What is there now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let files = numbered(&self.dir).into_iter();
        Snapshot(
            files
                .filter_map(|(_, path)| Some((path.clone(), fs::metadata(path).ok()?.len())))
                .collect(),
        )
    }

    /// Removes all files.
    pub(super) fn remove(&mut self) {
        self.current = None;
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a removed function's log stays");
        }
    }

    fn next_file(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let there = numbered(&self.dir);
        let last = there.last().map(|(number, path)| (*number, path.clone()));
        let (number, path) = match (&self.current, last) {
            // After a start the last file is gone on with, if it has room.
            (None, Some((number, path))) => {
                let full = fs::metadata(&path)?.len() >= limits::LOG_FILE_BYTES_MAX;
                if full { (number + 1, self.path(number + 1)) } else { (number, path) }
            }
            (Some(current), _) => (current.number + 1, self.path(current.number + 1)),
            (None, None) => (1, self.path(1)),
        };
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        self.current = Some(Current { file, number, bytes });
        for (_, path) in numbered(&self.dir).into_iter().rev().skip(self.files_max) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:010}.log"))
    }
}

impl Snapshot {
    /// Hands the wanted lines to `show` in order, until it says that nobody listens any more.
    pub(super) fn read(self, query: &LogQuery, mut show: impl FnMut(Line) -> bool) {
        let Some(tail) = query.tail else {
            self.each(query, &mut show);
            return;
        };
        let mut last = VecDeque::with_capacity(tail.min(limits::LOG_LINES_BEHIND_MAX));
        self.each(query, &mut |line| {
            if last.len() == tail {
                last.pop_front();
            }
            if tail > 0 {
                last.push_back(line);
            }
            true
        });
        let _ = last.into_iter().all(show);
    }

    fn each(self, query: &LogQuery, show: &mut dyn FnMut(Line) -> bool) {
        for (path, bytes) in self.0 {
            // A file that rotation has removed meanwhile is passed over.
            let Ok(file) = File::open(path) else { continue };
            let mut reader = BufReader::new(file.take(bytes));
            let mut raw = Vec::new();
            while reader.read_until(b'\n', &mut raw).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&raw);
                let line = Line::read(text.trim_end_matches('\n')).filter(|l| query.wants(l));
                if line.is_some_and(|line| !show(line)) {
                    return;
                }
                raw.clear();
            }
        }
    }
}

/// The log files of a directory by number, oldest first.
fn numbered(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let number = |path: &Path| path.file_stem()?.to_str()?.parse().ok();
    let mut files: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:00Z a-1 stdout {text}\n")
    }

    fn texts(files: &LogFiles, query: &LogQuery) -> Vec<String> {
        let mut texts = Vec::new();
        files.snapshot().read(query, |line| {
            texts.push(line.text);
            true
        });
        texts
    }

    #[test]
    fn old_files_go_and_a_restart_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::new(dir.path().join("f"), 2);
        let filler = line(&"x".repeat(1 << 20)).repeat(8);
        for round in 0..4 {
            files.write(&line(&format!("begin {round}"))).unwrap();
            files.write(&filler).unwrap();
        }
        assert_eq!(numbered(&dir.path().join("f")).len(), 2);
        let mut again = LogFiles::new(dir.path().join("f"), 2);
        again.write(&line("after")).unwrap();
        let kept = texts(&again, &LogQuery::default());
        assert!(!kept.contains(&"begin 1".to_owned()) && kept.contains(&"begin 3".to_owned()));
        assert_eq!(kept.last().unwrap(), "after");
        assert_eq!(numbered(&dir.path().join("f")).len(), 2);
    }

    #[test]
    fn tail_since_and_instance_choose() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::new(dir.path().join("f"), 2);
        for n in 0..5 {
            files.write(&line(&n.to_string())).unwrap();
        }
        files.write("2027-01-01T00:00:00Z b-2 stderr late\n").unwrap();
        files.write("2027-01-01T00:00:00Z cut sho").unwrap();
        let with = |change: fn(&mut LogQuery)| {
            let mut query = LogQuery::default();
            change(&mut query);
            texts(&files, &query)
        };
        assert_eq!(with(|q| q.tail = Some(2)), ["4", "late"]);
        assert_eq!(with(|q| q.tail = Some(0)), Vec::<String>::new());
        assert_eq!(with(|q| q.instance = Some("b-2".into())), ["late"]);
        let since = time::macros::datetime!(2026-06-01 0:00 UTC);
        let mut query = LogQuery { since: Some(since), ..LogQuery::default() };
        assert_eq!(texts(&files, &query), ["late"]);
        query.since = None;
        assert_eq!(texts(&files, &query).len(), 6);
    }
}
