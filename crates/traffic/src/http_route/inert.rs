//! Rules that can never do anything, found without a request: people should hear of them before their callers do.

use std::collections::BTreeSet;

use hms_model::finding::{Finding, Place};
use hms_model::http_route::{HttpRoute, HttpRule};
use hms_model::names::ServiceName;

use super::{HttpTable, LedRule, Whose};

/// Rules named as those that take another's requests.
const NAMED: usize = 3;

/// What has no effect in the routes of one parent: `service`, or the gateway. What other services there are does not matter, so the
/// answer is the same as long as the routes are.
pub fn inert(service: Option<&ServiceName>, routes: &[HttpRoute]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match service {
        None => findings.extend(unreached(routes, Whose::Gateway)),
        Some(service) => {
            // Each namespace's callers are led by its own routes, and where it has none by those of the service's.
            let namespaces: BTreeSet<&str> = routes.iter().map(|route| route.name.namespace()).collect();
            for namespace in namespaces {
                findings.extend(unreached(routes, Whose::Callers { service, namespace }));
            }
        }
    }
    findings.extend(routes.iter().flat_map(|route| route.rules.iter().filter_map(|rule| nobody(route, rule))));
    findings
}

/// Rules that no request reaches.
fn unreached(routes: &[HttpRoute], whose: Whose<'_>) -> Vec<Finding> {
    let Some(table) = HttpTable::build(routes, whose) else { return Vec::new() };
    let finding = |(rule, by): (&LedRule, Vec<&LedRule>)| {
        let message = format!("the rule `{}` of the route `{}` is never reached", rule.title, rule.route);
        let finding = placed(Finding::warning(2180, message), &rule.rule);
        if by.is_empty() {
            let why = "it asks for what no request from outside has: a caller of the mesh, or a header that only the mesh says";
            return finding.because(why).fix("take the condition away, or the gateway out of parentRefs");
        }
        let all = by.len();
        let mut names: Vec<String> = by.iter().take(NAMED).map(|one| named(one)).collect();
        if all > NAMED {
            names.push(format!("{} more", all - NAMED));
        }
        let takes = if all == 1 { "takes" } else { "take" };
        let why = format!("{} {takes} every request that it would", names.join(" and "));
        finding.because(why).fix("take one of them away, or make the match of this one more particular")
    };
    table.shadows().into_iter().map(finding).collect()
}

/// A rule that gives every request to nobody.
fn nobody(route: &HttpRoute, rule: &HttpRule) -> Option<Finding> {
    let gives = rule.backends.is_empty() || rule.backends.iter().any(|backend| backend.share.weight > 0);
    if gives || rule.actions.redirect.is_some() {
        return None;
    }
    let finding = Finding::warning(2107, format!("a rule of the route `{}` gives nobody a request", route.name));
    let why = "every weight is 0: the requests are answered with 500";
    Some(placed(finding.because(why).fix("give one of them weight: 1"), rule))
}

/// A rule as people find it.
fn named(rule: &LedRule) -> String {
    let name = format!("`{}` of the route `{}`", rule.title, rule.route);
    if rule.rule.origin.is_empty() { name } else { format!("{name} ({})", rule.rule.origin) }
}

