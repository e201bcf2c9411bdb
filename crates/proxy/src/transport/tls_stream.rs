//! A connection, encrypted or not, as one type; and the bound on a peer that does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A byte stream to a peer.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS towards whoever connected to us.
    Accepted(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS towards whoever we connected to.
    Connected(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// Nothing but memory, so that a test can stop the clock.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

macro_rules! each {
    ($self:expr, $stream:ident => $body:expr) => {
        match $self.get_mut() {
            Self::Plain($stream) => $body,
            Self::Accepted($stream) => $body,
            Self::Connected($stream) => $body,
            #[cfg(test)]
            Self::Memory($stream) => $body,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Accepted(stream) => stream.is_write_vectored(),
            Self::Connected(stream) => stream.is_write_vectored(),
            #[cfg(test)]
            Self::Memory(stream) => stream.is_write_vectored(),
        }
    }
}

/// A connection that can end in disorder.
pub trait Abort {
    /// Has the connection end with a reset when it is dropped, so that the other end cannot take what it got for all there is.
    fn abort(&mut self);
    /// Lets writes wait for as long as the other end likes: another limit runs.
    fn wait_for_reader(&mut self) {}
}

impl Abort for TcpStream {
    fn abort(&mut self) {
        // It fails only if the connection is gone already.
        let _told = self.set_zero_linger().is_ok();
    }
}

impl Abort for Stream {
    fn abort(&mut self) {
        match self {
            Self::Plain(stream) => stream.abort(),
            Self::Accepted(stream) => stream.get_mut().0.abort(),
            Self::Connected(stream) => stream.get_mut().0.abort(),
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }
}

impl<S: Abort> Abort for Impatient<S> {
    fn abort(&mut self) {
        self.stream.abort();
    }

    fn wait_for_reader(&mut self) {
        self.patient = true;
    }
}

/// How long a write may make no progress (reliability §6).
const WRITE_IDLE: Duration = Duration::from_secs(30);

/// A stream whose writes fail once the other end has not read for [`WRITE_IDLE`]. The timer exists only while a write waits.
#[derive(Debug)]
pub struct Impatient<S> {
    stream: S,
    patient: bool,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    /// Bounds the writes of `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, patient: false, waiting: None }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() || self.patient {
            self.waiting = None;
            return polled;
        }
        let timer = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_IDLE)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.bounded(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.bounded(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.bounded(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.bounded(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut stream = Impatient::new(ours);
        let begun = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed(), WRITE_IDLE);
    }
}
