//! What holds for every input whatsoever.

use hms_formats::{Source, convert, envoy_static, jwks, mesh_yaml, objects, render, route_yaml, routes_json, scenario};
use hms_model::finding::Finding;
use proptest::prelude::*;

fn nothing(_name: &str) -> Option<String> {
    None
}

/// Every translator on one text; the findings and what was read, as text.
fn everything(text: &str) -> (String, Vec<Finding>) {
    let source = Source::new("a.yaml", text);
    let one = std::slice::from_ref(&source);
    let (routes, mut findings) = route_yaml::translate(one);
    let (table, more) = routes_json::import(&source);
    findings.extend(more);
    let (keys, more) = jwks::parse(&source);
    findings.extend(more);
    let (mesh, more) = mesh_yaml::translate(Some(&source), None, None, &[], &nothing);
    findings.extend(more);
    let (beside, more) = mesh_yaml::translate(None, Some(&source), Some(&source), one, &nothing);
    findings.extend(more);
    let (standalone, more) = envoy_static::translate(&source);
    findings.extend(more);
    let (played, more) = scenario::translate(&source);
    findings.extend(more);
    let (led, more) = objects::translate(one);
    findings.extend(more);
    let converted = convert::to_gateway_api(&led).0;
    let envoy = (envoy_static::recognises(&source), objects::recognises(&source));
    let names = mesh_yaml::route_file_names(&source, &nothing);
    (
        format!(
            "{routes:?}{table:?}{keys:?}{mesh:?}{beside:?}{names:?}{standalone:?}{played:?}{envoy:?}{led:?}{converted}{}",
            render(&findings, true)
        ),
        findings,
    )
}

