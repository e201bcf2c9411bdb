//! What is configured and does nothing, as far as the mesh as a whole tells: said once it is shown, never silent.

use hms_model::finding::Finding;
use hms_model::http_route::{HttpRoute, HttpRule, Parent, Source};
use hms_model::mesh::Mesh;
use hms_model::names::ServiceName;
use hms_model::policy::authorization;
use hms_model::port::Port;
use hms_model::split::Share;

use crate::registry::View;

/// Findings of this kind that one view has at most.
pub(crate) const MOST_FINDINGS: usize = 1000;

/// What is inert in the routes of a service, or the gateway.
pub(crate) fn of(view: &View, service: Option<&ServiceName>) -> Vec<Finding> {
    let routes = match service {
        None => Some(&view.mesh.gateway.routes),
        Some(name) => view.mesh.services.get(name).map(|state| &state.service.http),
    };
    routes.map(|routes| hms_traffic::http_route::inert(service, routes)).unwrap_or_default()
}

/// What is inert because something else is not there.
pub(crate) fn others(view: &View) -> Vec<Finding> {
    let mesh = &view.mesh;
    let mut findings: Vec<Finding> = mesh.gateway.routes.iter().filter_map(|route| unheard(mesh, route)).collect();
    for (name, state) in &mesh.services {
        findings.extend(strangers(mesh, name));
        findings.extend(nobody(name, &state.service.split));
        let declared = view.declaration(name).map(|own| own.ports.as_slice()).unwrap_or_default();
        findings.extend(state.service.http.iter().flat_map(|route| portless(name, declared, route)));
        for (route, rule) in
            state.service.http.iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule)))
        {
            findings.extend(uncalled(mesh, route, rule));
        }
        if findings.len() > MOST_FINDINGS {
            break;
        }
    }
    findings
}

/// A route for host names that the gateway does not answer for.
fn unheard(mesh: &Mesh, route: &HttpRoute) -> Option<Finding> {
    if answers_for(&mesh.gateway.hosts, &route.hosts) {
        return None;
    }
    let hosts = route.hosts.join(", ");
    let message = format!("the route `{}` is for {hosts}, and the gateway answers for none of them", route.name);
    let why = format!("it answers for {}; others get 421", mesh.gateway.hosts.join(", "));
    Some(Finding::warning(2107, message).because(why).fix(format!("gateway: {{hosts: [{hosts}]}} in mesh.yaml")))
}

/// Whether a gateway that answers for `own` hears any request that a route for `wanted` is about.
pub(crate) fn answers_for(own: &[String], wanted: &[String]) -> bool {
    let fits = |wanted: &String| {
        let wanted = wanted.to_ascii_lowercase();
        let takes = |host: &str| match wanted.strip_prefix('*') {
            None => wanted == host,
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        };
        own.iter().any(|host| takes(&host.to_ascii_lowercase())) || LOOPBACK.iter().any(|host| takes(host))
    };
    wanted.is_empty() || wanted.iter().any(fits)
}

/// The names that every gateway answers for (ruling R12).
const LOOPBACK: [&str; 4] = ["localhost", "gateway.localhost", "127.0.0.1", "[::1]"];

/// Rules of who may call that let nobody in.
fn strangers(mesh: &Mesh, name: &ServiceName) -> Vec<Finding> {
    let rules = mesh.services.get(name).map(|state| state.service.authorization.allow.as_slice()).unwrap_or_default();
    let stranger = |rule: &authorization::AllowRule| match &rule.source {
        authorization::Source::Service(caller) if !mesh.services.contains_key(caller) => {
            let message = format!("`{name}` lets `{caller}` in, which does not exist");
            let why = match rule.origin.as_str() {
                "" => "nobody has its identity".to_owned(),
                origin => format!("{origin} says so; nobody has its identity"),
            };
            Some(Finding::warning(2107, message).because(why).fix("declare it, or take the rule away"))
        }
        _ => None,
    };
    rules.iter().filter_map(stranger).collect()
}

/// A split that gives every call to nobody.
fn nobody(name: &ServiceName, shares: &[Share]) -> Option<Finding> {
    if shares.is_empty() || shares.iter().any(|share| share.weight > 0) {
        return None;
    }
    let finding = Finding::warning(2107, format!("the split of `{name}` gives nobody a request"));
    Some(
        finding
            .because("every weight is 0")
            .fix(format!("hms shift {name} VERSION=PERCENT, or hms delete split {name}")),
    )
}

/// A route about a port that its service does not declare: nobody dials it. Without declared ports those of its programs count, and
/// programs come and go.
fn portless(name: &ServiceName, declared: &[Port], route: &HttpRoute) -> Vec<Finding> {
    let missing = |parent: &Parent| match parent {
        Parent::Service { service, port: Some(port) } if service == name && !declared.is_empty() => {
            (!declared.iter().any(|own| own.number == *port)).then_some(*port)
        }
        _ => None,
    };
    let finding = |port: u16| {
        let message = format!("the route `{}` is about port {port} of `{name}`, which has no such port", route.name);
        let known: Vec<String> = declared.iter().map(|own| own.number.to_string()).collect();
        Finding::warning(2107, message).because(format!("it declares {}", known.join(", "))).fix("correct the port")
    };
    route.parents.iter().filter_map(missing).map(finding).collect()
}

