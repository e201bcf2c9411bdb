//! The Gateway API (gateway.networking.k8s.io), read from files exactly as a cluster reads it: what the specification makes an error
//! is one, and what has no equal in the mesh is said.

mod backends;
mod edits;
mod filters;
mod gateway;
mod grant;
pub(crate) mod grpc;
mod hosts;
mod matches;
mod parents;
mod retry;
pub(crate) mod streams;
pub(crate) mod time;

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::http_route::{HttpRoute, HttpRule, TimeoutOverlay};
use hms_model::names::ServiceName;

use self::gateway::GatewayObject;
use self::grant::Grant;
use crate::document::short;
use crate::linkerd;
use crate::objects::kind::Kind;
use crate::objects::object::{Object, items, not_carried};
use crate::read::{Field, Keys, Reader, Table};

pub(crate) use self::edits::{editable, name as header_name, value_of as header_value};
pub(crate) use self::hosts::pattern as host_pattern;
pub(crate) use self::matches::{canonical, pattern, rule_matches};
pub(crate) use self::retry::{attempts, only_what_may_be};

/// The group of everything here.
pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

const SPEC: Keys = Keys::new(&["parentRefs", "hostnames", "rules", "useDefaultGateways"]);
const RULE: Keys = Keys::new(&["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"]);
/// Rules of one route, and the matches of all of them, by the specification.
const RULES: usize = 16;
const ALL_MATCHES: usize = 128;

/// What routes refer to.
#[derive(Debug, Default)]
pub(crate) struct Scene<'n> {
    grants: Vec<Grant>,
    gateways: Vec<GatewayObject<'n>>,
    /// The ports of services whose objects are among the files.
    ports: BTreeMap<ServiceName, Vec<u16>>,
}

impl<'n> Scene<'n> {
    /// Reads the objects that others refer to.
    pub(crate) fn read<'o>(reader: &mut Reader<'_>, objects: impl Iterator<Item = (Kind, &'o Object<'n>)>) -> Self
    where
        'n: 'o,
    {
        let mut scene = Self::default();
        for (kind, object) in objects {
            match kind {
                Kind::ReferenceGrant => scene.grants.extend(grant::read(reader, object)),
                Kind::Gateway => scene.gateways.extend(gateway::read(reader, object)),
                Kind::Service => {
                    let name = ServiceName::in_namespace(object.namespace, object.name);
                    scene.ports.extend(name.ok().map(|name| (name, linkerd::ports_of(object))));
                }
                _ => {}
            }
        }
        scene
    }

    /// Whether a service is known to have this port and no other.
    fn has_only(&self, service: &ServiceName, port: u16) -> bool {
        self.ports.get(service).is_some_and(|ports| ports.as_slice() == [port])
    }

    /// The host names that gateways listen for, without the patterns.
    pub(crate) fn hosts(&self) -> Vec<(u16, String)> {
        self.gateways.iter().flat_map(GatewayObject::hosts).collect()
    }
}

/// An `HTTPRoute`.
pub(crate) fn http_route(reader: &mut Reader<'_>, object: &Object<'_>, scene: &Scene<'_>) -> Option<HttpRoute> {
    let example = "spec: {parentRefs: [{group: \"\", kind: Service, name: payment-svc}], rules: []}";
    let spec = object.spec(reader, SPEC, example)?;
    if let Some(field) = spec.field("useDefaultGateways") {
        not_carried(reader, field.key, "`useDefaultGateways`", "name the gateway in parentRefs");
    }
    let name = object.route_name(reader);
    let attached = parents::read(reader, object, &spec, scene);
    let rules = rules(reader, object, &spec, RULE, |reader, object, table| rule(reader, object, table, scene));
    Some(HttpRoute { name: name?, parents: attached.parents, hosts: attached.hosts, rules })
}

/// The rules of a route of either kind.
fn rules<'n>(
    reader: &mut Reader<'_>,
    object: &Object<'n>,
    spec: &Table<'n>,
    keys: Keys,
    read: impl Fn(&mut Reader<'_>, &Object<'n>, &Table<'n>) -> HttpRule,
) -> Vec<HttpRule> {
    // Without a word there is one rule, for everything.
    let Some(field) = spec.field("rules").cloned() else { return vec![HttpRule::to(Vec::new())] };
    let mut rules = Vec::new();
    let mut names = BTreeSet::new();
    for item in items(reader, spec, "rules", RULES, "a list of rules") {
        let Some(table) = reader.table(item.node, &item.path, keys) else { continue };
        let mut rule = read(reader, object, &table);
        if let Some(field) = table.field("name").cloned() {
            let name = reader.line(&field, "a name", 128).unwrap_or_default();
            if !name.is_empty() && !names.insert(name.to_owned()) {
                let finding = Finding::error(2110, format!("two rules are called `{}`", short(name)));
                reader.report(field.node.span, finding.fix("give each a name of its own"));
            }
            name.clone_into(&mut rule.name);
        }
        rule.origin = reader.origin(item.node.span);
        rules.push(rule);
    }
    let all: usize = rules.iter().map(|rule| rule.matches.len().max(1)).sum();
    if all > ALL_MATCHES {
        let finding = Finding::error(2112, format!("the rules have {all} matches together"));
        let why = format!("all rules of a route together have at most {ALL_MATCHES}");
        reader.report(field.key, finding.because(why).fix("divide them among several routes"));
    }
    rules
}

fn rule<'n>(reader: &mut Reader<'_>, object: &Object<'n>, table: &Table<'n>, scene: &Scene<'_>) -> HttpRule {
    let matches = rule_matches(reader, table);
    let has_prefix = matches::has_one_prefix(table);
    let actions = filters::rule(reader, object, table, has_prefix, scene);
    let backends = backends::read(reader, object, table, scene, "HTTPRoute");
    if let (Some(redirect), Some(field)) = (&actions.redirect, table.field("backendRefs"))
        && !backends.is_empty()
    {
        let finding = Finding::error(2105, format!("`{}` stands beside a redirect", field.path));
        let why = format!("every request is answered with {} and nobody would get any", redirect.status);
        reader.report(field.key, finding.because(why).fix("keep one of the two"));
    }
    if let Some(field) = table.field("sessionPersistence") {
        let why = "which instance a session stays with is a policy of the service, not of a route";
        not_carried(reader, field.key, "`sessionPersistence`", why);
    }
    let timeouts = table.field("timeouts").cloned().map(|field| time::timeouts(reader, &field)).unwrap_or_default();
    let retry = table.field("retry").cloned().and_then(|field| retry::read(reader, &field));
    HttpRule { matches, actions, backends, timeouts, retry, ..HttpRule::to(Vec::new()) }
}

/// The time limits of a rule, for formats that say them in the same words.
pub(crate) fn rule_timeouts(reader: &mut Reader<'_>, table: &Table<'_>) -> TimeoutOverlay {
    table.field("timeouts").cloned().map(|field| time::timeouts(reader, &field)).unwrap_or_default()
}

/// A `BackendTLSPolicy`.
pub(crate) fn backend_tls(reader: &mut Reader<'_>, object: &Object<'_>) {
    let why = "between proxies there is mutual TLS already; towards hosts outside, `egress:` of mesh.yaml says how TLS is begun";
    not_carried(reader, object.at, "a BackendTLSPolicy", why);
}

/// Whether a field holds one of the words.
pub(crate) fn is_word(field: Option<&Field<'_>>, word: &str) -> bool {
    field.is_some_and(|field| matches!(&field.node.value, crate::document::Value::Scalar(text, _) if text == word))
}
