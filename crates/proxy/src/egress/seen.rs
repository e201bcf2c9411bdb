//! Hosts outside that were asked for, counted.

use std::collections::BTreeMap;

use hms_traffic::egress::Asked;
use hms_wire::proto::hms::v1::OutsideHost;
use parking_lot::Mutex;

use super::shown;

/// Hosts that are counted by name; what is beyond is counted together.
const MOST: usize = 255;
/// What those are called.
pub const OTHERS: &str = "others";

/// What was asked for outside of the mesh.
#[derive(Debug, Default)]
pub struct Seen(Mutex<ByHost>);

/// Counts by host and port.
type ByHost = BTreeMap<(String, u16), Counts>;

#[derive(Debug, Default)]
struct Counts {
    label: String,
    allowed: u64,
    refused: u64,
}

impl Seen {
    /// Counts one request or unread connection: let through under a label, which is empty for what is not listed, or refused.
    pub fn note(&self, asked: Asked<'_>, allowed: Option<&str>) {
        let mut all = self.0.lock();
        let mut key = (shown(asked), asked.port);
        if all.len() >= MOST && !all.contains_key(&key) {
            key = (OTHERS.to_owned(), 0);
        }
        let before = all.get(&key).map_or(0, |counts| counts.allowed + counts.refused);
        if before == 0 {
            let (host, port) = &key;
            match allowed {
                Some("") => tracing::info!(host, port, "a host outside that is not listed was called"),
                Some(_) => {}
                None => tracing::warn!(
                    host,
                    port,
                    "a host outside was refused; egress.hosts of mesh.yaml lists what is allowed"
                ),
            }
        }
        let counts = all.entry(key).or_default();
        match allowed {
            Some(label) => {
                if counts.label != label {
                    label.clone_into(&mut counts.label);
                }
                counts.allowed += 1;
            }
            None => counts.refused += 1,
        }
    }

    /// Whether a host is counted by its name.
    pub fn names(&self, host: &str, port: u16) -> bool {
        let mut all = self.0.lock();
        let key = (host.to_owned(), port);
        if all.len() >= MOST {
            return all.contains_key(&key);
        }
        all.entry(key).or_default();
        true
    }

    /// Everything counted, for the control plane.
    pub fn report(&self) -> Vec<OutsideHost> {
        let all = self.0.lock();
        let host = |((host, port), counts): (&(String, u16), &Counts)| OutsideHost {
            host: host.clone(),
            port: u32::from(*port),
            label: counts.label.clone(),
            allowed: counts.allowed,
            refused: counts.refused,
        };
        all.iter().filter(|(_, counts)| counts.allowed + counts.refused > 0).map(host).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_by_name_until_there_are_too_many() {
        let seen = Seen::default();
        for number in 0..2000_u32 {
            let name = format!("h{number}.example");
            seen.note(Asked { name: Some(&name), address: None, port: 443 }, Some(""));
        }
        seen.note(Asked { name: Some("h0.example"), address: None, port: 443 }, None);
        let report = seen.report();
        assert_eq!(report.len(), MOST + 1);
        assert_eq!(report.iter().map(|host| host.allowed).sum::<u64>(), 2000);
        let first = report.iter().find(|host| host.host == "h0.example").unwrap();
        assert_eq!((first.allowed, first.refused), (1, 1));
    }
}
