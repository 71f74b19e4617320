//! Where a body ends, and how it is written anew (RFC 9112 sections 6 and 7).
//!
//! Only one spelling of chunks is taken: whatever two readers might understand differently is refused.

use std::{io::Write, ops::Range};

use pinnace_core::limits::{CHUNK_EXTENSION_BYTES_MAX, TRAILER_BYTES_MAX};

use super::head;

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Why a body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Not as chunks are written.
    #[error("its chunks are malformed")]
    Chunk,
    /// More than is taken beside the data.
    #[error("its chunk extensions are longer than {CHUNK_EXTENSION_BYTES_MAX} bytes")]
    Extension,
    /// Too long a trailer.
    #[error("its trailer is longer than {TRAILER_BYTES_MAX} bytes")]
    TrailerSize,
    /// Not as headers are written.
    #[error("its trailer is malformed")]
    Trailer,
    /// The connection ended before the body did.
    #[error("it ended early")]
    Short,
}

/// Finds the data in a body and its end.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extension_bytes: usize,
    trailer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ended,
    Length(u64),
    UntilClose,
    /// Before the size's first digit, or after some.
    Size {
        digits: u8,
        size: u64,
    },
    /// Blanks behind the size.
    Blank(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLine,
    Trailer,
}

/// Most digits of a chunk's size: 60 bits.
const SIZE_DIGITS_MAX: u8 = 15;

/// A step through a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Where among them data stands.
    pub data: Range<usize>,
}

impl Decoder {
    /// At a body's beginning.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, size: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extension_bytes: 0, trailer: Vec::new() }
    }

    /// Whether the body has ended.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether data comes next, not what stands around it.
    pub fn awaits_data(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Data(_) | State::UntilClose)
    }

    /// The trailer's fields, each line with its end; empty without one.
    pub fn trailer(&self) -> &[u8] {
        self.trailer.strip_suffix(b"\r\n").unwrap_or_default()
    }

    /// Takes the end of the connection.
    ///
    /// # Errors
    /// The body should have gone on.
    pub fn end(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::Ended => Ok(()),
            State::UntilClose => {
                self.state = State::Ended;
                Ok(())
            }
            _ => Err(BodyFault::Short),
        }
    }

    /// Reads on, up to the end of one run of data. Nothing is consumed of an empty input, nor after the
    /// body's end.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyFault> {
        let mut at = 0;
        while at < input.len() && self.state != State::Ended {
            let left = input.len() - at;
            match self.state {
                State::UntilClose => {
                    return Ok(Step { consumed: input.len(), data: at..at + left });
                }
                State::Length(length) | State::Data(length) => {
                    let taken = left.min(usize::try_from(length).unwrap_or(usize::MAX));
                    self.state = match (self.state, length - taken as u64) {
                        (State::Length(_), 0) => State::Ended,
                        (State::Length(_), more) => State::Length(more),
                        (_, 0) => State::DataEnd,
                        (_, more) => State::Data(more),
                    };
                    return Ok(Step { consumed: at + taken, data: at..at + taken });
                }
                _ => self.byte(input[at])?,
            }
            at += 1;
        }
        Ok(Step { consumed: at, data: at..at })
    }

    /// Takes one byte of what stands around the data.
    fn byte(&mut self, byte: u8) -> Result<(), BodyFault> {
        self.state = match (self.state, byte) {
            (State::Size { digits, size }, digit) if digit.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BodyFault::Chunk);
                }
                let value = char::from(digit).to_digit(16).unwrap_or_default();
                State::Size { digits: digits + 1, size: size << 4 | u64::from(value) }
            }
            (State::Size { digits: 1.., size } | State::Blank(size), b'\r') => State::SizeEnd(size),
            (State::Size { digits: 1.., size } | State::Blank(size), b';') => {
                State::Extension(size)
            }
            (State::Size { digits: 1.., size } | State::Blank(size), b' ' | b'\t') => {
                self.count_extension()?;
                State::Blank(size)
            }
            (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), byte) if byte != b'\n' => {
                self.count_extension()?;
                State::Extension(size)
            }
            (State::SizeEnd(0), b'\n') => State::Trailer,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLine,
            (State::DataEndLine, b'\n') => State::Size { digits: 0, size: 0 },
            (State::Trailer, byte) => self.trailer_byte(byte)?,
            _ => return Err(BodyFault::Chunk),
        };
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), BodyFault> {
        self.extension_bytes += 1;
        match self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            true => Err(BodyFault::Extension),
            false => Ok(()),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, BodyFault> {
        self.trailer.push(byte);
        if self.trailer.len() > TRAILER_BYTES_MAX {
            return Err(BodyFault::TrailerSize);
        }
        if self.trailer != b"\r\n" && !self.trailer.ends_with(b"\r\n\r\n") {
            return Ok(State::Trailer);
        }
        self.trailer = head::clean_trailer(&self.trailer).ok_or(BodyFault::Trailer)?;
        Ok(State::Ended)
    }
}

/// Writes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// As it is: its length was told before, or its end is the connection's.
    Plain,
    /// In chunks.
    Chunked,
}

impl Encoder {
    /// For a body whose head says it is framed like this.
    pub fn new(framing: Framing) -> Self {
        if framing == Framing::Chunked { Self::Chunked } else { Self::Plain }
    }

    /// Writes a run of data; nothing for an empty one, which in chunks would be the end.
    pub fn data(self, data: &[u8], output: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        if self == Self::Plain {
            output.extend_from_slice(data);
            return;
        }
        // Writing to memory cannot fail.
        let _ = write!(output, "{:x}\r\n", data.len());
        output.extend_from_slice(data);
        output.extend_from_slice(b"\r\n");
    }

