//! Reading a body: where its data is between what frames it.

use hms_model::message::Fields;

use crate::trailers::Trailers;
use crate::{Framing, Reject};

/// Bytes of the extensions of one chunk, and of all chunks of a body.
const MAX_EXTENSION: usize = 256;
const MAX_EXTENSIONS: usize = 4 << 10;
/// Digits of a chunk's size.
const MAX_DIGITS: u8 = 16;

/// Finds the data of one body in bytes that come in pieces.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

/// What the given bytes start with.
#[derive(Debug)]
pub enum Step {
    /// `skip` bytes of framing, then `data` bytes of body, at least one.
    Data {
        /// Bytes that only frame.
        skip: usize,
        /// Bytes of body after them.
        data: usize,
    },
    /// All given bytes are framing, and more are needed.
    More {
        /// Bytes that only frame.
        skip: usize,
    },
    /// The body ends after `skip` bytes of framing. What follows belongs to the next message.
    End {
        /// Bytes that only frame.
        skip: usize,
        /// Trailers that may be passed on; `None` if none came.
        trailers: Option<Fields>,
    },
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    /// In a chunk's size, after that many digits.
    Size {
        size: u64,
        digits: u8,
    },
    /// In a chunk's extensions, after that many bytes.
    Extension {
        size: u64,
        length: usize,
    },
    /// After the CR of a chunk's first line.
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailers(Trailers),
    End,
}

impl State {
    const SIZE: Self = Self::Size { size: 0, digits: 0 };
}

impl Decoder {
    /// For a body that ends as `framing` says.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::SIZE,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0 }
    }

    /// Looks at what comes next. The caller gives all bytes that it has from where the last step ended, takes as many as the step
    /// says, and asks again; after [`Step::More`] with more bytes than before. After [`Step::End`] it is always [`Step::End`]; after
    /// a refusal nothing that follows has a meaning.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, Reject> {
        let mut skip = 0;
        loop {
            let rest = bytes.get(skip..).unwrap_or_default();
            match &mut self.state {
                State::End => return Ok(Step::End { skip, trailers: None }),
                State::Trailers(trailers) => {
                    let (taken, done) = trailers.take(rest)?;
                    skip += taken;
                    let Some(trailers) = done else { return Ok(Step::More { skip }) };
                    self.state = State::End;
                    return Ok(Step::End { skip, trailers });
                }
                _ if rest.is_empty() => return Ok(Step::More { skip }),
                State::UntilClose => return Ok(Step::Data { skip, data: rest.len() }),
                State::Length(left) => {
                    let data = take(left, rest.len());
                    if *left == 0 {
                        self.state = State::End;
                    }
                    return Ok(Step::Data { skip, data });
                }
                State::Data(left) => {
                    let data = take(left, rest.len());
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Step::Data { skip, data });
                }
                _ => {
                    if let Some(byte) = rest.first() {
                        self.frame(*byte)?;
                    }
                    skip += 1;
                }
            }
        }
    }

    /// Whether nothing more is to come: the body's last byte has been seen.
    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// How many bytes are still to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Whether the body is everything until the connection closes, so that a close is its proper end.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Takes one byte that frames chunks (RFC 9112 §7.1).
    fn frame(&mut self, byte: u8) -> Result<(), Reject> {
        self.state = match (&self.state, byte) {
            (State::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                if *digits == MAX_DIGITS || size >> 59 != 0 {
                    return Err(Reject::ChunkSize);
                }
                State::Size { size: (size << 4) | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(Reject::ChunkSize),
            (State::Size { size, .. } | State::Extension { size, .. }, b'\r') => State::SizeLf(*size),
            (State::Size { size, .. }, b';') => self.extension(*size, 0)?,
            (State::Extension { size, length }, b'\t' | 0x20..=0x7e | 0x80..) => self.extension(*size, *length)?,
            (State::Extension { .. }, _) => return Err(Reject::ChunkExtension),
            (State::SizeLf(0), b'\n') => State::Trailers(Trailers::default()),
            (State::SizeLf(size), b'\n') => State::Data(*size),
            (State::Size { .. } | State::SizeLf(_), _) => return Err(Reject::ChunkSize),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SIZE,
            _ => return Err(Reject::ChunkEnd),
        };
        Ok(())
    }

    /// Counts one more byte of extensions, which nobody reads.
    fn extension(&mut self, size: u64, length: usize) -> Result<State, Reject> {
        self.extensions += 1;
        if length >= MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(Reject::ChunkExtension);
        }
        Ok(State::Extension { size, length: length + 1 })
    }
}

/// Takes what is left of `left`, at most `there`.
fn take(left: &mut u64, there: usize) -> usize {
    let data = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
    *left = left.saturating_sub(u64::try_from(data).unwrap_or(u64::MAX));
    data
}
