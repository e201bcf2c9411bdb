//! Rules in the words of an `HTTPRoute`.

use std::time::Duration;

use hms_model::http_route::{
    Bound, Cors, HeaderEdits, HttpMatch, HttpRoute, HttpRule, PathCondition, PathRewrite, ValueCondition,
};
use hms_model::names::ServiceName;
use hms_model::policy::Retry;
use hms_model::route::{PathPattern, Segment};
use hms_model::split::{MOST_WEIGHT, Share};
use serde_json::{Map, Value, json};

use super::Lost;

/// The port of a backend of which none is said; the Gateway API wants one.
const PORT: u16 = 80;

/// One rule: as many as it needs there.
pub(super) fn write(route: &HttpRoute, rule: &HttpRule, lost: &mut Lost) -> Vec<Value> {
    let mut written = Vec::new();
    let mut matches = Vec::new();
    for own in &rule.matches {
        match condition(own, lost) {
            Some(value) => matches.push((own, value)),
            // Without it the rule would take more than it should.
            None => lost.say(format!("the match `{own}`")),
        }
    }
    if matches.is_empty() && !rule.matches.is_empty() {
        return written;
    }
    let replaces = |path: &Option<PathRewrite>| matches!(path, Some(PathRewrite::Prefix(_)));
    let is_prefix = rule.actions.rewrite.as_ref().is_some_and(|own| replaces(&own.path))
        || rule.actions.redirect.as_ref().is_some_and(|own| replaces(&own.path));
    let body = body(route, rule, lost);
    let finish = |matches: Vec<Value>| {
        let mut map = Map::new();
        if !rule.name.is_empty() {
            map.insert("name".to_owned(), json!(rule.name));
        }
        if !matches.is_empty() {
            map.insert("matches".to_owned(), Value::Array(matches));
        }
        map.extend(body.clone());
        Value::Object(map)
    };
    if is_prefix && matches.len() > 1 {
        // A prefix is replaced in rules of one match only.
        if !rule.name.is_empty() {
            lost.say(format!("that the rules called `{}` are one", rule.name));
        }
        written.extend(matches.into_iter().map(|(_, value)| {
            let mut value = finish(vec![value]);
            if let Some(map) = value.as_object_mut() {
                map.remove("name");
            }
            value
        }));
    } else {
        written.push(finish(matches.into_iter().map(|(_, value)| value).collect()));
    }
    written
}

fn body(route: &HttpRoute, rule: &HttpRule, lost: &mut Lost) -> Map<String, Value> {
    let mut map = Map::new();
    let filters = filters(route, rule, lost);
    if !filters.is_empty() {
        map.insert("filters".to_owned(), Value::Array(filters));
    }
    let mut timeouts = Map::new();
    for (key, bound) in [("request", rule.timeouts.request), ("backendRequest", rule.timeouts.attempt)] {
        let time = bound.map(|bound| match bound {
            Bound::Lifted => "0s".to_owned(),
            Bound::After(time) => words(time),
        });
        timeouts.extend(time.map(|time| (key.to_owned(), json!(time))));
    }
    if !timeouts.is_empty() {
        map.insert("timeouts".to_owned(), Value::Object(timeouts));
    }
    if rule.timeouts.idle.is_some() {
        lost.say("a limit for streams without a byte");
    }
    map.extend(rule.retry.as_ref().map(|own| ("retry".to_owned(), retry(own, lost))));
    let mut backends = Vec::new();
    for backend in &rule.backends {
        let mut value = reference(&route.name, &backend.share, backend.port, Some(backend.share.weight), lost);
        let mut filters = Vec::new();
        edits(&mut filters, "RequestHeaderModifier", "requestHeaderModifier", &backend.request_headers, lost);
        edits(&mut filters, "ResponseHeaderModifier", "responseHeaderModifier", &backend.response_headers, lost);
        if let (Some(map), false) = (value.as_object_mut(), filters.is_empty()) {
            map.insert("filters".to_owned(), Value::Array(filters));
        }
        backends.push(value);
    }
    if !backends.is_empty() {
        map.insert("backendRefs".to_owned(), Value::Array(backends));
    }
    map
}

