//! What browsers are told (`HTTPCORSFilter`).

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::http_route::Cors;
use http::Method;

use super::super::edits;
use crate::objects::object::items;
use crate::read::{Field, Keys, Reader, Table};

const CORS: Keys =
    Keys::new(&["allowOrigins", "allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge"]);
/// Entries of one list, by the specification.
const ENTRIES: usize = 64;
const ORIGIN_BYTES: usize = 253;
/// How long a browser remembers if nothing is said, by the specification.
const MAX_AGE: Duration = Duration::from_secs(5);

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Cors> {
    let table = reader.table(field.node, &field.path, CORS)?;
    let credentials = table.field("allowCredentials").cloned().and_then(|field| reader.boolean(&field));
    let methods = starred(reader, &table, "allowMethods", |reader, item| {
        let word = reader.text(item, "a method")?;
        let method = Method::from_bytes(word.as_bytes()).ok().filter(|_| word.len() <= 32);
        if method.is_none() {
            reader.bad(item, "a method", "a method is one word", "write for example GET");
        }
        method
    });
    let headers = starred(reader, &table, "allowHeaders", edits::name);
    let expose = starred(reader, &table, "exposeHeaders", edits::name);
    if let (Some(List::All), Some(field)) = (&expose, table.field("exposeHeaders")) {
        let what = "showing pages every field of an answer";
        let why = "the fields that a page may read are listed by name";
        crate::objects::object::not_carried(reader, field.key, what, why);
    }
    let max_age = table.field("maxAge").cloned();
    let max_age = max_age.and_then(|field| reader.whole(&field, "a number of seconds", 1..=i32::MAX.unsigned_abs()));
    Some(Cors {
        origins: origins(reader, &table),
        credentials: credentials.unwrap_or_default(),
        methods: listed(methods),
        headers: listed(headers),
        expose: expose.and_then(List::names).unwrap_or_default(),
        max_age: max_age.map_or(MAX_AGE, |seconds| Duration::from_secs(u64::from(seconds))),
    })
}

/// A list of names, or the star.
enum List<T> {
    All,
    Names(Vec<T>),
}

impl<T> List<T> {
    fn names(self) -> Option<Vec<T>> {
        match self {
            Self::All => None,
            Self::Names(names) => Some(names),
        }
    }
}

/// Nothing listed allows nothing but what browsers do unasked; the star allows what is asked for.
fn listed<T>(list: Option<List<T>>) -> Option<Vec<T>> {
    list.map_or_else(|| Some(Vec::new()), List::names)
}

fn starred<T>(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &str,
    read: impl Fn(&mut Reader<'_>, &Field<'_>) -> Option<T>,
) -> Option<List<T>> {
    let field = table.field(key).cloned()?;
    let list = items(reader, table, key, ENTRIES, "a list of names");
    let is_star = |item: &Field<'_>| super::super::is_word(Some(item), "*");
    if list.iter().any(is_star) {
        alone(reader, &field, list.len());
        return Some(List::All);
    }
    Some(List::Names(list.iter().filter_map(|item| read(reader, item)).collect()))
}

/// A star says everything; others beside it are a contradiction.
fn alone(reader: &mut Reader<'_>, field: &Field<'_>, length: usize) {
    if length > 1 {
        let finding = Finding::error(2105, format!("`{}` has a star beside others", field.path));
        reader.report(field.key, finding.fix("keep the star alone, or leave it out"));
    }
}

fn origins(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<String> {
    let mut origins: Vec<String> = Vec::new();
    let list = items(reader, table, "allowOrigins", ENTRIES, "a list such as [https://app.example]");
    for item in &list {
        let Some(text) = reader.line(item, "an origin such as https://app.example", ORIGIN_BYTES) else { continue };
        if text == "*" {
            alone(reader, item, list.len());
        } else if !is_origin(text) {
            let why = "it is a scheme, a host (with *. before it for all below) and perhaps a port; no path";
            reader.bad(item, "an origin such as https://app.example", why, "write for example https://app.example");
            continue;
        }
        origins.push(text.to_owned());
    }
    origins
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let host = rest.strip_prefix("*.").unwrap_or(rest);
    let (host, port) = host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let is_word = |word: &str, also: &[u8]| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    is_word(scheme, b"+-.")
        && is_word(host, b".-")
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
