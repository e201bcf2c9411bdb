//! SMI's `TrafficSplit` (split.smi-spec.io, v1alpha2 and v1alpha3): how the calls to a service are divided among others.
//!
//! ```yaml
//! apiVersion: split.smi-spec.io/v1alpha2
//! kind: TrafficSplit
//! metadata:
//!   name: payment-split
//! spec:
//!   service: payment-svc
//!   backends:
//!   - {service: payment-svc-v1, weight: 90}
//!   - {service: payment-svc-v2, weight: 10}
//! ```

use hms_model::finding::Finding;
use hms_model::http_route::{Backend, HttpRoute, HttpRule, MOST_MATCHES, Parent};
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};

use crate::objects::object::{Object, items};
use crate::read::{Field, Keys, Reader, Span};
use crate::smi::{self, Groups};

const SPEC: Keys = Keys::new(&["service", "backends", "matches"]);
const BACKEND: Keys = Keys::new(&["service", "weight"]);

/// What the object says.
pub(crate) enum Meaning {
    /// All calls are divided; and where the service is named.
    All(Split, Span),
    /// Those that fit are.
    Some(HttpRoute),
}

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, groups: &Groups) -> Option<Meaning> {
    let example = "spec: {service: payment-svc, backends: [{service: payment-svc-v1, weight: 90}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let service = reader.need(&spec, "service", "service: payment-svc").cloned();
    let named = service.as_ref().and_then(|field| object.service(reader, field));
    let backends = reader.need(&spec, "backends", "backends: [{service: payment-svc-v1, weight: 90}]").cloned();
    let shares = backends.map(|field| shares(reader, &field, object)).unwrap_or_default();
    let (service, at) = (named?, service?.node.span);
    if spec.field("matches").is_none() {
        return Some(Meaning::All(Split { service, shares }, at));
    }
    let mut matches = Vec::new();
    for item in items(reader, &spec, "matches", MOST_MATCHES, "a list such as [{kind: HTTPRouteGroup, name: canary}]") {
        matches.extend(smi::referred(reader, object, &item, groups).unwrap_or_default());
    }
    if (matches.is_empty() || matches.len() > MOST_MATCHES) && !reader.has_errors(at.file) {
        let finding = Finding::error(2112, format!("`spec.matches` comes to {} matches", matches.len()));
        reader.report(
            at,
            finding.because(format!("there are 1 to {MOST_MATCHES}")).fix("name the groups that are meant"),
        );
    }
    let backends = shares.into_iter().map(Backend::share).collect();
    let divided = HttpRule { matches, origin: reader.origin(at), ..HttpRule::to(backends) };
    // The rest stays with the service.
    let rest = HttpRule { origin: reader.origin(at), ..HttpRule::to(Vec::new()) };
    let parents = vec![Parent::Service { service, port: None }];
    Some(Meaning::Some(HttpRoute {
        name: object.route_name(reader)?,
        parents,
        hosts: Vec::new(),
        rules: vec![divided, rest],
    }))
}

fn shares(reader: &mut Reader<'_>, field: &Field<'_>, object: &Object<'_>) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    let Some(items) = reader.list(field, "a list of services with their weights") else { return shares };
    if items.is_empty() || items.len() > MOST_SHARES {
        let finding = Finding::error(2105, format!("`{}` has {} entries", field.path, items.len()));
        let fix = "write for example [{service: payment-svc-v1, weight: 90}, {service: payment-svc-v2, weight: 10}]";
        reader.report(field.node.span, finding.because(format!("there are 1 to {MOST_SHARES}")).fix(fix));
        return shares;
    }
    for item in &items {
        let Some(table) = reader.table(item.node, &item.path, BACKEND) else { continue };
        let service = reader.need(&table, "service", "service: payment-svc-v1").cloned();
        let service = service.and_then(|field| Some((object.service(reader, &field)?, field.node.span)));
        let weight = reader.need(&table, "weight", "weight: 90").cloned();
        let weight = weight.and_then(|field| reader.whole(&field, "a weight", 0..=MOST_WEIGHT));
        let Some((service, at)) = service else { continue };
        if shares.iter().any(|share| share.service == service) {
            let finding = Finding::error(2110, format!("`{service}` stands twice"));
            reader.report(at, finding.fix("keep one of the two"));
            continue;
        }
        shares.push(Share { service, version: String::new(), weight: weight.unwrap_or_default() });
    }
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) && !reader.has_errors(field.key.file) {
        let finding = Finding::error(2105, format!("`{}` gives nobody a call", field.path));
        reader.report(field.node.span, finding.because("every weight is 0").fix("give one of them weight: 100"));
    }
    shares
}