    /// Writes the end, with the trailer's fields.
    pub fn end(self, trailer: &[u8], output: &mut Vec<u8>) {
        if self == Self::Chunked {
            output.extend_from_slice(b"0\r\n");
            output.extend_from_slice(trailer);
            output.extend_from_slice(b"\r\n");
        }
    }
}

/// Decodes all of `input` that belongs to the body and writes it anew. Answers how much that was.
///
/// # Errors
/// The body is malformed.
pub fn recode(
    decoder: &mut Decoder,
    encoder: Encoder,
    input: &[u8],
    output: &mut Vec<u8>,
) -> Result<usize, BodyFault> {
    if decoder.is_ended() {
        return Ok(0);
    }
    let mut consumed = 0;
    while consumed < input.len() && !decoder.is_ended() {
        let step = decoder.decode(&input[consumed..])?;
        encoder.data(&input[consumed..][step.data], output);
        consumed += step.consumed;
    }
    if decoder.is_ended() {
        encoder.end(decoder.trailer(), output);
    }
    Ok(consumed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes an input that comes in pieces of `size`; answers the data, and what was left over.
    fn decoded(
        framing: Framing,
        input: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, usize, bool), BodyFault> {
        let (mut decoder, mut data, mut left) = (Decoder::new(framing), Vec::new(), 0);
        for piece in input.chunks(size) {
            let consumed = recode(&mut decoder, Encoder::Plain, piece, &mut data)?;
            left += piece.len() - consumed;
        }
        Ok((data, left, decoder.is_ended()))
    }

    fn data(framing: Framing, input: &[u8]) -> (Vec<u8>, usize, bool) {
        let whole = decoded(framing, input, input.len()).unwrap();
        for size in 1..input.len() {
            let split = decoded(framing, input, size).unwrap();
            assert_eq!(split, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn lengths() {
        assert_eq!(data(Framing::Length(3), b"abcdef"), (b"abc".to_vec(), 3, true));
        assert_eq!(data(Framing::Length(9), b"abcdef"), (b"abcdef".to_vec(), 0, false));
        assert_eq!(data(Framing::None, b"abc"), (vec![], 3, true));
        assert_eq!(data(Framing::UntilClose, b"abc"), (b"abc".to_vec(), 0, false));
    }

    #[test]
    fn chunks() {
        let body = b"3 \t\r\nabc\r\n0A ;x=\"y\"\r\n0123456789\r\n0\r\n\r\nnext";
        assert_eq!(data(Framing::Chunked, body), (b"abc0123456789".to_vec(), 4, true));
        assert_eq!(data(Framing::Chunked, b"0\r\n\r\n"), (vec![], 0, true));
        assert_eq!(data(Framing::Chunked, b"5\r\nab"), (b"ab".to_vec(), 0, false));
    }

    #[test]
    fn what_two_readers_might_take_differently_is_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1;\n\r\na",
            "1 junk\r\na",
            "1\r\r\na",
            "1000000000000000\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
        ] {
            for size in 1..=body.len() {
                let outcome = decoded(Framing::Chunked, body.as_bytes(), size);
                assert!(outcome.is_err(), "{body:?} in pieces of {size}: {outcome:?}");
            }
        }
    }

    #[test]
    fn the_size_of_what_is_no_data_is_bounded() {
        let long = format!("1;{}\r\n", "x".repeat(CHUNK_EXTENSION_BYTES_MAX + 1));
        assert_eq!(decoded(Framing::Chunked, long.as_bytes(), 4096), Err(BodyFault::Extension));
        let long = format!("0\r\nx: {}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX));
        assert_eq!(decoded(Framing::Chunked, long.as_bytes(), 4096), Err(BodyFault::TrailerSize));
    }

    #[test]
    fn trailers_pass_but_none_that_frame() {
        let body = b"1\r\na\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 9\r\nX: y\r\n\r\n";
        let mut decoder = Decoder::new(Framing::Chunked);
        let mut output = Vec::new();
        recode(&mut decoder, Encoder::Chunked, body, &mut output).unwrap();
        assert_eq!(output, b"1\r\na\r\n0\r\nGrpc-Status: 0\r\nX: y\r\n\r\n");
    }

    #[test]
    fn an_early_end_is_told() {
        let mut decoder = Decoder::new(Framing::Length(2));
        assert_eq!(decoder.end(), Err(BodyFault::Short));
        let mut decoder = Decoder::new(Framing::UntilClose);
        decoder.end().unwrap();
        assert!(decoder.is_ended());
        assert_eq!(decoder.end(), Ok(()));
    }

    proptest::proptest! {
        /// What is written in chunks is read back, however the bytes are cut.
        #[test]
        fn chunks_come_back(runs in proptest::collection::vec(proptest::collection::vec(0u8.., 0..40), 0..8), size in 1usize..64) {
            let mut wire = Vec::new();
            for run in &runs {
                Encoder::Chunked.data(run, &mut wire);
            }
            Encoder::Chunked.end(b"", &mut wire);
            let (data, left, ended) = decoded(Framing::Chunked, &wire, size).unwrap();
            proptest::prop_assert_eq!(data, runs.concat());
            proptest::prop_assert!(ended && left == 0);
        }

        /// No input panics, and cutting it otherwise changes nothing.
        #[test]
        fn any_bytes_are_judged_alike(bytes in "[0-9a-f;\r\n x:]{0,40}", size in 1usize..8) {
            let whole = decoded(Framing::Chunked, bytes.as_bytes(), 64);
            let split = decoded(Framing::Chunked, bytes.as_bytes(), size);
            match (whole, split) {
                (Ok(whole), Ok(split)) => proptest::prop_assert_eq!(whole, split),
                (whole, split) => proptest::prop_assert_eq!(whole.err(), split.err()),
            }
        }
    }
}
