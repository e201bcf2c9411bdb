//! What a reference to a service comes to: redirects, subsets and divisions of all the files together.

use std::cell::Cell;
use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::http_route::{Backend, HeaderEdits, HttpRoute, HttpRule, Parent};
use hms_model::names::ServiceName;
use hms_model::split::{Share, Split};

use super::{resolver, splitter};
use crate::document::short;
use crate::objects::kind::Kind;
use crate::objects::object::{Object, no_equal};
use crate::read::{Reader, Span};

/// Redirects that are followed one after the other.
const MOST_REDIRECTS: usize = 16;
/// Shares, and changes of header fields of them, that all routers together come to. Each route to a service that is divided has all of
/// its shares.
const MOST_WRITTEN: usize = 100_000;

/// Whom a reference names.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) service: ServiceName,
    pub(super) subset: Option<(String, Span)>,
}

/// A resolver's part of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    /// The subset that is meant where none is named.
    pub(super) default: Option<(String, Span)>,
    /// The versions of the subsets; empty for every instance.
    pub(super) subsets: BTreeMap<String, String>,
    /// Who is meant instead.
    pub(super) redirect: Option<Target>,
}

/// A splitter's.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub(super) target: Target,
    pub(super) weight: u32,
    pub(super) request: HeaderEdits,
    pub(super) response: HeaderEdits,
    pub(super) at: Span,
}

/// The resolvers and splitters among the files.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    resolvers: BTreeMap<ServiceName, Resolver>,
    splitters: BTreeMap<ServiceName, Vec<Leg>>,
    routers: Vec<ServiceName>,
    /// Shares and changes of header fields that were written out so far.
    written: Cell<usize>,
}

/// What a splitter or a resolver comes to.
#[derive(Debug)]
pub(crate) enum Division {
    /// A division of all calls, and where it stands.
    Split(Split, Span),
    /// A route, because header fields differ.
    Route(HttpRoute),
}

impl Chain {
    /// Takes in an entry that others refer to.
    pub(crate) fn add(&mut self, reader: &mut Reader<'_>, kind: Kind, object: &Object<'_>) {
        match kind {
            Kind::ServiceResolver => {
                self.resolvers.extend(resolver::read(reader, object));
            }
            Kind::ServiceSplitter => {
                self.splitters.extend(splitter::read(reader, object));
            }
            // Its own mistakes are found when it is read.
            Kind::ServiceRouter => {
                self.routers.extend(ServiceName::in_namespace(object.namespace, object.name));
            }
            _ => {}
        }
    }

    /// The division that a splitter or a resolver makes of the calls to its service.
    pub(crate) fn division(&self, reader: &mut Reader<'_>, kind: Kind, object: &Object<'_>) -> Option<Division> {
        let service = ServiceName::in_namespace(object.namespace, object.name).ok()?;
        if kind == Kind::ServiceResolver {
            let resolver = self.resolvers.get(&service)?;
            let says = resolver.redirect.is_some() || resolver.default.is_some();
            if !says || self.splitters.contains_key(&service) {
                return None;
            }
            let share = self.resolve(reader, &Target { service: service.clone(), subset: None }, object.at)?;
            let is_itself = share.service == service && share.version.is_empty();
            return (!is_itself).then(|| Division::Split(Split { service, shares: vec![share] }, object.at));
        }
        let backends = self.legs(reader, &service)?;
        let is_plain = |own: &Backend| own.request_headers.is_empty() && own.response_headers.is_empty();
        if backends.iter().all(is_plain) {
            let shares = backends.into_iter().map(|own| own.share).collect();
            return Some(Division::Split(Split { service, shares }, object.at));
        }
        if self.routers.contains(&service) {
            return None;
        }
        let parents = vec![Parent::Service { service: service.clone(), port: None }];
        let rule = HttpRule { origin: reader.origin(object.at), ..HttpRule::to(backends) };
        Some(Division::Route(HttpRoute { name: service, parents, hosts: Vec::new(), rules: vec![rule] }))
    }

    /// Who gets the requests that a router leads somewhere; nobody for those that stay with the service as it is divided.
    pub(super) fn backends(
        &self,
        reader: &mut Reader<'_>,
        own: &ServiceName,
        target: &Target,
        at: Span,
    ) -> Option<Vec<Backend>> {
        if target.subset.is_none() {
            let legs = self.splitters.get(&target.service);
            let is_plain = legs.is_none_or(|legs| legs.iter().all(Leg::is_plain));
            if target.service == *own && is_plain {
                return Some(Vec::new());
            }
            if legs.is_some() {
                return self.legs(reader, &target.service);
            }
        }
        Some(vec![Backend::share(self.resolve(reader, target, at)?)])
    }

