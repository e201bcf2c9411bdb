//! The table of all routes as S4's minimal control plane kept it in `/var/hms/routes.json`.
//!
//! ```json
//! {"calc-svc": {"service": "calc-svc", "routes": ["GET /sum/{a}/{b}"], "rate_limit": "20 req/min"}}
//! ```

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::policy::{KeepAlive, LimitKey, RateLimit};
use serde_json::{Map, Value, json};

use crate::document;
use crate::read::Reader;
use crate::route_yaml::{RouteFile, read};
use crate::rules::Claims;
use crate::source::Source;

/// Reads a table of routes, as strictly as route files. With an error in it the table is not to be used at all.
pub fn import(source: &Source) -> (Vec<RouteFile>, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut files = Vec::new();
    if let Some(file) = reader.add(source)
        && let Some(root) = document::parse_json(&mut reader, file)
        && let Some(table) = reader.open_table(&root, "")
    {
        let mut claims = Claims::default();
        for field in table.fields() {
            let Some(entry) = read(&mut reader, field.node, &field.path, &mut claims) else { continue };
            let key = reader.service_name(field, field.name);
            if key.is_some_and(|key| key != entry.file.service) {
                let finding = Finding::error(2110, format!("this entry belongs to `{}`", entry.file.service))
                    .because("the key and `service` name different services")
                    .fix(format!("write \"{}\" in both places", entry.file.service));
                reader.report(field.key, finding);
            }
            files.push(entry.file);
        }
        if reader.has_errors(file) {
            files.clear();
        }
    }
    (files, reader.into_findings())
}

/// Writes a table of routes that [`import`] reads back, ordered by service.
pub fn export(files: &[RouteFile]) -> String {
    let mut ordered: Vec<&RouteFile> = files.iter().collect();
    ordered.sort_by(|left, right| left.service.cmp(&right.service));
    let table: Map<String, Value> = ordered.into_iter().map(|file| (file.service.to_string(), entry(file))).collect();
    let mut text = format!("{:#}", Value::Object(table));
    text.push('\n');
    text
}

fn entry(file: &RouteFile) -> Value {
    let limits: Vec<Option<&RateLimit>> = file.route.rules.iter().map(|rule| rule.rate_limit.as_ref()).collect();
    // The seed's shape: one limit for all, unless routes differ.
    let shared = limits.first().copied().flatten().filter(|first| limits.iter().all(|limit| *limit == Some(*first)));
    let routes = file.route.rules.iter().map(|rule| match &rule.rate_limit {
        Some(limit) if shared.is_none() => json!({"match": rule.matches.to_string(), "rate_limit": rate(limit)}),
        _ => json!(rule.matches.to_string()),
    });
    let mut out = Map::new();
    out.insert("service".to_owned(), json!(file.service.to_string()));
    out.insert("routes".to_owned(), routes.collect());
    if let Some(limit) = shared {
        out.insert("rate_limit".to_owned(), rate(limit));
    }
    if let Some(keep_alive) = file.keep_alive {
        out.insert("keep_alive".to_owned(), json!(keep_alive == KeepAlive::On));
    }
    Value::Object(out)
}

/// `"20 req/min"` where that says everything, else `{rate, burst}` with the same refill.
fn rate(limit: &RateLimit) -> Value {
    let (cost, each) = (limit.cost(), limit.key());
    if cost == 1 && *each == LimitKey::Route {
        return plain_rate(limit);
    }
    let mut out = match plain_rate(limit) {
        Value::Object(out) => out,
        rate => Map::from_iter([("rate".to_owned(), rate)]),
    };
    if cost != 1 {
        out.insert("cost".to_owned(), json!(cost));
    }
    match each {
        LimitKey::Route => {}
        LimitKey::Identity => drop(out.insert("each".to_owned(), json!("identity"))),
        LimitKey::Header(name) => drop(out.insert("each".to_owned(), json!({"header": name.as_str()}))),
    }
    Value::Object(out)
}

fn plain_rate(limit: &RateLimit) -> Value {
    let text = limit.to_string();
    match RateLimit::parse(&text) {
        Ok(plain) if plain.period() == limit.period() && plain.burst() == limit.burst() => return json!(text),
        Ok(plain) if plain.period() == limit.period() => return json!({"rate": text, "burst": limit.burst()}),
        _ => {}
    }
    let per = |unit: Duration| {
        let total = u128::from(limit.count()) * unit.as_nanos();
        let count = total.checked_div(limit.period().as_nanos())?;
        let exact = count * limit.period().as_nanos() == total;
        u32::try_from(count).ok().filter(|count| (1..=1_000_000).contains(count)).map(|count| (exact, count))
    };
    let units = [("s", 1), ("min", 60), ("h", 3600)].map(|(word, seconds)| (word, per(Duration::from_secs(seconds))));
    // A rate that no unit holds exactly becomes the next slower one per hour.
    let exact = units.iter().find_map(|(word, found)| found.filter(|(exact, _)| *exact).map(|(_, n)| (*word, n)));
    let slower = units.iter().rev().find_map(|(word, found)| found.map(|(_, n)| (*word, n)));
    let (word, count) = exact.or(slower).unwrap_or(("h", 1));
    json!({"rate": format!("{count} req/{word}"), "burst": limit.burst()})
}
