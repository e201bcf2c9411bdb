//! Consul's config entries: `service-router`, `service-splitter`, `service-resolver`, `service-defaults` and `service-intentions`, as
//! the objects of Kubernetes that consul-k8s has (consul.hashicorp.com), and as `consul config read` writes them.
//!
//! A request goes through a chain there: the router's routes, the splitter of the service that they lead to, its resolver. Here the
//! router is a route, the splitter a division of the service, and what a subset is the resolver says while the files are read.

mod balance;
mod chain;
mod defaults;
mod edits;
mod intentions;
mod matches;
mod resolver;
mod router;
mod splitter;

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};

pub(crate) use self::chain::{Chain, Division};
pub(crate) use self::defaults::{lying_outside, read as defaults};
pub(crate) use self::intentions::read as intentions;
pub(crate) use self::resolver::policies;
pub(crate) use self::router::read as router;

use crate::document::{Node, Value, short};
use crate::objects::kind::Kind;
use crate::objects::object::{Object, namespace_of, no_equal};
use crate::read::spelling::folded;
use crate::read::{Field, Keys, Reader, Span, Table, nearest};

/// The group of the objects.
pub(crate) const GROUP: &str = "consul.hashicorp.com";

/// The kinds of entries.
const KINDS: [(&str, Kind); 5] = [
    ("service-router", Kind::ServiceRouter),
    ("service-splitter", Kind::ServiceSplitter),
    ("service-resolver", Kind::ServiceResolver),
    ("service-defaults", Kind::ServiceDefaults),
    ("service-intentions", Kind::ServiceIntentions),
];

/// What every entry has beside its own keys. Metadata and counters of changes are Consul's.
const ENTRY: [&str; 8] = ["Kind", "Name", "Namespace", "Partition", "Meta", "CreateIndex", "ModifyIndex", "Hash"];

/// Longest name.
const NAME_BYTES: usize = 253;

/// Whether a document is an entry in Consul's own form.
pub(crate) fn is_entry(root: &Node) -> bool {
    let Value::Map(entries) = &root.value else { return false };
    let is_object = entries.iter().any(|entry| entry.key == "apiVersion");
    let is_kind = |value: &Value| matches!(value, Value::Scalar(text, _) if text.contains('-'));
    let mut kinds = entries.iter().filter(|entry| folded(&entry.key) == "kind");
    !is_object && kinds.any(|entry| entry.key == "Kind" || is_kind(&entry.value.value))
}

/// Whether a text in JSON may be an entry whose keys are in lower case.
pub(crate) fn recognises(text: &str) -> bool {
    text.contains("\"kind\"") && text.contains("\"service-")
}

/// Whether a text is an entry in HCL, which begins its lines with `Kind = "…"`.
pub(crate) fn is_hcl(text: &str) -> bool {
    text.lines().any(|line| hcl_value(line, "Kind").is_some_and(|kind| kind.contains('-')))
}

/// `KEY = "VALUE"` of a line.
fn hcl_value<'t>(line: &'t str, key: &str) -> Option<&'t str> {
    let (word, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('"')?;
    (folded(word.trim()) == folded(key)).then(|| value.split('"').next().unwrap_or_default())
}

/// The finding that HCL is not read, and what to do.
pub(crate) fn refuse_hcl(reader: &mut Reader<'_>, file: u16) {
    let body = reader.body(file);
    let find = |key: &str| body.lines().find_map(|line| hcl_value(line, key)).map(short);
    let (kind, name) = (find("Kind").unwrap_or_default(), find("Name").unwrap_or_else(|| "NAME".to_owned()));
    let line = body.split_inclusive('\n').take_while(|line| hcl_value(line, "Kind").is_none());
    let start: usize = line.map(str::len).sum();
    let length = body.get(start..).and_then(|rest| rest.lines().next()).map_or(1, str::len);
    let finding = Finding::error(2170, format!("this is a `{kind}` in HCL, which is not read"));
    let fix = format!("write it as JSON: consul config read -kind {kind} -name {name} > {name}.json");
    let why =
        "Consul's HCL is of the older of two grammars, with blocks inside of lists; Consul writes every entry as JSON";
    reader.report(Span::new(file, start, start + length.max(1)), finding.because(why).fix(fix));
}

