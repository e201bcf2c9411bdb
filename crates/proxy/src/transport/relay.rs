//! Bytes between two connections that nobody reads: both ways at once, until both ways have ended.
//!
//! Each way ends by itself: what one side finishes is finished towards the other, and the other way goes on. No memory is held
//! while nothing is on its way, and a side that does not read stops the other from being read.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::{LARGE, ReadBuffer};
use super::tls_stream::Abort;
use crate::drain::Drain;
use crate::timer::Timer;

/// How long a side may take to notice that nobody takes its bytes any more.
const LINGER: Duration = Duration::from_secs(2);

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected to us.
    Downstream,
    /// Whoever we connected to.
    Upstream,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides have said all they had to say.
    Whole,
    /// This side broke off; the other has been told so.
    Broken(Side),
    /// Nothing was said by either for too long.
    Idle,
    /// This process ends.
    Drained,
}

/// Counts what passes.
pub trait Count {
    /// So many bytes came from this side.
    fn came(&self, from: Side, bytes: usize);
}

/// How far one way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Bytes may come.
    Open,
    /// No more will come; those that are here are still to be written.
    Ending,
    /// The receiver takes no more, so what still comes is thrown away: were it left unread, closing would become a reset, and take
    /// with it what the sender was told last.
    Deaf,
    /// Over.
    Over,
}

/// What is on its way from one side to the other.
#[derive(Debug)]
struct Way {
    read: ReadBuffer,
    stage: Stage,
    unflushed: bool,
    moved: bool,
}

/// A pair of connections, as far as they have come.
pub struct Relay {
    up: Way,
    down: Way,
    idle: Duration,
    silence: Timer,
    lingering: bool,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("up", &self.up.stage).field("down", &self.down.stage).finish_non_exhaustive()
    }
}

impl Relay {
    /// Begins with what was read already from either side. It ends when nothing passes for `idle`.
    pub fn new(from_downstream: ReadBuffer, from_upstream: ReadBuffer, idle: Duration) -> Self {
        let silence = Timer::after(idle);
        Self { up: Way::new(from_downstream), down: Way::new(from_upstream), idle, silence, lingering: false }
    }

    /// Moves what can be moved. When it is broken, both connections are set to end with a reset.
    pub fn poll<D, U>(
        &mut self,
        downstream: &mut D,
        upstream: &mut U,
        count: &impl Count,
        context: &mut Context<'_>,
    ) -> Poll<Ended>
    where
        D: AsyncRead + AsyncWrite + Abort + Unpin,
        U: AsyncRead + AsyncWrite + Abort + Unpin,
    {
        let up = self.up.poll(downstream, upstream, |bytes| count.came(Side::Downstream, bytes), context);
        let down = self.down.poll(upstream, downstream, |bytes| count.came(Side::Upstream, bytes), context);
        let broken = match (&up, &down) {
            (Poll::Ready(Err(_)), _) => Some(Ended::Broken(Side::Downstream)),
            (_, Poll::Ready(Err(_))) => Some(Ended::Broken(Side::Upstream)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Whole),
            _ => None,
        };
        let over = match broken {
            Some(broken) => broken,
            None => ready!(self.poll_silence(context)),
        };
        if over != Ended::Whole {
            downstream.abort();
            upstream.abort();
        }
        Poll::Ready(over)
    }

    /// Resolves when nothing has passed for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        // Only a sender whose bytes nobody takes is left: it is given a moment to notice.
        let lingering = (self.up.stage == Stage::Deaf && self.down.stage == Stage::Over)
            || (self.down.stage == Stage::Deaf && self.up.stage == Stage::Over);
        let moved = std::mem::take(&mut self.up.moved) | std::mem::take(&mut self.down.moved);
        if lingering && !self.lingering {
            self.lingering = true;
            self.silence.reset(LINGER);
        } else if moved && !lingering {
            self.silence.reset(self.idle);
        }
        ready!(self.silence.poll(context));
        Poll::Ready(if lingering { Ended::Whole } else { Ended::Idle })
    }
}

/// Relays until both ways have ended, or until this process does.
pub async fn run<D, U>(
    mut relay: Relay,
    (mut downstream, mut upstream): (D, U),
    count: &impl Count,
    drain: &Drain,
) -> Ended
where
    D: AsyncRead + AsyncWrite + Abort + Unpin,
    U: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut over = pin!(drain.over());
    poll_fn(|context| {
        let polled = relay.poll(&mut downstream, &mut upstream, count, context);
        if polled.is_pending() && over.as_mut().poll(context).is_ready() {
            downstream.abort();
            upstream.abort();
            return Poll::Ready(Ended::Drained);
        }
        polled
    })
    .await
}

impl Way {
    fn new(read: ReadBuffer) -> Self {
        Self { read, stage: Stage::Open, unflushed: false, moved: false }
    }

    /// Resolves when this way is over; an error is its sender's, who broke off.
    fn poll<F, T>(
        &mut self,
        from: &mut F,
        to: &mut T,
        came: impl Fn(usize),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            if self.stage != Stage::Deaf && self.poll_write(to, context).is_pending() {
                return Poll::Pending;
            }
            match self.stage {
                Stage::Open => match self.read.poll_fill(from, LARGE, context) {
                    Poll::Ready(Ok(0)) => self.stage = Stage::Ending,
                    Poll::Ready(Ok(length)) => {
                        self.moved = true;
                        came(length);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        if self.unflushed && Pin::new(&mut *to).poll_flush(context).is_ready() {
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
                Stage::Deaf => {
                    // However it ends, nobody is left to be told.
                    let more = matches!(ready!(self.read.poll_fill(from, LARGE, context)), Ok(1..));
                    self.read = ReadBuffer::default();
                    if !more {
                        self.stage = Stage::Over;
                    }
                }
                Stage::Ending => {
                    // It fails only towards somebody who is gone already.
                    let _told = ready!(Pin::new(&mut *to).poll_shutdown(context)).is_ok();
                    self.moved = true;
                    self.stage = Stage::Over;
                }
                Stage::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what is here. A receiver that takes no more does not end the other way: its last words may be on it.
    fn poll_write<T: AsyncWrite + Unpin>(&mut self, to: &mut T, context: &mut Context<'_>) -> Poll<()> {
        while !self.read.is_empty() {
            let Ok(length @ 1..) = ready!(Pin::new(&mut *to).poll_write(context, self.read.bytes())) else {
                self.read = ReadBuffer::default();
                self.stage = if self.stage == Stage::Ending { Stage::Over } else { Stage::Deaf };
                return Poll::Ready(());
            };
            self.read.consume(length);
            (self.moved, self.unflushed) = (true, true);
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
