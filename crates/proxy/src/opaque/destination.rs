//! Where a captured connection was going, by the address that the application dialled.

use std::net::SocketAddr;

use hms_model::address::is_virtual;
use hms_model::names::ServiceName;

use crate::runtime::directory::Directory;

/// What an address means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A port of a service, whether it is declared or not. What a request names as its host matters only within it.
    Service(ServiceName, u16),
    /// An address of the mesh that belongs to no service, or no longer: refused, never let out.
    Nowhere,
    /// Something outside of the mesh.
    Outside(SocketAddr),
}

impl Destination {
    /// Looks an address up.
    pub fn of(directory: &Directory, address: SocketAddr) -> Self {
        match directory.by_address(address.ip()) {
            Some(entry) => Self::Service(entry.name.clone(), address.port()),
            None if is_virtual(address.ip()) => Self::Nowhere,
            None => Self::Outside(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use hms_model::service::Entry;

    use super::*;

    #[test]
    fn an_address_of_the_mesh_is_a_service_or_nowhere_and_never_outside() {
        let name = ServiceName::new("pay").unwrap();
        let entry = Entry {
            name: name.clone(),
            aliases: Vec::new(),
            addresses: vec!["240.0.0.7".parse().unwrap(), "10.1.2.3".parse().unwrap()],
            ports: Vec::new(),
        };
        let directory = Directory::build([(name.clone(), entry)].into());
        let of = |text: &str| Destination::of(&directory, text.parse().unwrap());
        assert_eq!(of("240.0.0.7:80"), Destination::Service(name.clone(), 80));
        assert_eq!(of("[::ffff:240.0.0.7]:9"), Destination::Service(name.clone(), 9));
        assert_eq!(of("10.1.2.3:5432"), Destination::Service(name, 5432), "the real address of a workload");
        assert_eq!(of("240.0.0.8:80"), Destination::Nowhere);
        assert_eq!(of("[fd48:4d53:6d65:7368::9]:80"), Destination::Nowhere);
        assert_eq!(of("93.184.216.34:443"), Destination::Outside("93.184.216.34:443".parse().unwrap()));
    }
}
