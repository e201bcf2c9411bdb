//! Which rule of which route takes a request to a service, or from outside.
//!
//! Precedence is that of the Gateway API v1 (`HTTPRouteRule.matches`): the longest host name, then an exact path before a template,
//! before a regular expression, before the longest prefix; then a method, then more header conditions, then more query conditions;
//! then the route by name, then the rule by place.

pub mod act;
mod inert;
mod query;

use std::cmp::Reverse;
use std::sync::Arc;

use hms_model::http_route::{
    FieldCondition, HttpMatch, HttpRoute, HttpRule, Parent, PathCondition, Scheme, Source, ValueCondition,
};
use hms_model::message::RequestHead;
use hms_model::names::ServiceName;
use hms_model::split::Share;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;

pub use inert::inert;

/// The rules for requests to one service, or of one gateway, the most particular first.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTable {
    rules: Vec<LedRule>,
    entries: Vec<Entry>,
}

/// A rule with what is worked out once.
#[derive(Debug, Clone, PartialEq)]
pub struct LedRule {
    /// As its author wrote it.
    pub rule: HttpRule,
    /// The route it stands in.
    pub route: ServiceName,
    /// Who gets its requests, in the order of the rule's backends; empty for the parent itself.
    pub shares: Vec<Share>,
    /// What it is called in telemetry and explanations: its name, or its first match.
    pub title: Arc<str>,
}

/// One match of one rule.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// Host names, if the parent is a gateway; empty for any.
    hosts: Vec<String>,
    /// The port of the service, if not every one is meant.
    ports: Vec<u16>,
    condition: HttpMatch,
    rule: usize,
}

/// What was found for a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Selected<'t> {
    /// The rule.
    pub rule: &'t LedRule,
    /// The prefix that its match names, without a slash at its end, for rewriting; `None` of a match without one.
    pub prefix: Option<&'t str>,
}

/// For whom a table is made.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// For `caller`'s requests to `service`.
    Service {
        /// Who is called.
        service: &'a ServiceName,
        /// Who calls.
        caller: &'a ServiceName,
    },
    /// For the requests to `service` of all callers in a namespace together: to look at, because who calls decides nothing here.
    Callers {
        /// Who is called.
        service: &'a ServiceName,
        /// Where the callers are.
        namespace: &'a str,
    },
    /// For requests from outside.
    Gateway,
}

/// Pairs of matches that are compared to find rules out of reach: what people write needs thousands.
const LOOKS: usize = 1_000_000;

/// How particular a match is; the largest wins.
type Rank = (usize, u8, usize, bool, usize, usize);

/// An entry on its way to its place: the largest rank first, then as it was found.
type Ranked = (Reverse<Rank>, usize, Entry);

impl HttpTable {
    /// The table of some routes, or `None` if none of them is about these requests: then everything goes as if there were none.
    pub fn build(routes: &[HttpRoute], whose: Whose<'_>) -> Option<Self> {
        let mut about: Vec<&HttpRoute> = routes.iter().filter(|route| is_about(route, whose)).collect();
        about.sort_by(|a, b| a.name.cmp(&b.name));
        // What a caller's own namespace says replaces what the service's says (GEP-1426).
        let is_own = |route: &HttpRoute| match whose {
            Whose::Service { service, .. } | Whose::Callers { service, .. } => {
                route.name.namespace() != service.namespace()
            }
            Whose::Gateway => false,
        };
        let has_own = about.iter().any(|route| is_own(route));
        let mut table = Self { rules: Vec::new(), entries: Vec::new() };
        let mut ranked: Vec<Ranked> = Vec::new();
        for route in about.iter().filter(|route| !has_own || is_own(route)) {
            for rule in &route.rules {
                table.add(route, rule, whose, &mut ranked);
            }
        }
        if about.is_empty() {
            return None;
        }
        ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
        table.entries = ranked.into_iter().map(|(_, _, entry)| entry).collect();
        Some(table)
    }

