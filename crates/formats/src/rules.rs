//! `routes:` and `rate_limit:` as every format of ours writes them.

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::{LimitKey, RateLimit};
use hms_model::route::{METHODS, Match, PatternError, Rule, Segment};
use http::HeaderName;

use crate::document::{Form, Value, short};
use crate::read::{Field, Keys, Reader, Span, nearest};

const WANTS_ROUTE: &str = "a route such as GET /sum/{a}/{b}";
const WANTS_RATE: &str = "a rate such as \"20 req/min\", 20/m or {rate: 20/m, burst: 5}";
/// Longest route as a text, in bytes.
const MAX_ROUTE: usize = 2048;
/// Most routes of one service.
const MAX_ROUTES: usize = 1000;

/// Which service serves which requests, so that none is claimed twice.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: BTreeMap<String, (ServiceName, Span)>,
}

impl Claims {
    /// Claims a route for a service; a second claim of the same requests is a finding.
    fn claim(&mut self, reader: &mut Reader<'_>, span: Span, service: &ServiceName, matches: &Match) {
        let shape = shape(matches);
        let Some((owner, first)) = self.taken.get(&shape) else {
            self.taken.insert(shape, (service.clone(), span));
            return;
        };
        let message = if owner == service {
            format!("the route `{}` stands twice", short(&matches.to_string()))
        } else {
            format!("the route `{}` already belongs to `{owner}`", short(&matches.to_string()))
        };
        let finding = Finding::error(2110, message)
            .because(format!("first at {}; names of parameters make no difference", reader.place(*first)))
            .fix("remove one of the two, or give one another path");
        reader.report(span, finding);
    }
}

/// What makes two routes the same: the method and the path without the names of its parameters.
fn shape(matches: &Match) -> String {
    let mut out = matches.method.as_ref().map_or("*", http::Method::as_str).to_owned();
    for segment in matches.path.segments() {
        out.push('/');
        match segment {
            Segment::Literal(text) => out.push_str(text),
            Segment::Parameter(_) => out.push_str("{}"),
            Segment::Rest => out.push('*'),
        }
    }
    out
}

/// Reads a list of routes. `shared` is the limit of those that state none; each gets a bucket of its own (ruling R15).
pub(crate) fn rules(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    service: &ServiceName,
    shared: Option<RateLimit>,
    claims: &mut Claims,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let items = reader.list(field, "a list of routes such as - GET /sum/{a}/{b}").unwrap_or_default();
    if items.len() > MAX_ROUTES {
        let finding =
            Finding::error(2112, format!("`{}` has {} routes; at most {MAX_ROUTES}", field.path, items.len()));
        reader.report(field.key, finding.fix("use {parameters} or a last * to cover several paths with one route"));
        return rules;
    }
    for item in items {
        let (at, own) = match &item.node.value {
            Value::Map(_) => match item_table(reader, &item) {
                Some(read) => read,
                None => continue,
            },
            _ => (item, None),
        };
        if let Some(matches) = route(reader, &at) {
            claims.claim(reader, at.node.span, service, &matches);
            rules.push(Rule {
                matches,
                rate_limit: own.or_else(|| shared.clone()),
                origin: reader.origin(at.node.span),
            });
        }
    }
    rules
}

/// `{match: GET /x, rate_limit: 5/s}`: where the route stands, and its own limit.
fn item_table<'n>(reader: &mut Reader<'_>, item: &Field<'n>) -> Option<(Field<'n>, Option<RateLimit>)> {
    const KEYS: Keys = Keys::new(&["match", "rate_limit"]);
    if let Value::Map(entries) = &item.node.value
        && let [only] = entries.as_slice()
        && METHODS.contains(&only.key.to_ascii_uppercase().as_str())
    {
        let finding = Finding::error(2106, format!("`{}:` is no route", only.key));
        let fix = format!("write it without the colon: - {} /path", only.key.to_ascii_uppercase());
        reader.report(only.span, finding.because("a route is one text, METHOD /path").fix(fix));
        return None;
    }
    let table = reader.table(item.node, &item.path, KEYS)?;
    let own = table.field("rate_limit").and_then(|field| rate_limit(reader, field));
    let at = reader.need(&table, "match", "match: GET /sum/{a}/{b}")?;
    Some((at.clone(), own))
}

