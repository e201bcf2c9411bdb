//! Names of hosts outside: where they lead, and which of them an application was told an address for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hms_dns::addresses::{self, Addresses};
use hms_dns::{Code, Query};
use hms_traffic::clock::Moment;
use parking_lot::Mutex;

use crate::capture::dns::resolver::Resolver;

/// Addresses that are remembered with the name they were told for.
const MOST: usize = 4096;
/// How long such a memory lasts at least and at most: programs keep an address for longer than they were told to.
const LASTS: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// The addresses of a host now, IPv4 and IPv6, and how long they hold. Nobody's name has none.
pub async fn resolve(resolver: &Resolver, host: &str) -> (Vec<IpAddr>, Duration) {
    let Some([four, six]) = Query::addresses_of(host) else { return (Vec::new(), Duration::ZERO) };
    let (four, six) = tokio::join!(resolver.ask(&four), resolver.ask(&six));
    let read = [four, six].map(|reply| addresses::read(&reply.bytes, reply.code));
    let seconds = read.iter().filter(|some| !some.found.is_empty()).map(|some| some.seconds).min();
    let found = read.into_iter().flat_map(|some| some.found).collect();
    (found, Duration::from_secs(u64::from(seconds.unwrap_or_default())))
}

/// Names that applications behind this proxy were told addresses for.
#[derive(Debug, Default)]
pub struct Told(Mutex<Names>);

/// The name that was told for an address, and until when that holds.
type Names = BTreeMap<IpAddr, (String, Moment)>;

impl Told {
    /// Remembers an answer about `name`.
    pub fn note(&self, name: &str, answer: &[u8], code: Code, now: Moment) {
        let Addresses { found, seconds } = addresses::read(answer, code);
        if found.is_empty() {
            return;
        }
        let name = hms_traffic::egress::plain(name).to_ascii_lowercase();
        let until = now.plus(Duration::from_secs(u64::from(seconds)).clamp(LASTS.0, LASTS.1));
        let mut told = self.0.lock();
        if told.len() + found.len() > MOST {
            told.retain(|_, (_, until)| *until > now);
        }
        for address in found {
            if told.len() < MOST || told.contains_key(&address) {
                told.insert(address.to_canonical(), (name.clone(), until));
            }
        }
    }

    /// The name that was told last for an address.
    pub fn name(&self, address: IpAddr, now: Moment) -> Option<String> {
        let told = self.0.lock();
        told.get(&address.to_canonical()).filter(|(_, until)| *until > now).map(|(name, _)| name.clone())
    }
}
