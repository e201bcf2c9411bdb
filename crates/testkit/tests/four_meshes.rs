//! One service's traffic as the users of Istio, Linkerd, Consul and App Mesh write it: whichever of them it was, the same requests go
//! the same way. The way is the mesh's own, without its sockets: what formats read, the mesh puts together, and the table of a caller
//! decides about.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use hms_formats::objects::{self, Objects};
use hms_formats::{Source, convert};
use hms_model::finding::Finding;
use hms_model::http_route::Bound;
use hms_model::mesh::{Assigned, Mesh, assemble};
use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::names::ServiceName;
use hms_model::resource::{Declaration, Resource};
use hms_model::split::Share;
use hms_traffic::http_route::{HttpTable, Whose};
use http::{HeaderName, HeaderValue, Method};

/// What a request comes to.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Who gets how many of a hundred.
    shares: BTreeMap<String, u32>,
    within: Option<Duration>,
    /// Tries after the first, and after which statuses.
    retries: Option<(u8, Vec<u16>)>,
}

fn outcome(shares: &[(&str, u32)], seconds: Option<u64>, retries: Option<(u8, &[u16])>) -> Outcome {
    Outcome {
        shares: shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect(),
        within: seconds.map(Duration::from_secs),
        retries: retries.map(|(tries, statuses)| (tries, statuses.to_vec())),
    }
}

fn read(file: &str) -> Objects {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/four_meshes").join(file);
    let source = Source::new(file, fs::read_to_string(path).unwrap());
    assert!(objects::recognises(&source), "{file}");
    let (objects, findings) = objects::translate(&[source]);
    let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.is_error()).collect();
    assert!(errors.is_empty(), "{file}: {errors:#?}");
    objects
}

fn mesh(objects: &Objects) -> Mesh {
    let services = ["payment", "payment-v1", "payment-v2", "reports", "shop"];
    let declared = services.map(|name| Resource::Declaration(Declaration::new(ServiceName::new(name).unwrap())));
    assemble(declared.into_iter().chain(objects.resources()).collect(), |_| Assigned::default()).0
}

fn head(method: &Method, path: &str, fields: &[(&'static str, &'static str)]) -> RequestHead {
    let mut all = Fields::default();
    for (name, value) in fields {
        all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    RequestHead {
        method: method.clone(),
        authority: Authority::parse("payment").unwrap(),
        path: CanonicalPath::parse(path).unwrap(),
        query: None,
        fields: all,
    }
}

fn asked(mesh: &Mesh, head: &RequestHead) -> Outcome {
    let (payment, caller) = (ServiceName::new("payment").unwrap(), ServiceName::new("shop").unwrap());
    let service = &mesh.services[&payment].service;
    let table = HttpTable::build(&service.http, Whose::Service { service: &payment, caller: &caller }).unwrap();
    let rule = &table.select(head, 80).unwrap().rule.rule;
    // What a rule leaves with the service is divided as the service is.
    let own: Vec<Share> = rule.backends.iter().map(|backend| backend.share.clone()).collect();
    let shares = if own.is_empty() { service.split.clone() } else { own };
    let all: u32 = shares.iter().map(|share| share.weight).sum();
    Outcome {
        shares: shares.iter().map(|share| (share.service.to_string(), share.weight * 100 / all)).collect(),
        within: rule.timeouts.request.map(|bound| match bound {
            Bound::After(time) => time,
            Bound::Lifted => Duration::MAX,
        }),
        retries: rule.retry.as_ref().filter(|retry| retry.on.status_5xx).map(|own| (own.retries, own.statuses.clone())),
    }
}

#[test]
fn the_same_traffic_in_the_words_of_four_meshes_goes_the_same_way() {
    let divided = || outcome(&[("payment-v1", 90), ("payment-v2", 10)], Some(5), Some((2, &[502, 503, 504])));
    let canary = || outcome(&[("payment-v2", 100)], None, None);
    let reports = || outcome(&[("reports", 100)], Some(30), None);
    for file in ["istio.yaml", "linkerd.yaml", "consul.yaml", "consul.json", "appmesh.yaml"] {
        let mesh = mesh(&read(file));
        let asked = |method: Method, path: &str, fields: &[(&'static str, &'static str)]| {
            asked(&mesh, &head(&method, path, fields))
        };
        assert_eq!(asked(Method::POST, "/pay/charge", &[]), divided(), "{file}");
        assert_eq!(asked(Method::GET, "/", &[]), divided(), "{file}");
        assert_eq!(asked(Method::POST, "/pay/charge", &[("x-canary", "1")]), canary(), "{file}");
        assert_eq!(asked(Method::GET, "/pay", &[("x-canary", "1")]), canary(), "{file}");
        assert_eq!(asked(Method::POST, "/pay/charge", &[("x-canary", "0")]), divided(), "{file}");
        assert_eq!(asked(Method::GET, "/elsewhere", &[("x-canary", "1")]), divided(), "{file}");
        assert_eq!(asked(Method::GET, "/reports/2026", &[]), reports(), "{file}");
        assert_eq!(asked(Method::PUT, "/reports/2026", &[]), divided(), "{file}");
        assert_eq!(asked(Method::GET, "/reportsold", &[]), divided(), "{file}");
    }
}

#[test]
fn converted_to_the_gateway_api_it_still_goes_the_same_way() {
    for file in ["istio.yaml", "linkerd.yaml", "consul.yaml", "consul.json", "appmesh.yaml"] {
        let first = read(file);
        let (text, _lost) = convert::to_gateway_api(&first);
        let (second, findings) = objects::translate(&[Source::new("converted.yaml", text.as_str())]);
        assert!(!findings.iter().any(Finding::is_error), "{file}: {findings:#?}\n{text}");
        let (first, second) = (mesh(&first), mesh(&second));
        for (method, path, fields) in [
            (Method::POST, "/pay/charge", &[][..]),
            (Method::POST, "/pay/charge", &[("x-canary", "1")][..]),
            (Method::GET, "/reports/2026", &[][..]),
            (Method::PUT, "/reports/2026", &[][..]),
        ] {
            let head = head(&method, path, fields);
            assert_eq!(asked(&first, &head), asked(&second, &head), "{file}: {method} {path}\n{text}");
        }
    }
}
