//! `balance:`, as one word or with all that can be said of it.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::policy::balance::{is_cookie_name, is_parameter_name};
use hms_model::policy::{Affinity, Algorithm, Balance, HashKey, Zones};
use http::HeaderName;

use crate::document::Value;
use crate::read::{Field, Keys, Reader, Table};

const KEYS: Keys = Keys::new(&["policy", "key", "affinity", "zones", "slow_start"]);
const KEY: Keys = Keys::new(&["header", "cookie", "query"]);
const AFFINITY: Keys = Keys::new(&["cookie", "header"]);
const COOKIE: Keys = Keys::new(&["name", "ttl"]);
const ZONES: [(&str, Zones); 2] = [("ignore", Zones::Ignore), ("prefer", Zones::Prefer)];
const LONGEST_SLOW_START: Duration = Duration::from_hours(1);
const LONGEST_TTL: Duration = Duration::from_hours(7 * 24);

/// The word for an algorithm, before its key is known.
#[derive(Clone, Copy)]
enum Word {
    Plain(Plain),
    RingHash,
    Maglev,
}

#[derive(Clone, Copy)]
enum Plain {
    LeastRequest,
    RoundRobin,
    Random,
}

const WORDS: [(&str, Word); 5] = [
    ("least_request", Word::Plain(Plain::LeastRequest)),
    ("round_robin", Word::Plain(Plain::RoundRobin)),
    ("random", Word::Plain(Plain::Random)),
    ("ring_hash", Word::RingHash),
    ("maglev", Word::Maglev),
];

/// One word, or keys that change `base`; what is not named stays.
pub(crate) fn balance(reader: &mut Reader<'_>, field: &Field<'_>, base: &Balance) -> Option<Balance> {
    if !matches!(field.node.value, Value::Map(_)) {
        let word = reader.word(field, &WORDS)?;
        let algorithm = algorithm(reader, field, word, base.algorithm.key().cloned())?;
        return Some(Balance { algorithm, ..base.clone() });
    }
    let table = reader.table(field.node, &field.path, KEYS)?;
    let mut balance = base.clone();
    // One that is wrong is complained about where it is read, and stands for some key here.
    let given = table.field("key").map(|field| key(reader, field).unwrap_or(HashKey::Source));
    let known = given.or_else(|| base.algorithm.key().cloned());
    let word = table.field("policy").and_then(|field| Some((field, reader.word(field, &WORDS)?)));
    match (word, &base.algorithm) {
        (Some((field, word)), _) => balance.algorithm = algorithm(reader, field, word, known)?,
        (None, Algorithm::RingHash(old)) => {
            balance.algorithm = Algorithm::RingHash(known.unwrap_or_else(|| old.clone()));
        }
        (None, Algorithm::Maglev(old)) => balance.algorithm = Algorithm::Maglev(known.unwrap_or_else(|| old.clone())),
        (None, Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random) => {}
    }
    if let Some(field) = table.field("affinity")
        && let Some(read) = affinity(reader, field)
    {
        balance.affinity = read;
    }
    if let Some(zones) = table.field("zones").and_then(|field| reader.word(field, &ZONES)) {
        balance.zones = zones;
    }
    let bounds = Duration::ZERO..=LONGEST_SLOW_START;
    if let Some(slow_start) = table.field("slow_start").and_then(|field| reader.duration(field, bounds)) {
        balance.slow_start = slow_start;
    }
    let hashes = balance.algorithm.key().is_some();
    let understood = word.is_some() || table.field("policy").is_none();
    let (zones, slow) = (balance.zones == Zones::Prefer, !balance.slow_start.is_zero());
    for (name, is_inert, why) in [
        ("key", !hashes && understood, "only ring_hash and maglev choose by a key"),
        ("zones", hashes && zones, "a key leads every caller to the same endpoint, wherever that is"),
        ("slow_start", hashes && slow, "a new endpoint has its keys at once, or they would move twice"),
    ] {
        if let Some(field) = table.field(name).filter(|_| is_inert) {
            let finding = Finding::warning(2107, format!("`{}` has no effect", field.path));
            reader.report(field.key, finding.because(why).fix(format!("remove {name}, or choose another policy")));
        }
    }
    Some(balance)
}

