//! SMI's `HTTPRouteGroup` (specs.smi-spec.io) and `TrafficTarget` (access.smi-spec.io): which requests are meant, and who may make them.

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::http_route::{FieldCondition, HttpMatch, PathCondition, Pattern, ValueCondition};
use hms_model::names::ServiceName;
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::route::{Match, PathPattern};
use http::{HeaderName, Method};

use crate::document::{Value, short};
use crate::objects::object::{Object, items, no_equal};
use crate::read::{Field, Keys, Reader, Span, Table};

const GROUP: Keys = Keys::new(&["matches"]);
const MATCH: Keys = Keys::new(&["name", "methods", "pathRegex", "headers"]);
const TARGET: Keys = Keys::new(&["destination", "sources", "rules"]);
const ACCOUNT: Keys = Keys::new(&["kind", "name", "namespace", "port"]);
const RULE: Keys = Keys::new(&["kind", "name", "matches"]);
/// Methods and paths that one allow rule may name.
const MATCHES: usize = 256;
/// Entries of one list.
const ENTRIES: usize = 64;

/// The matches of a group by name.
pub(crate) type Groups = BTreeMap<(String, String), Vec<(String, HttpMatch)>>;

/// A group of matches.
pub(crate) fn group(reader: &mut Reader<'_>, object: &Object<'_>, groups: &mut Groups) {
    let Some(spec) = object.spec(reader, GROUP, "spec: {matches: [{name: all, pathRegex: \".*\", methods: [GET]}]}")
    else {
        return;
    };
    let _needed = reader.need(&spec, "matches", "matches: [{name: all, pathRegex: \".*\", methods: [GET]}]");
    let mut all = Vec::new();
    for item in items(reader, &spec, "matches", ENTRIES, "a list of matches") {
        let Some(table) = reader.table(item.node, &item.path, MATCH) else { continue };
        let name = reader.need(&table, "name", "name: all").cloned();
        let name = name.and_then(|field| reader.line(&field, "a name", 253)).unwrap_or_default().to_owned();
        all.extend(one(reader, &table).into_iter().map(|own| (name.clone(), own)));
    }
    groups.insert((object.namespace.to_owned(), object.name.to_owned()), all);
}

/// One match: as many as it has methods.
fn one(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<HttpMatch> {
    let path = table.field("pathRegex").cloned().and_then(|field| path(reader, &field));
    let headers = table.field("headers").cloned().map(|field| headers(reader, &field)).unwrap_or_default();
    let mut methods = Vec::new();
    for item in items(reader, table, "methods", ENTRIES, "a list such as [GET]") {
        match reader.text(&item, "a method") {
            Some("*") => methods.push(None),
            Some(word) => match Method::from_bytes(word.as_bytes()) {
                Ok(method) if word.len() <= 32 => methods.push(Some(method)),
                _ => reader.bad(&item, "a method", "a method is one word", "write for example GET"),
            },
            None => {}
        }
    }
    if methods.is_empty() || methods.contains(&None) {
        methods = vec![None];
    }
    let whole = |method| HttpMatch { path: path.clone(), method, headers: headers.clone(), ..HttpMatch::default() };
    methods.into_iter().map(whole).collect()
}

/// An expression about the whole path; one that says something simpler becomes that.
fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathCondition> {
    let text = reader.line(field, "a regular expression", 512)?;
    let is_plain = |text: &str| {
        text.starts_with('/')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'~'))
    };
    if matches!(text, ".*" | "/.*" | "^/.*$") {
        return None;
    }
    if is_plain(text) {
        return Some(PathCondition::Exact(text.to_owned()));
    }
    pattern(reader, field, text).map(PathCondition::Regex)
}

fn pattern(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) -> Option<Pattern> {
    let pattern = Pattern::parse(text);
    if let Err(error) = &pattern {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().to_owned();
        reader.bad(field, "a regular expression", &why, "it is that of RE2: without look-around and back-references");
    }
    pattern.ok()
}