/// A service as `backendRefs` name it.
pub(super) fn reference(
    object: &ServiceName,
    share: &Share,
    port: Option<u16>,
    weight: Option<u32>,
    lost: &mut Lost,
) -> Value {
    let Share { service, version, .. } = share;
    let name = if version.is_empty() { service.name().to_owned() } else { format!("{}-{version}", service.name()) };
    if !version.is_empty() {
        lost.assume(format!("a Service `{name}` selects the version {version} of `{service}`"));
    }
    if port.is_none() {
        lost.assume(format!("`{service}` is called at its port {PORT}"));
    }
    let mut map = Map::new();
    map.insert("name".to_owned(), json!(name));
    if service.namespace() != object.namespace() {
        map.insert("namespace".to_owned(), json!(service.namespace()));
    }
    map.insert("port".to_owned(), json!(port.unwrap_or(PORT)));
    map.extend(weight.filter(|weight| *weight != 1).map(|weight| ("weight".to_owned(), json!(weight))));
    Value::Object(map)
}

/// A match; `None` if a part of it cannot be said.
fn condition(own: &HttpMatch, lost: &mut Lost) -> Option<Value> {
    if !own.sources.is_empty() || own.headers.iter().any(|own| own.is_negated) {
        return None;
    }
    let mut map = Map::new();
    if let Some(path) = &own.path {
        let (way, value) = match path {
            PathCondition::Exact(text) => ("Exact", text.clone()),
            PathCondition::Prefix(text) => ("PathPrefix", text.clone()),
            PathCondition::Regex(pattern) => ("RegularExpression", pattern.to_string()),
            PathCondition::Template(pattern) => {
                lost.assume(format!("`{pattern}` may be a regular expression, which comes later among the matches"));
                ("RegularExpression", template(pattern))
            }
        };
        map.insert("path".to_owned(), json!({"type": way, "value": value}));
    }
    map.extend(own.method.as_ref().map(|method| ("method".to_owned(), json!(method.as_str()))));
    let headers: Vec<Value> = own.headers.iter().map(|own| named(own.name.as_str(), &own.value)).collect();
    let query: Vec<Value> = own.query.iter().map(|own| named(&own.name, &own.value)).collect();
    for (key, list) in [("headers", headers), ("queryParams", query)] {
        if !list.is_empty() {
            map.insert(key.to_owned(), Value::Array(list));
        }
    }
    Some(Value::Object(map))
}

fn named(name: &str, value: &ValueCondition) -> Value {
    match value {
        ValueCondition::Exact(text) => json!({"name": name, "value": text}),
        ValueCondition::Regex(pattern) => {
            json!({"type": "RegularExpression", "name": name, "value": pattern.to_string()})
        }
        ValueCondition::Present => json!({"type": "RegularExpression", "name": name, "value": ".*"}),
    }
}

fn template(pattern: &PathPattern) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Literal(text) => text.replace('.', "[.]"),
        Segment::Parameter(_) => "[^/]+".to_owned(),
        Segment::Rest => ".+".to_owned(),
    };
    let segments: Vec<String> = pattern.segments().iter().map(segment).collect();
    format!("/{}", segments.join("/"))
}

fn filters(route: &HttpRoute, rule: &HttpRule, lost: &mut Lost) -> Vec<Value> {
    let actions = &rule.actions;
    let mut filters = Vec::new();
    edits(&mut filters, "RequestHeaderModifier", "requestHeaderModifier", &actions.request_headers, lost);
    edits(&mut filters, "ResponseHeaderModifier", "responseHeaderModifier", &actions.response_headers, lost);
    if let Some(own) = &actions.redirect {
        let mut map = Map::new();
        map.extend(own.scheme.map(|scheme| ("scheme".to_owned(), json!(scheme.as_str()))));
        map.extend(own.host.as_ref().map(|host| ("hostname".to_owned(), json!(host))));
        map.extend(own.port.map(|port| ("port".to_owned(), json!(port))));
        map.extend(own.path.as_ref().map(|path| ("path".to_owned(), modifier(path))));
        map.insert("statusCode".to_owned(), json!(own.status));
        filters.push(json!({"type": "RequestRedirect", "requestRedirect": map}));
    }
    if let Some(own) = &actions.rewrite {
        let mut map = Map::new();
        map.extend(own.host.as_ref().map(|host| ("hostname".to_owned(), json!(host))));
        map.extend(own.path.as_ref().map(|path| ("path".to_owned(), modifier(path))));
        filters.push(json!({"type": "URLRewrite", "urlRewrite": map}));
    }
    for own in &actions.mirrors {
        let mut map = Map::new();
        map.insert("backendRef".to_owned(), reference(&route.name, &own.share, own.port, None, lost));
        match own.portion.get() {
            MOST_WEIGHT => {}
            part if part % 10_000 == 0 => drop(map.insert("percent".to_owned(), json!(part / 10_000))),
            part => drop(map.insert("fraction".to_owned(), json!({"numerator": part, "denominator": MOST_WEIGHT}))),
        }
        filters.push(json!({"type": "RequestMirror", "requestMirror": map}));
    }
    filters.extend(actions.cors.as_ref().map(|own| json!({"type": "CORS", "cors": cors(own)})));
    if actions.fault.is_some() {
        lost.say("a fault");
    }
    filters
}

