//! Who is asking: the proofs by which a caller gets an identity.
//!
//! Nothing a caller *says* counts. On the laptop the kernel tells which process is at the other end of the local socket and the
//! supervisor has said beforehand what that process is; a workload that already has a certificate renews with it; a workload
//! on another host brings a join token that works once.

use std::collections::BTreeMap;
use std::fmt;

use hms_model::listener::Role;
use hms_model::spiffe::SpiffeId;
use parking_lot::Mutex;

/// The proof by which a caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestation {
    /// The peer credentials of the local socket named this process, which was attested before.
    Process(u32),
    /// A certificate of ours, over mutual TLS.
    Svid,
    /// A join token.
    JoinToken,
    /// The control plane itself.
    Own,
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(id) => write!(f, "process {id}"),
            Self::Svid => f.write_str("current certificate"),
            Self::JoinToken => f.write_str("join token"),
            Self::Own => f.write_str("control plane"),
        }
    }
}

/// The identity behind a connection. The gRPC server puts it into the extensions of every request whose caller it recognised;
/// services read it there and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Who.
    pub identity: SpiffeId,
    /// How that is known.
    pub attestation: Attestation,
}

/// Why a process was not attested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// It runs as another user.
    #[error("process {0} belongs to another user")]
    OtherUser(u32),
    /// Too many attested processes live.
    #[error("{LIMIT} processes are attested already")]
    Full,
}

/// How many living processes may be attested at the same time.
const LIMIT: usize = 4096;

/// What the supervisor said of its children.
#[derive(Debug, Default)]
pub struct Attestations {
    entries: Mutex<BTreeMap<u32, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// A process id is used again after its process has gone; the start time tells the two apart.
    started: u64,
    identity: SpiffeId,
    role: Role,
}

impl Attestations {
    /// Remembers what a living process is. It must run as our own user. Saying it again replaces what was said.
    pub fn attest(&self, process: u32, identity: SpiffeId, role: Role) -> Result<(), AttestError> {
        let found = Process::read(process).ok_or(AttestError::NoProcess(process))?;
        if found.user != own_user() {
            return Err(AttestError::OtherUser(process));
        }
        let mut entries = self.entries.lock();
        if entries.len() >= LIMIT {
            entries.retain(|id, entry| Process::read(*id).is_some_and(|found| found.started == entry.started));
        }
        if entries.len() >= LIMIT && !entries.contains_key(&process) {
            return Err(AttestError::Full);
        }
        entries.insert(process, Entry { started: found.started, identity, role });
        Ok(())
    }

    /// What a peer of the local socket is, by its kernel-given credentials; `None` for whoever was not attested, runs as
    /// another user, or only has the id of a process that was.
    pub fn identify(&self, process: u32, user: u32) -> Option<(PeerIdentity, Role)> {
        let entry = self.entries.lock().get(&process).cloned()?;
        let found = Process::read(process)?;
        let same = user == own_user() && found.user == user && found.started == entry.started;
        let attestation = Attestation::Process(process);
        same.then_some((PeerIdentity { identity: entry.identity, attestation }, entry.role))
    }
}

fn own_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// What the kernel says of a process.
struct Process {
    /// Effective user.
    user: u32,
    /// Ticks after boot.
    started: u64,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        // The owner of /proc/ID is root for a process that forbids being dumped; its status always tells the truth.
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        let user = users.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The command's name may hold spaces and brackets: the last bracket ends it, and field 3 follows (proc(5)).
        let (_command, rest) = text.rsplit_once(')')?;
        let started = rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
        Some(Self { user, started })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calc() -> SpiffeId {
        SpiffeId::parse("spiffe://k3.hms/ns/default/sa/calc-svc").unwrap()
    }

    #[test]
    fn an_attested_process_is_recognised_by_its_credentials() {
        let attestations = Attestations::default();
        let own = std::process::id();
        assert_eq!(attestations.identify(own, own_user()), None);
        attestations.attest(own, calc(), Role::Sidecar).unwrap();
        let (peer, role) = attestations.identify(own, own_user()).unwrap();
        assert_eq!((peer.identity, peer.attestation, role), (calc(), Attestation::Process(own), Role::Sidecar));
        assert_eq!(attestations.identify(own, own_user() + 1), None);
    }

    #[test]
    fn a_process_id_that_was_used_again_is_a_stranger() {
        let attestations = Attestations::default();
        let own = std::process::id();
        attestations.attest(own, calc(), Role::Sidecar).unwrap();
        attestations.entries.lock().get_mut(&own).unwrap().started += 1;
        assert_eq!(attestations.identify(own, own_user()), None);
    }

    #[test]
    fn what_does_not_live_cannot_be_attested() {
        let beyond = u32::try_from(i32::MAX).unwrap();
        assert_eq!(Attestations::default().attest(beyond, calc(), Role::Sidecar), Err(AttestError::NoProcess(beyond)));
    }
}