/// One route.
pub(crate) fn route(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Match> {
    let text = reader.text(field, WANTS_ROUTE)?;
    if text.len() > MAX_ROUTE {
        let finding = Finding::error(2112, format!("a route has at most {MAX_ROUTE} bytes"));
        reader.report(field.node.span, finding.fix("shorten the path, or end it in *"));
        return None;
    }
    match Match::parse(text) {
        Ok(matches) => Some(matches),
        Err(error) => {
            wrong_route(reader, field, text, &error);
            None
        }
    }
}

fn wrong_route(reader: &mut Reader<'_>, field: &Field<'_>, text: &str, error: &PatternError) {
    let (part, fix) = match error {
        // What a variable expanded to is not repeated.
        _ if field.node.is_expanded() => ("", "let it expand to METHOD /path".to_owned()),
        PatternError::UnknownMethod(word) => match nearest_method(word) {
            Some(method) => (word.as_str(), format!("write {method}")),
            None => (word.as_str(), format!("write one of {}, or * for any", METHODS.join(", "))),
        },
        PatternError::Shape if METHODS.contains(&text.trim()) => ("", format!("add the path: {} /", text.trim())),
        PatternError::Shape => {
            ("", "write METHOD /path with one blank between, for example GET /sum/{a}/{b}".to_owned())
        }
        PatternError::NoSlash => {
            let path = text.split_ascii_whitespace().last().unwrap_or_default();
            (path, format!("write /{}", short(path)))
        }
        PatternError::BadParameter(segment) => (segment.as_str(), "write {name} as a segment of its own".to_owned()),
        PatternError::Repeated(_) => ("", "give each parameter its own name".to_owned()),
        PatternError::BadCharacter('?') => ("?", "leave the query out; a route matches any".to_owned()),
        PatternError::BadCharacter(c) => ("", format!("write {} instead", percent_encoded(*c))),
        PatternError::BadWildcard => ("*", "use {name} for one segment, and * at the end for any rest".to_owned()),
        PatternError::BadSegment => ("", "write the path without //, . and ..".to_owned()),
    };
    let why = if field.node.is_expanded() { PatternError::Shape.to_string() } else { error.to_string() };
    let mut finding = Finding::error(2106, format!("{} is no route", reader.shown(field.node))).because(why);
    if let PatternError::UnknownMethod(word) = error
        && !field.node.is_expanded()
        && let Some(method) = nearest_method(word)
    {
        finding.message = format!("`{}` is no HTTP method; did you mean `{method}`?", short(word));
        finding.why = format!("methods are {}", METHODS.join(", "));
    }
    let span = part_of(reader, field.node.span, part);
    reader.report(span, finding.fix(fix));
}

/// The method that was meant: in other case, with letters swapped or one letter off.
pub(crate) fn nearest_method(word: &str) -> Option<&'static str> {
    let upper = word.to_ascii_uppercase();
    METHODS.into_iter().find(|method| *method == upper).or_else(|| nearest(&upper, &METHODS))
}

fn percent_encoded(c: char) -> String {
    let mut bytes = [0; 4];
    let written = c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}"));
    written.collect::<Vec<_>>().concat()
}

/// Where a part of a scalar stands, if it was written literally; else the whole scalar.
fn part_of(reader: &Reader<'_>, span: Span, part: &str) -> Span {
    let written = reader.written(span);
    match (part.is_empty(), written.find(part)) {
        (false, Some(at)) => {
            let start = usize::try_from(span.start).unwrap_or_default() + at;
            Span::new(span.file, start, start + part.len())
        }
        _ => span,
    }
}

/// `"20 req/min"`, `20/m` or `{rate, burst, cost, each}`.
pub(crate) fn rate_limit(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RateLimit> {
    const KEYS: Keys = Keys::new(&["rate", "burst", "cost", "each"]);
    if let Value::Map(_) = &field.node.value {
        let table = reader.table(field.node, &field.path, KEYS)?;
        let burst = table.field("burst").map(|burst| reader.whole(burst, "a number of requests", 1..=1_000_000));
        let rate = reader.need(&table, "rate", "rate: 20 req/min").cloned();
        let rate = rate.and_then(|rate| plain_rate(reader, &rate))?;
        let rate = match burst {
            None => rate,
            // Its bounds are those of `whole` above.
            Some(burst) => RateLimit::new(rate.count(), rate.period(), Some(burst?)).ok()?,
        };
        let rate = match table.field("cost") {
            None => rate,
            Some(field) => rate.clone().costing(reader.whole(field, "a number of tokens", 1..=rate.burst())?).ok()?,
        };
        return match table.field("each") {
            None => Some(rate),
            Some(field) => limit_key(reader, field).map(|key| rate.each(key)),
        };
    }
    plain_rate(reader, field)
}

/// `identity`, `{header: x-user}` or `{claim: sub}`.
fn limit_key(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<LimitKey> {
    const KEYS: Keys = Keys::new(&["header", "claim"]);
    const WANTS: &str = "whose bucket: identity, {header: x-user} or {claim: sub}";
    if !matches!(field.node.value, Value::Map(_)) {
        return reader.word(field, &[("identity", LimitKey::Identity), ("route", LimitKey::Route)]);
    }
    let table = reader.table(field.node, &field.path, KEYS)?;
    match (table.field("header"), table.field("claim")) {
        (Some(header), None) => {
            let text = reader.text(header, "the name of a header field")?;
            if let Ok(name) = HeaderName::try_from(text) {
                return Some(LimitKey::Header(name));
            }
            reader.bad(
                header,
                "the name of a header field",
                "it has letters, digits and -",
                "write for example x-user",
            );
            None
        }
        // What the gateway found in a token travels in fields of its own.
        (None, Some(claim)) => reader
            .word(claim, &[("sub", "x-hms-subject"), ("roles", "x-hms-roles")])
            .map(|name| LimitKey::Header(HeaderName::from_static(name))),
        _ => {
            reader.bad(field, WANTS, "one of the two decides", "write for example {header: x-user}");
            None
        }
    }
}

fn plain_rate(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RateLimit> {
    let text = reader.text(field, WANTS_RATE)?;
    let text = text.trim();
    let error = if text.len() > 100 { None } else { Some(RateLimit::parse(text)) };
    let why = match error {
        Some(Ok(rate)) => return Some(rate),
        Some(Err(error)) if !field.node.is_expanded() => error.to_string(),
        _ => "it is so many requests per s, min or h".to_owned(),
    };
    let fix = if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() && text.len() <= 7 {
        format!("say per what time: \"{text} req/min\"")
    } else {
        "write for example \"20 req/min\"".to_owned()
    };
    reader.bad(field, WANTS_RATE, &why, &fix);
    None
}

impl crate::document::Node {
    /// Whether the value came from a variable and is nobody's business.
    pub(crate) fn is_expanded(&self) -> bool {
        matches!(self.value, Value::Scalar(_, Form::Expanded))
    }
}
