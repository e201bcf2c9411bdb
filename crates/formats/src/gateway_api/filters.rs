//! What a rule does with its requests (`HTTPRouteFilter`, `GRPCRouteFilter`).

mod cors;
mod url;

use hms_model::finding::Finding;
use hms_model::http_route::{Actions, HeaderEdits, Mirror, Portion};
use hms_model::split::MOST_WEIGHT;

use super::{Scene, backends, edits};
use crate::objects::object::{Object, items, no_equal};
use crate::read::{Field, Keys, Reader, Span, Table};

const FILTER: Keys = Keys::new(&[
    "type",
    "requestHeaderModifier",
    "responseHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "urlRewrite",
    "cors",
    "externalAuth",
    "extensionRef",
]);
const MIRROR: Keys = Keys::new(&["backendRef", "percent", "fraction"]);
const FRACTION: Keys = Keys::new(&["numerator", "denominator"]);
/// The largest number in a fraction, by the specification.
const MOST: u32 = i32::MAX.unsigned_abs();
/// Filters of one rule, by the specification.
const FILTERS: usize = 16;

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RequestHeaders,
    ResponseHeaders,
    Mirror,
    Redirect,
    Rewrite,
    Cors,
    Auth,
    Extension,
}

/// A type, what it does, and the key that it needs.
type Row = (&'static str, (Kind, &'static str));

/// All of them.
const KINDS: [Row; 8] = [
    ("RequestHeaderModifier", (Kind::RequestHeaders, "requestHeaderModifier")),
    ("ResponseHeaderModifier", (Kind::ResponseHeaders, "responseHeaderModifier")),
    ("RequestMirror", (Kind::Mirror, "requestMirror")),
    ("RequestRedirect", (Kind::Redirect, "requestRedirect")),
    ("URLRewrite", (Kind::Rewrite, "urlRewrite")),
    ("CORS", (Kind::Cors, "cors")),
    ("ExternalAuth", (Kind::Auth, "externalAuth")),
    ("ExtensionRef", (Kind::Extension, "extensionRef")),
];

/// `filters` of a rule of an `HTTPRoute`; `has_prefix` says whether its match names a prefix that can be replaced.
pub(super) fn rule(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    has_prefix: bool,
    scene: &Scene<'_>,
) -> Actions {
    let mut actions = Actions::default();
    let filters = read(reader, table);
    for (kind, field) in &filters {
        match kind {
            Kind::RequestHeaders => actions.request_headers = edits::read(reader, field),
            Kind::ResponseHeaders => actions.response_headers = edits::read(reader, field),
            Kind::Mirror => actions.mirrors.extend(mirror(reader, object, field, scene, object.kind)),
            Kind::Redirect => actions.redirect = url::redirect(reader, field, has_prefix),
            Kind::Rewrite => actions.rewrite = url::rewrite(reader, field, has_prefix),
            Kind::Cors => actions.cors = cors::read(reader, field),
            Kind::Auth | Kind::Extension => refuse(reader, *kind, field.key),
        }
    }
    if let (Some(_), Some(_), Some((_, field))) =
        (&actions.redirect, &actions.rewrite, filters.iter().find(|(kind, _)| *kind == Kind::Rewrite))
    {
        let finding = Finding::error(2105, "a rule redirects and rewrites");
        let why = "a request is either answered or sent on";
        reader.report(field.key, finding.because(why).fix("keep one of the two"));
    }
    actions
}

/// `filters` of a rule of a `GRPCRoute`.
pub(super) fn grpc(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, scene: &Scene<'_>) -> Actions {
    let mut actions = Actions::default();
    for (kind, field) in read(reader, table) {
        match kind {
            Kind::RequestHeaders => actions.request_headers = edits::read(reader, &field),
            Kind::ResponseHeaders => actions.response_headers = edits::read(reader, &field),
            Kind::Mirror => actions.mirrors.extend(mirror(reader, object, &field, scene, "GRPCRoute")),
            Kind::Auth | Kind::Extension => refuse(reader, kind, field.key),
            Kind::Redirect | Kind::Rewrite | Kind::Cors => {
                let finding = Finding::error(2105, "a GRPCRoute has no such filter");
                let why = "known: RequestHeaderModifier, ResponseHeaderModifier, RequestMirror";
                reader.report(field.key, finding.because(why).fix("write an HTTPRoute, or leave it out"));
            }
        }
    }
    actions
}

