//! The peers: nginx, `HAProxy` and Envoy, each from a template in `bench/peers`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::bed::{Fresh, Hop, Place, Role};
use super::certificates::Certificates;
use super::children::{Program, until};
use super::interrupt::Interrupt;
use super::options::Programs;
use crate::clock::now;
use crate::tool::exchange::{get, once};
use crate::{Outcome, settings};

/// How long a peer may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// Listeners of the first of a pair.
const OUTBOUND: [&str; 4] = ["PAIR", "PAIR_HTTP2", "PAIR_GRPC", "OPAQUE"];
/// Listeners of the second.
const INBOUND: [&str; 4] = ["INBOUND", "INBOUND_HTTP2", "INBOUND_GRPC", "INBOUND_OPAQUE"];

/// A proxy that ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// nginx.
    Nginx,
    /// `HAProxy`.
    Haproxy,
    /// Envoy.
    Envoy,
}

impl Peer {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Envoy];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Whether it can take this way at all.
    pub(crate) fn can(self, hop: Hop) -> bool {
        match (self, hop) {
            // It speaks HTTP/2 to upstreams for gRPC only; and no peer captures programs by itself.
            (Self::Nginx, Hop::PairHttp2) | (_, Hop::Captured) => false,
            // HAProxy alone stands for forwarding bytes.
            (_, Hop::Opaque) => self == Self::Haproxy,
            _ => true,
        }
    }

    /// The template of a role.
    fn template(self, part: Part) -> &'static str {
        match (self, part) {
            (Self::Nginx, Part::Plain) => include_str!("../../peers/nginx/plain.conf"),
            (Self::Nginx, Part::Outbound) => include_str!("../../peers/nginx/outbound.conf"),
            (Self::Nginx, Part::Inbound) => include_str!("../../peers/nginx/inbound.conf"),
            (Self::Haproxy, Part::Plain) => include_str!("../../peers/haproxy/plain.cfg"),
            (Self::Haproxy, Part::Outbound) => include_str!("../../peers/haproxy/outbound.cfg"),
            (Self::Haproxy, Part::Inbound) => include_str!("../../peers/haproxy/inbound.cfg"),
            (Self::Envoy, Part::Plain) => include_str!("../../peers/envoy/plain.yaml"),
            (Self::Envoy, Part::Outbound) => include_str!("../../peers/envoy/outbound.yaml"),
            (Self::Envoy, Part::Inbound) => include_str!("../../peers/envoy/inbound.yaml"),
        }
    }

    /// How it is started with a configuration.
    fn command(self, programs: &Programs, file: &Path, folder: &Path) -> Command {
        let mut command = Command::new(self.program(programs));
        command.env("PATH", settings::search_path()).current_dir(folder);
        match self {
            Self::Nginx => command.arg("-p").arg(folder).arg("-c").arg(file).args(["-g", "daemon off;"]),
            Self::Haproxy => command.arg("-db").arg("-f").arg(file),
            Self::Envoy => command.arg("-c").arg(file).args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "error",
            ]),
        };
        command
    }

    /// Its program.
    pub(crate) fn program(self, programs: &Programs) -> PathBuf {
        match self {
            Self::Nginx | Self::Haproxy => PathBuf::from(self.name()),
            Self::Envoy => programs.envoy.clone().unwrap_or_else(|| PathBuf::from(self.name())),
        }
    }
}

/// One instance's part.
#[derive(Debug, Clone, Copy)]
enum Part {
    Plain,
    Outbound,
    Inbound,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What templates leave open, by name.
type Blanks = BTreeMap<&'static str, String>;

/// The applications behind every peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backends {
    /// HTTP/1.1.
    pub(crate) http1: SocketAddr,
    /// gRPC.
    pub(crate) grpc: SocketAddr,
    /// Where bytes end.
    pub(crate) sink: SocketAddr,
}

/// One peer, running: a plain proxy, and a pair.
pub(crate) struct PeerBed {
    peer: Peer,
    programs: Programs,
    blanks: Blanks,
    plain: Program,
    outbound: Program,
    inbound: Program,
    folder: TempDir,
}

