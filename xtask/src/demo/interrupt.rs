//! Ctrl-C as something to wait for: it must not end us before the mesh is down.

use std::os::fd::AsFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Ctrl-C and polite requests to end, held back until somebody looks. Programs we start are not affected: they begin with every
/// signal let through.
pub(super) struct Interrupt(SignalFd);

impl Interrupt {
    /// Holds them back from now on.
    pub(super) fn watch() -> Result<Self, String> {
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

    /// Whether one came within a time; without a time it waits until one does.
    pub(super) fn within(&self, time: Option<Duration>) -> Result<bool, String> {
        let timeout = match time {
            None => PollTimeout::NONE,
            Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            // A signal of another kind; whoever waits asks again.
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(format!("cannot wait: {error}")),
        }
    }
}
