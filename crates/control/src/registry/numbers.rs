//! The number of each service, from which its virtual addresses follow.
//!
//! A number is given before the service's first declaration is committed, so no view shows a service without one. It stays with the
//! name for ever, also while there is no such service: an application that still holds the address of a removed service never
//! reaches another one, and a service that comes back is found where it was.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hms_model::address;
use hms_model::finding::Finding;
use hms_model::mesh::Resources;
use hms_model::names::ServiceName;
use hms_model::resource::{Kind, ResourceKey};

use super::{Registry, RegistryError};
use crate::store::{COMMIT_LIMIT, Keyspace, Precondition, StoreError, Write};

/// The word that begins the key of a number.
const NUMBER: &str = "number";
/// A commit has a precondition and a write for each number.
const AT_ONCE: usize = COMMIT_LIMIT / 2;
/// How often another control plane may be faster before the change is refused as a conflict.
const TRIES: usize = 8;

/// The key that holds whose a number is. It is the number that is unique, so two control planes cannot give it away twice.
fn key(number: u32) -> String {
    format!("{NUMBER}/{number:08x}")
}

/// The number of such a key.
pub(super) fn of_key(key: &str) -> Option<u32> {
    let digits = key.strip_prefix(NUMBER)?.strip_prefix('/')?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whose numbers are which. If two control planes gave one name two numbers, the lower one counts.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_number: BTreeMap<u32, ServiceName>,
    by_name: BTreeMap<ServiceName, u32>,
    addresses: Arc<BTreeMap<ServiceName, Vec<IpAddr>>>,
}

impl Numbers {
    /// Takes over a stored number; an error says why it is none.
    pub(super) fn put(&mut self, number: u32, value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
        let (namespace, name) = text.split_once('/').ok_or("it names no service")?;
        let name = ServiceName::in_namespace(namespace, name).map_err(|error| error.to_string())?;
        let lowest = self.by_name.get(&name).map_or(number, |other| number.min(*other));
        self.by_name.insert(name.clone(), lowest);
        let addresses = address::of_number(lowest).map(Vec::from).unwrap_or_default();
        Arc::make_mut(&mut self.addresses).insert(name.clone(), addresses);
        self.by_number.insert(number, name);
        Ok(())
    }

    /// Whether a number was given away.
    pub(super) fn holds(&self, number: u32) -> bool {
        self.by_number.contains_key(&number)
    }

    /// The virtual addresses of every service that has a number.
    pub(super) fn addresses(&self) -> &Arc<BTreeMap<ServiceName, Vec<IpAddr>>> {
        &self.addresses
    }

    /// New numbers for those declared services that have none.
    fn missing(&self, resources: &Resources) -> Vec<(u32, ServiceName)> {
        let declared = resources.keys().filter(|key| key.kind == Kind::Declaration).filter_map(ResourceKey::service);
        let next = self.by_number.keys().next_back().map_or(1, |last| last.saturating_add(1));
        (next..).zip(declared.filter(|name| !self.by_name.contains_key(name))).collect()
    }
}

impl Registry {
    /// Gives a number to each declared service that has none. To be called with `configuring` locked.
    pub(super) async fn number(&self, resources: &Resources) -> Result<(), RegistryError> {
        for _ in 0..TRIES {
            let missing = self.0.state.lock().numbers.missing(resources);
            let Some((last, _)) = missing.last() else { return Ok(()) };
            if *last > address::MOST_NUMBERS {
                let finding = Finding::error(2325, "there is no virtual address left");
                let finding = finding.because(format!("{} names had one before", address::MOST_NUMBERS));
                return Err(RegistryError::Refused(Box::new(finding.fix("begin with a new store"))));
            }
            for chunk in missing.chunks(AT_ONCE) {
                let fresh = chunk.iter().map(|(number, _)| Precondition::Absent(key(*number))).collect();
                let value = |name: &ServiceName| format!("{}/{}", name.namespace(), name.name());
                let writes = chunk.iter().map(|(number, name)| Write::Put(key(*number), value(name).into())).collect();
                match self.0.store.commit(Keyspace::Live, fresh, writes).await {
                    Ok(revision) => self.taken_over(revision, |applied| applied.1).await?,
                    // Another control plane took one of them: begin anew with what it left.
                    Err(StoreError::Conflict(_)) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let current = self.0.state.lock().config.revision;
        Err(RegistryError::Conflict { current })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_what_they_write() {
        for number in [1, 0xabc, address::MOST_NUMBERS] {
            assert_eq!(of_key(&key(number)), Some(number));
        }
        for other in ["number/1", "number/zzzzzzzz", "numbers/00000001", "stopped/default/a"] {
            assert_eq!(of_key(other), None, "{other}");
        }
    }

    #[test]
    fn of_two_numbers_of_one_name_the_lower_counts() {
        let mut numbers = Numbers::default();
        for number in [7, 3, 5] {
            numbers.put(number, b"default/a").unwrap();
        }
        let a = ServiceName::new("a").unwrap();
        assert_eq!(numbers.addresses()[&a], address::of_number(3).unwrap());
        assert!(numbers.put(8, b"nonsense").is_err());
    }
}