/// Pieces of the formats, put together at random: far more of these get past the parser than of plain noise.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("service: calc-svc\n"),
        Just("routes:\n"),
        Just("  - GET /sum/{a}/{b}\n"),
        Just("  - {match: GTE /x, rate_limit: 20/m}\n"),
        Just("rate_limit: "),
        Just("\"20 req/min\"\n"),
        Just("keep_alive: yes\n"),
        Just("services:\n"),
        Just("  calc-svc: {run: app, port: 8000, routes: [GET /x]}\n"),
        Just("  b:\n    retry: {retries: 3, on: [5xx], budget: 20%}\n"),
        Just("allow: [{from: gateway, to: \"*\"}]\n"),
        Just("gateway: {https: 8443, jwt: {issuer: dev}}\n"),
        Just("defaults: &d {timeout: 15s}\n"),
        Just("tracing: *d\n"),
        Just("version: ${X:-1}\n"),
        Just("duration: 10s\n"),
        Just("load:\n- {to: calc-svc, rps: 10, until: 5s}\n"),
        Just("events: [{at: 1s, service: calc-svc, fails: 50%, split: {v1: 1}}]\n"),
        Just("bounds: {calc-svc: {amplification: <= 1.25, fair: within 10%, p99: 3ms}}\n"),
        Just("static_resources:\n"),
        Just("  listeners:\n  - name: l\n    address: {socket_address: {address: 0.0.0.0, port_value: 80}}\n"),
        Just("    filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n"),
        Just("        typed_config: {httpFilters: [{name: envoy.filters.http.router}], route_config: \n"),
        Just(
            "            {virtual_hosts: [{name: v, domains: [a, \"*.b\"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}}\n"
        ),
        Just("  clusters: [{name: c, type: strict_dns, connect_timeout: 0.25s, load_assignment: {endpoints: []}}]\n"),
        Just("admin: {address: {socket_address: {address: ::, portValue: 0}}}\n"),
        Just(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: [a.b], ports: [{number: 1}]}\n"
        ),
        Just(
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: {config.linkerd.io/opaque-ports: \"1-9\"}}\nspec: {ports: [{port: 3}]}\n"
        ),
        Just(
            "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualRouter\nmetadata: {name: a}\nspec: {routes: [{name: a, httpRoute: \n"
        ),
        Just("    {match: {prefix: /a}, action: {weightedTargets: [{virtualNodeRef: {name: a}, weight: 1}]}}}]}\n"),
        Just(
            "apiVersion: appmesh.k8s.aws/v1beta2\nkind: VirtualService\nmetadata: {name: a}\nspec: {provider: {virtualRouter: {virtualRouterRef: {name: a}}}}\n"
        ),
        Just("{\"route\": {\"meshName\": \"m\", \"routeName\": \"r\", \"virtualRouterName\": \"v\", \"spec\": {}}}\n"),
        Just("Kind: service-router\nName: a\nRoutes: [{Match: {HTTP: {PathPrefix: /a}}, Destination: {Service: b}}]\n"),
        Just("Kind: service-splitter\nName: b\nSplits: [{Weight: 50, Service: a}, {Weight: 50, ServiceSubset: v1}]\n"),
        Just(
            "Kind: service-resolver\nName: a\nRedirect: {Service: b}\nSubsets: {v1: {Filter: Service.Meta.version == v1}}\n"
        ),
        Just("Kind = \"service-router\"\n"),
        Just("---\n"),
        Just("{\"keys\": [{\"kty\": \"RSA\"}]}"),
        Just("\t"),
        Just("\r"),
        Just("ä: [\u{202e}"),
        Just("]"),
        Just("}"),
        Just("- "),
        Just(": "),
        Just("\""),
        Just("|\n  x\n"),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_translator_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(source) = Source::from_bytes("a.yaml", &bytes) {
            everything(&source.text);
        }
    }

    #[test]
    fn no_text_makes_a_translator_panic(text in "\\PC{0,200}") {
        everything(&text);
    }

    #[test]
    fn the_same_input_gives_the_same_result_and_findings_point_into_it(text in pieces()) {
        let (first, findings) = everything(&text);
        prop_assert_eq!(&first, &everything(&text).0);
        let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap();
        for finding in findings {
            let place = finding.place.unwrap();
            prop_assert!(place.line <= lines && place.length >= 1, "{:?} in {:?}", place, text);
            prop_assert!(!finding.fix.is_empty() || !finding.severity.as_str().starts_with('e'), "{}", finding.message);
        }
    }

    #[test]
    fn exported_routes_read_back_as_they_were(
        count in 1..100_u32, burst in 1..100_u32, unit in prop::sample::select(vec!["s", "min", "h"]), same in any::<bool>(),
    ) {
        let second = if same { format!("{{rate: {count} req/{unit}, burst: {burst}}}") } else { "7/h".to_owned() };
        let text = format!(
            "service: calc-svc\nroutes:\n- GET /sum/{{a}}/{{b}}\n- {{match: /x/*, rate_limit: {second}}}\n\
             rate_limit: {{rate: {count} req/{unit}, burst: {burst}}}\nkeep_alive: {same}\n"
        );
        let (mut files, findings) = route_yaml::translate(&[Source::new("route.yaml", text)]);
        prop_assert_eq!(&findings, &vec![]);
        let (mut read, findings) = routes_json::import(&Source::new("routes.json", routes_json::export(&files)));
        prop_assert_eq!(&findings, &vec![]);
        for file in files.iter_mut().chain(&mut read) {
            file.route.rules.iter_mut().for_each(|rule| rule.origin.clear());
        }
        prop_assert_eq!(files, read);
    }
}

fn lines(numbers: std::ops::Range<u32>, line: impl Fn(u32) -> String) -> String {
    numbers.map(line).collect::<Vec<_>>().join("\n")
}

fn codes(text: &str) -> Vec<u16> {
    let (_, findings) = route_yaml::translate(&[Source::new("a.yaml", text)]);
    findings.iter().map(|finding| finding.code.0).collect()
}

