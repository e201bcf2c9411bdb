//! `service-router`: which requests to a service go where.

use hms_model::finding::Finding;
use hms_model::http_route::{
    Actions, Backend, Bound, HttpMatch, HttpRoute, HttpRule, MOST_RULES, Parent, PathCondition, PathRewrite, Rewrite,
    TimeoutOverlay,
};
use hms_model::message::CanonicalPath;
use hms_model::names::ServiceName;
use hms_model::policy::Retry;

use super::chain::{Chain, Target};
use super::{edits, matches, referred, said, settings, subset};
use crate::gateway_api::{attempts, is_word, only_what_may_be, time};
use crate::objects::object::{Object, items, not_carried};
use crate::objects::{order, words};
use crate::read::{Field, Keys, Reader, Span, Table};

const ROUTER: Keys = Keys::new(&["Routes"]);
const ROUTE: Keys = Keys::new(&["Match", "Destination"]);
const DESTINATION: Keys = Keys::new(&[
    "Service",
    "ServiceSubset",
    "Namespace",
    "Partition",
    "PrefixRewrite",
    "RequestTimeout",
    "IdleTimeout",
    "NumRetries",
    "RetryOnConnectFailure",
    "RetryOn",
    "RetryOnStatusCodes",
    "RequestHeaders",
    "ResponseHeaders",
]);
/// Statuses and conditions of one destination.
const ENTRIES: usize = 100;

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, chain: &Chain) -> Option<HttpRoute> {
    let table = settings(reader, object, ROUTER)?;
    let own = object.route_name(reader)?;
    let mut rules: Vec<(HttpRule, Span)> = Vec::new();
    // One is left for what no route takes.
    for item in items(reader, &table, "Routes", MOST_RULES - 1, "a list of routes") {
        let Some(table) = reader.table_spelt(item.node, &item.path, ROUTE, &[]) else { continue };
        let matches = table.field("Match").cloned().map(|field| matches::read(reader, &field)).unwrap_or_default();
        let mut rule = HttpRule { matches, ..HttpRule::to(Vec::new()) };
        match said(&table, "Destination") {
            Some(field) => destination(reader, object, &field, (&own, chain), &mut rule),
            None => rule.backends = stays(reader, &own, chain, item.node.span),
        }
        rule.origin = reader.origin(item.node.span);
        rules.push((rule, item.node.span));
    }
    if !reader.has_errors(object.at.file) {
        order::check(reader, &rules);
    }
    let mut rules: Vec<HttpRule> = rules.into_iter().map(|(rule, _)| rule).collect();
    if !rules.iter().any(|rule| rule.matches.is_empty()) {
        // What no route takes stays with the service.
        let backends = stays(reader, &own, chain, object.at);
        rules.push(HttpRule { origin: reader.origin(object.at), ..HttpRule::to(backends) });
    }
    let parents = vec![Parent::Service { service: own.clone(), port: None }];
    Some(HttpRoute { name: own, parents, hosts: Vec::new(), rules })
}

fn stays(reader: &mut Reader<'_>, own: &ServiceName, chain: &Chain, at: Span) -> Vec<Backend> {
    chain.backends(reader, own, &Target { service: own.clone(), subset: None }, at).unwrap_or_default()
}

fn destination(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    field: &Field<'_>,
    (own, chain): (&ServiceName, &Chain),
    rule: &mut HttpRule,
) {
    let Some(table) = reader.table_spelt(field.node, &field.path, DESTINATION, &[]) else { return };
    let subset = subset(reader, &table, "ServiceSubset");
    if let Some(service) = referred(reader, object, &table, own) {
        let target = Target { service, subset };
        rule.backends = chain.backends(reader, own, &target, field.node.span).unwrap_or_default();
    }
    let (request_headers, response_headers) = edits::both(reader, &table);
    let rewrite = said(&table, "PrefixRewrite").and_then(|field| rewrite(reader, &field, &rule.matches));
    rule.actions = Actions { request_headers, response_headers, rewrite, ..Actions::default() };
    let mut time = |key: &str| {
        let time = said(&table, key).and_then(|field| time::duration(reader, &field));
        time.filter(|time| !time.is_zero())
    };
    let request = time("RequestTimeout").map(Bound::After);
    rule.timeouts = TimeoutOverlay { request, idle: time("IdleTimeout"), ..TimeoutOverlay::default() };
    rule.retry = retry(reader, &table);
}

/// Of a match by prefix the prefix is replaced, of one by an exact path the whole path.
fn rewrite(reader: &mut Reader<'_>, field: &Field<'_>, matches: &[HttpMatch]) -> Option<Rewrite> {
    let text = reader.line(field, "a path", 1024)?;
    if !CanonicalPath::parse(text).is_ok_and(|path| path.as_str() != "*") {
        reader.bad(field, "a path", "it begins with / and has no query", "write for example /v2");
        return None;
    }
    let path = match matches.first().map(|own| &own.path) {
        Some(Some(PathCondition::Exact(_))) => PathRewrite::Full(text.to_owned()),
        Some(None | Some(PathCondition::Prefix(_))) => PathRewrite::Prefix(text.to_owned()),
        _ => {
            let finding = Finding::error(2105, "there is no prefix to be replaced");
            let why = "the match of the route names neither PathPrefix nor PathExact";
            reader.report(field.key, finding.because(why).fix("match by PathPrefix"));
            return None;
        }
    };
    Some(Rewrite { host: None, path: Some(path) })
}

/// Trying again, if a destination speaks of it.
fn retry(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Retry> {
    let first = ["NumRetries", "RetryOnConnectFailure", "RetryOn", "RetryOnStatusCodes"];
    let is_off = |field: &Field<'_>| ["false", "0"].iter().any(|word| is_word(Some(field), word));
    let first = first.iter().find_map(|key| said(table, key).filter(|field| !is_off(field)))?;
    // One try more unless told otherwise.
    let mut retry = Retry { retries: 1, ..Retry::default() };
    if let Some(field) = said(table, "NumRetries") {
        retry.retries = attempts(reader, &field)?;
    }
    // A connection that cannot be made is always tried again.
    if let Some(field) = said(table, "RetryOnConnectFailure") {
        let _known = reader.boolean(&field);
    }
    let mut on = Vec::new();
    for item in items(reader, table, "RetryOn", ENTRIES, "a list of conditions such as [5xx, reset]") {
        on.extend(reader.text(&item, "a condition such as reset"));
    }
    if words::try_again(&on, &mut retry)
        && let Some(field) = table.field("RetryOn")
    {
        words::strange_condition(reader, field.key, field.path.rsplit('.').next().unwrap_or_default());
    }
    let mut below = false;
    // All of them already if `5xx` is among the conditions.
    let is_all = retry.on.status_5xx && retry.statuses.is_empty();
    for item in items(reader, table, "RetryOnStatusCodes", ENTRIES, "a list of statuses such as [503]") {
        match reader.whole(&item, "a status from 100 to 599", 100..=599).and_then(|code| u16::try_from(code).ok()) {
            Some(code) if code >= 500 => {
                retry.on.status_5xx = true;
                if !is_all && !retry.statuses.contains(&code) {
                    retry.statuses.push(code);
                }
            }
            Some(_) => below = true,
            None => {}
        }
    }
    retry.statuses.sort_unstable();
    if let (true, Some(field)) = (below, table.field("RetryOnStatusCodes")) {
        let why = "an answer below 500 says that the request is at fault, and is final";
        not_carried(reader, field.key, "trying again after a status below 500", why);
    }
    only_what_may_be(reader, &first, &retry);
    Some(retry)
}