    fn add(&mut self, route: &HttpRoute, rule: &HttpRule, whose: Whose<'_>, ranked: &mut Vec<Ranked>) {
        let place = self.rules.len();
        let everything = [HttpMatch::default()];
        let matches = if rule.matches.is_empty() { everything.as_slice() } else { &rule.matches };
        let title = if rule.name.is_empty() {
            matches.first().map(ToString::to_string).unwrap_or_default()
        } else {
            rule.name.clone()
        };
        self.rules.push(LedRule {
            rule: rule.clone(),
            route: route.name.clone(),
            shares: rule.backends.iter().map(|backend| backend.share.clone()).collect(),
            title: title.into(),
        });
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        match whose {
            Whose::Gateway => hosts.extend(route.hosts.iter().map(|host| host.to_ascii_lowercase())),
            Whose::Service { service, .. } | Whose::Callers { service, .. } => ports = ports_of(route, service),
        }
        for condition in matches {
            let holds = match whose {
                // Who calls is known already.
                Whose::Service { caller, .. } => from(&condition.sources, caller),
                Whose::Callers { .. } => true,
                Whose::Gateway => holds_outside(rule, condition),
            };
            if !holds {
                continue;
            }
            // A host decides before anything else, so every one is an entry of its own.
            let each: Vec<Vec<String>> =
                if hosts.is_empty() { vec![Vec::new()] } else { hosts.iter().map(|host| vec![host.clone()]).collect() };
            for hosts in each {
                let rank = rank(hosts.first().map(String::as_str), condition);
                let entry = Entry { hosts, ports: ports.clone(), condition: condition.clone(), rule: place };
                ranked.push((Reverse(rank), ranked.len(), entry));
            }
        }
    }

    /// The rule that takes a request to this port of the service; 0 is its first.
    pub fn select(&self, head: &RequestHead, port: u16) -> Option<Selected<'_>> {
        // A browser that asks whether it may ask is about the request that it will make.
        let asked = if act::is_preflight(head) { head.fields.text(&ACCESS_CONTROL_REQUEST_METHOD) } else { None };
        let method = asked.unwrap_or(head.method.as_str());
        let entry = self.entries.iter().find(|entry| entry.takes(head, method, port))?;
        let rule = self.rules.get(entry.rule)?;
        let prefix = match &entry.condition.path {
            Some(PathCondition::Prefix(prefix)) => Some(prefix.trim_end_matches('/')),
            // No condition on the path is the prefix `/` (Gateway API).
            None => Some(""),
            _ => None,
        };
        Some(Selected { rule, prefix })
    }

    /// Every rule, by route and place.
    pub fn rules(&self) -> &[LedRule] {
        &self.rules
    }

    /// What there is, for somebody whose request fits nothing: at most `most`, the most particular first.
    pub fn known(&self, most: usize) -> Vec<String> {
        self.entries.iter().take(most).map(|entry| entry.condition.to_string()).collect()
    }

    /// Rules that no request reaches, because others that come first take everything they would.
    pub fn shadowed(&self) -> impl Iterator<Item = &LedRule> {
        self.shadows().into_iter().map(|(rule, _)| rule)
    }

    /// The same, each with the rules that take its requests, in the order of its matches; with none if it has no match that can hold.
    /// Of tables that no person wrote the end may not be looked at.
    fn shadows(&self) -> Vec<(&LedRule, Vec<&LedRule>)> {
        // Of each rule whether it is reached, and by whom it is not.
        let mut found: Vec<(bool, Vec<usize>)> = vec![(false, Vec::new()); self.rules.len()];
        let mut looks = 0;
        for (at, entry) in self.entries.iter().enumerate() {
            let Some((is_reached, by)) = found.get_mut(entry.rule) else { continue };
            if *is_reached {
                continue;
            }
            looks += at;
            let before = self.entries.get(..at).unwrap_or_default();
            let taker = if looks > LOOKS { None } else { before.iter().find(|other| other.covers(entry)) };
            match taker {
                Some(taker) => by.push(taker.rule),
                None => *is_reached = true,
            }
        }
        let unreached = self.rules.iter().zip(found).filter(|(_, (is_reached, _))| !is_reached);
        let named = unreached.map(|(rule, (_, mut by))| {
            by.sort_unstable();
            by.dedup();
            (rule, by.into_iter().filter_map(|place| self.rules.get(place)).collect())
        });
        named.collect()
    }
}

impl Entry {
    fn takes(&self, head: &RequestHead, method: &str, port: u16) -> bool {
        let Self { hosts, ports, condition, .. } = self;
        (ports.is_empty() || port == 0 || ports.contains(&port))
            && (hosts.is_empty() || hosts.iter().any(|host| host_fits(host, head.authority.host())))
            && fits(condition, head, method)
    }

    /// Whether every request of another entry is surely one of this. May be `false` where it is.
    fn covers(&self, other: &Self) -> bool {
        let path = match (&self.condition.path, &other.condition.path) {
            (None, _) => true,
            (Some(PathCondition::Prefix(own)), Some(PathCondition::Exact(path) | PathCondition::Prefix(path))) => {
                PathCondition::Prefix(own.clone()).takes(path)
            }
            (own, path) => own == path,
        };
        let within = |own: &[String], others: &[String]| own.is_empty() || own == others;
        path && within(&self.hosts, &other.hosts)
            && (self.ports.is_empty() || self.ports == other.ports)
            && (self.condition.method.is_none() || self.condition.method == other.condition.method)
            && self.condition.headers.iter().all(|own| other.condition.headers.contains(own))
            && self.condition.query.iter().all(|own| other.condition.query.contains(own))
            && (self.condition.sources.is_empty() || self.condition.sources == other.condition.sources)
    }
}

