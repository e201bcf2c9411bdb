//! Objects of any format written as those of the Gateway API, with an honest list of what they could not say.

mod rule;
mod yaml;

use std::fmt::Write as _;

use hms_model::finding::Finding;
use hms_model::http_route::{Backend, HttpRoute, Parent};
use hms_model::names::ServiceName;
use hms_model::split::Split;
use serde_json::{Map, Value, json};

use crate::objects::Objects;

/// The version that is written.
const API: &str = "gateway.networking.k8s.io/v1";
/// The Gateway that a route from outside names.
const GATEWAY: &str = "gateway";

/// What could not be said, for one object.
#[derive(Debug, Default)]
struct Lost {
    lost: Vec<String>,
    assumed: Vec<String>,
}

impl Lost {
    /// Something that has no words there.
    fn say(&mut self, what: impl Into<String>) {
        add(&mut self.lost, what.into());
    }

    /// Something that had to be said and was not.
    fn assume(&mut self, what: impl Into<String>) {
        add(&mut self.assumed, what.into());
    }
}

fn add(list: &mut Vec<String>, what: String) {
    if !list.contains(&what) {
        list.push(what);
    }
}

/// Writes objects as YAML of the Gateway API. What could not be carried over stands in comments above each object, and among the
/// findings.
pub fn to_gateway_api(objects: &Objects) -> (String, Vec<Finding>) {
    let (mut out, mut findings) = (String::new(), Vec::new());
    for split in objects.splits.iter().filter(|split| !is_led(objects, split)) {
        let mut lost = Lost::default();
        let backends: Vec<Value> = split
            .shares
            .iter()
            .map(|share| rule::reference(&split.service, share, None, Some(share.weight), &mut lost))
            .collect();
        let parent = parent(&split.service, &split.service, None);
        let spec = json!({"parentRefs": [parent], "rules": [{"backendRefs": backends}]});
        document(&mut out, &distinct(objects, &split.service), &spec, &lost, &mut findings);
    }
    for route in &objects.routes {
        let mut lost = Lost::default();
        let spec = spec(&divided(objects, route), &mut lost);
        document(&mut out, &route.name, &spec, &lost, &mut findings);
    }
    for name in objects.services.keys() {
        let message = format!("the policies of `{name}` are not carried over");
        let why = "the Gateway API has no words for who may call a service, breakers, limits and balancing";
        findings.push(Finding::warning(2171, message).because(why));
        // Writing into a string cannot fail.
        let _written = writeln!(out, "# not carried over: the policies of {name}: {why}");
    }
    for (label, host) in &objects.egress {
        let message = format!("`{}` is not carried over from `{label}`", host.host);
        let why = "the Gateway API has no words for hosts outside";
        findings.push(Finding::warning(2171, message).because(why));
        let _written = writeln!(out, "# not carried over: the host {}: {why}", host.host);
    }
    (out, findings)
}

/// Whether a route leads all requests to the service of a division, so that the division belongs into its rules.
fn is_led(objects: &Objects, split: &Split) -> bool {
    let is_its =
        |parent: &Parent| matches!(parent, Parent::Service { service, port: None } if *service == split.service);
    let leads = |route: &HttpRoute| {
        route.name.namespace() == split.service.namespace()
            && route.parents.iter().any(is_its)
            && route.parents.len() == 1
    };
    objects.routes.iter().any(leads)
}

/// A route whose rules say how what they leave with the service is divided.
fn divided(objects: &Objects, route: &HttpRoute) -> HttpRoute {
    let mut route = route.clone();
    let [Parent::Service { service, port: None }] = route.parents.as_slice() else { return route };
    let Some(split) = objects.splits.iter().find(|split| split.service == *service) else { return route };
    let rules = route.rules.iter_mut().filter(|rule| rule.backends.is_empty() && rule.actions.redirect.is_none());
    for rule in rules {
        rule.backends = split.shares.iter().cloned().map(Backend::share).collect();
    }
    route
}

/// The name of a division's route, which no other has.
fn distinct(objects: &Objects, service: &ServiceName) -> ServiceName {
    let is_taken = objects.routes.iter().any(|route| route.name == *service);
    let other = is_taken.then(|| ServiceName::in_namespace(service.namespace(), &format!("{}-split", service.name())));
    other.and_then(Result::ok).unwrap_or_else(|| service.clone())
}

fn document(out: &mut String, name: &ServiceName, spec: &Value, lost: &Lost, findings: &mut Vec<Finding>) {
    if !out.is_empty() {
        out.push_str("---\n");
    }
    for what in &lost.lost {
        let _written = writeln!(out, "# not carried over: {what}");
        let message = format!("{what} is not carried over from `{name}`");
        findings.push(Finding::warning(2171, message).because("the Gateway API has no words for it"));
    }
    for what in &lost.assumed {
        let _written = writeln!(out, "# assumed: {what}");
        let why = "the Gateway API wants to be told what was not said";
        findings.push(Finding::warning(2173, format!("assumed for `{name}`: {what}")).because(why));
    }
    let metadata = json!({"name": name.name(), "namespace": name.namespace()});
    yaml::write(out, &json!({"apiVersion": API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}));
}

fn parent(object: &ServiceName, service: &ServiceName, port: Option<u16>) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": service.name()});
    if let Some(map) = parent.as_object_mut() {
        if service.namespace() != object.namespace() {
            map.insert("namespace".to_owned(), json!(service.namespace()));
        }
        map.extend(port.map(|port| ("port".to_owned(), json!(port))));
    }
    parent
}

fn spec(route: &HttpRoute, lost: &mut Lost) -> Value {
    let parents: Vec<Value> = route
        .parents
        .iter()
        .map(|own| match own {
            Parent::Gateway => json!({"name": GATEWAY}),
            Parent::Service { service, port } => parent(&route.name, service, *port),
        })
        .collect();
    let mut spec = Map::new();
    spec.insert("parentRefs".to_owned(), Value::Array(parents));
    if !route.hosts.is_empty() {
        spec.insert("hostnames".to_owned(), json!(route.hosts));
    }
    let rules: Vec<Value> = route.rules.iter().flat_map(|own| rule::write(route, own, lost)).collect();
    spec.insert("rules".to_owned(), Value::Array(rules));
    Value::Object(spec)
}
