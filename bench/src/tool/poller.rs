//! `epoll` without a runtime: the generator and the backend must cost less than any proxy between them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// Most events of one look.
const BATCH: usize = 256;

/// What is waited for.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Waits for nothing yet.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Tells `token` whenever something can be read, for as long as that is so.
    pub(crate) fn readable(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        self.add(source, token, EventFlags::IN)
    }

    /// Tells `token` once each time something new can be read or written.
    pub(crate) fn changes(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        self.add(source, token, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET)
    }

    fn add(&self, source: impl AsFd, token: usize, flags: EventFlags) -> io::Result<()> {
        let token = u64::try_from(token).map_err(io::Error::other)?;
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Waits, and writes down whom something happened to.
    pub(crate) fn wait(&mut self, tokens: &mut Vec<usize>) -> io::Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        tokens.clear();
        tokens.extend(self.events.drain(..).filter_map(|event| usize::try_from(event.data.u64()).ok()));
        Ok(())
    }
}
