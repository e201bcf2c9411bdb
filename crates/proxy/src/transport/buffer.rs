//! Memory for bytes on their way: borrowed from the thread while there is something in it, never while waiting.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// Room of an ordinary buffer.
pub const SMALL: usize = 32 * 1024;
/// Room of a buffer for somebody who sends much.
pub const LARGE: usize = 256 * 1024;
/// Small buffers kept per thread.
const KEPT_SMALL: usize = 32;
/// Large buffers one thread may have at all, in use and kept: slow readers hold on to theirs.
const MOST_LARGE: usize = 32;
/// Large buffers kept per thread.
const KEPT_LARGE: usize = 4;
/// Pieces of at most this length are copied; a longer one takes the buffer with it.
const COPIED: usize = 2 * 1024;

#[derive(Default)]
struct Free {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    large_out: usize,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

/// A borrowed piece of memory.
struct Memory(Box<[u8]>);

impl Memory {
    fn small() -> Self {
        let kept = FREE.with_borrow_mut(|free| free.small.pop());
        Self(kept.unwrap_or_else(|| vec![0; SMALL].into()))
    }

    /// A large one, unless too many are in use.
    fn large() -> Self {
        let granted = FREE.with_borrow_mut(|free| {
            let granted = free.large_out < MOST_LARGE;
            free.large_out += usize::from(granted);
            granted.then(|| free.large.pop())
        });
        granted.map_or_else(Self::small, |kept| Self(kept.unwrap_or_else(|| vec![0; LARGE].into())))
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.0);
        // Without the list the thread is ending.
        let _kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if memory.len() == SMALL && free.small.len() < KEPT_SMALL {
                free.small.push(memory);
            } else if memory.len() == LARGE {
                free.large_out = free.large_out.saturating_sub(1);
                if free.large.len() < KEPT_LARGE {
                    free.large.push(memory);
                }
            }
        });
    }
}

/// What was read and not yet used.
#[derive(Default)]
pub struct ReadBuffer {
    kind: Kind,
    /// Whether the last read filled everything there was, so that a larger buffer would save reads.
    eager: bool,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    /// Ours alone; more can be read into it.
    Own { memory: Memory, start: usize, end: usize },
    /// Pieces of it were passed on.
    Shared(Bytes),
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadBuffer").field("unused", &self.bytes().len()).finish_non_exhaustive()
    }
}

impl ReadBuffer {
    /// Everything unused.
    pub fn bytes(&self) -> &[u8] {
        match &self.kind {
            Kind::Empty => &[],
            Kind::Own { memory, start, end } => memory.0.get(*start..*end).unwrap_or_default(),
            Kind::Shared(bytes) => bytes,
        }
    }

    /// Whether nothing is unused.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Drops the first `length` bytes.
    pub fn consume(&mut self, length: usize) {
        match &mut self.kind {
            Kind::Empty => {}
            Kind::Own { start, end, .. } => {
                *start = start.saturating_add(length).min(*end);
                if start == end {
                    self.kind = Kind::Empty;
                }
            }
            Kind::Shared(bytes) => {
                drop(bytes.split_to(length.min(bytes.len())));
                if bytes.is_empty() {
                    self.kind = Kind::Empty;
                }
            }
        }
    }

    /// Takes the first `length` bytes. A short piece is copied, so that it does not hold on to all that memory.
    pub fn take(&mut self, length: usize) -> Bytes {
        let length = length.min(self.bytes().len());
        if length <= COPIED {
            let piece = Bytes::copy_from_slice(self.bytes().get(..length).unwrap_or_default());
            self.consume(length);
            return piece;
        }
        let mut shared = match std::mem::take(&mut self.kind) {
            Kind::Empty => Bytes::new(),
            Kind::Own { memory, start, end } => Bytes::from_owner(memory).slice(start..end),
            Kind::Shared(bytes) => bytes,
        };
        let piece = shared.split_to(length);
        if !shared.is_empty() {
            self.kind = Kind::Shared(shared);
        }
        piece
    }

    /// Reads more, up to `most` unused bytes in all. 0 is the end of the stream. No memory is held while nothing is there.
    pub fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        most: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(most);
        let Kind::Own { memory, start, end } = &mut self.kind else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let Some(room) = memory.0.get_mut(*end..).filter(|room| !room.is_empty()) else {
            return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
        };
        let mut target = ReadBuf::new(room);
        let polled = Pin::new(stream).poll_read(context, &mut target);
        let length = target.filled().len();
        self.eager = length > 0 && target.remaining() == 0;
        *end += length;
        if start == end {
            self.kind = Kind::Empty;
        }
        ready!(polled)?;
        Poll::Ready(Ok(length))
    }

    /// Makes sure that there is memory of our own with room at its end.
    fn make_room(&mut self, most: usize) {
        let unused = self.bytes().len();
        match &mut self.kind {
            Kind::Empty => {
                let memory = if self.eager { Memory::large() } else { Memory::small() };
                self.kind = Kind::Own { memory, start: 0, end: 0 };
            }
            Kind::Own { memory, end, .. } if *end < memory.0.len() => {}
            Kind::Own { memory, start, end } if *start > 0 => {
                memory.0.copy_within(*start..*end, 0);
                (*start, *end) = (0, unused);
            }
            Kind::Own { .. } | Kind::Shared(_) => {
                let mut larger =
                    if unused < SMALL / 2 { Memory::small() } else { Memory(vec![0; most.max(SMALL)].into()) };
                if let (Some(target), source) = (larger.0.get_mut(..unused), self.bytes())
                    && unused < most
                {
                    target.copy_from_slice(source);
                    self.kind = Kind::Own { memory: larger, start: 0, end: unused };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn fill(buffer: &mut ReadBuffer, mut source: &[u8], most: usize) -> Poll<io::Result<usize>> {
        buffer.poll_fill(&mut source, most, &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn long_pieces_take_the_memory_along_and_the_rest_stays_readable() {
        let mut buffer = ReadBuffer::default();
        let text: Vec<u8> = (0..5000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        assert!(matches!(fill(&mut buffer, &text, SMALL), Poll::Ready(Ok(5000))));
        let first = buffer.take(4000);
        assert_eq!((&first[..], buffer.bytes()), (&text[..4000], &text[4000..]));
        assert!(matches!(fill(&mut buffer, b"more", SMALL), Poll::Ready(Ok(4))));
        assert_eq!(buffer.bytes().len(), 1004);
        let short = buffer.take(1000);
        assert_eq!((&short[..], buffer.bytes()), (&text[4000..], b"more".as_slice()));
        buffer.consume(4);
        assert!(buffer.is_empty() && matches!(buffer.kind, Kind::Empty));
        assert_eq!(first, text[..4000]);
    }

    #[test]
    fn a_buffer_grows_to_what_is_allowed_and_no_further() {
        let mut buffer = ReadBuffer::default();
        let text = vec![b'x'; SMALL];
        while buffer.bytes().len() < 3 * SMALL {
            assert!(matches!(fill(&mut buffer, &text, 3 * SMALL), Poll::Ready(Ok(1..))));
        }
        assert!(matches!(fill(&mut buffer, &text, 3 * SMALL), Poll::Ready(Err(_))));
    }

    #[test]
    fn nothing_is_held_while_nothing_is_there() {
        let mut buffer = ReadBuffer::default();
        assert!(matches!(fill(&mut buffer, b"", SMALL), Poll::Ready(Ok(0))));
        assert!(matches!(buffer.kind, Kind::Empty));
    }
}
