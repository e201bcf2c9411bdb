//! An application and whatever it started: reaped, told to end, made to end.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};
use tokio::time::Instant;

use super::tree;

/// How long an application may take to finish after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// How often the list of descendants is read again while they are being killed.
const TICK: Duration = Duration::from_millis(10);

/// What a parent waits for.
#[derive(Debug)]
pub(super) enum Event {
    /// The supervisor is gone.
    LifelineClosed,
    /// A signal arrived.
    Signal(Signal),
}

/// Blocks the signals that [`watch_signals`] waits for. Before any thread exists, so that only the one that waits gets them.
pub(super) fn block_signals() -> io::Result<SigSet> {
    let signals: SigSet =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Makes events of the blocked signals.
pub(super) fn watch_signals(signals: SigSet, events: Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

/// The application and whatever it started.
pub(super) struct Flock {
    child: Child,
    own_group: bool,
    events: Receiver<Event>,
    ended: Option<u8>,
}

impl Flock {
    /// The flock of a child of this process, which reaps.
    pub(super) fn new(child: Child, own_group: bool, events: Receiver<Event>) -> Self {
        Self { child, own_group, events, ended: None }
    }

    /// Waits for the end, ends the rest, returns the application's exit code; 128 + n if signal n ended it.
    pub(super) fn tend(mut self) -> u8 {
        // It may have ended before its signal could arrive.
        self.reap();
        while self.ended.is_none() {
            match self.events.recv() {
                Ok(Event::Signal(Signal::SIGCHLD)) => self.reap(),
                // Keys of the terminal reach an application of the same group by themselves.
                Ok(Event::Signal(Signal::SIGINT | Signal::SIGQUIT)) if !self.own_group => {}
                Ok(_) | Err(_) => break,
            }
        }
        self.end();
        self.ended.unwrap_or(128 + 9)
    }

    /// SIGTERM, up to [`GRACE`], then SIGKILL until nobody is left.
    fn end(&mut self) {
        self.terminate();
        let deadline = Instant::now() + GRACE;
        while !living().is_empty() && Instant::now() < deadline {
            self.wait_a_tick();
        }
        while !living().is_empty() {
            for pid in living() {
                // It may have ended since it was listed.
                let _ = kill(pid, Signal::SIGKILL);
            }
            self.wait_a_tick();
        }
    }

    fn terminate(&self) {
        let group = i32::try_from(self.child.id()).ok().filter(|_| self.own_group).map(Pid::from_raw);
        if let Some(group) = group {
            // An empty group only means that there is nothing to tell.
            let _ = killpg(group, Signal::SIGTERM);
        }
        // Those that left the group, or never had one of their own. Nobody is told twice: some programs take the second
        // SIGTERM as "at once".
        for pid in living() {
            if group.is_none() || getpgid(Some(pid)).ok() != group {
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
    }

    /// Sleeps until something happens, at most one tick. A second request to end changes nothing: the clock runs already.
    fn wait_a_tick(&mut self) {
        match self.events.recv_timeout(TICK) {
            Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.reap(),
        }
    }

    /// Collects every child that has ended; keeps the application's code.
    fn reap(&mut self) {
        while let Some((pid, code)) = collect() {
            if u32::try_from(pid.as_raw()) == Ok(self.child.id()) {
                self.ended = Some(code);
            }
        }
    }
}

/// Collects one child that has ended, with its code.
pub(super) fn collect() -> Option<(Pid, u8)> {
    use std::os::unix::process::ExitStatusExt as _;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => {
                return Some((pid, exit_code(ExitStatus::from_raw((code & 0xff) << 8))));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                return Some((pid, exit_code(ExitStatus::from_raw(signal as i32))));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// The shell's convention: the code, or 128 + signal.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// Every living descendant of this process.
fn living() -> Vec<Pid> {
    tree::descendants(std::process::id())
}