/// A rule for callers of which none exists.
fn uncalled(mesh: &Mesh, route: &HttpRoute, rule: &HttpRule) -> Option<Finding> {
    let is_there = |source: &Source| match source {
        Source::Service(caller) => mesh.services.contains_key(caller),
        Source::Namespace(namespace) => mesh.services.keys().any(|name| name.namespace() == namespace.as_str()),
    };
    let holds = |sources: &[Source]| sources.is_empty() || sources.iter().any(is_there);
    if rule.matches.is_empty() || rule.matches.iter().any(|own| holds(&own.sources)) {
        return None;
    }
    let matched: Vec<String> = rule.matches.iter().map(ToString::to_string).collect();
    let message = format!("a rule of the route `{}` is for callers that do not exist", route.name);
    let why = match rule.origin.as_str() {
        "" => matched.join(", "),
        origin => format!("{origin} says {}", matched.join(", ")),
    };
    Some(Finding::warning(2107, message).because(why).fix("declare them, or take the condition away"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hms_model::http_route::{Backend, HttpMatch};
    use hms_model::mesh::{Assigned, assemble};
    use hms_model::policy::authorization::{AllowRule, AuthorizationPolicy};
    use hms_model::resource::{Declaration, Resource};
    use hms_model::split::Split;

    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn view(resources: Vec<Resource>) -> View {
        let stored = resources.iter().map(|one| (one.key(), Arc::new(one.clone()))).collect();
        let mesh = assemble(resources, |_| Assigned::default()).0;
        View { mesh, resources: Arc::new(stored), ..View::default() }
    }

    fn said(resources: Vec<Resource>) -> Vec<String> {
        others(&view(resources)).iter().map(|finding| format!("{}; {}", finding.message, finding.why)).collect()
    }

    #[test]
    fn who_is_let_in_and_does_not_exist_is_named() {
        let rule = |source| AllowRule { source, matches: Vec::new(), origin: "mesh.yaml:7".to_owned() };
        let allow = vec![
            rule(authorization::Source::Any),
            rule(authorization::Source::Service(name("ghost"))),
            rule(authorization::Source::Service(name("pay"))),
        ];
        let authorization = Some(AuthorizationPolicy { allow });
        let pay = Resource::Declaration(Declaration { authorization, ..Declaration::new(name("pay")) });
        assert_eq!(
            said(vec![pay]),
            ["`pay` lets `ghost` in, which does not exist; mesh.yaml:7 says so; nobody has its identity"]
        );
    }

    #[test]
    fn a_rule_for_callers_that_do_not_exist_is_named() {
        let of = |source| HttpMatch { sources: vec![source], ..HttpMatch::default() };
        let rule = |matches| HttpRule { matches, ..HttpRule::to(vec![Backend::all(name("pay"))]) };
        let parents = vec![Parent::Service { service: name("pay"), port: None }];
        let rules = vec![
            rule(vec![of(Source::Service(name("ghost"))), of(Source::Namespace("nowhere".to_owned()))]),
            rule(vec![of(Source::Service(name("ghost"))), of(Source::Namespace("default".to_owned()))]),
        ];
        let route = Resource::HttpRoute(HttpRoute { name: name("r"), parents, hosts: Vec::new(), rules });
        let said = said(vec![Resource::Declaration(Declaration::new(name("pay"))), route]);
        assert_eq!(
            said,
            ["a rule of the route `r` is for callers that do not exist; * /* from ghost, * /* from namespace nowhere"]
        );
    }

    #[test]
    fn a_port_that_nobody_has_and_a_split_for_nobody_are_named() {
        let port =
            Port { number: 80, name: String::new(), protocol: hms_model::port::AppProtocol::Detect, target: None };
        let pay = Declaration { ports: vec![port], ..Declaration::new(name("pay")) };
        let about = |number| Parent::Service { service: name("pay"), port: Some(number) };
        let rules = vec![HttpRule::to(vec![Backend::all(name("pay"))])];
        let route = HttpRoute { name: name("r"), parents: vec![about(80), about(81)], hosts: Vec::new(), rules };
        let shares = vec![Share { service: name("pay"), version: "v1".to_owned(), weight: 0 }];
        let split = Split { service: name("pay"), shares };
        assert_eq!(
            said(vec![Resource::Declaration(pay), Resource::HttpRoute(route), Resource::Split(split)]),
            [
                "the split of `pay` gives nobody a request; every weight is 0",
                "the route `r` is about port 81 of `pay`, which has no such port; it declares 80",
            ]
        );
    }

    #[test]
    fn a_gateway_hears_what_it_answers_for() {
        let names = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        let own = names(&["gateway.local", "Shop.example"]);
        for (wanted, heard) in [
            (&[][..], true),
            (&["shop.example"], true),
            (&["a.example", "*.example"], true),
            (&["*.local"], true),
            (&["localhost"], true),
            (&["a.example"], false),
            (&["*.shop.example"], false),
        ] {
            assert_eq!(answers_for(&own, &names(wanted)), heard, "{wanted:?}");
        }
    }
}
