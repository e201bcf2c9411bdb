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

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};

use crate::document::{self, Node, short};
use crate::read::{Field, Keys, Reader, Span};
use crate::source::Source;

/// What begins such a file.
const KIND: &str = "TrafficSplit";
const VERSIONS: [(&str, ()); 2] = [("split.smi-spec.io/v1alpha2", ()), ("split.smi-spec.io/v1alpha3", ())];
const TOP: Keys = Keys::new(&["apiVersion", "kind", "metadata", "spec"]);
const SPEC: Keys = Keys { known: &["service", "backends"], later: &["matches"] };
const BACKEND: Keys = Keys::new(&["service", "weight"]);

/// Whether a file is one, by its kind.
pub fn recognises(source: &Source) -> bool {
    source.text.lines().any(|line| {
        let value = line.strip_prefix("kind:").map(|rest| rest.split('#').next().unwrap_or_default().trim());
        value.is_some_and(|value| value.trim_matches(['"', '\'']) == KIND)
    })
}

/// Reads files that are to take effect together. A file with an error yields nothing; one error anywhere means that nothing is to
/// be applied.
pub fn translate(sources: &[Source]) -> (Vec<Split>, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut claimed: BTreeMap<ServiceName, Span> = BTreeMap::new();
    let mut splits = Vec::new();
    for source in sources {
        let Some(file) = reader.add(source) else { continue };
        let Some(root) = document::parse(&mut reader, file) else { continue };
        let Some((split, at)) = read(&mut reader, &root) else { continue };
        if let Some(first) = claimed.get(&split.service) {
            let why = format!("{} says it as well", reader.origin(*first));
            let finding = Finding::error(2110, format!("the calls to `{}` are divided twice", split.service));
            reader.report(at, finding.because(why).fix("keep one of the two"));
            continue;
        }
        claimed.insert(split.service.clone(), at);
        splits.push((split, file));
    }
    let clean = splits.into_iter().filter(|(_, file)| !reader.has_errors(*file)).map(|(split, _)| split).collect();
    (clean, reader.into_findings())
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<(Split, Span)> {
    let table = reader.table(root, "", TOP)?;
    let version = reader.need(&table, "apiVersion", "apiVersion: split.smi-spec.io/v1alpha2").cloned();
    let _known = version.and_then(|field| reader.word(&field, &VERSIONS));
    let kind = reader.need(&table, "kind", "kind: TrafficSplit").cloned();
    let _known = kind.and_then(|field| reader.word(&field, &[(KIND, ())]));
    let metadata = table.field("metadata").cloned();
    // Labels and annotations are other programs'.
    let metadata = metadata.and_then(|field| reader.open_table(field.node, &field.path));
    let namespace = metadata.as_ref().and_then(|table| table.field("namespace").cloned());
    let namespace = namespace.and_then(|field| reader.line(&field, "a namespace", 63));
    let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
    let spec =
        reader.need(&table, "spec", "spec: {service: payment-svc, backends: [{service: payment-svc-v1, weight: 90}]}");
    let spec = spec.cloned().and_then(|field| reader.table(field.node, &field.path, SPEC))?;
    let service = reader.need(&spec, "service", "service: payment-svc").cloned();
    let named = service.as_ref().and_then(|field| within(reader, field, namespace));
    let backends = reader.need(&spec, "backends", "backends: [{service: payment-svc-v1, weight: 90}]").cloned();
    let shares = backends.map(|field| shares(reader, &field, namespace)).unwrap_or_default();
    Some((Split { service: named?, shares }, service?.node.span))
}

fn shares(reader: &mut Reader<'_>, field: &Field<'_>, namespace: &str) -> Vec<Share> {
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
        let service = service.and_then(|field| Some((within(reader, &field, namespace)?, field.node.span)));
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

/// A service's name, in the namespace of the object unless it says another one.
fn within(reader: &mut Reader<'_>, field: &Field<'_>, namespace: &str) -> Option<ServiceName> {
    let text = reader.text(field, "the name of a service")?;
    let name = reader.service_name(field, text)?;
    if text.contains('.') || namespace == DEFAULT_NAMESPACE {
        return Some(name);
    }
    ServiceName::in_namespace(namespace, name.name())
        .map_err(|error| {
            let finding = Finding::error(2111, format!("`{}` is no namespace", short(namespace)));
            reader.report(field.node.span, finding.because(error.to_string()).fix("namespace: default"));
        })
        .ok()
}