#[test]
fn anchors_cannot_multiply_without_bound() {
    let bomb =
        lines(1..12, |level| format!("a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 9].join(", ")));
    let bomb = format!("a0: &a0 [x, x, x, x, x, x, x, x, x]\n{bomb}");
    assert_eq!(codes(&bomb), [2112]);
    let chain = lines(1..200, |n| format!("a{n}: &a{n} [*a{}]", n - 1));
    assert_eq!(codes(&format!("a0: &a0 [x]\n{chain}")), [2112]);
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 1000].join(", "));
    assert_eq!(codes(&long), [2112]);
}

#[test]
fn nesting_and_size_are_bounded() {
    assert_eq!(codes(&"[".repeat(10_000)), [2112]);
    assert_eq!(codes(&"- ".repeat(10_000)), [2112]);
    assert_eq!(codes(&"{a: ".repeat(10_000)), [2112]);
    assert_eq!(codes(&"x".repeat(1024 * 1024 + 1)), [2112]);
    assert_eq!(codes(&format!("[{}]", "a,".repeat(200_000))), [2112]);
}

#[test]
fn a_file_full_of_mistakes_is_read_in_bounded_time_and_still_refused() {
    let unknown = lines(0..40_000, |n| format!("key_{n}: 1"));
    let (_, findings) = route_yaml::translate(&[Source::new("a.yaml", unknown)]);
    assert_eq!(findings.len(), 201);
    assert!(findings.last().is_some_and(|last| last.is_error() && last.message.contains("further findings")));
    let routes = lines(0..900, |n| format!("- GTE /{n}"));
    let (files, findings) = route_yaml::translate(&[Source::new("a.yaml", format!("service: a\nroutes:\n{routes}"))]);
    assert_eq!((files.len(), findings.len()), (0, 201));
}

#[test]
fn names_of_route_files_are_known_before_they_are_read() {
    let mesh = Source::new(
        "shop/mesh.yaml",
        "services: {a: {routes: ./a/route.yaml}, b: {routes: [/x]}, c: {routes: ../c.json}}",
    );
    assert_eq!(mesh_yaml::route_file_names(&mesh, &nothing), ["shop/a/route.yaml", "c.json"]);
}

/// Few lines that stand for very much: every route has all shares of what it leads to, and every service all routes of its router.
#[test]
fn what_a_few_lines_stand_for_is_bounded() {
    const API: &str = "apiVersion: appmesh.k8s.aws/v1beta2\n";
    let shares = lines(0..32, |n| format!("- {{Weight: 3.12{}, Service: s{n}}}", u8::from(n < 16)));
    let routes = "- {Match: {HTTP: {PathPrefix: /a}}, Destination: {Service: all}}\n".repeat(30);
    let routers = lines(0..400, |n| format!("---\nKind: service-router\nName: r{n}\nRoutes:\n{routes}"));
    let chain = format!("Kind: service-splitter\nName: all\nSplits:\n{shares}\n{routers}");
    let targets = ["{virtualNodeRef: {name: n}, weight: 1}"; 10].join(", ");
    let route = format!("{{match: {{prefix: /a}}, action: {{weightedTargets: [{targets}]}}}}");
    let routes = lines(0..200, |n| format!("  - {{name: r{n}, httpRoute: {route}}}"));
    let services = lines(0..800, |n| {
        let provider = "{provider: {virtualRouter: {virtualRouterRef: {name: r}}}}";
        format!("---\n{API}kind: VirtualService\nmetadata: {{name: s{n}}}\nspec: {provider}")
    });
    let router = format!("{API}kind: VirtualRouter\nmetadata: {{name: r}}\nspec:\n  routes:\n{routes}\n{services}");
    for text in [chain, router] {
        let (read, findings) = objects::translate(&[Source::new("a.yaml", text)]);
        assert!(findings.iter().any(|finding| finding.is_error() && finding.code.0 == 2112), "{findings:#?}");
        assert!(read.routes.is_empty());
    }
}