/// `filters` of a backend: what is changed in requests to it, and in its answers.
pub(super) fn backend(reader: &mut Reader<'_>, table: &Table<'_>) -> (HeaderEdits, HeaderEdits) {
    let (mut request, mut response) = (HeaderEdits::default(), HeaderEdits::default());
    for (kind, field) in read(reader, table) {
        match kind {
            Kind::RequestHeaders => request = edits::read(reader, &field),
            Kind::ResponseHeaders => response = edits::read(reader, &field),
            Kind::Auth | Kind::Extension => refuse(reader, kind, field.key),
            Kind::Mirror | Kind::Redirect | Kind::Rewrite | Kind::Cors => {
                let why = "for one backend of several only header fields can be changed";
                no_equal(
                    reader,
                    field.key,
                    "this filter of a backend",
                    why,
                    "give it to the rule, or make a rule of its own",
                );
            }
        }
    }
    (request, response)
}

fn refuse(reader: &mut Reader<'_>, kind: Kind, at: Span) {
    let (what, fix) = match kind {
        Kind::Auth => ("a filter that asks somebody else", "protect the service with `allow:` or the gateway's JWT"),
        _ => ("a filter of somebody else's", "leave it out of these files"),
    };
    no_equal(reader, at, what, "a filter that is not known may protect something, and is never left out", fix);
}

/// The filters of a list with their settings; none but mirrors stands twice.
fn read<'n>(reader: &mut Reader<'_>, table: &Table<'n>) -> Vec<(Kind, Field<'n>)> {
    let mut filters: Vec<(Kind, Field<'n>)> = Vec::new();
    for item in items(reader, table, "filters", FILTERS, "a list such as [{type: URLRewrite, urlRewrite: {}}]") {
        let Some(table) = reader.table(item.node, &item.path, FILTER) else { continue };
        let field = reader.need(&table, "type", "type: RequestHeaderModifier").cloned();
        let Some(field) = field else { continue };
        let words: Vec<(&'static str, usize)> = KINDS.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
        let Some((word, (kind, key))) = reader.word(&field, &words).and_then(|at| KINDS.get(at)) else { continue };
        for other in table.fields().iter().filter(|other| !["type", *key].contains(&other.name)) {
            let finding = Finding::error(2105, format!("`{}` stands in a filter of the type {word}", other.path));
            reader.report(other.key, finding.fix(format!("write {key}:, or another type")));
        }
        let Some(settings) = reader.need(&table, key, &format!("{key}: {{}}")).cloned() else { continue };
        if !matches!(kind, Kind::Mirror | Kind::Extension) && filters.iter().any(|(own, _)| own == kind) {
            let finding = Finding::error(2110, format!("a second filter of the type {word}"));
            reader.report(field.node.span, finding.fix("put both into one"));
            continue;
        }
        filters.push((*kind, settings));
    }
    filters
}

fn mirror(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    field: &Field<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Option<Mirror> {
    let table = reader.table(field.node, &field.path, MIRROR)?;
    let backend = reader.need(&table, "backendRef", "backendRef: {name: shadow-svc, port: 80}").cloned();
    let backend = backend.and_then(|field| backends::mirrored(reader, object, &field, scene, kind));
    let portion = match (table.field("percent").cloned(), table.field("fraction").cloned()) {
        (None, None) => Some(Portion::ALL),
        (Some(percent), None) => reader
            .whole(&percent, "a share of 0 to 100 per cent", 0..=100)
            .map(|percent| Portion::millionths(percent * (MOST_WEIGHT / 100))),
        (None, Some(fraction)) => portion(reader, &fraction),
        (Some(_), Some(fraction)) => {
            let finding = Finding::error(2105, "a mirror has `percent` and `fraction`");
            reader.report(fraction.key, finding.fix("keep one of the two"));
            None
        }
    };
    let (share, port) = backend?;
    Some(Mirror { share, port, portion: portion? })
}

fn portion(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Portion> {
    let table = reader.table(field.node, &field.path, FRACTION)?;
    let top = reader.need(&table, "numerator", "numerator: 1").cloned();
    let top = top.and_then(|field| Some((reader.whole(&field, "a whole number", 0..=MOST)?, field.node.span)));
    let bottom = table.field("denominator").cloned();
    let bottom = bottom.map_or(Some(100), |field| reader.whole(&field, "a whole number", 1..=MOST));
    let ((top, at), bottom) = (top?, bottom?);
    if top > bottom {
        let finding = Finding::error(2105, format!("{top}/{bottom} is more than everything"));
        reader.report(at, finding.fix("write a numerator of at most the denominator"));
        return None;
    }
    let millionths = u64::from(top) * u64::from(MOST_WEIGHT) / u64::from(bottom);
    Some(Portion::millionths(u32::try_from(millionths).unwrap_or(MOST_WEIGHT)))
}