fn modifier(path: &PathRewrite) -> Value {
    match path {
        PathRewrite::Full(path) => json!({"type": "ReplaceFullPath", "replaceFullPath": path}),
        PathRewrite::Prefix(path) => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": path}),
    }
}

fn edits(filters: &mut Vec<Value>, way: &str, key: &str, own: &HeaderEdits, lost: &mut Lost) {
    if own.is_empty() {
        return;
    }
    let mut map = Map::new();
    for (key, pairs) in [("set", &own.set), ("add", &own.add)] {
        let mut list = Vec::new();
        for (name, value) in pairs {
            match std::str::from_utf8(value.as_bytes()) {
                Ok(text) => list.push(json!({"name": name.as_str(), "value": text})),
                Err(_not_text) => lost.say(format!("the value of `{name}`, which is no text")),
            }
        }
        if !list.is_empty() {
            map.insert(key.to_owned(), Value::Array(list));
        }
    }
    if !own.remove.is_empty() {
        map.insert("remove".to_owned(), own.remove.iter().map(|name| json!(name.as_str())).collect());
    }
    filters.push(json!({"type": way, key: map}));
}

fn cors(own: &Cors) -> Value {
    let mut map = Map::new();
    map.insert("allowOrigins".to_owned(), json!(own.origins));
    if own.credentials {
        map.insert("allowCredentials".to_owned(), json!(true));
    }
    let methods = own.methods.as_ref().map(|list| list.iter().map(|method| json!(method.as_str())).collect::<Vec<_>>());
    let headers = own.headers.as_ref().map(|list| list.iter().map(|name| json!(name.as_str())).collect::<Vec<_>>());
    for (key, list) in [("allowMethods", methods), ("allowHeaders", headers)] {
        let list = list.unwrap_or_else(|| vec![json!("*")]);
        if !list.is_empty() {
            map.insert(key.to_owned(), Value::Array(list));
        }
    }
    if !own.expose.is_empty() {
        map.insert("exposeHeaders".to_owned(), own.expose.iter().map(|name| json!(name.as_str())).collect());
    }
    if own.max_age >= Duration::from_secs(1) {
        map.insert("maxAge".to_owned(), json!(own.max_age.as_secs()));
    }
    Value::Object(map)
}

fn retry(own: &Retry, lost: &mut Lost) -> Value {
    let usual = Retry::default();
    let mut map = Map::new();
    map.insert("attempts".to_owned(), json!(own.retries));
    if !own.statuses.is_empty() {
        map.insert("codes".to_owned(), json!(own.statuses));
    }
    if own.backoff_other == own.backoff_same {
        map.insert("backoff".to_owned(), json!(words(own.backoff_same)));
    } else if own.backoff_other != usual.backoff_other || own.backoff_same != usual.backoff_same {
        lost.say("two pauses between tries");
    }
    if !own.methods.is_empty() {
        lost.say("methods that are tried again although they are not idempotent");
    }
    let on = (own.on.reset, own.on.timeout, own.on.status_5xx);
    if on != (usual.on.reset, usual.on.timeout, usual.on.status_5xx) {
        lost.say("after which failures a request is tried again");
    }
    if (own.budget_percent, own.budget_floor_per_second) != (usual.budget_percent, usual.budget_floor_per_second) {
        lost.say("a budget of tries");
    }
    Value::Object(map)
}

/// `1500ms`, `90s`.
fn words(time: Duration) -> String {
    match time.as_millis() {
        ms if ms % 3_600_000 == 0 && ms > 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 && ms > 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{}s{}ms", ms / 1_000, ms % 1_000),
    }
}
