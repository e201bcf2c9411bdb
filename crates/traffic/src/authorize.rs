//! Who may call a service (ruling R17). Whatever cannot be decided is denied.

use std::collections::BTreeSet;

use hms_model::message::CanonicalPath;
use hms_model::names::{GATEWAY, SYSTEM_NAMESPACE, ServiceName};
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::route::Match;
use hms_model::service::Service;
use hms_model::spiffe::SpiffeId;
use http::Method;

/// May this call be made?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allow {
        /// The rule that says so; `None` when the service has no rule and takes every meshed identity.
        rule: Option<usize>,
    },
    /// No.
    Deny {
        /// The rule that came closest, for explanations: one for this caller before one for this request; `None` without
        /// rules or without an identity.
        nearest: Option<usize>,
    },
}

/// Decides about one call.
///
/// `caller` is the identity that was verified on the connection, `None` for a caller without one: that is always denied.
/// `identities_of` gives the identities that a service named in a rule owns; `None` if the service is unknown, in which case
/// the rule fits nobody. With rules, the path must be allowed twice: as it stands, and as a server sees it that drops path
/// parameters (`/admin;x=1` as `/admin`).
pub fn authorize<'a>(
    service: &Service,
    caller: Option<&SpiffeId>,
    identities_of: impl Fn(&ServiceName) -> Option<&'a BTreeSet<SpiffeId>>,
    method: &Method,
    path: &CanonicalPath,
) -> Verdict {
    let Some(caller) = caller else { return Verdict::Deny { nearest: None } };
    let rules = &service.authorization.allow;
    if rules.is_empty() {
        return Verdict::Allow { rule: None };
    }
    let speaks_for = |source: &Source| match source {
        Source::Any => true,
        Source::Gateway => is_gateway(caller, service),
        Source::Service(name) => identities_of(name).is_some_and(|identities| identities.contains(caller)),
    };
    let allowing = |path: &CanonicalPath| {
        rules.iter().position(|rule| request_fits(rule, method, path) && speaks_for(&rule.source))
    };
    let allowed = allowing(path).filter(|_| match Stripped::of(path) {
        Stripped::Same => true,
        Stripped::Other(stripped) => allowing(&stripped).is_some(),
        Stripped::Ambiguous => false,
    });
    if allowed.is_some() {
        return Verdict::Allow { rule: allowed };
    }
    let by_caller = rules.iter().position(|rule| speaks_for(&rule.source));
    let by_request = || rules.iter().position(|rule| request_fits(rule, method, path));
    Verdict::Deny { nearest: by_caller.or_else(by_request).or(Some(0)) }
}

/// Decides about a connection that nobody reads. Only who calls is known of it: a rule about requests fits none, and where all
/// rules are such, nobody gets one.
pub fn authorize_connection<'a>(
    service: &Service,
    caller: Option<&SpiffeId>,
    identities_of: impl Fn(&ServiceName) -> Option<&'a BTreeSet<SpiffeId>>,
) -> Verdict {
    let Some(caller) = caller else { return Verdict::Deny { nearest: None } };
    let rules = &service.authorization.allow;
    if rules.is_empty() {
        return Verdict::Allow { rule: None };
    }
    let speaks_for = |rule: &AllowRule| match &rule.source {
        Source::Any => true,
        Source::Gateway => is_gateway(caller, service),
        Source::Service(name) => identities_of(name).is_some_and(|identities| identities.contains(caller)),
    };
    let allowed = rules.iter().position(|rule| rule.matches.is_empty() && speaks_for(rule));
    match allowed {
        Some(_) => Verdict::Allow { rule: allowed },
        None => Verdict::Deny { nearest: rules.iter().position(speaks_for).or(Some(0)) },
    }
}

/// Whether an identity is the gateway's, in the trust domain of the service.
fn is_gateway(caller: &SpiffeId, service: &Service) -> bool {
    caller.namespace() == SYSTEM_NAMESPACE
        && caller.name() == GATEWAY
        && service.identities.iter().any(|own| own.trust_domain() == caller.trust_domain())
}

fn request_fits(rule: &AllowRule, method: &Method, path: &CanonicalPath) -> bool {
    rule.matches.is_empty() || rule.matches.iter().any(|one| fits(one, method, path))
}

/// Whether a match takes a request. `OPTIONS *` is about the server as a whole, which no path pattern speaks of.
fn fits(one: &Match, method: &Method, path: &CanonicalPath) -> bool {
    path.as_str() != "*" && one.takes(method) && one.path.matches(path.as_str())
}

