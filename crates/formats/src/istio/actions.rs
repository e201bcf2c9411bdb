//! What a `VirtualService` does with requests: header fields, redirect, rewrite, mirror, fault, CORS.

use std::time::Duration;

use hms_model::http_route::{
    Cors, Fault, HeaderEdits, HttpMatch, Mirror, PathCondition, PathRewrite, Portion, Redirect, Rewrite, Scheme,
};
use hms_model::message::CanonicalPath;
use hms_model::split::MOST_WEIGHT;
use http::{HeaderName, Method};

use super::{Subsets, destination};
use crate::gateway_api::{editable, header_name, time};
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::objects::words::pairs;
use crate::read::{Field, Keys, Reader, Table};

const HEADERS: Keys = Keys::new(&["request", "response"]);
const EDITS: Keys = Keys::new(&["set", "add", "remove"]);
const REDIRECT: Keys = Keys::new(&["uri", "authority", "port", "derivePort", "scheme", "redirectCode"]);
const REWRITE: Keys = Keys::new(&["uri", "authority", "uriRegexRewrite"]);
const MIRROR: Keys = Keys::new(&["destination", "percentage"]);
const PERCENT: Keys = Keys::new(&["value"]);
const FAULT: Keys = Keys::new(&["delay", "abort"]);
const DELAY: Keys = Keys::new(&["fixedDelay", "percentage", "percent"]);
const ABORT: Keys = Keys::new(&["httpStatus", "percentage", "percent", "grpcStatus"]);
const CORS: Keys = Keys::new(&[
    "allowOrigins",
    "allowOrigin",
    "allowMethods",
    "allowHeaders",
    "exposeHeaders",
    "maxAge",
    "allowCredentials",
]);
const ORIGIN: Keys = Keys::new(&["exact", "prefix", "regex"]);
/// Origins of each of the two lists.
const ORIGINS: usize = 32;
/// Entries of one list.
const ENTRIES: usize = 64;

/// `headers`: of requests and of answers.
pub(super) fn headers(reader: &mut Reader<'_>, table: &Table<'_>) -> (HeaderEdits, HeaderEdits) {
    let Some(field) = table.field("headers").cloned() else { return Default::default() };
    let Some(table) = reader.table(field.node, &field.path, HEADERS) else { return Default::default() };
    let mut side = |key: &str| table.field(key).cloned().map(|field| edits(reader, &field)).unwrap_or_default();
    (side("request"), side("response"))
}

fn edits(reader: &mut Reader<'_>, field: &Field<'_>) -> HeaderEdits {
    let Some(table) = reader.table(field.node, &field.path, EDITS) else { return HeaderEdits::default() };
    let remove = items(reader, &table, "remove", ENTRIES, "a list of names");
    HeaderEdits {
        set: pairs(reader, &table, "set"),
        add: pairs(reader, &table, "add"),
        remove: remove.iter().filter_map(|item| editable(reader, item)).collect(),
    }
}

pub(super) fn redirect(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Redirect> {
    let table = reader.table(field.node, &field.path, REDIRECT)?;
    if let Some(field) = table.field("derivePort") {
        not_carried(
            reader,
            field.key,
            "`derivePort`",
            "without `port` it is the scheme's own, or the one that was called",
        );
    }
    let schemes = [("http", Scheme::Http), ("https", Scheme::Https)];
    let statuses = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
    let status = table.field("redirectCode").cloned();
    Some(Redirect {
        scheme: table.field("scheme").cloned().and_then(|field| reader.word(&field, &schemes)),
        host: table.field("authority").cloned().and_then(|field| host(reader, &field)),
        port: table.field("port").cloned().and_then(|field| reader.port(&field)),
        path: table.field("uri").cloned().and_then(|field| full(reader, &field)).map(PathRewrite::Full),
        status: status.map_or(Some(301), |field| reader.word(&field, &statuses))?,
    })
}

fn host(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.line(field, "a host name", 253)?;
    let is_host = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    if !is_host {
        reader.bad(
            field,
            "a host name",
            "it is letters, digits, - and dots, without a port",
            "write for example shop.example.com",
        );
    }
    is_host.then(|| text.to_owned())
}

fn full(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.line(field, "a path", 1024)?;
    let is_path = CanonicalPath::parse(text).is_ok_and(|path| path.as_str() != "*");
    if !is_path {
        reader.bad(field, "a path", "it begins with / and has no query", "write for example /v2");
    }
    is_path.then(|| text.to_owned())
}

/// What was matched by a prefix has its prefix replaced, everything else the whole path.
pub(super) fn rewrite(reader: &mut Reader<'_>, field: &Field<'_>, matches: &[HttpMatch]) -> Option<Rewrite> {
    let table = reader.table(field.node, &field.path, REWRITE)?;
    if let Some(field) = table.field("uriRegexRewrite") {
        no_equal(
            reader,
            field.key,
            "a rewrite by a regular expression",
            "a path is replaced as a whole or by its prefix",
            "use uri",
        );
    }
    let is_prefix = |own: &&HttpMatch| matches!(own.path, None | Some(PathCondition::Prefix(_)));
    let prefixes = matches.iter().filter(is_prefix).count();
    let path = table.field("uri").cloned().and_then(|field| Some((full(reader, &field)?, field)));
    let path = path.map(|(path, field)| {
        if prefixes != matches.len() && prefixes != 0 {
            let why = "of a match by prefix the prefix is replaced, of others the whole path";
            no_equal(reader, field.key, "one rewrite for matches of both kinds", why, "make two rules of it");
        }
        if prefixes == matches.len() { PathRewrite::Prefix(path) } else { PathRewrite::Full(path) }
    });
    Some(Rewrite { host: table.field("authority").cloned().and_then(|field| host(reader, &field)), path })
}

/// `mirror` with `mirrorPercentage`, and `mirrors`.
pub(super) fn mirrors(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    subsets: &Subsets,
) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    let portion = table.field("mirrorPercentage").cloned();
    let portion = portion.map_or(Some(Portion::ALL), |field| percentage(reader, &field));
    if let Some(field) = table.field("mirror").cloned() {
        let whom = destination::read(reader, object, &field, subsets);
        mirrors.extend(whom.zip(portion).map(|((share, port), portion)| Mirror { share, port, portion }));
    }
    for item in items(reader, table, "mirrors", 16, "a list such as [{destination: {host: shadow}}]") {
        let Some(table) = reader.table(item.node, &item.path, MIRROR) else { continue };
        let portion = table.field("percentage").cloned();
        let portion = portion.map_or(Some(Portion::ALL), |field| percentage(reader, &field));
        let whom = reader.need(&table, "destination", "destination: {host: shadow}").cloned();
        let whom = whom.and_then(|field| destination::read(reader, object, &field, subsets));
        mirrors.extend(whom.zip(portion).map(|((share, port), portion)| Mirror { share, port, portion }));
    }
    mirrors
}

