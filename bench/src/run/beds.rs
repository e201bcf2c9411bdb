//! All that is measured, running side by side: the backends, our mesh with and without its access log, the peers.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::bed::{Fresh, Hop, Place, Role, Who};
use super::case::{Kind, Metric};
use super::certificates::Certificates;
use super::children::{Program, finish, until};
use super::interrupt::Interrupt;
use super::kernel;
use super::measure;
use super::options::{Options, Programs};
use super::ours::Mesh;
use super::peers::{Backends, Peer, PeerBed, free};
use super::plan::{Step, Times};
use crate::figure::float;
use crate::{Outcome, say, settings};

/// How long a backend may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one measurement found.
pub(crate) type Figures = Vec<(Metric, f64)>;

/// One product, running.
enum Bed {
    Ours(Mesh),
    Peer(Box<PeerBed>),
}

/// Everything that runs during a run.
pub(crate) struct Beds {
    running: BTreeMap<Who, Bed>,
    certificates: Certificates,
    backends: Backends,
    programs: Programs,
    folder: TempDir,
    _servers: Vec<Program>,
}

impl Beds {
    /// Starts what the options ask for.
    pub(crate) fn start(options: &Options, interrupt: &Interrupt) -> Outcome<Self> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let certificates = Certificates::make()?;
        let [http1, grpc, sink] = free(3)?.try_into().map_err(|_count| "no free ports".to_owned())?;
        let backends = Backends { http1, grpc, sink };
        let servers = [(http1, None), (grpc, Some("grpc")), (sink, Some("sink"))]
            .map(|(address, word)| backend(address, word, folder.path(), interrupt));
        let servers = servers.into_iter().collect::<Outcome<Vec<_>>>()?;
        let mut beds = BTreeMap::new();
        let mesh = |logged| Mesh::up(&options.programs, http1, logged, interrupt).map(Bed::Ours);
        say("starting our mesh");
        beds.insert(Who::Ours, mesh(true)?);
        if options.cases.iter().any(|case| case.logs()) {
            say("starting our mesh without access logs");
            beds.insert(Who::OursQuiet, mesh(false)?);
        }
        for &peer in &options.peers {
            say(&format!("starting {}", peer.name()));
            let bed = PeerBed::start(peer, &options.programs, backends, &certificates, interrupt)?;
            beds.insert(Who::Peer(peer), Bed::Peer(Box::new(bed)));
        }
        let programs = options.programs.clone();
        Ok(Self { running: beds, certificates, backends, programs, folder, _servers: servers })
    }

    /// Makes one measurement.
    pub(crate) fn measure(&self, step: &Step, times: Times, interrupt: &Interrupt) -> Outcome<Figures> {
        match step.case.kind {
            Kind::Requests { hop, path, latency } => self.requests(step.who, (hop, path, latency), times, interrupt),
            Kind::Http2 { hop } => {
                let place = self.place(step.who, hop)?;
                let cpu = measure::http2(&place, hop, times.load, self.folder.path(), interrupt)?;
                Ok(vec![(Metric::Cpu, cpu)])
            }
            Kind::Bytes => {
                let place = self.place(step.who, Hop::Opaque)?;
                Ok(vec![(Metric::Cpu, measure::bytes(&place, times.short, interrupt)?)])
            }
            Kind::Handshakes(offer) => {
                let identity = self.identity(step.who)?;
                let cpu = self.with_fresh(step.who, Role::Inbound, interrupt, |fresh| {
                    measure::handshakes(&fresh.place, &identity, offer, times.short, interrupt)
                })?;
                Ok(vec![(Metric::Cpu, cpu)])
            }
            Kind::Idle { role, count } => {
                let identity = self.identity(step.who)?;
                let identity = (role == Role::Inbound).then_some(identity.as_path());
                let memory = self.with_fresh(step.who, role, interrupt, |fresh| {
                    // Once, so that what the first connection of all needs is not charged to the others.
                    measure::idle(fresh, 1, identity, interrupt)?;
                    measure::idle(fresh, count, identity, interrupt)
                })?;
                Ok(vec![(Metric::Rss, memory)])
            }
            Kind::Start => self.begin(step, interrupt),
        }
    }

    fn requests(
        &self,
        who: Who,
        (hop, path, latency): (Hop, &str, bool),
        times: Times,
        interrupt: &Interrupt,
    ) -> Outcome<Figures> {
        if who == Who::Direct {
            let place = Place { address: self.backends.http1, pids: Vec::new(), entry: None };
            let (p50, p99) = measure::latency(&place, times.rate, interrupt)?;
            return Ok(vec![(Metric::P50, p50), (Metric::P99, p99)]);
        }
        let place = self.place(who, hop)?;
        let mut figures = vec![(Metric::Cpu, measure::requests(&place, path, times.load, interrupt)?)];
        if latency {
            let (p50, p99) = measure::latency(&place, times.rate, interrupt)?;
            figures.extend([(Metric::P50, p50), (Metric::P99, p99)]);
        }
        figures.push((Metric::Rss, float(kernel::resident(&place.pids)?)));
        Ok(figures)
    }

    fn begin(&self, step: &Step, interrupt: &Interrupt) -> Outcome<Figures> {
        let (time, memory) = self.with_fresh(step.who, Role::Plain, interrupt, |fresh| {
            Ok((fresh.started.as_secs_f64() * 1000.0, float(kernel::resident(&fresh.place.pids)?)))
        })?;
        Ok(vec![(Metric::P50, time), (Metric::Rss, memory), (Metric::Size, self.size(step.who, interrupt)?)])
    }

    /// Bytes of a program without its symbols.
    fn size(&self, who: Who, interrupt: &Interrupt) -> Outcome<f64> {
        let program = match who {
            Who::Direct | Who::Ours | Who::OursQuiet => self.programs.proxy.clone(),
            Who::Peer(peer) => settings::found(&peer.program(&self.programs))?,
        };
        let copy = self.folder.path().join("stripped");
        finish(Command::new("strip").arg("-o").arg(&copy).arg(&program), PATIENCE, interrupt)?;
        let data = fs::metadata(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        Ok(float(data.len()))
    }

    fn bed(&self, who: Who) -> Outcome<&Bed> {
        self.running.get(&who).ok_or_else(|| format!("{who} does not run"))
    }

    fn place(&self, who: Who, hop: Hop) -> Outcome<Place> {
        let place = match self.bed(who)? {
            Bed::Ours(mesh) => mesh.place(hop)?,
            Bed::Peer(peer) => peer.place(hop)?,
        };
        place.ok_or_else(|| format!("{who} has no such way: {hop:?}"))
    }

    /// Measures a proxy that nobody has used yet, and leaves nothing of it behind.
    fn with_fresh<T>(
        &self,
        who: Who,
        role: Role,
        interrupt: &Interrupt,
        measured: impl FnOnce(&Fresh) -> Outcome<T>,
    ) -> Outcome<T> {
        let bed = self.bed(who)?;
        let fresh = match bed {
            Bed::Ours(mesh) => mesh.fresh(role, interrupt)?,
            Bed::Peer(peer) => peer.fresh(role, interrupt)?,
        };
        let found = measured(&fresh).map_err(|why| format!("{why}\n{}", fresh.program.said()))?;
        drop(fresh);
        if let Bed::Ours(mesh) = bed {
            mesh.forget(role, interrupt)?;
        }
        Ok(found)
    }

    /// Where the certificate lies with which a client may come.
    fn identity(&self, who: Who) -> Outcome<PathBuf> {
        match self.bed(who)? {
            Bed::Ours(mesh) => mesh.identity(),
            Bed::Peer(_) => Ok(self.certificates.folder().to_path_buf()),
        }
    }
}