/// `headers`: a table, or a list of tables as older versions have it.
fn headers(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<FieldCondition> {
    let tables: Vec<Field<'_>> = match &field.node.value {
        Value::List(_) => reader.list(field, "a list of header fields").unwrap_or_default(),
        _ => vec![field.clone()],
    };
    let mut conditions: Vec<FieldCondition> = Vec::new();
    for item in tables.into_iter().take(16) {
        let Some(table) = reader.open_table(item.node, &item.path) else { continue };
        // One more than is taken, so that too many are seen to be.
        for field in table.fields().iter().take(17) {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok();
            let Some(name) = name else {
                let finding = Finding::error(2105, format!("`{}` is no name of a header field", short(field.name)));
                reader.report(field.key, finding.fix("write for example x-env"));
                continue;
            };
            let value = reader.line(field, "a regular expression", 512).and_then(|text| pattern(reader, field, text));
            let value = value.map(ValueCondition::Regex);
            conditions.extend(value.map(|value| FieldCondition { name, value, is_negated: false }));
        }
    }
    if conditions.len() > 16 {
        let finding = Finding::error(2112, format!("`{}` has {} conditions", field.path, conditions.len()));
        reader.report(field.key, finding.because("there are at most 16").fix("write fewer"));
        conditions.truncate(16);
    }
    conditions
}

/// The matches that a reference means. `None` with a finding if there is no such group.
pub(crate) fn referred(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    item: &Field<'_>,
    groups: &Groups,
) -> Option<Vec<HttpMatch>> {
    let table = reader.table(item.node, &item.path, RULE)?;
    let kind = reader.need(&table, "kind", "kind: HTTPRouteGroup").cloned()?;
    if reader.text(&kind, "HTTPRouteGroup")? != "HTTPRouteGroup" {
        let why = "what is not read as requests has no parts that could be told apart";
        no_equal(reader, kind.node.span, &reader.shown(kind.node), why, "kind: HTTPRouteGroup");
        return None;
    }
    let name = reader.need(&table, "name", "name: the-routes").cloned()?;
    let text = reader.line(&name, "a name", 253)?;
    let wanted: Vec<String> = items(reader, &table, "matches", ENTRIES, "a list of names")
        .iter()
        .filter_map(|item| reader.line(item, "a name", 253).map(str::to_owned))
        .collect();
    let Some(group) = groups.get(&(object.namespace.to_owned(), text.to_owned())) else {
        let finding = Finding::error(2105, format!("there is no HTTPRouteGroup `{}` among these files", short(text)));
        reader.report(name.node.span, finding.fix("apply it together with this"));
        return None;
    };
    let unknown = wanted.iter().find(|name| !group.iter().any(|(own, _)| own == *name));
    if let (Some(unknown), Some(field)) = (unknown, table.field("matches")) {
        let finding = Finding::error(2105, format!("`{}` has no match `{}`", short(text), short(unknown)));
        let known: Vec<&str> = group.iter().map(|(name, _)| name.as_str()).take(20).collect();
        reader.report(field.node.span, finding.because(format!("known: {}", known.join(", "))).fix("use one of them"));
    }
    let meant = group.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    Some(meant.map(|(_, own)| own.clone()).collect())
}

