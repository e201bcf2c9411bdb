//! How callers lead the requests to a service, or a gateway those from outside: matches, actions, backends.
//!
//! The words and their meaning are those of the Gateway API v1 (`HTTPRoute`, GEP-1426 for services as parents); every other format
//! is translated into them. A [`Route`](crate::route::Route) is something else: what a service itself says that it serves.

mod actions;
mod matches;

use std::time::Duration;

pub use actions::{
    Actions, Cors, Fault, HeaderEdits, MOST_CODE, Mirror, PathRewrite, Portion, Redirect, Rewrite, Scheme,
};
pub use matches::{
    FieldCondition, HttpMatch, PathCondition, Pattern, PatternTooLarge, QueryCondition, Source, ValueCondition,
};

use crate::names::ServiceName;
use crate::policy::{Retry, Timeouts};
use crate::split::Share;

/// Rules that one route may have.
pub const MOST_RULES: usize = 256;
/// Matches that one rule may have.
pub const MOST_MATCHES: usize = 64;
/// Routes that may speak of the same service.
pub const MOST_ROUTES: usize = 256;

/// Rules for the requests to some services, as one author wrote them.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRoute {
    /// The namespace and name of the object. It orders what is equal otherwise.
    pub name: ServiceName,
    /// Whose requests it is about.
    pub parents: Vec<Parent>,
    /// Host names of requests from outside that it is about, `*.example.com` too; empty for all. They mean nothing inside.
    pub hosts: Vec<String>,
    /// The rules. A request that fits none of the rules of its parent is answered with 404.
    pub rules: Vec<HttpRule>,
}

impl HttpRoute {
    /// Every service that may get a request or a copy of one; some may stand twice.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.rules.iter().flat_map(|rule| {
            let backends = rule.backends.iter().filter(|backend| backend.refused.is_none());
            backends.map(|own| &own.share.service).chain(rule.actions.mirrors.iter().map(|own| &own.share.service))
        })
    }
}

/// Whose requests a route is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parent {
    /// Those to a service. A route in another namespace than the service is its caller's: it holds for callers of its own namespace,
    /// for whom it replaces what the service's namespace says (GEP-1426).
    Service {
        /// The service.
        service: ServiceName,
        /// Its port, if not every one is meant.
        port: Option<u16>,
    },
    /// Those from outside.
    Gateway,
}

impl Parent {
    /// The service, unless it is the gateway.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Service { service, .. } => Some(service),
            Self::Gateway => None,
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    /// What people call it; may be empty.
    pub name: String,
    /// Which requests: those that fit one of these. None at all means every request.
    pub matches: Vec<HttpMatch>,
    /// What is done with them.
    pub actions: Actions,
    /// Who gets them, by weight; empty means the parent itself.
    pub backends: Vec<Backend>,
    /// Bounds in time that differ from the service's.
    pub timeouts: TimeoutOverlay,
    /// Trying again, if it differs from the service's.
    pub retry: Option<Retry>,
    /// `file:line` where it was written, for explanations; may be empty.
    pub origin: String,
}

impl HttpRule {
    /// A rule that does nothing but name who gets every request.
    pub fn to(backends: Vec<Backend>) -> Self {
        Self {
            name: String::new(),
            matches: Vec::new(),
            actions: Actions::default(),
            backends,
            timeouts: TimeoutOverlay::default(),
            retry: None,
            origin: String::new(),
        }
    }
}

/// Who gets a part of a rule's requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// The service, its version and its weight.
    pub share: Share,
    /// The port of it that is called; `None` for the one the caller named.
    pub port: Option<u16>,
    /// Changed in requests to it only.
    pub request_headers: HeaderEdits,
    /// Changed in its answers only.
    pub response_headers: HeaderEdits,
    /// Why it may not or cannot be called: its part is answered with 500 (Gateway API, `BackendRef`). Found when the mesh is put
    /// together, or, for want of a grant, when the route is read.
    pub refused: Option<String>,
}

impl Backend {
    /// All requests to a service.
    pub fn all(service: ServiceName) -> Self {
        Self::share(Share { service, version: String::new(), weight: 1 })
    }

    /// A share of the requests.
    pub fn share(share: Share) -> Self {
        Self {
            share,
            port: None,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            refused: None,
        }
    }
}

/// A bound in time that may be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// None at all.
    Lifted,
    /// So long.
    After(Duration),
}

impl Bound {
    fn over(own: Option<Self>, other: Option<Duration>) -> Option<Duration> {
        match own {
            None => other,
            Some(Self::Lifted) => None,
            Some(Self::After(time)) => Some(time),
        }
    }
}

/// Bounds in time that replace a service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TimeoutOverlay {
    /// Instead of [`Timeouts::request`].
    pub request: Option<Bound>,
    /// Instead of [`Timeouts::attempt`].
    pub attempt: Option<Bound>,
    /// Instead of [`Timeouts::idle`].
    pub idle: Option<Duration>,
}

impl TimeoutOverlay {
    /// One that leaves nothing but the time to connect to the service's.
    pub fn whole(timeouts: Timeouts) -> Self {
        let bound = |time: Option<Duration>| Some(time.map_or(Bound::Lifted, Bound::After));
        Self { request: bound(timeouts.request), attempt: bound(timeouts.attempt), idle: Some(timeouts.idle) }
    }

    /// A service's bounds with these laid over them.
    #[must_use]
    pub fn over(&self, service: Timeouts) -> Timeouts {
        Timeouts {
            connect: service.connect,
            request: Bound::over(self.request, service.request),
            attempt: Bound::over(self.attempt, service.attempt),
            idle: self.idle.unwrap_or(service.idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_may_lift_a_bound_or_leave_it() {
        let service = Timeouts::default();
        assert_eq!(TimeoutOverlay::default().over(service), service);
        let lifted = TimeoutOverlay { request: Some(Bound::Lifted), ..TimeoutOverlay::default() };
        assert_eq!(lifted.over(service).request, None);
        let second = Duration::from_secs(1);
        let bound = TimeoutOverlay { attempt: Some(Bound::After(second)), idle: Some(second), ..lifted };
        assert_eq!((bound.over(service).attempt, bound.over(service).idle), (Some(second), second));
    }
}
