//! Answering with another address, and sending on under another one (`HTTPRequestRedirectFilter`, `HTTPURLRewriteFilter`).

use hms_model::finding::Finding;
use hms_model::http_route::{PathRewrite, Redirect, Rewrite, Scheme};
use hms_model::message::CanonicalPath;

use super::super::hosts;
use crate::read::{Field, Keys, Reader, Span};

const REDIRECT: Keys = Keys::new(&["scheme", "hostname", "path", "port", "statusCode"]);
const REWRITE: Keys = Keys::new(&["hostname", "path"]);
const PATH: Keys = Keys::new(&["type", "replaceFullPath", "replacePrefixMatch"]);
const SCHEMES: [(&str, Scheme); 2] = [("http", Scheme::Http), ("https", Scheme::Https)];
const STATUSES: [(&str, u16); 5] = [("301", 301), ("302", 302), ("303", 303), ("307", 307), ("308", 308)];
/// Longest path, by the specification.
const PATH_BYTES: usize = 1024;

pub(super) fn redirect(reader: &mut Reader<'_>, field: &Field<'_>, has_prefix: bool) -> Option<Redirect> {
    let table = reader.table(field.node, &field.path, REDIRECT)?;
    let status = table.field("statusCode").cloned();
    Some(Redirect {
        scheme: table.field("scheme").cloned().and_then(|field| reader.word(&field, &SCHEMES)),
        host: table.field("hostname").cloned().and_then(|field| hosts::precise(reader, &field)),
        port: table.field("port").cloned().and_then(|field| reader.port(&field)),
        path: table.field("path").cloned().and_then(|field| path(reader, &field, has_prefix)),
        status: status.map_or(Some(302), |field| reader.word(&field, &STATUSES))?,
    })
}

pub(super) fn rewrite(reader: &mut Reader<'_>, field: &Field<'_>, has_prefix: bool) -> Option<Rewrite> {
    let table = reader.table(field.node, &field.path, REWRITE)?;
    Some(Rewrite {
        host: table.field("hostname").cloned().and_then(|field| hosts::precise(reader, &field)),
        path: table.field("path").cloned().and_then(|field| path(reader, &field, has_prefix)),
    })
}

/// `HTTPPathModifier`.
fn path(reader: &mut Reader<'_>, field: &Field<'_>, has_prefix: bool) -> Option<PathRewrite> {
    const FULL: &str = "replaceFullPath";
    const PREFIX: &str = "replacePrefixMatch";
    let table = reader.table(field.node, &field.path, PATH)?;
    let way = reader.need(&table, "type", "type: ReplacePrefixMatch").cloned()?;
    let key = reader.word(&way, &[("ReplaceFullPath", FULL), ("ReplacePrefixMatch", PREFIX)])?;
    let other = if key == FULL { PREFIX } else { FULL };
    if let Some(field) = table.field(other) {
        let finding = Finding::error(2105, format!("`{}` is not what `type` says", field.path));
        reader.report(field.key, finding.fix(format!("write {key}:, or another type")));
    }
    let value = reader.need(&table, key, &format!("{key}: /v2")).cloned()?;
    let text = reader.text(&value, "a path")?;
    if key == PREFIX && !has_prefix {
        let finding = Finding::error(2105, "there is no one prefix to be replaced");
        let why = "the rule must have exactly one match, and that of the type PathPrefix";
        reader.report(value.key, finding.because(why).fix("make it a rule of its own, or use ReplaceFullPath"));
    }
    let (start, end) = (text.starts_with('/'), text.len() <= PATH_BYTES);
    let whole = if start || key == FULL { text.to_owned() } else { format!("/{text}") };
    if end && CanonicalPath::parse(&whole).is_ok_and(|path| path.as_str() != "*") {
        return Some(if key == FULL { PathRewrite::Full(whole) } else { PathRewrite::Prefix(text.to_owned()) });
    }
    bad_path(reader, &value, value.node.span);
    None
}

fn bad_path(reader: &mut Reader<'_>, field: &Field<'_>, at: Span) {
    let message = format!("`{}` wants a path, not {}", field.path, reader.shown(field.node));
    let why = format!(
        "it begins with /, has at most {PATH_BYTES} bytes, no query, and a % is followed by two hexadecimal digits"
    );
    reader.report(at, Finding::error(2105, message).because(why).fix("write for example /v2"));
}