/// A finding where its rule was written, if that is known.
fn placed(finding: Finding, rule: &HttpRule) -> Finding {
    let place = rule.origin.rsplit_once(':').and_then(|(file, line)| {
        let line = line.parse().ok()?;
        Some(Place { file: file.to_owned(), line, column: 1, length: 1, source: String::new() })
    });
    match place {
        Some(place) => finding.at(place),
        None => finding,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use hms_model::http_route::{Backend, FieldCondition, HttpMatch, Parent, PathCondition, Source, ValueCondition};
    use http::HeaderName;

    use super::*;

    fn service(text: &str) -> ServiceName {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        ServiceName::in_namespace(namespace, name).unwrap()
    }

    fn rule(line: u32, matches: Vec<HttpMatch>) -> HttpRule {
        let origin = format!("pay.yaml:{line}");
        HttpRule { matches, origin, ..HttpRule::to(vec![Backend::all(service("v2-svc"))]) }
    }

    fn prefix(path: &str) -> HttpMatch {
        HttpMatch { path: Some(PathCondition::Prefix(path.to_owned())), ..HttpMatch::default() }
    }

    fn route(object: &str, parent: Parent, rules: Vec<HttpRule>) -> HttpRoute {
        HttpRoute { name: service(object), parents: vec![parent], hosts: Vec::new(), rules }
    }

    fn of_pay() -> Parent {
        Parent::Service { service: service("pay-svc"), port: None }
    }

    fn said(service: Option<&ServiceName>, routes: &[HttpRoute]) -> Vec<String> {
        let findings = inert(service, routes);
        findings.iter().map(|finding| format!("{finding}; {}", finding.why)).collect()
    }

    #[test]
    fn a_rule_behind_others_is_said_with_both_places() {
        let routes = [
            route("a", of_pay(), vec![rule(3, vec![prefix("/x")]), rule(7, vec![prefix("/y")])]),
            route("b", of_pay(), vec![rule(20, vec![prefix("/x"), prefix("/y")]), rule(24, vec![prefix("/x/z")])]),
        ];
        assert_eq!(
            said(Some(&service("pay-svc")), &routes),
            [
                "pay.yaml:20:1: warning[HMS-2180]: the rule `* /x[/*]` of the route `b` is never reached; `* /x[/*]` of the route `a` (pay.yaml:3) and `* /y[/*]` of the route `a` (pay.yaml:7) take every request that it would"
            ]
        );
    }

    #[test]
    fn who_calls_keeps_two_rules_apart_and_so_does_a_namespace() {
        let of = |name: &str| HttpMatch { sources: vec![Source::Service(service(name))], ..prefix("/") };
        let routes = [
            route("a", of_pay(), vec![rule(1, vec![of("one")]), rule(2, vec![of("two")])]),
            route("shop/a", of_pay(), vec![rule(3, vec![prefix("/")])]),
        ];
        assert_eq!(said(Some(&service("pay-svc")), &routes), Vec::<String>::new());
        let twice = [route("shop/a", of_pay(), vec![rule(3, vec![prefix("/")]), rule(4, vec![prefix("/")])])];
        assert_eq!(said(Some(&service("pay-svc")), &twice).len(), 1);
    }

    #[test]
    fn what_only_the_mesh_says_is_never_asked_outside() {
        let claim = FieldCondition {
            name: HeaderName::from_static("x-hms-source"),
            value: ValueCondition::Present,
            is_negated: false,
        };
        let matches = vec![HttpMatch { headers: vec![claim], ..prefix("/") }];
        let routes = [route("a", Parent::Gateway, vec![rule(1, matches), rule(2, vec![prefix("/")])])];
        let said = said(None, &routes);
        assert!(said.len() == 1 && said[0].contains("pay.yaml:1") && said[0].contains("from outside"), "{said:?}");
    }

    #[test]
    fn weights_of_nothing_give_nobody_a_request() {
        let mut none = rule(5, vec![prefix("/")]);
        none.backends[0].share.weight = 0;
        let said = said(Some(&service("pay-svc")), &[route("a", of_pay(), vec![none])]);
        assert_eq!(
            said,
            [
                "pay.yaml:5:1: warning[HMS-2107]: a rule of the route `a` gives nobody a request; every weight is 0: the requests are answered with 500"
            ]
        );
    }

    #[test]
    fn a_table_that_no_person_wrote_takes_no_time() {
        let rules = (0..200).map(|line| rule(line, (0..60).map(|n| prefix(&format!("/{line}/{n}"))).collect()));
        let routes = [route("a", of_pay(), rules.collect())];
        assert_eq!(said(Some(&service("pay-svc")), &routes), Vec::<String>::new());
    }
}