/// A path as a server sees it that knows path parameters (RFC 3986 §3.3; servlet containers).
enum Stripped {
    /// There are none in it.
    Same,
    /// Without them.
    Other(CanonicalPath),
    /// Without them it is no path: `/a/..;/..;/b`.
    Ambiguous,
}

impl Stripped {
    fn of(path: &CanonicalPath) -> Self {
        // Some servers look for parameters only after decoding, so the encoded semicolon is one as well.
        let text = path.as_str();
        if !text.contains(';') && !text.contains("%3B") {
            return Self::Same;
        }
        let kept: Vec<&str> = text.split('/').map(without_parameters).collect();
        // `..;` has become `..` now, so dot segments have to go once more.
        CanonicalPath::parse(&kept.join("/")).map_or(Self::Ambiguous, Self::Other)
    }
}

fn without_parameters(segment: &str) -> &str {
    let end = [segment.find(';'), segment.find("%3B")].into_iter().flatten().min();
    end.and_then(|end| segment.get(..end)).unwrap_or(segment)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;

    use hms_model::policy::{AuthorizationPolicy, TrafficPolicy};
    use proptest::prelude::*;

    use super::*;

    fn id(namespace: &str, name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://k3.hms/ns/{namespace}/sa/{name}")).unwrap()
    }

    fn rule(source: Source, matches: &[&str]) -> AllowRule {
        AllowRule {
            source,
            matches: matches.iter().map(|text| Match::parse(text).unwrap()).collect(),
            origin: String::new(),
        }
    }

    fn from(name: &str) -> Source {
        Source::Service(ServiceName::new(name).unwrap())
    }

    fn service(allow: Vec<AllowRule>) -> Service {
        Service {
            split: Vec::new(),
            http: Vec::new(),
            name: ServiceName::new("calc-svc").unwrap(),
            identities: BTreeSet::from([id("default", "calc-svc")]),
            sni: String::new(),
            policy: TrafficPolicy::default(),
            authorization: AuthorizationPolicy { allow },
            ports: Vec::new(),
        }
    }

    /// Decides where `grant-svc` is owned by the identity of that name, and no other service is known.
    fn decide(allow: Vec<AllowRule>, caller: Option<&SpiffeId>, method: &Method, path: &str) -> Verdict {
        let known =
            BTreeMap::from([(ServiceName::new("grant-svc").unwrap(), BTreeSet::from([id("default", "grant-svc")]))]);
        let path = CanonicalPath::parse(path).unwrap();
        authorize(&service(allow), caller, |name| known.get(name), method, &path)
    }

    #[test]
    fn without_a_rule_every_meshed_identity_may_call_and_nobody_else() {
        assert_eq!(decide(vec![], Some(&id("default", "x")), &Method::GET, "/"), Verdict::Allow { rule: None });
        assert_eq!(decide(vec![], None, &Method::GET, "/"), Verdict::Deny { nearest: None });
    }

    #[test]
    fn a_caller_without_identity_is_denied_even_by_a_rule_for_any() {
        assert_eq!(decide(vec![rule(Source::Any, &[])], None, &Method::GET, "/"), Verdict::Deny { nearest: None });
    }

    #[test]
    fn with_a_rule_all_that_is_not_listed_is_denied() {
        let rules = || vec![rule(from("grant-svc"), &["GET /sum/*"])];
        let grant = id("default", "grant-svc");
        assert_eq!(decide(rules(), Some(&grant), &Method::GET, "/sum/2/3"), Verdict::Allow { rule: Some(0) });
        assert_eq!(decide(rules(), Some(&grant), &Method::HEAD, "/sum/2/3"), Verdict::Allow { rule: Some(0) });
        assert_eq!(decide(rules(), Some(&grant), &Method::POST, "/sum/2/3"), Verdict::Deny { nearest: Some(0) });
        assert_eq!(decide(rules(), Some(&grant), &Method::GET, "/admin"), Verdict::Deny { nearest: Some(0) });
        let other = id("default", "grant-svc-2");
        assert_eq!(decide(rules(), Some(&other), &Method::GET, "/sum/2/3"), Verdict::Deny { nearest: Some(0) });
    }

    #[test]
    fn the_nearest_rule_is_one_for_the_caller_before_one_for_the_request() {
        let rules = || vec![rule(from("ghost"), &[]), rule(from("grant-svc"), &["GET /sum"])];
        let grant = id("default", "grant-svc");
        assert_eq!(decide(rules(), Some(&grant), &Method::PUT, "/sum"), Verdict::Deny { nearest: Some(1) });
        assert_eq!(decide(rules(), Some(&id("a", "b")), &Method::GET, "/sum"), Verdict::Deny { nearest: Some(0) });
    }

    #[test]
    fn a_rule_for_an_unknown_service_fits_nobody() {
        let verdict = decide(vec![rule(from("ghost"), &[])], Some(&id("default", "ghost")), &Method::GET, "/");
        assert_eq!(verdict, Verdict::Deny { nearest: Some(0) });
    }

    #[test]
    fn the_gateway_is_one_identity_of_one_namespace_and_trust_domain() {
        let rules = || vec![rule(Source::Gateway, &[])];
        let allowed =
            |caller: &SpiffeId| matches!(decide(rules(), Some(caller), &Method::GET, "/"), Verdict::Allow { .. });
        assert!(allowed(&id("hms-system", "gateway")));
        assert!(!allowed(&id("default", "gateway")));
        assert!(!allowed(&id("hms-system", "gateway-2")));
        assert!(!allowed(&SpiffeId::parse("spiffe://k3.hms.evil/ns/hms-system/sa/gateway").unwrap()));
    }

    #[test]
    fn a_path_parameter_hides_nothing() {
        let rules = || vec![rule(Source::Any, &["/pub/*", "/{page}"]), rule(from("grant-svc"), &["/admin/*"])];
        let allowed = |path: &str| {
            matches!(decide(rules(), Some(&id("default", "x")), &Method::GET, path), Verdict::Allow { .. })
        };
        assert!(allowed("/pub/a;x=1"), "allowed either way");
        for path in ["/pub/..;/admin/secret", "/pub/..%3Bx/admin/secret", "/admin;x=1/secret", "/pub/..;/..;/x"] {
            assert!(!allowed(path), "{path}");
        }
    }

    #[test]
    fn a_path_parameter_is_no_hindrance_where_nothing_is_restricted() {
        let verdict = decide(vec![], Some(&id("default", "x")), &Method::GET, "/a;b=1");
        assert_eq!(verdict, Verdict::Allow { rule: None });
    }

    #[test]
    fn a_connection_that_nobody_reads_needs_a_rule_about_callers_alone() {
        let grant = id("default", "grant-svc");
        let known =
            BTreeMap::from([(ServiceName::new("grant-svc").unwrap(), BTreeSet::from([id("default", "grant-svc")]))]);
        let decide = |rules, caller| authorize_connection(&service(rules), caller, |name| known.get(name));
        assert_eq!(decide(vec![], Some(&grant)), Verdict::Allow { rule: None });
        assert_eq!(decide(vec![], None), Verdict::Deny { nearest: None });
        let of_requests = || rule(from("grant-svc"), &["GET /*"]);
        assert_eq!(decide(vec![of_requests()], Some(&grant)), Verdict::Deny { nearest: Some(0) });
        let both = || vec![of_requests(), rule(from("grant-svc"), &[])];
        assert_eq!(decide(both(), Some(&grant)), Verdict::Allow { rule: Some(1) });
        assert_eq!(decide(both(), Some(&id("default", "other"))), Verdict::Deny { nearest: Some(0) });
    }

    #[test]
    fn the_asterisk_form_needs_a_rule_without_paths() {
        let any = id("default", "x");
        let verdict = |rules| decide(rules, Some(&any), &Method::OPTIONS, "*");
        assert!(matches!(verdict(vec![rule(Source::Any, &["/*", "/{x}"])]), Verdict::Deny { .. }));
        assert!(matches!(verdict(vec![rule(Source::Any, &[])]), Verdict::Allow { .. }));
    }

    proptest! {
        #[test]
        fn what_only_others_may_reach_is_never_reached_by_parameters(raw in "/(pub|admin|\\.\\.|%2e|;|%3b|x|/){0,8}") {
            let Ok(path) = CanonicalPath::parse(&raw) else { return Ok(()) };
            let rules = vec![rule(Source::Any, &["/pub/*"])];
            let caller = id("default", "x");
            let verdict = authorize(&service(rules), Some(&caller), |_| None, &Method::GET, &path);
            if matches!(verdict, Verdict::Allow { .. }) {
                let seen = path.as_str().split('/').map(without_parameters).collect::<Vec<_>>().join("/");
                let seen = CanonicalPath::parse(&seen).unwrap();
                prop_assert!(seen.as_str().starts_with("/pub/"), "{path} is {seen} to the application");
            }
        }
    }
}