/// Who may call a service: whom it is about, and its rules.
pub(crate) fn target(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    groups: &Groups,
) -> Option<(ServiceName, Vec<AllowRule>)> {
    let example =
        "spec: {destination: {kind: ServiceAccount, name: pay}, sources: [{kind: ServiceAccount, name: web}]}";
    let spec = object.spec(reader, TARGET, example)?;
    let destination = reader.need(&spec, "destination", "destination: {kind: ServiceAccount, name: pay}").cloned();
    let destination = destination.and_then(|field| account(reader, object, &field));
    let _needed = reader.need(&spec, "sources", "sources: [{kind: ServiceAccount, name: web}]");
    let mut matches: Option<Vec<Match>> = None;
    for item in items(reader, &spec, "rules", ENTRIES, "a list of rules") {
        let own = referred(reader, object, &item, groups).unwrap_or_default();
        let list = matches.get_or_insert_default();
        list.extend(own.iter().flat_map(|own| allowed(reader, own, item.node.span)));
    }
    // No route in a rule means any route: a list that came to nothing must not turn into that.
    if matches.as_ref().is_some_and(Vec::is_empty) && !reader.has_errors(object.at.file) {
        let finding = Finding::error(2105, "these rules allow nothing");
        reader.report(object.at, finding.fix("leave `rules` out to allow all"));
    }
    if matches.as_ref().is_some_and(|matches| matches.len() > MATCHES) {
        let finding = Finding::error(2112, format!("the rules come to more than {MATCHES} matches"));
        reader.report(object.at, finding.fix("divide them among several objects"));
    }
    let mut rules = Vec::new();
    for item in items(reader, &spec, "sources", ENTRIES, "a list of service accounts") {
        let Some(source) = account(reader, object, &item) else { continue };
        let origin = reader.origin(item.node.span);
        rules.push(AllowRule { source: Source::Service(source), matches: matches.clone().unwrap_or_default(), origin });
    }
    // Without a rule everybody might call: the opposite of what was meant.
    if rules.is_empty() && !reader.has_errors(object.at.file) {
        let finding = Finding::error(2105, "`spec.sources` names nobody");
        let why = "a service of which no rule speaks is open to every member of the mesh";
        reader.report(object.at, finding.because(why).fix("name who may call it"));
    }
    Some((destination?, rules))
}

/// A service account has the name of the service that runs under it.
fn account(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>) -> Option<ServiceName> {
    let table = reader.table(field.node, &field.path, ACCOUNT)?;
    let kind = reader.need(&table, "kind", "kind: ServiceAccount").cloned();
    let _known = kind.and_then(|field| reader.word(&field, &[("ServiceAccount", ())]));
    if let Some(field) = table.field("port") {
        let why = "who may call a service may call all of its ports";
        no_equal(reader, field.key, "allowing one port alone", why, "leave the port out");
    }
    object.referred(reader, &table)
}

/// What an allow rule can say of a match: never more than the match does.
pub(crate) fn allowed(reader: &mut Reader<'_>, own: &HttpMatch, at: Span) -> Vec<Match> {
    let parse = |text: String| PathPattern::parse(&text).ok();
    let patterns = match &own.path {
        None => Some(vec![parse("/*".to_owned())]),
        // A `*` of a path is itself, and of a pattern anything.
        Some(PathCondition::Exact(path) | PathCondition::Prefix(path)) if path.contains(['*', '{', '}']) => None,
        Some(PathCondition::Exact(path)) => Some(vec![parse(path.clone())]),
        // A prefix takes what it names as well as all below.
        Some(PathCondition::Prefix(path)) => Some(vec![parse(path.clone()), parse(format!("{path}/*"))]),
        // `/api/.*` takes everything below.
        Some(PathCondition::Regex(regex)) => regex
            .as_str()
            .strip_suffix("/.*")
            .filter(|path| path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_')))
            .map(|path| vec![parse(format!("{path}/*"))]),
        Some(PathCondition::Template(_)) => None,
    };
    let patterns = patterns.and_then(|all| all.into_iter().collect::<Option<Vec<PathPattern>>>());
    if let (Some(patterns), true) = (patterns, own.headers.is_empty()) {
        let one = |path| Match { method: own.method.clone(), path };
        return patterns.into_iter().map(one).collect();
    }
    let why = "a rule of who may call names a method and a path: /a/b, or /a/.* for all below; it allows nothing more than was meant";
    no_equal(reader, at, &format!("allowing `{own}`"), why, "use paths without other patterns, and no header fields");
    Vec::new()
}
