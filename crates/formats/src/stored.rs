//! Resources as they are stored, as `hms get -o yaml` writes them: what was shown may be changed and applied again.
//!
//! What the fields of a resource are, the contracts of the wire say; here is only what every resource has, and where it stands.

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::resource::{Kind, Resource, ResourceKey};

use crate::document::{self, Form, Node, Value, short};
use crate::objects::object::items;
use crate::read::{Keys, Reader, Span, nearest};
use crate::source::Source;

/// `apiVersion` of what is shown.
const VERSION: &str = "hms/v1";
/// A resource on its own; `kind` is the document's word.
const ONE: Keys = Keys::new(&["apiVersion", "kind", "resource", "namespace", "name", "spec", "status"]);
/// A list of them.
const LIST: Keys = Keys::new(&["apiVersion", "kind", "items"]);
/// One of a list. What is said of its state is not for us.
const ITEM: Keys = Keys::new(&["kind", "namespace", "name", "spec", "status"]);
/// Resources of one list.
const MOST_ITEMS: usize = 20_000;

/// A part of a resource: a key or a place in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Of a mapping.
    Key(String),
    /// Of a list, from 0.
    Item(usize),
}

/// A complaint about a part of a resource's fields.
pub type Complaint = (Vec<Step>, Finding);

/// A resource whose fields are not understood yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// What it is and what it is called.
    pub key: ResourceKey,
    /// Its fields.
    pub spec: serde_json::Value,
}

/// Whether a file holds resources as they are shown.
pub fn recognises(source: &Source) -> bool {
    let text = source.text.trim_start_matches('\u{feff}');
    let is_one = |line: &str| {
        let mut parts = line.trim().trim_end_matches(',').splitn(2, ':');
        let bare = |part: Option<&str>| part.map(|part| part.trim().trim_matches(['"', '\'']).to_owned());
        bare(parts.next()).as_deref() == Some("apiVersion") && bare(parts.next()).as_deref() == Some(VERSION)
    };
    if text.trim_start().starts_with('{') {
        // Of JSON on one line the head is enough.
        return text.split(['{', '\n']).any(|part| is_one(part.split(',').next().unwrap_or_default()));
    }
    text.lines().any(|line| !line.starts_with(char::is_whitespace) && is_one(line))
}

/// Reads files of resources. `decode` understands the fields of one.
pub fn translate(
    sources: &[Source],
    decode: impl Fn(&Written) -> Result<Resource, Vec<Complaint>>,
) -> (Vec<Resource>, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut resources: BTreeMap<ResourceKey, Resource> = BTreeMap::new();
    for source in sources {
        let Some(file) = reader.add(source) else { continue };
        for root in document::parse_all(&mut reader, file).unwrap_or_default() {
            for (written, spec) in documents(&mut reader, &root) {
                match decode(&written) {
                    Ok(resource) => keep(&mut reader, &mut resources, resource, spec.span),
                    Err(complaints) => {
                        for (steps, finding) in complaints {
                            reader.report(place(spec, &steps), finding);
                        }
                    }
                }
            }
        }
    }
    (resources.into_values().collect(), reader.into_findings())
}

/// Each resource once.
fn keep(reader: &mut Reader<'_>, resources: &mut BTreeMap<ResourceKey, Resource>, resource: Resource, at: Span) {
    let key = resource.key();
    if resources.contains_key(&key) {
        let finding = Finding::error(2110, format!("`{key}` is given twice"));
        return reader.report(at, finding.fix("keep one of the two"));
    }
    resources.insert(key, resource);
}

/// The resources of one document, each with where its fields stand.
fn documents<'n>(reader: &mut Reader<'_>, root: &'n Node) -> Vec<(Written, &'n Node)> {
    let Some(table) = reader.open_table(root, "") else { return Vec::new() };
    let word = |name: &str| match table.field(name).map(|field| &field.node.value) {
        Some(Value::Scalar(text, _)) => Some(text.as_str()),
        _ => None,
    };
    if word("apiVersion") != Some(VERSION) {
        let finding = Finding::error(2170, "this object is not one of those that hms get shows");
        let why = format!("others of this file have apiVersion {VERSION}");
        reader.report(root.span, finding.because(why).fix("put it into a file of its own"));
        return Vec::new();
    }
    match word("kind") {
        Some("Resource") => one(reader, root, ONE, "resource").into_iter().collect(),
        Some("ResourceList") => {
            let Some(table) = reader.table(root, "", LIST) else { return Vec::new() };
            let items = items(reader, &table, "items", MOST_ITEMS, "a list of resources");
            items.iter().filter_map(|item| one(reader, item.node, ITEM, "kind")).collect()
        }
        other => {
            let shown = short(other.unwrap_or_default());
            let finding = Finding::error(2170, format!("`{shown}` of {VERSION} cannot be applied"));
            let at = table.field("kind").map_or(root.span, |field| field.node.span);
            reader.report(at, finding.fix("hms get KIND NAME -o yaml shows what can"));
            Vec::new()
        }
    }
}

