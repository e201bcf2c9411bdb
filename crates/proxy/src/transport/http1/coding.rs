//! Bodies between the wire and [`Frame`]s, the same for both ends of a connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hms_http1::{Decoder, Framing, Step, write};
use hms_model::message::Fields;
use tokio::io::AsyncRead;

use super::outbox::Outbox;
use crate::body::{BodyError, Frame};
use crate::transport::buffer::{ReadBuffer, SMALL};

/// Chunks below this are gathered as long as more of them are here: a frame for each would cost a write for each.
const GATHERED: usize = 1024;

/// A body that arrives.
#[derive(Debug)]
pub(super) struct Arriving {
    decoder: Decoder,
    /// What was found behind the last piece: trailers, or that it is broken.
    behind: Option<Result<Fields, BodyError>>,
}

impl Arriving {
    pub(super) fn new(framing: Framing) -> Self {
        Self { decoder: Decoder::new(framing), behind: None }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_end(&self) -> bool {
        self.decoder.is_end() && self.behind.is_none()
    }

    /// How many bytes are still to come, if that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The next frame from `stream`.
    pub(super) fn poll_frame<S: AsyncRead + Unpin>(
        &mut self,
        read: &mut ReadBuffer,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if let Some(behind) = self.behind.take() {
                return Poll::Ready(Some(behind.map(Frame::Trailers)));
            }
            if self.decoder.is_end() {
                return Poll::Ready(None);
            }
            if read.is_empty() {
                match ready!(read.poll_fill(stream, SMALL, context)) {
                    Ok(1..) => {}
                    Ok(0) if self.decoder.ends_with_connection() => {
                        self.decoder = Decoder::new(Framing::None);
                        return Poll::Ready(None);
                    }
                    Ok(0) => return Poll::Ready(Some(Err(BodyError::Broken("the body broke off".to_owned())))),
                    Err(error) => return Poll::Ready(Some(Err(BodyError::Broken(error.to_string())))),
                }
            }
            match self.decoder.next(read.bytes()) {
                Err(reject) => return Poll::Ready(Some(Err(BodyError::Malformed(reject)))),
                Ok(Step::More { skip }) => read.consume(skip),
                Ok(Step::End { skip, trailers }) => {
                    read.consume(skip);
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::Trailers(trailers))));
                }
                Ok(Step::Data { skip, data }) => {
                    read.consume(skip);
                    let alone = data >= GATHERED || data == read.bytes().len() || self.decoder.is_end();
                    let piece = if alone { read.take(data) } else { self.gather(read, data) };
                    return Poll::Ready(Some(Ok(Frame::Data(piece))));
                }
            }
        }
    }

    /// As many short chunks as are here already, the first of which is `first` long.
    fn gather(&mut self, read: &mut ReadBuffer, first: usize) -> Bytes {
        let mut gathered = Vec::with_capacity(read.bytes().len());
        let mut data = first;
        loop {
            gathered.extend_from_slice(read.bytes().get(..data).unwrap_or_default());
            read.consume(data);
            if read.is_empty() {
                return gathered.into();
            }
            match self.decoder.next(read.bytes()) {
                Ok(Step::Data { skip, data: more }) => {
                    read.consume(skip);
                    data = more;
                }
                Ok(Step::More { skip }) => {
                    read.consume(skip);
                    return gathered.into();
                }
                Ok(Step::End { skip, trailers }) => {
                    read.consume(skip);
                    self.behind = trailers.map(Ok);
                    return gathered.into();
                }
                Err(reject) => {
                    self.behind = Some(Err(BodyError::Malformed(reject)));
                    return gathered.into();
                }
            }
        }
    }
}

/// Frames on their way to the wire.
#[derive(Debug)]
pub(super) struct Encoder {
    framing: Framing,
    /// Bytes still owed of a stated length.
    left: u64,
    /// Whether the line after a chunk is still to be written.
    tail: bool,
}

/// A body that is not as long as it was said to be.
#[derive(Debug)]
pub(super) struct WrongLength;

impl Encoder {
    pub(super) fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Self { framing, left, tail: false }
    }

    /// Whether only the end of the connection ends the body: closed in order, it would mean that this was all.
    pub(super) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Puts a piece into an outbox without one.
    pub(super) fn push(&mut self, out: &mut Outbox, piece: Bytes) -> Result<(), WrongLength> {
        if piece.is_empty() {
            return Ok(());
        }
        match self.framing {
            Framing::None => return Err(WrongLength),
            Framing::UntilClose => out.push(piece),
            Framing::Length(_) => {
                let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.left = self.left.checked_sub(length).ok_or(WrongLength)?;
                out.push(piece);
            }
            Framing::Chunked => {
                self.end_chunk(out);
                write::chunk_head(out.text(), piece.len());
                out.push(piece);
                self.tail = true;
            }
        }
        Ok(())
    }

    /// Writes what ends the body.
    pub(super) fn finish(&mut self, out: &mut Outbox, trailers: Option<&Fields>) -> Result<(), WrongLength> {
        if self.framing == Framing::Chunked {
            self.end_chunk(out);
            write::last_chunk(out.text(), trailers);
        }
        if self.left == 0 { Ok(()) } else { Err(WrongLength) }
    }

    /// Whether the end can be written behind what is there now.
    pub(super) fn can_finish(&self, out: &Outbox) -> bool {
        self.framing != Framing::Chunked || !out.has_piece()
    }

    fn end_chunk(&mut self, out: &mut Outbox) {
        if std::mem::take(&mut self.tail) {
            out.text().extend_from_slice(write::CHUNK_TAIL);
        }
    }
}
