//! Standard input as a call's body.
//!
//! What has come in full at once is sent with its length, as plain clients do; what is long or slow is
//! sent as it comes.

use std::{
    fs::File,
    io::{self, Cursor, Read},
    os::fd::AsFd,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::prompt_on_terminal;
use crate::{gateway::CallBody, image::Source};

/// Longest body that is held in memory to know its length.
const WHOLE_BYTES_MAX: usize = 64 << 10;

/// How long the next piece of a body may take before what there is, is sent.
const PIECE_TIME_MAX: Duration = Duration::from_millis(50);

/// Standard input.
///
/// # Errors
/// It cannot be read.
pub fn body() -> anyhow::Result<CallBody> {
    prompt_on_terminal();
    // Past the buffer of `io::stdin`, which polling does not see.
    let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    from_file(stdin).map_err(|error| anyhow::anyhow!("reading standard input: {error}"))
}

fn from_file(mut file: File) -> io::Result<CallBody> {
    let mut head = Vec::new();
    let mut buffer = vec![0; WHOLE_BYTES_MAX];
    while head.len() <= WHOLE_BYTES_MAX && (head.is_empty() || has_more(&file)?) {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(CallBody::Whole(head)),
            Ok(read) => head.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let rest = Source::new(file, "standard input");
    Ok(CallBody::Stream(Box::new(Cursor::new(head).chain(rest))))
}

/// Whether there is more to read, or the end, within a moment.
fn has_more(file: &File) -> io::Result<bool> {
    let time = Timespec::try_from(PIECE_TIME_MAX).map_err(io::Error::other)?;
    let mut watched = [PollFd::new(file, PollFlags::IN)];
    match poll(&mut watched, Some(&time)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use super::*;

    fn pipe() -> (File, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (File::from(OwnedFd::from(reader)), writer)
    }

    #[test]
    fn short_input_is_sent_whole() {
        let (reader, mut writer) = pipe();
        writer.write_all(b"hello").unwrap();
        drop(writer);
        assert!(matches!(from_file(reader).unwrap(), CallBody::Whole(bytes) if bytes == b"hello"));
        let (reader, writer) = pipe();
        drop(writer);
        assert!(matches!(from_file(reader).unwrap(), CallBody::Whole(bytes) if bytes.is_empty()));
    }

    #[test]
    fn input_that_is_not_at_its_end_is_streamed_from_its_first_byte() {
        let (reader, mut writer) = pipe();
        writer.write_all(b"first ").unwrap();
        let CallBody::Stream(mut stream) = from_file(reader).unwrap() else { panic!("not whole") };
        writer.write_all(b"second").unwrap();
        drop(writer);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second");
    }

    #[test]
    fn long_input_is_streamed() {
        let mut file = tempfile::tempfile().unwrap();
        let long = vec![7; 3 * WHOLE_BYTES_MAX];
        file.write_all(&long).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let CallBody::Stream(mut stream) = from_file(file).unwrap() else { panic!("not whole") };
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        assert_eq!(read, long);
    }
}