/// One resource; `kind` is the key under which its kind stands.
fn one<'n>(reader: &mut Reader<'_>, node: &'n Node, keys: Keys, kind: &str) -> Option<(Written, &'n Node)> {
    let table = reader.table(node, "", keys)?;
    let named = reader.need(&table, kind, &format!("{kind}: split")).cloned()?;
    let word = reader.text(&named, "a kind of resource")?;
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == word) else {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let finding = Finding::error(2170, format!("there is no kind `{}`", short(word)));
        let finding = match nearest(word, &known) {
            Some(near) => finding.fix(format!("write `{near}`")),
            None => finding.fix("hms get"),
        };
        reader.report(named.node.span, finding.because(format!("known are {}", known.join(", "))));
        return None;
    };
    let name = reader.need(&table, "name", "name: payment-svc").cloned()?;
    let name = reader.line(&name, "a name", 63)?.to_owned();
    let namespace = table.field("namespace").cloned();
    let namespace = match namespace {
        Some(field) => reader.line(&field, "a namespace", 63)?,
        None => hms_model::names::DEFAULT_NAMESPACE,
    };
    let spec = reader.need(&table, "spec", "spec: {…}").cloned()?;
    let key = ResourceKey { kind, namespace: namespace.to_owned(), name, part: String::new() };
    Some((Written { key, spec: json(spec.node) }, spec.node))
}

/// Where a part stands; of one that is not there what would hold it.
fn place(root: &Node, steps: &[Step]) -> Span {
    let (mut node, mut at) = (root, root.span);
    for step in steps {
        let next = match (step, &node.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (entry.span, &entry.value))
            }
            (Step::Item(place), Value::List(items)) => items.get(*place).map(|item| (item.span, item)),
            _ => None,
        };
        let Some((span, value)) = next else { return at };
        (node, at) = (value, span);
    }
    at
}

/// A number or truth value that is written again as it was.
fn bare(text: &str) -> Option<serde_json::Value> {
    let value = serde_json::from_str::<serde_json::Value>(text).ok()?;
    let again = value.to_string();
    ((value.is_number() || value.is_boolean()) && again == text).then_some(value)
}

/// A value as JSON: a plain scalar is a number or a truth value where it can be.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Unknown => serde_json::Value::Null,
        Value::Scalar(text, Form::Plain) => bare(text).unwrap_or_else(|| text.as_str().into()),
        Value::Scalar(text, _) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use hms_model::names::ServiceName;
    use hms_model::split::Split;

    use super::*;

    const SPLIT: &str = "apiVersion: hms/v1\nkind: Resource\nresource: split\nnamespace: default\nname: pay\nspec:\n  \
                         shares:\n  - weight: 9\n    version: \"1\"\nstatus: {anything: [at, all]}\n";

    fn read(text: &str, decode: impl Fn(&Written) -> Result<Resource, Vec<Complaint>>) -> (Vec<Resource>, Vec<String>) {
        let source = Source::new("a.yaml", text);
        assert!(recognises(&source), "{text}");
        let (resources, findings) = translate(&[source], decode);
        (resources, findings.iter().map(ToString::to_string).collect())
    }

    fn pay() -> Resource {
        Resource::Split(Split { service: ServiceName::new("pay").unwrap(), shares: Vec::new() })
    }

    #[test]
    fn a_resource_is_read_without_what_is_said_of_its_state() {
        let (resources, findings) = read(SPLIT, |written| {
            assert_eq!(written.key.to_string(), "split/default/pay");
            assert_eq!(written.spec, serde_json::json!({"shares": [{"weight": 9, "version": "1"}]}));
            Ok(pay())
        });
        assert_eq!((resources.len(), findings), (1, Vec::new()));
    }

    #[test]
    fn a_complaint_stands_where_its_part_stands() {
        let steps = vec![Step::Key("shares".to_owned()), Step::Item(0), Step::Key("version".to_owned())];
        let complain = |_: &Written| Err(vec![(steps.clone(), Finding::error(2105, "no"))]);
        assert_eq!(read(SPLIT, complain).1, ["a.yaml:9:5: error[HMS-2105]: no"]);
    }

    #[test]
    fn a_list_of_resources_in_json_is_read_and_nothing_else() {
        let one = r#"{"kind": "split", "namespace": "default", "name": "pay", "spec": {}, "status": {}}"#;
        let list = |items: &str| format!(r#"{{"apiVersion": "hms/v1", "kind": "ResourceList", "items": [{items}]}}"#);
        assert_eq!(read(&list(one), |_| Ok(pay())).0.len(), 1);
        let (_, twice) = read(&list(&format!("{one}, {one}")), |_| Ok(pay()));
        assert!(twice[0].contains("`split/default/pay` is given twice"), "{twice:?}");
        let (_, misspelt) = read(&list(&one.replace("\"split\"", "\"splitt\"")), |_| Ok(pay()));
        assert!(misspelt[0].contains("there is no kind `splitt`"), "{misspelt:?}");
        let (_, other) = read(r#"{"apiVersion": "hms/v1", "kind": "Status"}"#, |_| Ok(pay()));
        assert!(other[0].contains("`Status` of hms/v1 cannot be applied"), "{other:?}");
        let (_, mixed) = read(&format!("{SPLIT}---\napiVersion: v1\nkind: Service\n"), |_| Ok(pay()));
        assert!(mixed[0].starts_with("a.yaml:12:1: error[HMS-2170]"), "{mixed:?}");
    }

    #[test]
    fn files_of_others_are_not_taken_for_these() {
        for text in ["apiVersion: v1\nkind: X\n", "spec:\n  apiVersion: hms/v1\n", r#"{"kind": "X"}"#, ""] {
            assert!(!recognises(&Source::new("a.yaml", text)), "{text}");
        }
    }
}
