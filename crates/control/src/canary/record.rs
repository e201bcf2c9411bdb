//! A canary as it is stored: what was asked for, how far it is, and which split it wants at this moment.

use std::time::Duration;

use bytes::Bytes;
use hms_model::names::ServiceName;
use hms_model::split::Share;
use hms_traffic::canary::{Gates, Phase, Plan};
use serde::{Deserialize, Serialize};

/// How every key of a canary begins.
pub(super) const PREFIX: &str = "canary/";

/// The key of a service's canary.
pub(super) fn key(service: &ServiceName) -> String {
    format!("{PREFIX}{}/{}", service.namespace(), service.name())
}

/// The service of a key.
pub(super) fn service_of(key: &str) -> Option<ServiceName> {
    let (namespace, name) = key.strip_prefix(PREFIX)?.split_once('/')?;
    ServiceName::in_namespace(namespace, name).ok()
}

/// A split, or that there is none.
pub(super) type Division = Option<Vec<Share>>;

/// What is known of a canary.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The version that is given more and more.
    pub to: String,
    /// What was asked for.
    pub plan: Plan,
    /// How it stands.
    pub phase: Phase,
    /// The place of its step.
    pub step: usize,
    /// Why it is over, in a sentence; empty before.
    pub why: String,
    /// What held before it began.
    pub before: Division,
    /// The versions that were known when it began.
    pub known: Vec<String>,
    /// The split it wants now.
    pub wanted: Division,
    /// The split that held when it wanted another, until it has that; else the same as is wanted.
    pub was: Division,
    /// When it began, in Unix seconds.
    pub started: u64,
    /// When it was over, in Unix seconds.
    pub ended: Option<u64>,
}

impl Record {
    /// Whether something of it is still to be done.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.phase.is_over() || self.is_pending()
    }

    /// Whether the split that is wanted was not seen yet.
    pub(super) fn is_pending(&self) -> bool {
        self.was != self.wanted
    }

    /// From bytes of the store.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        stored.into_record().ok_or_else(|| "it says what cannot be".to_owned())
    }

    /// As bytes for the store.
    pub(super) fn write(&self) -> Result<Bytes, String> {
        serde_json::to_vec(&Stored::of(self)).map(Bytes::from).map_err(|error| error.to_string())
    }
}

/// The form in the store.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    to: String,
    steps: Vec<u32>,
    hold_ms: u64,
    enough: u64,
    most_failures: Option<u32>,
    longest_p95_ms: Option<u64>,
    most_errors: Option<u64>,
    phase: String,
    step: usize,
    why: String,
    before: Option<Vec<StoredShare>>,
    known: Vec<String>,
    wanted: Option<Vec<StoredShare>>,
    was: Option<Vec<StoredShare>>,
    started: u64,
    ended: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredShare {
    namespace: String,
    name: String,
    version: String,
    weight: u32,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Stored {
    fn of(record: &Record) -> Self {
        let Record { to, plan, phase, step, why, before, known, wanted, was, started, ended } = record.clone();
        let Plan { steps, hold, gates: Gates { failures, p95, errors }, enough } = plan;
        Self {
            to,
            steps,
            hold_ms: millis(hold),
            enough,
            most_failures: failures,
            longest_p95_ms: p95.map(millis),
            most_errors: errors,
            phase: phase.as_str().to_owned(),
            step,
            why,
            before: before.map(store),
            known,
            wanted: wanted.map(store),
            was: was.map(store),
            started,
            ended,
        }
    }

    /// `None` where it names what there is none of.
    fn into_record(self) -> Option<Record> {
        let phase = Phase::ALL.into_iter().find(|phase| phase.as_str() == self.phase)?;
        let gates = Gates {
            failures: self.most_failures,
            p95: self.longest_p95_ms.map(Duration::from_millis),
            errors: self.most_errors,
        };
        let hold = Duration::from_millis(self.hold_ms);
        let plan = Plan { steps: self.steps, hold, gates, enough: self.enough };
        (self.step < plan.steps.len()).then_some(())?;
        Some(Record {
            to: self.to,
            plan,
            phase,
            step: self.step,
            why: self.why,
            before: load(self.before)?,
            known: self.known,
            wanted: load(self.wanted)?,
            was: load(self.was)?,
            started: self.started,
            ended: self.ended,
        })
    }
}

fn store(shares: Vec<Share>) -> Vec<StoredShare> {
    let one = |share: Share| StoredShare {
        namespace: share.service.namespace().to_owned(),
        name: share.service.name().to_owned(),
        version: share.version,
        weight: share.weight,
    };
    shares.into_iter().map(one).collect()
}

fn load(shares: Option<Vec<StoredShare>>) -> Option<Division> {
    let one = |share: StoredShare| {
        let service = ServiceName::in_namespace(&share.namespace, &share.name).ok()?;
        Some(Share { service, version: share.version, weight: share.weight })
    };
    shares.map_or(Some(None), |shares| shares.into_iter().map(one).collect::<Option<Vec<_>>>().map(Some))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let service = ServiceName::in_namespace("prod", "pay").unwrap();
        let shares = vec![Share { service: service.clone(), version: "v1".to_owned(), weight: 7 }];
        let gates = Gates { failures: Some(1), p95: Some(Duration::from_millis(300)), errors: None };
        let record = Record {
            to: "v2".to_owned(),
            plan: Plan { steps: vec![1, 2], hold: Duration::from_secs(5), gates, enough: 20 },
            phase: Phase::Paused,
            step: 1,
            why: String::new(),
            before: None,
            known: vec!["v1".to_owned()],
            wanted: Some(shares),
            was: None,
            started: 9,
            ended: None,
        };
        let bytes = record.write().unwrap();
        assert_eq!(Record::read(&bytes), Ok(record.clone()));
        assert_eq!(service_of(&key(&service)), Some(service));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for (word, other) in [("paused", "pausing"), ("\"step\":1", "\"step\":2"), ("\"why\"", "\"because\"")] {
            assert!(text.contains(word), "{text}");
            assert!(Record::read(text.replace(word, other).as_bytes()).is_err(), "{other}");
        }
        assert!(record.is_pending());
    }
}