fn algorithm(reader: &mut Reader<'_>, field: &Field<'_>, word: Word, key: Option<HashKey>) -> Option<Algorithm> {
    let hash: fn(HashKey) -> Algorithm = match word {
        Word::Plain(Plain::LeastRequest) => return Some(Algorithm::LeastRequest),
        Word::Plain(Plain::RoundRobin) => return Some(Algorithm::RoundRobin),
        Word::Plain(Plain::Random) => return Some(Algorithm::Random),
        Word::RingHash => Algorithm::RingHash,
        Word::Maglev => Algorithm::Maglev,
    };
    if key.is_none() {
        let finding = Finding::error(2105, format!("`{}` names no key to choose by", field.path));
        let finding = finding.because("equal keys go to the same endpoint, so something of the request must be one");
        let policy = reader.written(field.node.span).to_owned();
        reader.report(
            field.node.span,
            finding.fix(format!("write balance: {{policy: {policy}, key: {{header: x-user}}}}, or key: source")),
        );
    }
    key.map(hash)
}

/// `source`, or one of `{header: x-user}`, `{cookie: sid}`, `{query: user}`.
fn key(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HashKey> {
    const WANTS: &str = "source, or one of {header: x-user}, {cookie: sid}, {query: user}";
    if let Value::Scalar(text, _) = &field.node.value {
        if text == "source" {
            return Some(HashKey::Source);
        }
        reader.bad(field, WANTS, "", "write source, or for example {header: x-user}");
        return None;
    }
    let table = reader.table(field.node, &field.path, KEY)?;
    let [one] = table.fields() else {
        one_of(reader, field, &table, WANTS, "there is one key");
        return None;
    };
    match one.name {
        "header" => header(reader, one).map(HashKey::Header),
        "cookie" => cookie_name(reader, one).map(HashKey::Cookie),
        _ => {
            const PARAMETER: &str = "the name of a parameter of the query";
            let name = reader.text(one, PARAMETER)?;
            if is_parameter_name(name) {
                return Some(HashKey::Query(name.to_owned()));
            }
            reader.bad(one, PARAMETER, "it has 1 to 64 letters, digits, -, ., _ and ~", "write for example user");
            None
        }
    }
}

/// `none`, or one of `{cookie: sid}`, `{cookie: {name: sid, ttl: 1h}}`, `{header: x-session}`.
#[expect(clippy::option_option, reason = "what was not understood is another thing than none")]
fn affinity(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Option<Affinity>> {
    const WANTS: &str = "none, or one of {cookie: hms-session}, {header: x-session}";
    if let Value::Scalar(text, _) = &field.node.value {
        if text == "none" {
            return Some(None);
        }
        reader.bad(field, WANTS, "", "write none, or for example {cookie: hms-session}");
        return None;
    }
    let table = reader.table(field.node, &field.path, AFFINITY)?;
    let [one] = table.fields() else {
        one_of(reader, field, &table, WANTS, "a caller shows one thing");
        return None;
    };
    if one.name == "header" {
        return header(reader, one).map(|name| Some(Affinity::Header(name)));
    }
    if !matches!(one.node.value, Value::Map(_)) {
        return cookie_name(reader, one).map(|name| Some(Affinity::Cookie { name, ttl: None }));
    }
    let cookie = reader.table(one.node, &one.path, COOKIE)?;
    let name = reader.need(&cookie, "name", "name: hms-session").cloned();
    let bounds = Duration::from_secs(1)..=LONGEST_TTL;
    let ttl = cookie.field("ttl").and_then(|field| reader.duration(field, bounds));
    let name = cookie_name(reader, &name?)?;
    Some(Some(Affinity::Cookie { name, ttl }))
}

/// Says that a table has none or several of the keys of which it wants one. A misspelt one is complained about already.
fn one_of(reader: &mut Reader<'_>, field: &Field<'_>, table: &Table<'_>, wants: &str, why: &str) {
    let is_empty = matches!(&field.node.value, Value::Map(entries) if entries.is_empty());
    if is_empty || !table.fields().is_empty() {
        reader.bad(field, wants, why, "write one of them");
    }
}

fn header(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HeaderName> {
    const WANTS: &str = "the name of a header";
    let text = reader.text(field, WANTS)?;
    let name = (text.len() <= 128).then(|| HeaderName::try_from(text).ok()).flatten();
    if name.is_none() {
        reader.bad(field, WANTS, "it has 1 to 128 letters, digits and -", "write for example x-user");
    }
    name
}

fn cookie_name(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    const WANTS: &str = "the name of a cookie";
    let text = reader.text(field, WANTS)?;
    if is_cookie_name(text) {
        return Some(text.to_owned());
    }
    reader.bad(field, WANTS, "it has 1 to 64 letters, digits, - and _", "write for example hms-session");
    None
}
