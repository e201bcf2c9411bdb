//! Routes for requests: parents, rules, backends.

mod actions;
mod matches;

use std::time::Duration;

use hms_model::http_route::{
    Actions, Backend, Bound, HeaderEdits, HttpMatch, HttpRoute, HttpRule, MOST_MATCHES, MOST_RULES, Mirror, Parent,
    TimeoutOverlay,
};
use hms_model::names::ServiceName;
use hms_model::policy::Retry;
use hms_model::split::{MOST_SHARES, Share};

use crate::bounds::{ORIGIN_BYTES, WORD_BYTES, duration, each, micros, pause, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

const PARENTS: usize = 64;
const HOSTS: usize = 64;
const HOST_BYTES: usize = 255;
/// Longest sentence that says why a backend is refused.
const WHY_BYTES: usize = 1024;

impl Wire for HttpRoute {
    type Message = v1::HttpRoute;

    fn to_wire(&self) -> v1::HttpRoute {
        let Self { name, parents, hosts, rules } = self;
        v1::HttpRoute {
            name: Some(name.to_wire()),
            parents: parents.iter().map(Wire::to_wire).collect(),
            hosts: hosts.clone(),
            rules: rules.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::HttpRoute) -> Result<Self, WireError> {
        let v1::HttpRoute { name, parents, hosts, rules } = message;
        Ok(Self {
            name: ServiceName::from_wire(required(name, "http_route.name")?)?,
            parents: each(parents, "http_route.parents", PARENTS, Parent::from_wire)?,
            hosts: each(hosts, "http_route.hosts", HOSTS, |host| text(host, "http_route.hosts", 1..=HOST_BYTES))?,
            rules: each(rules, "http_route.rules", MOST_RULES, HttpRule::from_wire)?,
        })
    }
}

impl Wire for Parent {
    type Message = v1::Parent;

    fn to_wire(&self) -> v1::Parent {
        match self {
            Self::Gateway => v1::Parent { service: None, port: 0 },
            Self::Service { service, port } => {
                v1::Parent { service: Some(service.to_wire()), port: u32::from(port.unwrap_or_default()) }
            }
        }
    }

    fn from_wire(message: v1::Parent) -> Result<Self, WireError> {
        let v1::Parent { service, port } = message;
        Ok(match service {
            None => Self::Gateway,
            Some(service) => Self::Service { service: ServiceName::from_wire(service)?, port: port_of(port)? },
        })
    }
}

/// A port; 0 for none.
fn port_of(number: u32) -> Result<Option<u16>, WireError> {
    let port: u16 = crate::bounds::number(number, "port", 0..=u32::from(u16::MAX))?;
    Ok(Some(port).filter(|port| *port != 0))
}

impl Wire for HttpRule {
    type Message = v1::HttpRule;

    fn to_wire(&self) -> v1::HttpRule {
        let Self { name, matches, actions, backends, timeouts, retry, origin } = self;
        let Actions { request_headers, response_headers, redirect, rewrite, mirrors, fault, cors } = actions;
        let bound = |bound: Option<Bound>| {
            bound.map(|bound| match bound {
                Bound::Lifted => 0,
                Bound::After(time) => micros(time),
            })
        };
        v1::HttpRule {
            name: name.clone(),
            matches: matches.iter().map(Wire::to_wire).collect(),
            request_headers: edits(request_headers),
            response_headers: edits(response_headers),
            redirect: redirect.as_ref().map(Wire::to_wire),
            rewrite: rewrite.as_ref().map(Wire::to_wire),
            mirrors: mirrors.iter().map(Wire::to_wire).collect(),
            fault: fault.as_ref().map(Wire::to_wire),
            cors: cors.as_ref().map(Wire::to_wire),
            backends: backends.iter().map(Wire::to_wire).collect(),
            request_timeout_us: bound(timeouts.request),
            attempt_timeout_us: bound(timeouts.attempt),
            idle_timeout_us: timeouts.idle.map(micros),
            retry: retry.as_ref().map(Wire::to_wire),
            origin: origin.clone(),
        }
    }

    fn from_wire(message: v1::HttpRule) -> Result<Self, WireError> {
        let bound = |micros: Option<u64>, field: &'static str| {
            let read = |micros| pause(micros, field);
            let time = micros.map(read).transpose()?;
            Ok::<_, WireError>(time.map(|time| if time.is_zero() { Bound::Lifted } else { Bound::After(time) }))
        };
        let idle = |micros: u64| -> Result<Duration, WireError> { duration(micros, "rule.idle_timeout") };
        Ok(Self {
            name: text(message.name, "rule.name", 0..=WORD_BYTES)?,
            matches: each(message.matches, "rule.matches", MOST_MATCHES, HttpMatch::from_wire)?,
            actions: Actions {
                request_headers: read_edits(message.request_headers)?,
                response_headers: read_edits(message.response_headers)?,
                redirect: message.redirect.map(Wire::from_wire).transpose()?,
                rewrite: message.rewrite.map(Wire::from_wire).transpose()?,
                mirrors: each(message.mirrors, "rule.mirrors", MOST_SHARES, Mirror::from_wire)?,
                fault: message.fault.map(Wire::from_wire).transpose()?,
                cors: message.cors.map(Wire::from_wire).transpose()?,
            },
            backends: each(message.backends, "rule.backends", MOST_SHARES, Backend::from_wire)?,
            timeouts: TimeoutOverlay {
                request: bound(message.request_timeout_us, "rule.request_timeout")?,
                attempt: bound(message.attempt_timeout_us, "rule.attempt_timeout")?,
                idle: message.idle_timeout_us.map(idle).transpose()?,
            },
            retry: message.retry.map(Retry::from_wire).transpose()?,
            origin: text(message.origin, "rule.origin", 0..=ORIGIN_BYTES)?,
        })
    }
}

impl Wire for Backend {
    type Message = v1::Backend;

    fn to_wire(&self) -> v1::Backend {
        let Self { share, port, request_headers, response_headers, refused } = self;
        v1::Backend {
            share: Some(share.to_wire()),
            port: u32::from(port.unwrap_or_default()),
            request_headers: edits(request_headers),
            response_headers: edits(response_headers),
            refused: refused.clone().unwrap_or_default(),
        }
    }

    fn from_wire(message: v1::Backend) -> Result<Self, WireError> {
        let v1::Backend { share, port, request_headers, response_headers, refused } = message;
        Ok(Self {
            share: Share::from_wire(required(share, "backend.share")?)?,
            port: port_of(port)?,
            request_headers: read_edits(request_headers)?,
            response_headers: read_edits(response_headers)?,
            refused: Some(text(refused, "backend.refused", 0..=WHY_BYTES)?).filter(|why| !why.is_empty()),
        })
    }
}

/// No edits take no room.
fn edits(edits: &HeaderEdits) -> Option<v1::HeaderEdits> {
    (!edits.is_empty()).then(|| edits.to_wire())
}

fn read_edits(message: Option<v1::HeaderEdits>) -> Result<HeaderEdits, WireError> {
    message.map_or_else(|| Ok(HeaderEdits::default()), HeaderEdits::from_wire)
}
