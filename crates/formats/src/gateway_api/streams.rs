//! `TCPRoute` and `TLSRoute`: how connections to a service are divided.

use hms_model::finding::Finding;
use hms_model::http_route::Parent;
use hms_model::split::{Share, Split};

use super::{Scene, backends, parents};
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Keys, Reader, Span, Table};

const SPEC: Keys = Keys::new(&["parentRefs", "hostnames", "rules", "useDefaultGateways"]);
const RULE: Keys = Keys::new(&["name", "backendRefs"]);

/// What the route says, and where; `None` if it says nothing that the mesh does.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, scene: &Scene<'_>) -> Option<(Split, Span)> {
    let example = "spec: {parentRefs: [{group: \"\", kind: Service, name: db-svc}], rules: [{backendRefs: [{name: db-svc-v2, port: 5432}]}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let without_hosts = spec.clone();
    let attached = parents::read(reader, object, &without_hosts, scene);
    let at = spec.field("parentRefs").map_or(object.at, |field| field.key);
    let mut services = attached.parents.iter().filter_map(|parent| match parent {
        Parent::Service { service, port } => Some((service.clone(), *port)),
        Parent::Gateway => None,
    });
    let parent = services.next();
    if services.next().is_some() {
        let fix = "write one route per service";
        no_equal(
            reader,
            at,
            "a division of connections to several services",
            "each service is divided on its own",
            fix,
        );
    }
    if attached.parents.contains(&Parent::Gateway) {
        let why = "the gateway takes requests alone: HTTP over TLS";
        no_equal(reader, at, &format!("a {} at a gateway", object.kind), why, "give it a Service as its parent");
    }
    let asked = parent.as_ref().and_then(|(_, port)| *port);
    let shares = shares(reader, object, &spec, (scene, asked));
    let (service, port) = parent?;
    // Of a service with one port that one is all there is.
    if let Some(port) = port.filter(|port| !scene.has_only(&service, *port)) {
        let why = "the calls to a service are divided alike on all of its ports";
        not_carried(reader, at, &format!("that port {port} alone is meant"), why);
    }
    if let Some(field) = spec.field("hostnames") {
        let why = "the calls to a service are divided alike whatever server name they carry";
        not_carried(reader, field.key, "choosing by the server name", why);
    }
    Some((Split { service, shares: shares? }, at))
}

fn shares(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    spec: &Table<'_>,
    (scene, asked): (&Scene<'_>, Option<u16>),
) -> Option<Vec<Share>> {
    let rules = items(reader, spec, "rules", 16, "a list with one rule");
    let field = reader.need(spec, "rules", "rules: [{backendRefs: [{name: db-svc-v2, port: 5432}]}]").cloned()?;
    let [rule] = rules.as_slice() else {
        let finding = Finding::error(2105, format!("`{}` has {} entries", field.path, rules.len()));
        let why = "of several rules for connections none but the first could ever be used";
        reader.report(field.key, finding.because(why).fix("write one rule"));
        return None;
    };
    let table = reader.table(rule.node, &rule.path, RULE)?;
    let needed = reader.need(&table, "backendRefs", "backendRefs: [{name: db-svc-v2, port: 5432}]").cloned()?;
    let mut shares: Vec<Share> = Vec::new();
    for item in items(reader, &table, "backendRefs", 16, "a list such as [{name: db-svc-v2, port: 5432}]") {
        let Some(backend) = backends::stream(reader, object, &item, scene, object.kind) else { continue };
        if let (Some(asked), Some(port)) = (asked, backend.port.filter(|port| Some(*port) != asked)) {
            let what = format!("port {port} of `{}`", backend.share.service);
            let why = format!("a connection goes to port {asked} of whoever gets it too, or to the only one there is");
            not_carried(reader, item.node.span, &what, &why);
        }
        if let Some(why) = &backend.refused {
            let what = format!("a share of connections for `{}`", backend.share.service);
            no_equal(reader, item.node.span, &what, why, "grant it, or leave it out");
        } else if shares.iter().any(|share| share.service == backend.share.service) {
            let finding = Finding::error(2110, format!("`{}` stands twice", backend.share.service));
            reader.report(item.node.span, finding.fix("keep one of the two"));
        } else {
            shares.push(backend.share);
        }
    }
    somebody(reader, &needed, &shares);
    Some(shares)
}

fn somebody(reader: &mut Reader<'_>, field: &Field<'_>, shares: &[Share]) {
    if shares.iter().all(|share| share.weight == 0) && !reader.has_errors(field.key.file) {
        let finding = Finding::error(2105, format!("`{}` gives nobody a connection", field.path));
        reader.report(field.key, finding.fix("give one of them weight: 1"));
    }
}
