//! The parent of one application: a small synchronous process that outlives nothing it started.
//!
//! It is the reaper of every descendant (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so daemons that fork twice come back to it. It
//! ends them when the supervisor is gone, when it is told to, and when the application itself has ended: SIGTERM, five
//! seconds, SIGKILL. Should the shepherd itself be killed, the kernel kills the application (`PR_SET_PDEATHSIG`, set by
//! `hms __exec` on itself, so no code runs between fork and exec).

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};

use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes;

/// How long an application may take to finish after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How often the list of descendants is read again while they are being killed.
const TICK: Duration = Duration::from_millis(10);

/// This program, as the kernel knows it: still there when its file was replaced by a newer release meanwhile.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the shepherd waits for.
enum Event {
    /// The supervisor is gone.
    LifelineClosed,
    /// A signal arrived.
    Signal(Signal),
}

/// `hms __shepherd`: runs the application and returns its exit code; 128 + n if signal n ended it.
pub(crate) fn shepherd(options: &cli::Shepherd) -> Result<Exit, Failure> {
    let failed = |what: &str, why: String| Failure::new(Exit::Failed, 1103, what).because(why);
    prctl::set_child_subreaper(true)
        .map_err(|error| failed("this kernel has no child subreapers", error.desc().to_owned()))?;
    // Blocked before any thread exists, so that only the thread that waits for them gets them.
    let signals: SigSet =
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block().map_err(|error| failed("cannot block signals", error.desc().to_owned()))?;
    let lifeline = UnixStream::connect(&options.lifeline)
        .map_err(|error| failed("the supervisor is gone", format!("{}: {error}", options.lifeline.display())))?;
    let child = start(options).map_err(|error| failed("cannot start the application", error.to_string()))?;
    let (sender, events) = channel();
    watch_lifeline(lifeline, sender.clone());
    watch_signals(signals, sender);
    Ok(Exit::Child(Flock { child, own_group: options.own_group, events, ended: None }.tend()))
}

fn start(options: &cli::Shepherd) -> std::io::Result<Child> {
    let mut command = Command::new(OWN_PROGRAM);
    command
        .arg0("hms")
        .arg("__exec")
        .arg("--parent")
        .arg(std::process::id().to_string())
        .arg("--")
        .args(&options.command);
    if options.own_group {
        command.process_group(0);
    }
    command.spawn()
}

fn watch_lifeline(mut lifeline: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut byte = [0; 1];
        // The supervisor never writes, so any return means that it is gone.
        drop(lifeline.read(&mut byte));
        let _ = events.send(Event::LifelineClosed);
    });
}

fn watch_signals(signals: SigSet, events: Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
}

/// The application and whatever it started.
struct Flock {
    child: Child,
    own_group: bool,
    events: Receiver<Event>,
    ended: Option<u8>,
}

impl Flock {
    /// Waits for the end, ends the rest, returns the application's exit code.
    fn tend(mut self) -> u8 {
        loop {
            match self.events.recv() {
                Ok(Event::Signal(Signal::SIGCHLD)) => {
                    self.reap();
                    if self.ended.is_some() {
                        break;
                    }
                }
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
        let mut left = GRACE;
        while !living().is_empty() && !left.is_zero() {
            self.wait_a_tick();
            left = left.saturating_sub(TICK);
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
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.note(pid, ExitStatus::from_raw((code & 0xff) << 8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.note(pid, ExitStatus::from_raw(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn note(&mut self, pid: Pid, status: ExitStatus) {
        if u32::try_from(pid.as_raw()) == Ok(self.child.id()) {
            self.ended = Some(exit_code(status));
        }
    }
}

/// Every living descendant of this process.
fn living() -> Vec<Pid> {
    processes::descendants(std::process::id())
        .into_iter()
        .filter_map(|pid| i32::try_from(pid).ok().map(Pid::from_raw))
        .collect()
}

/// The shell's convention: the code, or 128 + signal.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// `hms __exec`: ties its own life to the shepherd's, then becomes the application.
pub(crate) fn become_application(options: &cli::Exec) -> Result<Exit, Failure> {
    let failed = |why: String| Failure::new(Exit::Child(126), 1103, "cannot start the application").because(why);
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| failed(error.desc().to_owned()))?;
    if std::os::unix::process::parent_id() != options.parent {
        return Err(failed("the shepherd ended meanwhile".to_owned()));
    }
    // The shepherd blocks signals for itself; a mask is inherited, also over exec, and would make the application deaf.
    SigSet::empty().thread_set_mask().map_err(|error| failed(error.desc().to_owned()))?;
    let (program, arguments): (&OsString, _) =
        options.command.split_first().ok_or_else(|| failed("no program was named".to_owned()))?;
    let error = Command::new(program).args(arguments).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Err(Failure::new(Exit::Child(code), 1103, format!("cannot start {}", program.to_string_lossy()))
        .because(error.to_string())
        .fix("check the command, and that its folder is on PATH"))
}
