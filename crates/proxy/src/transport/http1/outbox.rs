//! What is on its way out: some text of our own, then a piece of a body, written together.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Pieces of at most this length are written into the text: one slice is cheaper than two.
const COPIED: usize = 4 * 1024;
/// Texts kept per thread, and how large one may be to be kept.
const KEPT: usize = 32;
const KEPT_ROOM: usize = 64 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes to be written. Holds no memory once they are.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    text: Vec<u8>,
    written: usize,
    piece: Bytes,
    begun: bool,
}

impl Outbox {
    /// Where text is added. Only while no piece waits behind it.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(2048));
        }
        &mut self.text
    }

    /// Adds a piece of a body behind the text.
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            self.text().extend_from_slice(&piece);
        } else {
            self.piece = piece;
        }
    }

    /// Whether a piece waits; text cannot be added behind it.
    pub(super) fn has_piece(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.piece.is_empty()
    }

    /// Whether the stream took any byte since the last [`Self::forget`].
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Begins anew with counting.
    pub(super) fn forget(&mut self) {
        self.begun = false;
    }

    /// Writes everything, and has it sent.
    pub(super) fn poll_flush<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() && self.text.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let length = ready!(self.poll_write(stream, context))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            let rest = self.text.len() - self.written;
            self.written += length.min(rest);
            self.piece.advance(length.saturating_sub(rest).min(self.piece.len()));
        }
        ready!(Pin::new(stream).poll_flush(context))?;
        self.release();
        Poll::Ready(Ok(()))
    }

    fn poll_write<S: AsyncWrite + Unpin>(&self, stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let text = self.text.get(self.written..).unwrap_or_default();
        let stream = Pin::new(stream);
        match (text.is_empty(), self.piece.is_empty()) {
            (true, _) => stream.poll_write(context, &self.piece),
            (false, true) => stream.poll_write(context, text),
            (false, false) => {
                stream.poll_write_vectored(context, &[io::IoSlice::new(text), io::IoSlice::new(&self.piece)])
            }
        }
    }

    fn release(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        self.written = 0;
        self.piece = Bytes::new();
        text.clear();
        if text.capacity() > KEPT_ROOM {
            return;
        }
        // Without the list the thread is ending.
        let _kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(text);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn text_and_pieces_arrive_in_order_and_nothing_is_kept() {
        let (mut ours, mut theirs) = tokio::io::duplex(100);
        let mut outbox = Outbox::default();
        let long = vec![b'x'; COPIED + 1];
        outbox.text().extend_from_slice(b"head:");
        outbox.push(Bytes::from_static(b"short;"));
        outbox.push(Bytes::from(long.clone()));
        let writing = async {
            std::future::poll_fn(|context| outbox.poll_flush(&mut ours, context)).await.unwrap();
            drop(ours);
        };
        let mut read = Vec::new();
        let ((), length) = tokio::join!(writing, theirs.read_to_end(&mut read));
        assert_eq!(length.unwrap(), read.len());
        assert_eq!(read, [b"head:short;".as_slice(), &long].concat());
        assert!(outbox.has_begun() && outbox.is_empty() && outbox.text.capacity() == 0);
    }
}
