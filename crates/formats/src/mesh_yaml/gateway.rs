//! The `gateway:` section, and `gateway.yaml` which is that section alone.

use hms_model::finding::Finding;
use hms_model::names::Label;

use crate::document::{Node, Value};
use crate::mesh_yaml::{GatewayFile, Tokens, paths};
use crate::read::{Field, Keys, Reader, Table};

pub(crate) const KEYS: Keys = Keys { known: &["https", "hosts", "jwt"], later: &["http"] };
const JWT: Keys = Keys::new(&["issuer", "jwks", "audience", "roles"]);
/// The issuer that is built in, as files call it.
const BUILT_IN: &str = "dev";
const MAX_HOSTS: usize = 32;
const MAX_AUDIENCES: usize = 32;

/// What `gateway.yaml` says, also when somebody kept the section's own name around it.
pub(crate) fn inside(root: &Node) -> &Node {
    match &root.value {
        Value::Map(entries) => match entries.as_slice() {
            [only] if only.key == "gateway" => &only.value,
            _ => root,
        },
        _ => root,
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> GatewayFile {
    let https = table.field("https").and_then(|field| reader.port(field));
    let hosts = table.field("hosts").map(|field| hosts(reader, field)).unwrap_or_default();
    let jwt = table.field("jwt").and_then(|field| jwt(reader, field));
    GatewayFile { https, hosts, jwt }
}

fn hosts(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<String> {
    let items = reader.list(field, "a list of host names such as [gateway.local]").unwrap_or_default();
    if items.len() > MAX_HOSTS {
        let finding = Finding::error(2112, format!("`{}` has more than {MAX_HOSTS} names", field.path));
        reader.report(field.key, finding.fix("list fewer names"));
        return Vec::new();
    }
    let mut hosts: Vec<String> = Vec::new();
    for item in items {
        if let Some(host) = host(reader, &item) {
            if hosts.contains(&host) {
                let finding = Finding::error(2110, format!("the name `{host}` stands twice"));
                reader.report(item.node.span, finding.fix("keep one of the two"));
            } else {
                hosts.push(host);
            }
        }
    }
    hosts
}

/// A DNS name in lower case, at most 253 characters (RFC 1035 §2.3.4), no address and no wildcard.
fn host(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field, "a host name")?;
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let why = if text.len() > 253 {
        Some("a host name has at most 253 characters".to_owned())
    } else if text.contains(':') || text.contains('/') {
        Some("a host name has no scheme, port or path".to_owned())
    } else if text.starts_with("*.") {
        Some("wildcards are not available in this release".to_owned())
    } else if numeric && !text.is_empty() {
        Some("the last part of a host name is no number; loopback addresses are always answered".to_owned())
    } else {
        text.split('.').find_map(|label| Label::new(label).err()).map(|error| error.to_string())
    };
    let Some(why) = why else { return Some(text.to_owned()) };
    let folded = text.trim_end_matches('.').to_lowercase();
    let usable = !field.node.is_expanded()
        && !numeric
        && folded.len() <= 253
        && folded.split('.').all(|label| Label::new(label).is_ok());
    let fix = if usable { format!("write {folded}") } else { "write a name such as gateway.local".to_owned() };
    let finding = Finding::error(2111, format!("`{}` is no host name", reader.named(field.node, text)));
    reader.report(field.node.span, finding.because(why).fix(fix));
    None
}

fn jwt(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Tokens> {
    let table = reader.table(field.node, &field.path, JWT)?;
    let audiences = table.field("audience").map(|field| audiences(reader, field));
    let jwks = table.field("jwks").cloned();
    let roles = table.field("roles").and_then(|field| roles(reader, field));
    let issuer = reader.need(&table, "issuer", "issuer: dev").cloned()?;
    let name = reader.line(&issuer, "the issuer of tokens, `dev` or a URL", 512)?;
    if name == BUILT_IN {
        if let Some(jwks) = jwks {
            let finding = Finding::error(2110, "the built-in issuer `dev` has its own keys");
            let fix = "remove `jwks`, or name the issuer these keys belong to";
            reader.report(jwks.key, finding.fix(fix));
        }
        return Some(Tokens::BuiltIn { audiences: audiences.unwrap_or_default(), roles });
    }
    let keys = reader.need(&table, "jwks", "jwks: keys.json").cloned();
    reader.need(&table, "audience", "audience: the `aud` that tokens for you carry");
    let keys_file = keys.and_then(|keys| keys_file(reader, &keys))?;
    Some(Tokens::External { issuer: name.to_owned(), keys_file, audiences: audiences?, roles })
}

fn keys_file(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let path = reader.line(field, "a file with the issuer's public keys", 1024)?;
    if path.contains("://") {
        let finding = Finding::error(2120, "fetching keys from a URL is not available in this release")
            .because("only a file with the issuer's keys is read")
            .fix("save them beside this file and write: jwks: keys.json");
        reader.report(field.node.span, finding);
        return None;
    }
    Some(paths::beside(reader.file_name(field.node.span.file), path))
}

fn roles(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let claim = reader.line(field, "the name of a claim", 256)?;
    let finding = Finding::warning(2107, format!("`{}` has no effect in this release", field.path));
    reader.report(field.key, finding.because("no policy reads roles yet").fix("leave it out for now"));
    Some(claim.to_owned())
}

/// One audience or a list of them.
fn audiences(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<String> {
    const WANTS: &str = "an audience or a list of them";
    let items = match &field.node.value {
        Value::List(_) => reader.list(field, WANTS).unwrap_or_default(),
        _ => vec![field.clone()],
    };
    if items.is_empty() || items.len() > MAX_AUDIENCES {
        reader.bad(field, WANTS, &format!("there are 1 to {MAX_AUDIENCES}"), "write for example audience: hms");
        return Vec::new();
    }
    items.iter().filter_map(|item| reader.line(item, WANTS, 512)).map(str::to_owned).collect()
}
