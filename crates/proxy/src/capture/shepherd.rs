//! The parent of one application: a small synchronous process that outlives nothing it started.
//!
//! It is the reaper of every descendant (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so daemons that fork twice come back to it. It
//! ends them when the supervisor is gone, when it is told to, and when the application itself has ended: SIGTERM, five
//! seconds, SIGKILL. Should the shepherd itself be killed, the kernel kills the application, or the first process inside and with it
//! all others (`PR_SET_PDEATHSIG`, `pid_namespaces(7)`).

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::application::{self, Rights};
use super::flock::{self, Event, Flock, block_signals, watch_signals};
use super::hand_out::HandOut;
use super::namespaces::{Split, split};
use super::{Mode, inside, link, notify, refused};

/// How much longer than the application's own grace the first process inside may take.
const REST: Duration = Duration::from_secs(1);

/// What a shepherd is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How the application is captured.
    pub mode: Mode,
    /// The supervisor's socket; the application ends when it closes.
    pub lifeline: Option<PathBuf>,
    /// Whether the application gets a process group of its own.
    pub own_group: bool,
    /// The runtime directory of its proxy.
    pub proxy: Option<PathBuf>,
    /// Directories it sees empty.
    pub masks: Vec<PathBuf>,
    /// Sockets of the host it may use although they lead around the mesh.
    pub keep: Vec<PathBuf>,
    /// Loopback ports inside that lead to the same port of the host.
    pub host_ports: Vec<u16>,
    /// Where the application itself listens or will listen.
    pub own_ports: Vec<u16>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

