//! Linkerd's `HTTPRoute` (policy.linkerd.io): the Gateway API's in another group, and a dialect of it that names a `destination`.
//!
//! ```yaml
//! apiVersion: policy.linkerd.io/v1alpha1
//! kind: HTTPRoute
//! metadata:
//!   name: pay-with-retries
//! spec:
//!   destination:
//!     name: payment-svc
//!   rules:
//!   - backends:
//!     - name: payment-svc
//!       retries:
//!         attempts: 3
//!         perTryTimeout: 1s
//! ```

pub(crate) mod annotations;
mod service;

pub(crate) use self::service::{Annotated, ports as ports_of, read as service};

use hms_model::finding::Finding;
use hms_model::http_route::{Backend, Bound, HttpRoute, HttpRule, MOST_RULES, Parent};
use hms_model::names::ServiceName;
use hms_model::policy::Retry;
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share};

use crate::document::Value;
use crate::gateway_api::{self, Scene, time};
use crate::objects::object::{Object, items};
use crate::read::{Field, Keys, Reader, Table};

const SPEC: Keys = Keys::new(&["destination", "rules"]);
const DESTINATION: Keys = Keys::new(&["name", "namespace", "port"]);
const RULE: Keys = Keys::new(&["name", "matches", "backends", "timeouts"]);
const BACKEND: Keys = Keys::new(&["name", "namespace", "port", "weight", "retries"]);
const RETRIES: Keys = Keys::new(&["attempts", "perTryTimeout"]);

/// Reads one of either form.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, scene: &Scene<'_>) -> Option<HttpRoute> {
    let has_destination = object.top.field("spec").is_some_and(|field| match &field.node.value {
        Value::Map(entries) => entries.iter().any(|entry| entry.key == "destination"),
        _ => false,
    });
    if !has_destination {
        return gateway_api::http_route(reader, object, scene);
    }
    let spec = object.spec(reader, SPEC, "spec: {destination: {name: payment-svc}, rules: []}")?;
    let name = object.route_name(reader);
    let parent = spec.field("destination").cloned().and_then(|field| destination(reader, object, &field));
    let _needed = reader.need(&spec, "rules", "rules: [{backends: [{name: payment-svc}]}]");
    let mut rules = Vec::new();
    for item in items(reader, &spec, "rules", MOST_RULES, "a list of rules") {
        let Some(table) = reader.table(item.node, &item.path, RULE) else { continue };
        let mut rule = rule(reader, object, &table, parent.as_ref());
        rule.origin = reader.origin(item.node.span);
        rules.push(rule);
    }
    let (service, port) = parent?;
    Some(HttpRoute { name: name?, parents: vec![Parent::Service { service, port }], hosts: Vec::new(), rules })
}

fn destination(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>) -> Option<(ServiceName, Option<u16>)> {
    let table = reader.table(field.node, &field.path, DESTINATION)?;
    let service = object.referred(reader, &table);
    let port = table.field("port").cloned().and_then(|field| reader.port(&field));
    Some((service?, port))
}

fn rule(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    parent: Option<&(ServiceName, Option<u16>)>,
) -> HttpRule {
    let name = table.field("name").cloned().and_then(|field| reader.line(&field, "a name", 128));
    let matches = gateway_api::rule_matches(reader, table);
    let mut timeouts = gateway_api::rule_timeouts(reader, table);
    let mut backends: Vec<Backend> = Vec::new();
    let mut said: Option<Said> = None;
    for item in items(reader, table, "backends", MOST_SHARES, "a list such as [{name: payment-svc}]") {
        let Some(table) = reader.table(item.node, &item.path, BACKEND) else { continue };
        let own = table.field("retries").cloned().and_then(|field| retries(reader, &field));
        let service = object.referred(reader, &table);
        let port = table.field("port").cloned().and_then(|field| reader.port(&field));
        let weight = table.field("weight").cloned();
        let weight = weight.map_or(Some(1), |field| reader.whole(&field, "a weight", 0..=MOST_WEIGHT));
        if !backends.is_empty() && own != said {
            let finding = Finding::error(2105, "the backends of a rule are tried again in different ways");
            let why = "a request that is tried again may go to any of them";
            reader
                .report(item.node.span, finding.because(why).fix("say the same for each, or make rules of their own"));
        }
        said = own;
        if let (Some(service), Some(weight)) = (service, weight) {
            let share = Share { service, version: String::new(), weight };
            backends.push(Backend { port, ..Backend::share(share) });
        }
    }
    // The destination alone is the parent itself, so that what divides its calls holds as well.
    if let ([one], Some((service, _))) = (backends.as_slice(), parent)
        && one.share.service == *service
        && one.port.is_none()
    {
        backends.clear();
    }
    let (retry, attempt) = said.unwrap_or_default();
    timeouts.attempt = attempt.or(timeouts.attempt);
    HttpRule { name: name.unwrap_or_default().to_owned(), matches, timeouts, retry, ..HttpRule::to(backends) }
}

/// Trying again, and how long one try may take.
type Said = (Option<Retry>, Option<Bound>);

fn retries(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Said> {
    let table = reader.table(field.node, &field.path, RETRIES)?;
    let attempts = table.field("attempts").cloned();
    let retry = attempts.and_then(|field| {
        let retries = gateway_api::attempts(reader, &field)?;
        let retry = Retry { retries, ..Retry::default() };
        gateway_api::only_what_may_be(reader, &field, &retry);
        Some(retry)
    });
    let attempt = table.field("perTryTimeout").cloned().and_then(|field| time::bound(reader, &field));
    Some((retry, attempt))
}
