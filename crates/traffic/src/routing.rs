//! Which rule of which service takes a request.

use std::collections::{BTreeMap, BTreeSet};

use hms_model::message::CanonicalPath;
use hms_model::names::ServiceName;
use hms_model::policy::RateLimit;
use hms_model::route::{Match, Route, Segment};
use http::Method;

mod walk;

use walk::{Walk, next_segment};

/// At most so many routes are named to somebody who asked for one that is not there.
const KNOWN: usize = 8;

/// Every rule of one or several services, as a tree of path segments.
///
/// Of the rules that take a request's method and path, that one is selected which is more particular at the first segment
/// where they differ: a literal before a parameter before the rest. Of rules with the same path, one that names the method
/// comes before one that takes any (for HEAD: HEAD, then GET, then any); then the service by name, then the rule by place.
/// A node of the tree is looked at no more than once per request.
#[derive(Debug, Clone)]
pub struct RouteTable {
    nodes: Vec<Node>,
    targets: Vec<Target>,
}

/// A place in the tree.
#[derive(Debug, Clone, Default)]
struct Node {
    literals: BTreeMap<Box<str>, usize>,
    parameter: Option<usize>,
    /// Rules whose pattern ends here.
    here: Vec<Entry>,
    /// Rules whose pattern goes on with any rest.
    rest: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    method: Option<Method>,
    target: usize,
}

/// A rule that takes requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its place among all targets of the table ([`RouteTable::targets`]): `0..len`.
    pub index: usize,
    /// The service that serves it.
    pub service: ServiceName,
    /// Its place among the rules of the service's [`Route`].
    pub rule: usize,
    /// As people read it: `GET /sum/{a}/{b}`, `* /files/*`.
    pub pattern: String,
    /// Its path parameters, in order.
    pub parameters: Vec<Parameter>,
    /// How many requests it takes.
    pub rate_limit: Option<RateLimit>,
}

/// A path parameter: `{a}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// What stands between the braces.
    pub name: String,
    /// Which segment of the path it is, counted from 0.
    pub segment: usize,
}

impl Target {
    /// The parameters' values in a path that this target was selected for, still percent-encoded.
    pub fn captures<'a>(&'a self, path: &'a CanonicalPath) -> impl Iterator<Item = (&'a str, &'a str)> {
        let value = |place: usize| path.as_str().split('/').filter(|segment| !segment.is_empty()).nth(place);
        self.parameters.iter().map(move |own| (own.name.as_str(), value(own.segment).unwrap_or_default()))
    }
}

/// What was found for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection<'a> {
    /// A rule.
    Found(&'a Target),
    /// Rules for the path, but not for the method: 405.
    NoMethod {
        /// What the path takes, sorted, for the `Allow` field (RFC 9110 §10.2.1); HEAD wherever GET is.
        allowed: Vec<Method>,
    },
    /// No rule for the path: 404.
    NoPath {
        /// Up to eight that begin alike, as `GET /sum/{a}/{b}`, those with the most in common first.
        known: Vec<String>,
    },
}

impl RouteTable {
    /// A table of the routes of several services. The order of the iterator does not matter.
    pub fn build<'a>(routes: impl Iterator<Item = (&'a ServiceName, &'a Route)>) -> Self {
        let mut rules: Vec<_> = routes
            .flat_map(|(service, route)| {
                route.rules.iter().enumerate().map(move |(place, rule)| (service, place, rule))
            })
            .collect();
        rules.sort_by_key(|(service, place, _)| (*service, *place));
        let mut table = Self { nodes: vec![Node::default()], targets: Vec::with_capacity(rules.len()) };
        for (service, place, rule) in rules {
            let index = table.targets.len();
            table.targets.push(Target {
                index,
                service: service.clone(),
                rule: place,
                pattern: rule.matches.to_string(),
                parameters: parameters(&rule.matches),
                rate_limit: rule.rate_limit.clone(),
            });
            table.insert(&rule.matches, index);
        }
        table
    }

    /// A table of one service's own routes, for its destination proxy.
    pub fn of(route: &Route) -> Self {
        Self::build(std::iter::once((&route.service, route)))
    }

    /// Every rule, sorted by service and place.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Finds the rule for a request. `OPTIONS *` is about no path, so nothing is found for it.
    pub fn select(&self, method: &Method, path: &CanonicalPath) -> Selection<'_> {
        let mut allowed = BTreeSet::new();
        for entries in Walk::new(self, path.as_str()) {
            let best = entries.iter().filter_map(|entry| Some((entry.rank(method)?, entry.target))).min();
            if let Some(target) = best.and_then(|(_, target)| self.targets.get(target)) {
                return Selection::Found(target);
            }
            for own in entries.iter().filter_map(|entry| entry.method.as_ref()) {
                allowed.insert(own.as_str());
                if *own == Method::GET {
                    allowed.insert(Method::HEAD.as_str());
                }
            }
        }
        if allowed.is_empty() {
            return Selection::NoPath { known: self.nearest(path.as_str()) };
        }
        let allowed = allowed.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
        Selection::NoMethod { allowed }
    }

    fn insert(&mut self, matches: &Match, target: usize) {
        let entry = Entry { method: matches.method.clone(), target };
        let mut at = 0;
        for segment in matches.path.segments() {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(text.clone()).or_insert(fresh),
                Segment::Parameter(_) => *node.parameter.get_or_insert(fresh),
                Segment::Rest => {
                    node.rest.push(entry);
                    return;
                }
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.here.push(entry);
        }
    }

    /// The routes that begin like `path`: those below the deepest node that it leads to, then those below its parent.
    fn nearest(&self, path: &str) -> Vec<String> {
        let mut trail = vec![0];
        let (mut at, mut rest) = (0, path);
        while let (Some(node), Some((segment, tail))) = (self.nodes.get(at), next_segment(rest)) {
            let Some(child) = node.literals.get(segment).copied().or(node.parameter) else { break };
            trail.push(child);
            (at, rest) = (child, tail);
        }
        let mut found: Vec<usize> = Vec::with_capacity(KNOWN);
        for start in trail.into_iter().rev() {
            self.collect_below(start, &mut found);
        }
        found.iter().filter_map(|target| self.targets.get(*target)).map(|target| target.pattern.clone()).collect()
    }

    /// Adds the targets at and below a node until there are [`KNOWN`].
    fn collect_below(&self, start: usize, found: &mut Vec<usize>) {
        let mut stack = vec![start];
        while let Some(node) = stack.pop().and_then(|at| self.nodes.get(at)) {
            for entry in node.here.iter().chain(&node.rest) {
                if found.len() == KNOWN {
                    return;
                }
                if !found.contains(&entry.target) {
                    found.push(entry.target);
                }
            }
            // Taken from the end: the literals in order, then the parameter.
            stack.extend(node.parameter);
            stack.extend(node.literals.values().rev());
        }
    }
}

impl Entry {
    /// How particularly it takes a method, 0 the most; `None` if not at all.
    fn rank(&self, method: &Method) -> Option<u8> {
        match &self.method {
            Some(own) if own == method => Some(0),
            Some(own) if *own == Method::GET && *method == Method::HEAD => Some(1),
            Some(_) => None,
            None => Some(2),
        }
    }
}

/// The parameters of a pattern, in order.
fn parameters(matches: &Match) -> Vec<Parameter> {
    let named = matches.path.segments().iter().enumerate().filter_map(|(place, segment)| match segment {
        Segment::Parameter(name) => Some(Parameter { name: name.to_string(), segment: place }),
        Segment::Literal(_) | Segment::Rest => None,
    });
    named.collect()
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
