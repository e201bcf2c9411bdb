//! Every service this proxy may see, found by its name, by one of its addresses, or by another host name it has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hms_model::names::ServiceName;
use hms_model::service::Entry;
use rustc_hash::FxHashMap;

/// The directory of one snapshot; never changes.
#[derive(Debug, Default)]
pub struct Directory {
    entries: BTreeMap<ServiceName, Entry>,
    addresses: FxHashMap<IpAddr, ServiceName>,
    aliases: FxHashMap<String, ServiceName>,
}

impl Directory {
    /// Indexes entries. An address or alias that two services claim belongs to the first by name: a bad entry must not take
    /// anything from a good one, and which it is must not depend on chance.
    pub fn build(entries: BTreeMap<ServiceName, Entry>) -> Self {
        let (mut addresses, mut aliases) = (FxHashMap::default(), FxHashMap::default());
        for (name, entry) in &entries {
            for address in &entry.addresses {
                addresses.entry(address.to_canonical()).or_insert_with(|| name.clone());
            }
            for alias in &entry.aliases {
                aliases.entry(alias.clone()).or_insert_with(|| name.clone());
            }
        }
        Self { entries, addresses, aliases }
    }

    /// The entries it was made of.
    pub fn entries(&self) -> &BTreeMap<ServiceName, Entry> {
        &self.entries
    }

    /// Whether nothing is known at all, which is so before the first configuration.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a service.
    pub fn get(&self, name: &ServiceName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The service that has this address, in whichever form it is written.
    pub fn by_address(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(self.addresses.get(&address.to_canonical())?)
    }

    /// The service that has this further host name, written in lower case.
    pub fn by_alias(&self, host: &str) -> Option<&Entry> {
        self.entries.get(self.aliases.get(host)?)
    }

    /// The first few names, for a message.
    pub fn some_names(&self) -> String {
        let names: Vec<String> = self.entries.keys().take(8).map(ToString::to_string).collect();
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, address: &str, alias: &str) -> (ServiceName, Entry) {
        let name = ServiceName::new(name).unwrap();
        let addresses = vec![address.parse().unwrap()];
        (name.clone(), Entry { name, aliases: vec![alias.to_owned()], addresses, ports: Vec::new() })
    }

    #[test]
    fn a_service_is_found_by_each_of_its_names_and_addresses() {
        let directory =
            Directory::build([entry("a", "240.0.0.1", "a.example"), entry("b", "240.0.0.2", "b.example")].into());
        let b = ServiceName::new("b").unwrap();
        for found in [
            directory.get(&b),
            directory.by_address("240.0.0.2".parse().unwrap()),
            directory.by_address("::ffff:240.0.0.2".parse().unwrap()),
            directory.by_alias("b.example"),
        ] {
            assert_eq!(found.map(|entry| &entry.name), Some(&b));
        }
        assert!(directory.by_address("240.0.0.3".parse().unwrap()).is_none());
        assert_eq!(directory.some_names(), "a, b");
    }

    #[test]
    fn what_two_services_claim_belongs_to_the_first() {
        let directory = Directory::build([entry("b", "240.0.0.1", "x"), entry("a", "240.0.0.1", "x")].into());
        let owner = directory.by_address("240.0.0.1".parse().unwrap()).map(|entry| entry.name.name().to_owned());
        assert_eq!(owner.as_deref(), Some("a"));
        assert_eq!(directory.by_alias("x").map(|entry| entry.name.name()), Some("a"));
    }
}