    /// The legs of a splitter. What is the same in the end is one.
    fn legs(&self, reader: &mut Reader<'_>, service: &ServiceName) -> Option<Vec<Backend>> {
        let mut backends: Vec<Backend> = Vec::new();
        let legs = self.splitters.get(service)?;
        let parts = |own: &HeaderEdits| own.set.len() + own.add.len() + own.remove.len();
        let all: usize = legs.iter().map(|leg| 1 + parts(&leg.request) + parts(&leg.response)).sum();
        self.written.set(self.written.get() + all);
        if self.written.get() > MOST_WRITTEN {
            let finding = Finding::error(
                2112,
                format!("all routes to services that are divided come to more than {MOST_WRITTEN} shares"),
            );
            let at = legs.first().map(|leg| leg.at)?;
            reader.report(
                at,
                finding.because("each such route has all shares of its service").fix("apply fewer files at once"),
            );
            return None;
        }
        for leg in legs {
            let (other, subset) = (&leg.target.service, &leg.target.subset);
            if subset.is_none() && other != service && self.splitters.contains_key(other) {
                let what = format!("a share for `{other}`, which is divided itself,");
                let fix = "write the shares of both splitters into one, with the weights multiplied";
                no_equal(reader, leg.at, &what, "a share is for one version or for all", fix);
                continue;
            }
            let share = Share { weight: leg.weight, ..self.resolve(reader, &leg.target, leg.at)? };
            let own = Backend {
                request_headers: leg.request.clone(),
                response_headers: leg.response.clone(),
                ..Backend::share(share)
            };
            let same = |other: &&mut Backend| {
                other.share.service == own.share.service
                    && other.share.version == own.share.version
                    && other.request_headers == own.request_headers
                    && other.response_headers == own.response_headers
            };
            match backends.iter_mut().find(same) {
                Some(first) => first.share.weight += own.share.weight,
                None => backends.push(own),
            }
        }
        Some(backends)
    }

    /// The service and the version that a reference means in the end.
    fn resolve(&self, reader: &mut Reader<'_>, target: &Target, at: Span) -> Option<Share> {
        let (mut service, mut subset) = (target.service.clone(), target.subset.clone());
        let mut steps = 0;
        while let Some(to) = self.resolvers.get(&service).and_then(|own| own.redirect.as_ref()) {
            let is_own = to.service == service;
            (service, subset) = (to.service.clone(), to.subset.clone());
            if is_own {
                break;
            }
            steps += 1;
            if steps > MOST_REDIRECTS {
                let finding = Finding::error(2105, format!("the redirects of `{}` never end", target.service));
                let why = format!("at most {MOST_REDIRECTS} are followed, and these lead back to where they began");
                reader.report(at, finding.because(why).fix("let one of them lead to a service that has none"));
                return None;
            }
        }
        let resolver = self.resolvers.get(&service);
        let subset = subset.or_else(|| resolver.and_then(|own| own.default.clone()));
        let version = match (subset, resolver) {
            (None, _) => String::new(),
            (Some((name, at)), Some(resolver)) => {
                let Some(version) = resolver.subsets.get(&name) else {
                    unknown(reader, at, &name, &service, resolver);
                    return None;
                };
                version.clone()
            }
            (Some((name, at)), None) => {
                let message =
                    format!("no service-resolver among these files says what the subset `{}` is", short(&name));
                let why = format!("the version `{}` is meant", short(&name));
                reader.report(at, Finding::warning(2171, message).because(why));
                name
            }
        };
        Some(Share { service, version, weight: 1 })
    }
}

impl Leg {
    fn is_plain(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

fn unknown(reader: &mut Reader<'_>, at: Span, name: &str, service: &ServiceName, resolver: &Resolver) {
    let known: Vec<&str> = resolver.subsets.keys().map(String::as_str).take(20).collect();
    let finding = Finding::error(2105, format!("`{service}` has no subset `{}`", short(name)));
    let why = if known.is_empty() {
        "its service-resolver names none".to_owned()
    } else {
        format!("its service-resolver names {}", known.join(", "))
    };
    reader.report(at, finding.because(why).fix("name one of its subsets, or add it there"));
}