fn backend(address: SocketAddr, word: Option<&str>, folder: &Path, interrupt: &Interrupt) -> Outcome<Program> {
    let mut command = Command::new(settings::own_program()?);
    command.args(["backend", &address.to_string()]).args(word);
    let mut program = Program::start(&mut command, &folder.join(format!("backend-{}.log", address.port())))?;
    until("the backend listens", PATIENCE, interrupt, || {
        program.lives()?;
        std::net::TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
    })?;
    Ok(program)
}

/// The peers with their versions.
pub(crate) fn versions(options: &Options) -> Outcome<Vec<String>> {
    let version = |peer: &Peer| {
        let flag = if *peer == Peer::Envoy { "--version" } else { "-v" };
        let program = settings::found(&peer.program(&options.programs))?;
        let output = Command::new(&program).arg(flag).output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(format!("{} {}", peer.name(), version_in(&String::from_utf8_lossy(&said))))
    };
    options.peers.iter().map(version).collect()
}

/// The first three numbers with dots between them.
fn version_in(said: &str) -> &str {
    let numbers = said.split(|c: char| !c.is_ascii_digit() && c != '.');
    numbers.into_iter().find(|word| word.matches('.').count() == 2).unwrap_or("of unknown version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version_in("nginx version: nginx/1.22.1\n"), "1.22.1");
        assert_eq!(version_in("/lib/python3.11/envoy  version: 0a/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
        assert_eq!(version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17"), "2.6.12");
    }
}
