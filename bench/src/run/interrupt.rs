//! Ctrl-C as an error like any other, so that everything that was started is ended on the way out.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::Outcome;
use crate::clock::now;

/// Ctrl-C and polite requests to end, held back until somebody looks. Programs we start inherit that, and are
/// ended by us.
pub(crate) struct Interrupt(SignalFd);

impl Interrupt {
    /// Holds them back from now on.
    pub(crate) fn watch() -> Outcome<Self> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC))
            .map(Self)
            .map_err(|error| format!("cannot wait for Ctrl-C: {error}"))
    }

    /// Lets time pass. An error as soon as somebody wants to stop.
    pub(crate) fn pause(&self, time: Duration) -> Outcome {
        let end = now() + time;
        loop {
            let left = end.saturating_duration_since(now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
                // Whole milliseconds only: the last part of one is not worth a further wait.
                Ok(0) => return Ok(()),
                Ok(_) => return Err("interrupted".to_owned()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(format!("cannot wait: {error}")),
            }
        }
    }
}