/// Whether a route is about these requests at all.
fn is_about(route: &HttpRoute, whose: Whose<'_>) -> bool {
    match whose {
        Whose::Gateway => route.parents.contains(&Parent::Gateway),
        Whose::Service { service, .. } | Whose::Callers { service, .. } => {
            let namespace = match whose {
                Whose::Service { caller, .. } => caller.namespace(),
                Whose::Callers { namespace, .. } => namespace,
                Whose::Gateway => return false,
            };
            let is_parent = |parent: &Parent| matches!(parent, Parent::Service { service: own, .. } if own == service);
            // A caller's route holds for callers of its namespace only.
            let holds = route.name.namespace() == service.namespace() || route.name.namespace() == namespace;
            holds && route.parents.iter().any(is_parent)
        }
    }
}

/// The ports of a service that a route is about; empty for all of them.
fn ports_of(route: &HttpRoute, service: &ServiceName) -> Vec<u16> {
    let mut ports = Vec::new();
    for parent in &route.parents {
        match parent {
            Parent::Service { service: own, port } if own == service => match port {
                None => return Vec::new(),
                Some(port) => ports.push(*port),
            },
            _ => {}
        }
    }
    ports
}

/// Whether a condition can hold for a request from outside. Nobody there is a service of the mesh, and what an outsider says in the
/// mesh's own fields is struck out before it goes on, so nothing is decided on it either. Whoever got here came by TLS: to be sent to
/// the same address by `https` would be a circle.
fn holds_outside(rule: &HttpRule, condition: &HttpMatch) -> bool {
    let is_circle = rule.actions.redirect.as_ref().is_some_and(|redirect| {
        let elsewhere =
            redirect.host.is_some() || redirect.path.is_some() || redirect.port.is_some_and(|port| port != 443);
        redirect.scheme == Some(Scheme::Https) && !elsewhere
    });
    let claims = |own: &FieldCondition| CLAIMS.iter().any(|begin| own.name.as_str().starts_with(begin));
    condition.sources.is_empty() && !is_circle && !condition.headers.iter().any(claims)
}

/// What the names of fields begin with that a gateway strikes out, because only the mesh may say them.
pub const CLAIMS: [&str; 4] = ["x-hms-", "x-forwarded-", "x-envoy-", "x-jwt-"];

fn from(sources: &[Source], caller: &ServiceName) -> bool {
    sources.is_empty() || sources.iter().any(|source| source.takes(caller))
}

/// Whether all conditions but those on the caller hold.
fn fits(condition: &HttpMatch, head: &RequestHead, method: &str) -> bool {
    condition.method.as_ref().is_none_or(|own| own.as_str() == method)
        && condition.path.as_ref().is_none_or(|path| path.takes(head.path.as_str()))
        && condition.headers.iter().all(|own| field_fits(own, head))
        && condition.query.iter().all(|own| query::fits(own, head.query.as_deref().unwrap_or_default()))
}

fn field_fits(condition: &FieldCondition, head: &RequestHead) -> bool {
    let holds = if condition.name == http::header::HOST {
        // The authority is no field here, and yet people speak of it as one.
        value_fits(&condition.value, &head.authority.to_string())
    } else {
        head.fields.first(&condition.name).is_some_and(|value| match std::str::from_utf8(value) {
            Ok(text) => value_fits(&condition.value, text),
            Err(_not_text) => condition.value == ValueCondition::Present,
        })
    };
    holds != condition.is_negated
}

fn value_fits(condition: &ValueCondition, value: &str) -> bool {
    match condition {
        ValueCondition::Exact(own) => own == value,
        ValueCondition::Regex(own) => own.is_match(value),
        ValueCondition::Present => true,
    }
}

/// Whether a host fits `example.com` or `*.example.com`; of the latter the star stands for one or more labels.
fn host_fits(own: &str, host: &str) -> bool {
    match own.strip_prefix('*') {
        None => own == host,
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
    }
}

fn rank(host: Option<&str>, condition: &HttpMatch) -> Rank {
    // An exact host before any wildcard, then the longest.
    let host = host.map_or(0, |host| host.len() + if host.starts_with('*') { 0 } else { 1000 });
    let (kind, length) = match &condition.path {
        Some(PathCondition::Exact(text)) => (3, text.len()),
        Some(PathCondition::Template(pattern)) => (2, pattern.as_str().len()),
        Some(PathCondition::Regex(pattern)) => (1, pattern.as_str().len()),
        Some(PathCondition::Prefix(text)) => (0, text.len()),
        None => (0, 1),
    };
    (host, kind, length, condition.method.is_some(), condition.headers.len(), condition.query.len())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
