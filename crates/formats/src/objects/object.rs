//! One object: what it is, what it is called, and the names it speaks of.

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, Label, ServiceName};

use crate::document::{Node, short};
use crate::read::{Field, Keys, Reader, Span, Table};

/// The keys of every object. What a cluster writes into `status` is not for us.
const TOP: Keys = Keys::new(&["apiVersion", "kind", "metadata", "spec", "status"]);

/// Longest name of an object (a DNS subdomain).
const NAME_BYTES: usize = 253;

/// An object whose head has been read.
#[derive(Debug, Clone)]
pub(crate) struct Object<'n> {
    /// `kind`.
    pub(crate) kind: &'n str,
    /// `metadata.name`.
    pub(crate) name: &'n str,
    /// Where the name stands.
    pub(crate) at: Span,
    /// `metadata.namespace`.
    pub(crate) namespace: &'n str,
    /// Everything else.
    pub(crate) top: Table<'n>,
    /// The whole of it.
    pub(crate) root: &'n Node,
}

/// The two fields that say what an object is; `None` with a finding when they are not there.
pub(crate) fn heads<'n>(reader: &mut Reader<'_>, root: &'n Node) -> Option<[Field<'n>; 2]> {
    let table = reader.open_table(root, "")?;
    let version = reader.need(&table, "apiVersion", "apiVersion: gateway.networking.k8s.io/v1").cloned();
    let kind = reader.need(&table, "kind", "kind: HTTPRoute").cloned();
    Some([version?, kind?])
}

impl<'n> Object<'n> {
    /// Reads the head of an object.
    pub(crate) fn read(reader: &mut Reader<'_>, root: &'n Node, kind: &Field<'n>) -> Option<Self> {
        let kind = reader.text(kind, "the kind of an object")?;
        let top = reader.table(root, "", TOP)?;
        let metadata = reader.need(&top, "metadata", "metadata: {name: payment}").cloned();
        // Labels, annotations and what a cluster keeps there are other programs'.
        let metadata = metadata.and_then(|field| reader.open_table(field.node, &field.path))?;
        let namespace = metadata.field("namespace").cloned();
        let namespace = namespace.map_or(Some(DEFAULT_NAMESPACE), |field| namespace_of(reader, &field));
        let name = reader.need(&metadata, "name", "name: payment").cloned();
        let name = name.and_then(|field| Some((reader.line(&field, "a name", NAME_BYTES)?, field.node.span)));
        let (name, at) = name?;
        Some(Self { kind, name, at, namespace: namespace?, top, root })
    }

    /// Every annotation.
    pub(crate) fn annotations(&self, reader: &mut Reader<'_>) -> Vec<Field<'n>> {
        let Some(metadata) = self.top.field("metadata") else { return Vec::new() };
        let metadata = reader.open_table(metadata.node, &metadata.path);
        let annotations = metadata.and_then(|table| table.field("annotations").cloned());
        let table = annotations.and_then(|field| reader.open_table(field.node, &field.path));
        table.map(|table| table.fields().to_vec()).unwrap_or_default()
    }

    /// What it says, with these keys only.
    pub(crate) fn spec(&self, reader: &mut Reader<'_>, keys: Keys, example: &str) -> Option<Table<'n>> {
        let spec = reader.need(&self.top, "spec", example).cloned()?;
        reader.table(spec.node, &spec.path, keys)
    }

    /// Its name as that of a route: one label.
    pub(crate) fn route_name(&self, reader: &mut Reader<'_>) -> Option<ServiceName> {
        let name = ServiceName::in_namespace(self.namespace, self.name);
        name.map_err(|error| {
            let folded = self.name.to_lowercase().replace(['.', '_', ' '], "-");
            let fix = match Label::new(&folded) {
                Ok(label) => format!("name: {label}"),
                Err(_also_bad) => "use at most 63 letters a-z, digits and -".to_owned(),
            };
            let finding = Finding::error(2111, format!("`{}` is no name of a route here", short(self.name)));
            let why = if self.name.contains('.') {
                "a name is one label, without dots".to_owned()
            } else {
                error.to_string()
            };
            reader.report(self.at, finding.because(why).fix(fix));
        })
        .ok()
    }

    /// A service by a name as people write it: in the namespace of the object unless it says another one.
    pub(crate) fn service(&self, reader: &mut Reader<'_>, field: &Field<'_>) -> Option<ServiceName> {
        let text = reader.text(field, "the name of a service")?;
        let name = reader.service_name(field, text)?;
        if text.contains('.') {
            return Some(name);
        }
        // The namespace was checked with the head.
        ServiceName::in_namespace(self.namespace, name.name()).ok()
    }

    /// A service by `name` and `namespace` of a reference.
    pub(crate) fn referred(&self, reader: &mut Reader<'_>, reference: &Table<'n>) -> Option<ServiceName> {
        let namespace = reference.field("namespace").cloned();
        let namespace = namespace.map_or(Some(self.namespace), |field| namespace_of(reader, &field));
        let field = reader.need(reference, "name", "name: payment-svc").cloned()?;
        let text = reader.text(&field, "the name of a service")?;
        if text.contains('.') {
            let why = "a reference names the namespace in a key of its own";
            let (name, space) = text.split_once('.').unwrap_or((text, DEFAULT_NAMESPACE));
            let space = space.split('.').next().unwrap_or_default();
            reader.bad(
                &field,
                "a service's name alone",
                why,
                &format!("name: {}, namespace: {}", short(name), short(space)),
            );
            return None;
        }
        let name = reader.service_name(&field, text)?;
        ServiceName::in_namespace(namespace?, name.name()).ok()
    }
}

/// A namespace.
pub(crate) fn namespace_of<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<&'n str> {
    let text = reader.line(field, "a namespace", 63)?;
    match Label::new(text) {
        Ok(_) => Some(text),
        Err(error) => {
            let finding = Finding::error(2111, format!("`{}` is no namespace", reader.named(field.node, text)));
            reader.report(field.node.span, finding.because(error.to_string()).fix("namespace: default"));
            None
        }
    }
}

/// The items of a list that may be missing: at most so many.
pub(crate) fn items<'n>(
    reader: &mut Reader<'_>,
    table: &Table<'n>,
    name: &str,
    most: usize,
    wants: &str,
) -> Vec<Field<'n>> {
    let Some(field) = table.field(name).cloned() else { return Vec::new() };
    let mut items = reader.list(&field, wants).unwrap_or_default();
    if items.len() > most {
        let finding = Finding::error(2112, format!("`{}` has {} entries", field.path, items.len()));
        reader.report(
            field.node.span,
            finding.because(format!("there are at most {most}")).fix("divide them among several objects"),
        );
        items.truncate(most);
    }
    items
}

/// Something that is understood and has no equal in the mesh; the rest of the object holds without it.
pub(crate) fn not_carried(reader: &mut Reader<'_>, at: Span, what: &str, why: &str) {
    reader.report(at, Finding::warning(2171, format!("{what} is not carried over")).because(why));
}

/// Something that has no equal in the mesh and changes too much to be left out.
pub(crate) fn no_equal(reader: &mut Reader<'_>, at: Span, what: &str, why: &str, fix: &str) {
    reader.report(at, Finding::error(2175, format!("{what} has no equal in the mesh")).because(why).fix(fix));
}
