//! Newline-delimited JSON, read as it comes, with a bound on each line.

use std::{
    io::{BufRead, BufReader, Read},
    marker::PhantomData,
};

use pinnace_core::limits;
use serde::de::DeserializeOwned;

/// The values of a stream.
pub struct Lines<R, T> {
    reader: BufReader<R>,
    line: Vec<u8>,
    values: PhantomData<T>,
}

impl<R: Read, T: DeserializeOwned> Lines<R, T> {
    /// Reads values from a body.
    pub fn new(body: R) -> Self {
        Self { reader: BufReader::new(body), line: Vec::new(), values: PhantomData }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, a line is too long, or is no such value.
    pub fn next(&mut self) -> anyhow::Result<Option<T>> {
        loop {
            self.line.clear();
            let most = limits::ANSWER_LINE_BYTES_MAX as u64;
            let read = (&mut self.reader).take(most + 1).read_until(b'\n', &mut self.line);
            if read.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))? == 0 {
                return Ok(None);
            }
            if self.line.len() as u64 > most {
                anyhow::bail!("the answer has a line of more than {most} bytes");
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let value = serde_json::from_slice(&self.line).map_err(|error| {
                anyhow::anyhow!("the answer has a line that is not understood: {error}")
            })?;
            return Ok(Some(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_blank_lines_and_a_last_line_without_line_feed() {
        let mut lines = Lines::<_, u32>::new(&b"1\n\n 2 \n3"[..]);
        let mut values = Vec::new();
        while let Some(value) = lines.next().unwrap() {
            values.push(value);
        }
        assert_eq!(values, [1, 2, 3]);
    }

    #[test]
    fn lines_are_bounded_and_checked() {
        let long = vec![b'1'; limits::ANSWER_LINE_BYTES_MAX + 1];
        assert!(Lines::<_, u32>::new(&long[..]).next().is_err());
        assert!(Lines::<_, u32>::new(&b"x\n"[..]).next().is_err());
    }
}
