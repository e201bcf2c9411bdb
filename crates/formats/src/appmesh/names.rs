//! Names of things in App Mesh: those of Kubernetes, those of AWS, and Amazon's resource names.

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};

use super::{NAME_BYTES, is_kubernetes, one_of};
use crate::document::short;
use crate::objects::object::{Object, namespace_of};
use crate::read::{Field, Keys, Reader, Span, Table};

const REFERENCE: Keys = Keys::new(&["name", "namespace"]);

/// What something is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// In Kubernetes: namespace and name.
    Object(String, String),
    /// In App Mesh itself.
    Aws(String),
}

impl Name {
    /// As messages show it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Object(namespace, name) if namespace == DEFAULT_NAMESPACE => short(name),
            Self::Object(namespace, name) => format!("{}.{}", short(name), short(namespace)),
            Self::Aws(name) => short(name),
        }
    }
}

/// What an object is called: in Kubernetes, and in App Mesh.
pub(super) fn of(object: &Object<'_>, aws: Option<&str>) -> Vec<Name> {
    if !is_kubernetes(object) {
        return vec![Name::Aws(object.name.to_owned())];
    }
    let (namespace, name) = (object.namespace.to_owned(), object.name.to_owned());
    let aws = aws.map_or_else(|| format!("{name}_{namespace}"), str::to_owned);
    vec![Name::Object(namespace, name), Name::Aws(aws)]
}

/// The `awsName` of a `spec`.
pub(super) fn aws<'n>(reader: &mut Reader<'_>, spec: &Table<'n>) -> Option<&'n str> {
    let field = spec.field("awsName").cloned()?;
    reader.line(&field, "a name", NAME_BYTES)
}

/// A reference by `xRef`, `xARN` or `xName`: what it names, and where it stands.
pub(super) fn referred(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    keys: &[&str],
) -> Option<(Name, Span)> {
    let field = one_of(reader, table, keys, &format!("{}: …", keys.first().copied().unwrap_or_default()))?;
    let at = field.node.span;
    if field.name.ends_with("Ref") {
        let table = reader.table(field.node, &field.path, REFERENCE)?;
        let namespace = table.field("namespace").cloned();
        let namespace = namespace.map_or(Some(object.namespace), |field| namespace_of(reader, &field));
        let name = reader.need(&table, "name", "name: shop").cloned()?;
        let text = reader.line(&name, "a name", NAME_BYTES)?;
        return Some((Name::Object(namespace?.to_owned(), text.to_owned()), name.node.span));
    }
    let text = reader.line(&field, "a name", 1024)?;
    if !field.name.ends_with("ARN") {
        return Some((Name::Aws(text.to_owned()), at));
    }
    // arn:aws:appmesh:REGION:ACCOUNT:mesh/MESH/virtualNode/NAME
    let resource = text.strip_prefix("arn:").and_then(|rest| rest.splitn(5, ':').nth(4));
    let name = resource.and_then(|own| own.splitn(4, '/').nth(3)).filter(|name| !name.is_empty());
    if name.is_none() {
        let fix = "write for example arn:aws:appmesh:eu-west-1:111122223333:mesh/shop/virtualNode/pay";
        reader.bad(&field, "a resource name of App Mesh's", "it has six parts and a path of four", fix);
    }
    name.map(|name| (Name::Aws(name.to_owned()), at))
}

/// The service that a host name means. App Mesh does not mind what its names look like: of one that is not the mesh's, the first part
/// counts.
pub(super) fn service(reader: &mut Reader<'_>, text: &str, at: Span, namespace: &str) -> Option<ServiceName> {
    let ours = [".svc.cluster.local", ".svc", ".mesh"];
    let is_ours = !text.contains('.') || ours.iter().any(|end| text.ends_with(end));
    if is_ours {
        let name = ServiceName::from_host(text, namespace);
        return name
            .map_err(|error| {
                let finding = Finding::error(2111, format!("`{}` is no name of a service", short(text)));
                let fix = "write for example pay.shop.svc.cluster.local";
                reader.report(at, finding.because(error.to_string()).fix(fix));
            })
            .ok();
    }
    let first = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    match ServiceName::in_namespace(namespace, &first) {
        Ok(name) => {
            let message = format!("`{}` is taken for the service `{name}`", short(text));
            let why = "services of the mesh have a name and a namespace; of other names the first part counts";
            reader.report(at, Finding::warning(2173, message).because(why));
            Some(name)
        }
        Err(error) => {
            let finding = Finding::error(2111, format!("`{}` is no name of a service", short(text)));
            reader.report(at, finding.because(error.to_string()).fix("write for example pay.shop.svc.cluster.local"));
            None
        }
    }
}

/// A name of AWS's as that of a service: `pay_shop` is `pay` in the namespace `shop`, as the controller writes it.
pub(super) fn folded(name: &str) -> Option<ServiceName> {
    let (name, namespace) = name.split_once('_').unwrap_or((name, DEFAULT_NAMESPACE));
    ServiceName::in_namespace(namespace, &name.to_ascii_lowercase().replace('.', "-")).ok()
}

/// A duration in two parts.
pub(super) fn duration(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<std::time::Duration> {
    const KEYS: Keys = Keys::new(&["unit", "value"]);
    /// A week, which is the longest that travels.
    const MOST: u32 = 604_800_000;
    let table = reader.table(field.node, &field.path, KEYS)?;
    let unit = reader.need(&table, "unit", "unit: ms").cloned();
    let unit = unit.and_then(|field| reader.word(&field, &[("ms", 1), ("s", 1000)]));
    let value = reader.need(&table, "value", "value: 250").cloned()?;
    let number = reader.whole(&value, "a whole number", 0..=MOST)?;
    let millis = u64::from(number) * unit?;
    if millis > u64::from(MOST) {
        reader.bad(&value, "a duration", "it is at most a week", "write a shorter time");
        return None;
    }
    Some(std::time::Duration::from_millis(millis))
}