impl PeerBed {
    /// Starts it; returns when it serves.
    pub(crate) fn start(
        peer: Peer,
        programs: &Programs,
        backends: Backends,
        certificates: &Certificates,
        interrupt: &Interrupt,
    ) -> Outcome<Self> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut blanks = certificates.blanks();
        for (name, address) in [("BACKEND", backends.http1), ("GRPC_BACKEND", backends.grpc), ("SINK", backends.sink)] {
            blanks.insert(name, address.port().to_string());
        }
        let listeners = [&["PLAIN"][..], &OUTBOUND, &INBOUND].concat();
        open(&mut blanks, &listeners)?;
        let launch = |part| launch(peer, part, programs, &blanks, folder.path());
        let (inbound, outbound, plain) = (launch(Part::Inbound)?, launch(Part::Outbound)?, launch(Part::Plain)?);
        let mut bed = Self { peer, programs: programs.clone(), blanks, plain, outbound, inbound, folder };
        for hop in [Hop::Plain, Hop::Pair] {
            let address = bed.address(hop)?;
            until(&format!("{} serves", peer.name()), PATIENCE, interrupt, || {
                bed.plain.lives().and_then(|()| bed.outbound.lives()).and_then(|()| bed.inbound.lives())?;
                answers(address)
            })
            .map_err(|why| format!("{why}\n{}", bed.logs()))?;
        }
        Ok(bed)
    }

    /// Where load for this way goes, and which processes serve it.
    pub(crate) fn place(&self, hop: Hop) -> Outcome<Option<Place>> {
        if !self.peer.can(hop) {
            return Ok(None);
        }
        let pids = match hop {
            Hop::Plain => self.plain.family(),
            Hop::Pair | Hop::PairHttp2 | Hop::PairGrpc | Hop::Opaque | Hop::Captured => {
                [self.outbound.family(), self.inbound.family()].concat()
            }
        };
        Ok(Some(Place { address: self.address(hop)?, pids, entry: None }))
    }

    /// One more instance; returns when it has served, or, where clients need a certificate, when it listens.
    pub(crate) fn fresh(&self, role: Role, interrupt: &Interrupt) -> Outcome<Fresh> {
        let folder = self.folder.path().join("fresh");
        let _absent_is_fine = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut blanks = self.blanks.clone();
        let (part, listener) = match role {
            Role::Plain => (Part::Plain, "PLAIN"),
            Role::Inbound => (Part::Inbound, "INBOUND"),
        };
        open(&mut blanks, if role == Role::Plain { &["PLAIN"] } else { &INBOUND })?;
        let address = port(&blanks, listener)?;
        let begin = now();
        let mut program = launch(self.peer, part, &self.programs, &blanks, &folder)?;
        until(&format!("a new {} serves", self.peer.name()), PATIENCE, interrupt, || {
            program.lives()?;
            match role {
                Role::Plain => answers(address),
                Role::Inbound => std::net::TcpStream::connect(address).map(drop).map_err(|error| error.to_string()),
            }
        })?;
        let started = begin.elapsed();
        // nginx listens before the process is there that will serve.
        let processes = if self.peer == Peer::Nginx { 2 } else { 1 };
        until("every process of a peer runs", PATIENCE, interrupt, || {
            let family = program.family();
            if family.len() >= processes { Ok(()) } else { Err(format!("{family:?}")) }
        })?;
        Ok(Fresh { place: Place { address, pids: program.family(), entry: None }, started, program })
    }

    fn address(&self, hop: Hop) -> Outcome<SocketAddr> {
        let name = match hop {
            Hop::Plain => "PLAIN",
            Hop::Pair | Hop::Captured => "PAIR",
            Hop::PairHttp2 => "PAIR_HTTP2",
            Hop::PairGrpc => "PAIR_GRPC",
            Hop::Opaque => "OPAQUE",
        };
        port(&self.blanks, name)
    }

    /// What its instances said, for failures.
    fn logs(&self) -> String {
        [&self.plain, &self.outbound, &self.inbound].map(Program::said).join("\n")
    }
}

fn launch(peer: Peer, part: Part, programs: &Programs, blanks: &Blanks, folder: &Path) -> Outcome<Program> {
    // Envoy goes by the ending.
    let ending = if peer == Peer::Envoy { "yaml" } else { "conf" };
    let file = folder.join(format!("{}.{ending}", part.name()));
    let own = folder.join(part.name());
    fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    fs::write(&file, filled(peer.template(part), blanks)?).map_err(|error| format!("{}: {error}", file.display()))?;
    Program::start(&mut peer.command(programs, &file, &own), &folder.join(format!("{}.log", part.name())))
}

/// Gives these listeners free ports, all different.
fn open(blanks: &mut Blanks, listeners: &[&'static str]) -> Outcome {
    for (name, address) in listeners.iter().zip(free(listeners.len())?) {
        blanks.insert(name, address.port().to_string());
    }
    Ok(())
}

/// Addresses on loopback that are free now.
pub(crate) fn free(count: usize) -> Outcome<Vec<SocketAddr>> {
    // All are held until all are known, or the kernel might give one twice.
    let held: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let held = held.map_err(|error| format!("no free port: {error}"))?;
    held.iter().map(|one| one.local_addr().map_err(|error| error.to_string())).collect()
}

fn port(blanks: &Blanks, name: &str) -> Outcome<SocketAddr> {
    let text = blanks.get(name).map(String::as_str).unwrap_or_default();
    let port: u16 = text.parse().map_err(|error| format!("{name}: {error}"))?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// A template with its blanks (`@NAME@`) filled in.
fn filled(template: &str, blanks: &Blanks) -> Outcome<String> {
    let text = blanks.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    let blank = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match text.split('@').find(blank) {
        Some(left) => Err(format!("the template leaves @{left}@ open")),
        None => Ok(text),
    }
}

fn answers(address: SocketAddr) -> Outcome {
    match once(address, &get("bench", "/")) {
        Ok((200, _)) => Ok(()),
        Ok((status, _)) => Err(format!("answered {status}")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_blank_of_every_template_is_filled() {
        let names = [&["PLAIN", "BACKEND", "GRPC_BACKEND", "SINK", "CERTIFICATES"][..], &OUTBOUND, &INBOUND].concat();
        let blanks: Blanks = names.into_iter().map(|name| (name, "1".to_owned())).collect();
        for peer in Peer::ALL {
            for part in [Part::Plain, Part::Outbound, Part::Inbound] {
                assert!(filled(peer.template(part), &blanks).is_ok(), "{} {part:?}", peer.name());
            }
        }
        assert!(filled("listen @NOBODY@;", &blanks).is_err());
    }

    #[test]
    fn free_ports_differ() {
        let ports: std::collections::BTreeSet<SocketAddr> = free(20).unwrap().into_iter().collect();
        assert_eq!(ports.len(), 20);
    }
}
