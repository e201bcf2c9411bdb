//! What names answer for.

use std::net::IpAddr;

use hms_model::names::ServiceName;
use hms_model::service::Entry;

/// Every name the proxy may see.
pub trait Directory {
    /// Whether anything was heard of the mesh at all.
    fn is_known(&self) -> bool;
    /// The service of this name.
    fn entry(&self, name: &ServiceName) -> Option<&Entry>;
    /// The service that has this further host name, written in lower case.
    fn aliased(&self, host: &str) -> Option<&Entry>;
    /// The service that has this address.
    fn at(&self, address: IpAddr) -> Option<&Entry>;
    /// Whether a service stands in this namespace.
    fn has_namespace(&self, namespace: &str) -> bool;
}
