//! Route files (`route.yaml`, S4): what one service serves, in YAML or JSON.
//!
//! ```yaml
//! service: calc-svc
//! routes:
//!   - GET /sum/{a}/{b}
//!   - {match: POST /sum, rate_limit: 5 req/s}
//! rate_limit: "20 req/min"     # or 20/m, or {rate: 20/m, burst: 5}; each route has its own bucket
//! keep_alive: true
//! ```

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::KeepAlive;
use hms_model::route::Route;

use crate::document::{self, Node};
use crate::read::{Field, Keys, Reader, Span};
use crate::rules::{Claims, rate_limit, rules};
use crate::source::Source;

/// The keys of a route file.
pub(crate) const KEYS: Keys = Keys::new(&["service", "routes", "rate_limit", "keep_alive"]);

/// What one route file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFile {
    /// The service that serves the routes.
    pub service: ServiceName,
    /// The routes, each with its own limit.
    pub route: Route,
    /// Whether connections to the service are reused; `None` keeps the mesh's default.
    pub keep_alive: Option<KeepAlive>,
}

/// Reads route files that are to take effect together. A file with an error yields no [`RouteFile`]; one error anywhere means
/// that nothing is to be registered.
pub fn translate(sources: &[Source]) -> (Vec<RouteFile>, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut claims = Claims::default();
    let mut owners = Owners::default();
    let mut files = Vec::new();
    for source in sources {
        let Some(file) = reader.add(source) else { continue };
        let Some(root) = document::parse(&mut reader, file) else { continue };
        if let Some(read) = read(&mut reader, &root, "", &mut claims) {
            owners.own(&mut reader, &read);
            files.push(read);
        }
    }
    let clean = files.into_iter().filter(|read| !reader.has_errors(read.at.file)).map(|read| read.file).collect();
    (clean, reader.into_findings())
}

/// A route file with the places that other checks speak of.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) file: RouteFile,
    /// Where the service's name stands.
    pub(crate) at: Span,
    /// Where the file's own rate limit stands.
    pub(crate) rate_limit: Option<Span>,
    /// Where `keep_alive` stands.
    pub(crate) keep_alive: Option<Span>,
}

/// Reads one file's content. `None` without a usable name; whatever else is wrong is a finding.
pub(crate) fn read(reader: &mut Reader<'_>, root: &Node, path: &str, claims: &mut Claims) -> Option<Read> {
    let table = reader.table(root, path, KEYS)?;
    let limit_field = table.field("rate_limit");
    let limit = limit_field.and_then(|field| rate_limit(reader, field));
    let keep_alive_field = table.field("keep_alive");
    let keep_alive = keep_alive_field.and_then(|field| keep_alive(reader, field));
    let name_field = reader.need(&table, "service", "service: calc-svc").cloned();
    let routes_field = reader.need(&table, "routes", "routes: [\"GET /hello\"]").cloned();
    let service = name_field.as_ref().and_then(|field| reader.service(field));
    // Routes are read even without a usable name, so that every mistake of the file is shown at once.
    let placeholder = ServiceName::new("unnamed").ok()?;
    let owner = service.as_ref().unwrap_or(&placeholder);
    let rules = routes_field.as_ref().map(|field| rules(reader, field, owner, limit.as_ref(), claims));
    if let (Some(field), Some([])) = (&routes_field, rules.as_deref())
        && !reader.has_errors(root.span.file)
    {
        let finding = Finding::warning(2107, "a service without routes is not reachable through the gateway");
        reader.report(field.key, finding.fix("add one: - GET /hello"));
    }
    let service = service?;
    let route = Route { service: service.clone(), rules: rules.unwrap_or_default() };
    Some(Read {
        file: RouteFile { service, route, keep_alive },
        at: name_field.map_or(root.span, |field| field.node.span),
        rate_limit: limit_field.map(|field| field.key),
        keep_alive: keep_alive_field.map(|field| field.key),
    })
}

/// `keep_alive: true`.
pub(crate) fn keep_alive(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<KeepAlive> {
    reader.boolean(field).map(|on| if on { KeepAlive::On } else { KeepAlive::Off })
}

/// Which file speaks for which service: a second one would silently replace the first.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<ServiceName, Span>);

impl Owners {
    pub(crate) fn own(&mut self, reader: &mut Reader<'_>, read: &Read) {
        let Some(first) = self.0.get(&read.file.service) else {
            self.0.insert(read.file.service.clone(), read.at);
            return;
        };
        let finding = Finding::error(2110, format!("the routes of `{}` are given twice", read.file.service))
            .because(format!("first at {}", reader.place(*first)))
            .fix("put all routes of a service into one file");
        reader.report(read.at, finding);
    }
}