/// `{value: 12.5}`, a number from 0 to 100 with at most four decimals.
fn percentage(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Portion> {
    let table = reader.table(field.node, &field.path, PERCENT)?;
    let field = reader.need(&table, "value", "value: 10").cloned()?;
    let text = reader.text(&field, "a share of 0 to 100 per cent")?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = (digits(whole) && digits(fraction) && whole.len() <= 3 && fraction.len() <= 4)
        .then(|| format!("{whole}{fraction:0<4}").parse::<u32>().ok())
        .flatten()
        .filter(|number| *number <= MOST_WEIGHT);
    if number.is_none() {
        reader.bad(&field, "a share of 0 to 100 per cent", "it has at most four decimals", "write for example 12.5");
    }
    number.map(Portion::millionths)
}

pub(super) fn fault(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Fault> {
    let table = reader.table(field.node, &field.path, FAULT)?;
    let mut fault = Fault::default();
    if let Some(field) = table.field("delay").cloned()
        && let Some(table) = reader.table(field.node, &field.path, DELAY)
    {
        let time = reader.need(&table, "fixedDelay", "fixedDelay: 5s").cloned();
        let time = time.and_then(|field| time::duration(reader, &field)).filter(|time| !time.is_zero());
        fault.delay = time.zip(portion(reader, &table));
    }
    if let Some(field) = table.field("abort").cloned()
        && let Some(table) = reader.table(field.node, &field.path, ABORT)
    {
        if let Some(field) = table.field("grpcStatus") {
            no_equal(
                reader,
                field.key,
                "a fault with a code of gRPC",
                "a fault is a status of HTTP",
                "httpStatus: 503",
            );
        }
        let status = reader.need(&table, "httpStatus", "httpStatus: 503").cloned();
        let status = status.and_then(|field| reader.whole(&field, "a status from 200 to 599", 200..=599));
        fault.abort = status.and_then(|status| u16::try_from(status).ok()).zip(portion(reader, &table));
    }
    Some(fault)
}

/// `percentage`, or the older `percent`; everything without a word.
fn portion(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Portion> {
    if let Some(field) = table.field("percentage").cloned() {
        return percentage(reader, &field);
    }
    let percent = table.field("percent").cloned();
    percent.map_or(Some(Portion::ALL), |field| {
        let percent = reader.whole(&field, "a share of 0 to 100 per cent", 0..=100)?;
        Some(Portion::millionths(percent * (MOST_WEIGHT / 100)))
    })
}

pub(super) fn cors(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Cors> {
    let table = reader.table(field.node, &field.path, CORS)?;
    let mut origins: Vec<String> = Vec::new();
    for item in items(reader, &table, "allowOrigin", ORIGINS, "a list of origins") {
        origins.extend(reader.line(&item, "an origin", 253).map(str::to_owned));
    }
    for item in items(reader, &table, "allowOrigins", ORIGINS, "a list such as [{exact: https://app.example}]") {
        let Some(table) = reader.table(item.node, &item.path, ORIGIN) else { continue };
        if let Some(field) = table.field("exact").cloned() {
            origins.extend(reader.line(&field, "an origin", 253).map(str::to_owned));
        } else {
            let why = "an origin is named, or *, or https://*.example";
            let what = "an origin by a prefix or regular expression";
            no_equal(reader, item.node.span, what, why, "exact: https://app.example");
        }
    }
    let methods: Vec<Method> = items(reader, &table, "allowMethods", ENTRIES, "a list of methods")
        .iter()
        .filter_map(|item| Method::from_bytes(reader.line(item, "a method", 32)?.as_bytes()).ok())
        .collect();
    let mut names = |key: &str| -> Vec<HeaderName> {
        let items = items(reader, &table, key, ENTRIES, "a list of names");
        items.iter().filter_map(|item| header_name(reader, item)).collect()
    };
    let (headers, expose) = (names("allowHeaders"), names("exposeHeaders"));
    let max_age = table.field("maxAge").cloned().and_then(|field| time::duration(reader, &field));
    Some(Cors {
        origins,
        credentials: table
            .field("allowCredentials")
            .cloned()
            .and_then(|field| reader.boolean(&field))
            .unwrap_or_default(),
        methods: Some(methods),
        headers: Some(headers),
        expose,
        max_age: Duration::from_secs(max_age.unwrap_or_default().as_secs()),
    })
}
