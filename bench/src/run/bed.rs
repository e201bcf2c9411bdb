//! What is measured: one way through one product.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::children::Program;
use super::peers::Peer;

/// A way that requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    /// One proxy, plain on both sides.
    Plain,
    /// Plain into a proxy, mutual TLS to a second, plain to the application.
    Pair,
    /// The same with HTTP/2 up to the second proxy.
    PairHttp2,
    /// The same with HTTP/2 up to the application.
    PairGrpc,
    /// The same with bytes instead of requests.
    Opaque,
    /// The same as [`Self::Pair`], from a captured program that dials the service itself.
    Captured,
}

/// What a single proxy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// [`Hop::Plain`].
    Plain,
    /// The second of a pair.
    Inbound,
}

/// Whose proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Nobody's: straight to the backend.
    Direct,
    /// Ours as `hms up` configures it.
    Ours,
    /// Ours without its access log, as the peers run.
    OursQuiet,
    /// Somebody else's.
    Peer(Peer),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Ours => f.write_str("ours"),
            Self::OursQuiet => f.write_str("ours, no log"),
            Self::Peer(peer) => f.write_str(peer.name()),
        }
    }
}

/// Where load goes, and which processes it costs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Every process of every proxy on the way.
    pub(crate) pids: Vec<u32>,
    /// What runs a program where the client must be, if that is not here.
    pub(crate) entry: Option<Entry>,
}

/// A program that runs another one elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// It.
    pub(crate) runner: PathBuf,
    /// Its arguments, to which the other and those of the other are added.
    pub(crate) words: Vec<OsString>,
    /// Its environment besides our own.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub(crate) folder: PathBuf,
}

impl Place {
    /// A program, run where the client must be.
    pub(crate) fn client(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(Entry { runner, words, environment, folder }) = &self.entry else { return Command::new(program) };
        let mut command = Command::new(runner);
        command.args(words).arg(program).current_dir(folder).env_clear().envs(environment.iter().cloned());
        command
    }
}

/// A proxy that nobody has used yet.
pub(crate) struct Fresh {
    /// Where it is.
    pub(crate) place: Place,
    /// From its start until it served.
    pub(crate) started: Duration,
    /// Ends with this.
    pub(crate) program: Program,
}
