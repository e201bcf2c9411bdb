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
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};

use crate::objects::object::Object;
use crate::read::{Field, Keys, Reader, Span};

const SPEC: Keys = Keys { known: &["service", "backends"], later: &["matches"] };
const BACKEND: Keys = Keys::new(&["service", "weight"]);

/// What the object says, and where the service is named.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(Split, Span)> {
    let example = "spec: {service: payment-svc, backends: [{service: payment-svc-v1, weight: 90}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let service = reader.need(&spec, "service", "service: payment-svc").cloned();
    let named = service.as_ref().and_then(|field| object.service(reader, field));
    let backends = reader.need(&spec, "backends", "backends: [{service: payment-svc-v1, weight: 90}]").cloned();
    let shares = backends.map(|field| shares(reader, &field, object)).unwrap_or_default();
    Some((Split { service: named?, shares }, service?.node.span))
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