/// Reads the head of an entry in Consul's own form.
pub(crate) fn entry<'n>(reader: &mut Reader<'_>, root: &'n Node) -> Option<(Kind, Object<'n>)> {
    let table = reader.open_table(root, "")?;
    let named = |word: &str| table.fields().iter().find(|field| folded(field.name) == word).cloned();
    let kind = named("kind")?;
    let word = reader.text(&kind, "the kind of an entry")?;
    let known = KINDS.map(|(word, _)| word);
    let Some((_, meant)) = KINDS.iter().find(|(known, _)| *known == word) else {
        let finding = match nearest(word, &known) {
            Some(near) => Finding::error(2170, format!("no kind `{}`; did you mean `{near}`?", short(word)))
                .fix(format!("{}: {near}", kind.name)),
            None => Finding::error(2170, format!("entries of the kind `{}` are not read", short(word)))
                .fix("leave it out of these files"),
        };
        reader.report(kind.node.span, finding.because(format!("known: {}", known.join(", "))));
        return None;
    };
    let Some(name) = named("name") else {
        let finding = Finding::error(2102, "the key `Name` is missing").fix("add it: Name: web");
        reader.report(kind.key, finding);
        return None;
    };
    let text = reader.line(&name, "the name of a service", NAME_BYTES)?;
    let namespace = named("namespace").filter(is_said);
    let namespace = namespace.map_or(Some(DEFAULT_NAMESPACE), |field| namespace_of(reader, &field))?;
    Some((*meant, Object { kind: word, name: text, at: name.node.span, namespace, top: table, root }))
}

/// Whether a value is there and not empty; Consul takes an empty text for none.
fn is_said(field: &Field<'_>) -> bool {
    !matches!(&field.node.value, Value::Null) && !matches!(&field.node.value, Value::Scalar(text, _) if text.is_empty())
}

/// A key that says something.
fn said<'n>(table: &Table<'n>, key: &str) -> Option<Field<'n>> {
    table.field(key).filter(|field| is_said(field)).cloned()
}

/// What an entry of either form says, with these keys only.
fn settings<'n>(reader: &mut Reader<'_>, object: &Object<'n>, keys: Keys) -> Option<Table<'n>> {
    if object.top.field("apiVersion").is_some() {
        let spec = reader.need(&object.top, "spec", "spec: {}").cloned()?;
        return reader.table_spelt(spec.node, &spec.path, keys, &[]);
    }
    let table = reader.table_spelt(object.root, "", keys, &ENTRY)?;
    partition(reader, &table);
    Some(table)
}

/// There is one partition.
fn partition(reader: &mut Reader<'_>, table: &Table<'_>) {
    let Some(field) = said(table, "Partition") else { return };
    if !crate::gateway_api::is_word(Some(&field), "default") {
        no_equal(reader, field.key, "a partition", "the mesh is one, with namespaces", "leave it out");
    }
}

/// The service that a reference means: `own` where it names none.
fn referred(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, own: &ServiceName) -> Option<ServiceName> {
    partition(reader, table);
    let namespace = said(table, "Namespace");
    let namespace = namespace.map(|field| namespace_of(reader, &field));
    let name = match said(table, "Service") {
        None => own.name().to_owned(),
        Some(field) => {
            let text = reader.text(&field, "the name of a service")?;
            if text.contains('.') {
                let why = "a reference names the namespace in a key of its own";
                reader.bad(&field, "the name of a service", why, "write the name alone");
                return None;
            }
            reader.service_name(&field, text)?.name().to_owned()
        }
    };
    let namespace = match namespace {
        Some(namespace) => namespace?,
        None => object.namespace,
    };
    ServiceName::in_namespace(namespace, &name).ok()
}

/// The name of a subset, and where it stands.
fn subset(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Option<(String, Span)> {
    let field = said(table, key)?;
    Some((reader.line(&field, "the name of a subset", 63)?.to_owned(), field.node.span))
}
