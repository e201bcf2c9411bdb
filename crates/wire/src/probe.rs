//! How an application is asked whether it is well, in both directions.

use std::time::Duration;

use hms_model::message::CanonicalPath;
use hms_model::policy::Probe;
use hms_model::policy::probe::{MOST_STATUSES, Question, is_grpc_service};

use crate::bounds::{duration, each, micros, number, required};
use crate::proto::hms::v1::{self, probe};
use crate::{Wire, WireError};

/// Longest path, in bytes.
const PATH_BYTES: usize = 1024;
/// Most answers in a row that a change may need.
const MOST_IN_A_ROW: u32 = 100;
/// An application must not be busy with probes, and a proxy not with waiting for it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);

impl Wire for Probe {
    type Message = v1::Probe;

    fn to_wire(&self) -> v1::Probe {
        let Self { question, interval, timeout, healthy, unhealthy } = self;
        let question = match question {
            Question::Tcp => probe::Question::Tcp(true),
            Question::Http { path, statuses } => {
                let range = |range: &std::ops::RangeInclusive<u16>| v1::Statuses {
                    first: u32::from(*range.start()),
                    last: u32::from(*range.end()),
                };
                let statuses = statuses.iter().map(range).collect();
                probe::Question::Http(v1::HttpProbe { path: path.as_str().to_owned(), statuses })
            }
            Question::Grpc { service } => probe::Question::Grpc(service.clone()),
        };
        v1::Probe {
            question: Some(question),
            interval_us: micros(*interval),
            timeout_us: micros(*timeout),
            healthy: *healthy,
            unhealthy: *unhealthy,
        }
    }

    fn from_wire(message: v1::Probe) -> Result<Self, WireError> {
        let v1::Probe { question, interval_us, timeout_us, healthy, unhealthy } = message;
        let question = match required(question, "probe.question")? {
            probe::Question::Tcp(true) => Question::Tcp,
            probe::Question::Tcp(false) => return Err(WireError::field("probe.tcp", &"named, but not meant")),
            probe::Question::Http(http) => self::http(http)?,
            probe::Question::Grpc(service) if is_grpc_service(&service) => Question::Grpc { service },
            probe::Question::Grpc(_) => return Err(WireError::field("probe.grpc", &"no name of a service")),
        };
        let interval = duration(interval_us, "probe.interval")?;
        if interval < SHORTEST_INTERVAL {
            return Err(WireError::field("probe.interval", &"too short"));
        }
        let timeout = duration(timeout_us, "probe.timeout")?;
        if timeout > LONGEST_TIMEOUT {
            return Err(WireError::field("probe.timeout", &"too long"));
        }
        Ok(Self {
            question,
            interval,
            timeout,
            healthy: number(healthy, "probe.healthy", 1..=MOST_IN_A_ROW)?,
            unhealthy: number(unhealthy, "probe.unhealthy", 1..=MOST_IN_A_ROW)?,
        })
    }
}

fn http(message: v1::HttpProbe) -> Result<Question, WireError> {
    let v1::HttpProbe { path, statuses } = message;
    if path.len() > PATH_BYTES {
        return Err(WireError::field("probe.http.path", &"too long"));
    }
    let path = CanonicalPath::parse(&path).map_err(|error| WireError::field("probe.http.path", &error))?;
    let range = |v1::Statuses { first, last }| {
        let first: u16 = number(first, "probe.http.statuses", 100..=599)?;
        let last: u16 = number(last, "probe.http.statuses", u32::from(first)..=599)?;
        Ok(first..=last)
    };
    Ok(Question::Http { path, statuses: each(statuses, "probe.http.statuses", MOST_STATUSES, range)? })
}
