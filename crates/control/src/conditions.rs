//! How each configured object fares, in the words of the Gateway API: whether it is accepted, whether what it refers to is there, and
//! whether the proxies that it concerns have it. Pure: a view, what proxies acknowledged and the age of the object decide.

mod accepted;
mod programmed;
mod resolved;
#[cfg(test)]
mod tests;

use hms_model::names::ServiceName;
use hms_model::resource::Resource;
use tokio::time::Instant;

use crate::registry::{Age, View};
use crate::store::Revision;

use self::programmed::Programmed;
pub(crate) use self::programmed::Proxies;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// The mesh takes it.
    Accepted,
    /// Everything it refers to is there and may be referred to.
    ResolvedRefs,
    /// Every proxy that it concerns has it.
    Programmed,
}

impl About {
    /// The Gateway API's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
        }
    }
}

/// Why a condition does not hold; of one that holds the reason is its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What it is about does not exist.
    NoMatchingParent,
    /// The gateway does not answer for any of its host names.
    NoMatchingListenerHostname,
    /// A bound of the mesh is reached.
    UnsupportedValue,
    /// A service that it names does not exist, or has not that port.
    BackendNotFound,
    /// A reference into another namespace was not granted.
    RefNotPermitted,
    /// A reference to something that is no service.
    InvalidKind,
    /// Not every proxy acknowledged it yet.
    Pending,
    /// A proxy refuses it, or it is not accepted and so sent to nobody.
    Invalid,
}

impl Reason {
    /// The Gateway API's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoMatchingParent => "NoMatchingParent",
            Self::NoMatchingListenerHostname => "NoMatchingListenerHostname",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::Pending => "Pending",
            Self::Invalid => "Invalid",
        }
    }
}

/// Something that does not hold: why, and in words.
type Fault = (Reason, String);

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    /// What it is about.
    pub(crate) about: About,
    /// Why it does not hold; `None` if it does.
    pub(crate) fault: Option<Reason>,
    /// In words.
    pub(crate) message: String,
    /// When what decides it last changed.
    pub(crate) since: Instant,
}

impl Condition {
    fn of(about: About, result: Result<String, Fault>, since: Instant) -> Self {
        match result {
            Ok(message) => Self { about, fault: None, message, since },
            Err((reason, message)) => Self { about, fault: Some(reason), message, since },
        }
    }

    /// The Gateway API's word for why.
    pub(crate) fn reason(&self) -> &'static str {
        self.fault.map_or_else(|| self.about.as_str(), Reason::as_str)
    }
}

/// How an object fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    /// The revision of the configuration since which it is as it is.
    pub(crate) observed: Revision,
    /// Proxies that it concerns.
    pub(crate) proxies: usize,
    /// Those of them that have it.
    pub(crate) programmed: usize,
    /// Accepted, `ResolvedRefs`, Programmed.
    pub(crate) conditions: [Condition; 3],
}

/// How a resource of the view fares. `touched` is when a service was declared, declared otherwise or taken away.
pub(crate) fn of(
    view: &View,
    proxies: &Proxies,
    resource: &Resource,
    age: Age,
    touched: impl Fn(&ServiceName) -> Option<Instant>,
) -> Status {
    let accepted = accepted::judge(&view.mesh, resource);
    let resolved = resolved::judge(&view.mesh, resource);
    let carried = accepted.is_ok().then(|| programmed::judge(view, proxies, resource, age));
    let Programmed { of, have, result, since } = carried.unwrap_or_else(|| Programmed::nowhere(age));
    let latest = |names: Vec<&ServiceName>| names.into_iter().filter_map(&touched).fold(age.at, Instant::max);
    let (parents, backends) = (accepted::parents(resource), resolved::backends(resource));
    Status {
        observed: age.config,
        proxies: of,
        programmed: have,
        conditions: [
            Condition::of(About::Accepted, accepted, latest(parents)),
            Condition::of(About::ResolvedRefs, resolved, latest(backends)),
            Condition::of(About::Programmed, result, since),
        ],
    }
}