impl Options {
    /// Reads the arguments after `__shepherd`.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::ValueExt as _;
        let mut options = Self {
            mode: Mode::None,
            lifeline: None,
            own_group: false,
            proxy: None,
            masks: Vec::new(),
            keep: Vec::new(),
            host_ports: Vec::new(),
            own_ports: Vec::new(),
            command: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("mode") => {
                    options.mode = parser.value()?.parse_with(|text| Mode::parse(text).ok_or("no such mode"))?;
                }
                lexopt::Arg::Long("lifeline") => options.lifeline = Some(parser.value()?.into()),
                lexopt::Arg::Long("own-group") => options.own_group = true,
                lexopt::Arg::Long("proxy") => options.proxy = Some(parser.value()?.into()),
                lexopt::Arg::Long("mask") => options.masks.push(parser.value()?.into()),
                lexopt::Arg::Long("keep") => options.keep.push(parser.value()?.into()),
                lexopt::Arg::Long("host-port") => options.host_ports.push(parser.value()?.parse()?),
                lexopt::Arg::Long("own-port") => options.own_ports.push(parser.value()?.parse()?),
                lexopt::Arg::Value(word) => {
                    options.command.push(word);
                    options.command.extend(parser.raw_args()?);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}

/// `hms-proxy __shepherd`: runs the application; its exit code, 128 + n if signal n ended it.
pub fn run(options: &Options) -> ExitCode {
    match start(options) {
        Ok(code) => code,
        Err(error) => {
            application::say(1103, "cannot start the application", &error.to_string(), "hms status -o wide");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> io::Result<ExitCode> {
    prctl::set_child_subreaper(true)?;
    let signals = block_signals()?;
    let lifeline = options
        .lifeline
        .as_ref()
        .map(UnixStream::connect)
        .transpose()
        .map_err(|error| io::Error::new(error.kind(), format!("the supervisor is gone: {error}")))?;
    match options.mode {
        Mode::Netns => in_namespaces(options, signals, lifeline),
        Mode::Notify => asked(options, signals, lifeline),
        Mode::None | Mode::Joined => {
            let child = application::start(&options.command, options.own_group, Rights::Same);
            Ok(tend(options, child, watch(signals, lifeline)))
        }
    }
}

fn tend(options: &Options, child: io::Result<Child>, events: Receiver<Event>) -> ExitCode {
    match child {
        Ok(child) => Flock::new(child, options.own_group, events).tend().into(),
        Err(error) => application::complain(&options.command, &error).into(),
    }
}

/// In the host's network, answering for the application.
fn asked(options: &Options, signals: SigSet, lifeline: Option<UnixStream>) -> io::Result<ExitCode> {
    let opened = notify::open()?;
    let child = application::start_asking(&options.command, options.own_group).map(|(child, questions)| {
        if let Some(proxy) = &options.proxy {
            opened.answer(questions, proxy.clone(), options.masks.clone(), &options.keep);
        }
        child
    });
    Ok(tend(options, child, watch(signals, lifeline)))
}

fn watch(signals: SigSet, lifeline: Option<UnixStream>) -> Receiver<Event> {
    let (sender, events) = channel();
    if let Some(lifeline) = lifeline {
        watch_lifeline(lifeline, sender.clone());
    }
    watch_signals(signals, sender);
    events
}

fn watch_lifeline(mut lifeline: UnixStream, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut byte = [0; 1];
        // The supervisor never writes, so any return means that it is gone.
        drop(lifeline.read(&mut byte));
        let _ending_already = events.send(Event::LifelineClosed).is_err();
    });
}

fn in_namespaces(options: &Options, signals: SigSet, lifeline: Option<UnixStream>) -> io::Result<ExitCode> {
    let (link, child) = match split() {
        Ok(Split::Outside { link, inside }) => (link, inside),
        Ok(Split::Inside { link, own_users }) => {
            // Its end of the lifeline would keep the supervisor's list longer than needed.
            drop(lifeline);
            return Ok(inside::live(link, own_users, options, signals));
        }
        Ok(Split::Between) => return Ok(ExitCode::SUCCESS),
        Err(error) => return Ok(impossible(&error.to_string())),
    };
    let (mut sockets, mut refusals) = (Vec::new(), None);
    loop {
        match link::receive(&link)? {
            None => return Ok(impossible("the first process inside ended")),
            Some(message) => match message.words() {
                ("ready", _) => break,
                ("failed", why) => return Ok(impossible(why)),
                ("refusals", _) => refusals = message.sockets.into_iter().next(),
                _ => sockets.push(message),
            },
        }
    }
    let events = watch(signals, lifeline);
    if let Some(refusals) = refusals {
        refused::watch(refusals, options.own_ports.clone());
    }
    if let Some(proxy) = &options.proxy {
        let _for_this_life = HandOut::begin(proxy.clone(), Some(link), sockets);
    }
    Ok(Inside { child, own_group: options.own_group, events }.tend().into())
}

/// Transparent capture was asked for and is not to be had.
fn impossible(why: &str) -> ExitCode {
    application::say(
        1201,
        "cannot capture in namespaces",
        why,
        "hms up --intercept auto   # or see: hms explain HMS-1201",
    );
    ExitCode::FAILURE
}

/// The first process inside, seen from outside.
struct Inside {
    child: Pid,
    own_group: bool,
    events: Receiver<Event>,
}

impl Inside {
    /// Waits for its end, which is the end of everything inside; its exit code.
    fn tend(self) -> u8 {
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            match self.events.recv() {
                Ok(Event::Signal(Signal::SIGCHLD)) => {}
                // Keys of the terminal reach an application of the same group by themselves.
                Ok(Event::Signal(Signal::SIGINT | Signal::SIGQUIT)) if !self.own_group => {}
                Ok(_) | Err(_) => return self.end(),
            }
        }
    }

    /// Told to end, it ends its flock; it is killed if that takes too long.
    fn end(&self) -> u8 {
        const TICK: Duration = Duration::from_millis(10);
        let _ended_already = kill(self.child, Signal::SIGTERM).is_err();
        let deadline = Instant::now() + flock::GRACE + REST;
        loop {
            if let Some(code) = self.ended() {
                return code;
            }
            if Instant::now() >= deadline {
                let _ended_already = kill(self.child, Signal::SIGKILL).is_err();
            }
            match self.events.recv_timeout(TICK) {
                Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }

    fn ended(&self) -> Option<u8> {
        std::iter::from_fn(flock::collect).find(|(pid, _)| *pid == self.child).map(|(_, code)| code)
    }
}

/// `hms-proxy __capture`: tries the modes from the best down by doing everything but starting a program. One line of JSON.
pub fn probe(masks: Vec<PathBuf>) -> ExitCode {
    let (mode, why) = match try_namespaces(masks) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(())) => (Mode::Netns, String::new()),
        Err(why) => match try_asking() {
            Ok(()) => (Mode::Notify, why),
            Err(neither) => (Mode::None, format!("{why}; no notifications: {neither}")),
        },
    };
    let said = serde_json::json!({"mode": mode.as_str(), "why": why});
    if io::stdout().write_all(format!("{said}\n").as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sets everything up and ends it again. `None` in a process that only helped.
fn try_namespaces(masks: Vec<PathBuf>) -> Result<Option<()>, String> {
    let options = Options { masks, ..Options::parse([]).map_err(|error| error.to_string())? };
    let plain = |error: io::Error| error.to_string();
    prctl::set_child_subreaper(true).map_err(|error| error.desc().to_owned())?;
    let signals = block_signals().map_err(plain)?;
    let link = match split().map_err(plain)? {
        Split::Outside { link, .. } => link,
        Split::Inside { link, own_users } => {
            let _told = inside::live(link, own_users, &options, signals);
            return Ok(None);
        }
        Split::Between => return Ok(None),
    };
    loop {
        let message = link::receive(&link).map_err(plain)?.ok_or("the first process inside ended")?;
        match message.words() {
            ("ready", _) => return Ok(Some(())),
            ("failed", why) => return Err(why.to_owned()),
            _ => {}
        }
    }
}

/// Starts a program of our own whose calls are asked about.
fn try_asking() -> io::Result<()> {
    notify::open()?;
    let words = ["/proc/self/exe".into(), "__nothing".into()];
    let (mut child, _questions) = application::start_asking(&words, true)?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, lexopt::Error> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn everything_after_the_dashes_is_the_applications() {
        let options =
            parse(&["--mode", "netns", "--host-port", "5432", "--own-group", "--", "sh", "-c", "--mode"]).unwrap();
        assert_eq!((options.mode, options.own_group), (Mode::Netns, true));
        assert_eq!(options.host_ports, [5432]);
        assert_eq!(options.command, ["sh", "-c", "--mode"].map(OsString::from));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [&["--mode", "magic"][..], &["--host-port", "70000"], &["--what"], &["--proxy"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
