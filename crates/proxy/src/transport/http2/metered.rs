//! The [`Meter`] between TLS and `h2`: bytes pass unchanged in both directions until a limit is broken; from then on nothing more
//! is fed, and whoever drives the connection says farewell.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hms_traffic::clock::Moment;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frames::Scanner;
use super::limits::{Breach, Limits};
use super::meter::Meter;
use crate::clock::Clock;

/// How long bytes that nobody wants are read after our last one, so that it is not lost with them: closing a socket that holds
/// unread bytes makes the kernel throw away what the other end has not read yet.
const LINGER: Duration = Duration::from_millis(500);
/// Most bytes that are read so.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What the driver of a connection sees of it.
#[derive(Debug)]
pub struct Signal {
    clock: Clock,
    breach: Cell<Option<Breach>>,
    heard: Cell<Moment>,
}

impl Signal {
    /// The limit that was broken.
    pub fn breach(&self) -> Option<Breach> {
        self.breach.get()
    }

    /// How long the other end has been silent.
    pub fn silence(&self) -> Duration {
        self.clock.now().saturating_since(self.heard.get())
    }
}

/// A byte stream whose frames are counted.
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    meter: Meter,
    incoming: Scanner,
    outgoing: Scanner,
    signal: Rc<Signal>,
    /// Exists only while a header block is incomplete.
    block_deadline: Option<Deadline>,
    lingering: Option<Linger>,
}

#[derive(Debug)]
struct Deadline {
    at: Moment,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct Linger {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> Metered<S> {
    /// The side that accepted the connection.
    pub fn server(stream: S, limits: &Limits) -> (Self, Rc<Signal>) {
        Self::new(stream, limits, Scanner::of_client(), Scanner::of_server())
    }

    /// The side that opened it.
    pub fn client(stream: S, limits: &Limits) -> (Self, Rc<Signal>) {
        Self::new(stream, limits, Scanner::of_server(), Scanner::of_client())
    }

    fn new(stream: S, limits: &Limits, incoming: Scanner, outgoing: Scanner) -> (Self, Rc<Signal>) {
        let clock = Clock::start();
        let signal = Rc::new(Signal { clock, breach: Cell::new(None), heard: Cell::new(clock.now()) });
        let meter = Meter::new(limits);
        let metered = Self {
            stream,
            meter,
            incoming,
            outgoing,
            signal: Rc::clone(&signal),
            block_deadline: None,
            lingering: None,
        };
        (metered, signal)
    }

    /// Counts what came; returns how much of it may be passed on.
    fn count(&mut self, bytes: &[u8]) -> usize {
        let now = self.signal.clock.now();
        self.signal.heard.set(now);
        let mut taken = 0;
        while let Some((length, frame)) = self.incoming.next(bytes.get(taken..).unwrap_or_default()) {
            taken += length;
            if let Err(breach) = self.meter.received(&frame, now) {
                self.signal.breach.set(Some(breach));
                return taken;
            }
        }
        let deadline = self.meter.block_deadline(self.incoming.is_within_a_frame());
        if deadline != self.block_deadline.as_ref().map(|open| open.at) {
            let timer = |at: Moment| Box::pin(tokio::time::sleep(at.saturating_since(now)));
            self.block_deadline = deadline.map(|at| Deadline { at, timer: timer(at) });
        }
        bytes.len()
    }

    /// Counts what was written.
    fn count_sent(&mut self, written: &[u8]) {
        let now = self.signal.clock.now();
        let mut rest = written;
        while let Some((length, frame)) = self.outgoing.next(rest) {
            rest = rest.get(length..).unwrap_or_default();
            if let Err(breach) = self.meter.sent(&frame, now)
                && self.signal.breach().is_none()
            {
                self.signal.breach.set(Some(breach));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signal.breach().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_pending() {
            if let Some(open) = &mut this.block_deadline {
                ready!(open.timer.as_mut().poll(cx));
                this.signal.breach.set(Some(Breach::HeaderDeadline));
            }
            return Poll::Pending;
        }
        ready!(polled)?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let kept = this.count(new);
        buf.set_filled(before + kept);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.count_sent(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for piece in bufs {
            let length = left.min(piece.len());
            left -= length;
            this.count_sent(piece.get(..length).unwrap_or_default());
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let linger = this
            .lingering
            .get_or_insert_with(|| Linger { until: Box::pin(tokio::time::sleep(LINGER)), bytes: LINGER_BYTES });
        let mut scratch = [0; 2048];
        while linger.until.as_mut().poll(cx).is_pending() {
            let mut unwanted = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut unwanted));
            let length = unwanted.filled().len();
            linger.bytes = linger.bytes.saturating_sub(length);
            if read.is_err() || length == 0 || linger.bytes == 0 {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
