//! Every translator on whole files: `tests/golden/<format>/<case>/` holds the files, `out.txt` what comes of them.
//! `HMS_BLESS=1 cargo test -p hms-formats --test golden` writes `out.txt` anew; read the diff before you commit it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot read its own files has failed")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hms_formats::compose::{self, Joining};
use hms_formats::{
    Source, convert, envoy_static, jwks, lints, mesh_yaml, objects, render, route_yaml, routes_json, scenario,
};
use hms_model::finding::Finding;
use hms_model::http_route::{Actions, HttpRule, TimeoutOverlay};
use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;
use hms_model::resource::Resource;
use hms_model::spiffe::SpiffeId;
use hms_model::standalone::Standalone;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// The input files of a case, by their path within it. What cannot be decoded is a finding.
fn sources(case: &Path) -> (Vec<Source>, Vec<Finding>) {
    let (mut sources, mut findings, mut folders) = (Vec::new(), Vec::new(), vec![case.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("out.txt") {
                let name = path.strip_prefix(case).unwrap().to_str().unwrap();
                match Source::from_bytes(name, &fs::read(&path).unwrap()) {
                    Ok(source) => sources.push(source),
                    Err(finding) => findings.push(*finding),
                }
            }
        }
    }
    sources.sort_by(|left, right| left.name.cmp(&right.name));
    (sources, findings)
}

fn lookup(name: &str) -> Option<String> {
    match name {
        "GATEWAY_PORT" => Some("9443".to_owned()),
        "SECRET" => Some("hunter2".to_owned()),
        _ => None,
    }
}

fn identity(name: &ServiceName) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://test.hms/ns/{}/sa/{}", name.namespace(), name.name())).unwrap()
}

fn objects(sources: &[Source], out: &mut String) -> Vec<Finding> {
    for source in sources {
        assert!(objects::recognises(source), "{} holds objects", source.name);
    }
    let (objects, findings) = objects::translate(sources);
    for split in &objects.splits {
        writeln!(out, "{split:?}").unwrap();
    }
    for route in &objects.routes {
        writeln!(out, "route {} of {:?} for {:?}", route.name, route.parents, route.hosts).unwrap();
        for rule in &route.rules {
            describe_rule(out, rule);
        }
    }
    for (name, policies) in &objects.services {
        writeln!(out, "service {name}: {:?}", policies.overlay).unwrap();
        if let Some(protocol) = policies.protocol {
            writeln!(out, "  speaks {protocol}").unwrap();
        }
        for port in &policies.ports {
            writeln!(out, "  {port:?}").unwrap();
        }
        for rule in &policies.allow {
            writeln!(out, "  {rule:?}").unwrap();
        }
    }
    for (label, host) in &objects.egress {
        writeln!(out, "outside {label}: {host:?}").unwrap();
    }
    if !objects.hosts.is_empty() {
        writeln!(out, "the gateway answers for {:?}", objects.hosts).unwrap();
    }
    findings
}

fn table(source: &Source, out: &mut String) -> Vec<Finding> {
    let (files, findings) = routes_json::import(source);
    out.push_str(&routes_json::export(&files));
    findings
}

fn converted(sources: &[Source], out: &mut String) -> Vec<Finding> {
    let (objects, mut findings) = objects::translate(sources);
    let (text, lost) = convert::to_gateway_api(&objects);
    out.push_str(&text);
    findings.extend(lost);
    findings
}

/// What a rule says, without what it leaves alone.
fn describe_rule(out: &mut String, rule: &HttpRule) {
    let matches: Vec<String> = rule.matches.iter().map(ToString::to_string).collect();
    writeln!(out, "  rule {:?} at {}: {}", rule.name, rule.origin, matches.join(" or ")).unwrap();
    if rule.actions != Actions::default() {
        writeln!(out, "    {:?}", rule.actions).unwrap();
    }
    for backend in &rule.backends {
        writeln!(out, "    {backend:?}").unwrap();
    }
    if rule.timeouts != TimeoutOverlay::default() {
        writeln!(out, "    {:?}", rule.timeouts).unwrap();
    }
    if let Some(retry) = &rule.retry {
        writeln!(out, "    {retry:?}").unwrap();
    }
}

fn played(source: &Source, out: &mut String) -> Vec<Finding> {
    let (scenario, findings) = scenario::translate(source);
    if let Some(scenario) = scenario {
        writeln!(out, "{scenario:#?}").unwrap();
    }
    findings
}

/// What one case comes to, as text.
fn outcome(format: &str, case: &Path) -> String {
    let (sources, mut findings) = sources(case);
    let mut out = String::new();
    let mut said = match format {
        "route_yaml" => {
            let (files, findings) = route_yaml::translate(&sources);
            for file in files {
                writeln!(out, "{file:?}").unwrap();
            }
            findings
        }
        "convert" => converted(&sources, &mut out),
        "lints" => lints::look(&sources, &[]),
        "objects" => objects(&sources, &mut out),
        "routes_json" => sources.first().map(|source| table(source, &mut out)).unwrap_or_default(),
        "scenario" => sources.first().map(|source| played(source, &mut out)).unwrap_or_default(),
        "jwks" => match sources.first() {
            None => Vec::new(),
            Some(source) => {
                let (keys, findings) = jwks::parse(source);
                for key in keys {
                    writeln!(out, "{} {:?} {}", key.id, key.algorithm, key.jwk).unwrap();
                }
                findings
            }
        },
        "envoy_static" => match sources.first() {
            None => Vec::new(),
            Some(source) => {
                assert!(envoy_static::recognises(source) != case.ends_with("not_recognised"), "{}", case.display());
                let (standalone, findings) = envoy_static::translate(source);
                if let Some(standalone) = &standalone {
                    describe_static(&mut out, standalone);
                }
                findings
            }
        },
        "mesh_yaml" => {
            let special = ["mesh.yaml", "gateway.yaml", "mesh-config.yaml"];
            let [mesh, gateway, config] = special.map(|name| sources.iter().find(|source| source.name == name));
            let files: Vec<Source> =
                sources.iter().filter(|source| !special.contains(&source.name.as_str())).cloned().collect();
            let (file, findings) = mesh_yaml::translate(mesh, gateway, config, &files, &lookup);
            if !findings.iter().any(Finding::is_error) {
                describe(&mut out, &file);
            }
            findings
        }
        "compose" => {
            let file = sources.iter().find(|source| source.name == "compose.yaml").unwrap();
            let beside = sources.iter().find(|source| source.name == "mesh.yaml");
            assert!(compose::recognises(file) != case.ends_with("not_recognised"), "{}", case.display());
            let (mesh, mut findings) = mesh_yaml::translate(beside.or(Some(file)), None, None, &[], &lookup);
            let (containers, said) = compose::read(file, beside.map(|_| &mesh), &lookup);
            findings.extend(said);
            if !findings.iter().any(Finding::is_error) {
                describe(&mut out, &mesh);
                writeln!(out, "\n{}", containers.overriding(&mesh, &joining())).unwrap();
            }
            findings
        }
        other => panic!("no format {other}"),
    };
    findings.append(&mut said);
    let refused = if findings.iter().any(Finding::is_error) { "refused" } else { "taken" };
    format!("{refused}\n\n{out}\n{}", render(&findings, false))
}

fn joining() -> Joining {
    Joining {
        proxy: "/usr/local/bin/hms-proxy".to_owned(),
        folder: "/run/user/1000/hms/lab-1a2b3c4d/containers".to_owned(),
        control: "172.30.0.1:15012".to_owned(),
        trust_domain: "k3.hms".to_owned(),
        network: "hms-lab-1a2b3c4d".to_owned(),
        user: 1000,
    }
}

fn describe(out: &mut String, file: &mesh_yaml::MeshFile) {
    writeln!(out, "project {:?}\n{:?}\ntraces {:?}", file.project, file.gateway, file.traces).unwrap();
    for (name, service) in &file.services {
        let mesh_yaml::ServiceFile { dir, run, port, health, env, version, zone, .. } = service;
        writeln!(out, "{name}: dir {dir} run {run:?} port {port:?} version {version:?} zone {zone:?}").unwrap();
        writeln!(out, "  {health:?} env {env:?}").unwrap();
        for (version, file) in &service.versions {
            writeln!(out, "  beside {version}: {file:?}").unwrap();
        }
        let (ports, publish, way) = (&service.host_ports, service.publish, service.intercept);
        if !ports.is_empty() || publish.is_some() || way.is_some() {
            writeln!(out, "  intercept {way:?} host_ports {ports:?} publish {publish:?}").unwrap();
        }
    }
    for resource in file.resources(identity) {
        match &resource {
            Resource::Declaration(declaration) => {
                writeln!(out, "{}\n  {:?}", resource.key(), declaration.overlay).unwrap();
                writeln!(out, "  {:?}\n  {:?}", declaration.identities, declaration.authorization).unwrap();
                if !declaration.ports.is_empty() || declaration.protocol != AppProtocol::Detect {
                    writeln!(out, "  {:?} {:?}", declaration.protocol, declaration.ports).unwrap();
                }
            }
            _ => writeln!(out, "{}\n  {resource:?}", resource.key()).unwrap(),
        }
    }
}

fn describe_static(out: &mut String, standalone: &Standalone) {
    writeln!(out, "admin {:?}", standalone.admin).unwrap();
    for listener in &standalone.listeners {
        writeln!(out, "listener {} on {} port {:?}", listener.name, listener.address, listener.host_port).unwrap();
        for host in &listener.hosts {
            writeln!(out, "  host {} for {:?}", host.name, host.domains).unwrap();
            for route in &host.routes {
                writeln!(out, "    {} -> {} ({})", route.path, route.service, route.origin).unwrap();
                writeln!(out, "      {:?}\n      {:?}", route.policy.timeouts, route.policy.retry).unwrap();
            }
        }
    }
    for service in &standalone.services {
        writeln!(out, "service {} {:?} {:?}", service.name, service.protocol, service.policy.balance).unwrap();
        writeln!(out, "  {:?} {:?}", service.policy.timeouts.connect, service.policy.limits).unwrap();
        for target in &service.targets {
            writeln!(out, "  {target:?}").unwrap();
        }
    }
}

#[test]
fn every_case_comes_to_what_is_written_beside_it() {
    let bless = std::env::var_os("HMS_BLESS").is_some();
    let (mut cases, mut broken, mut different) = (0, 0, Vec::new());
    for format in entries(&root()) {
        for case in entries(&format) {
            let name = format.file_name().unwrap().to_str().unwrap();
            let actual = outcome(name, &case);
            assert_eq!(actual, outcome(name, &case), "{} is not translated the same way twice", case.display());
            let expected = case.join("out.txt");
            cases += 1;
            broken += usize::from(actual.starts_with("refused"));
            if bless {
                fs::write(expected, actual).unwrap();
            } else if fs::read_to_string(&expected).unwrap_or_default() != actual {
                different.push(format!("{}:\n{actual}", case.display()));
            }
        }
    }
    assert!(different.is_empty(), "HMS_BLESS=1 writes these:\n{}", different.join("\n"));
    assert!(cases >= 60 && broken >= 50, "{cases} cases, {broken} broken inputs");
}

#[test]
fn every_refusal_has_a_place_a_fix_and_a_known_code() {
    const CODES: [u16; 30] = [
        2101, 2102, 2103, 2104, 2105, 2106, 2107, 2110, 2111, 2112, 2113, 2120, 2130, 2131, 2132, 2133, 2134, 2140,
        2141, 2142, 2150, 2160, 2161, 2162, 2163, 2170, 2171, 2172, 2173, 2175,
    ];
    for format in entries(&root()) {
        for case in entries(&format) {
            let (sources, undecoded) = sources(&case);
            let name = format.file_name().unwrap().to_str().unwrap();
            let findings = match name {
                "route_yaml" => route_yaml::translate(&sources).1,
                "routes_json" => sources.first().map(|source| routes_json::import(source).1).unwrap_or_default(),
                "jwks" => sources.first().map(|source| jwks::parse(source).1).unwrap_or_default(),
                "compose" => sources.first().map(|source| compose::read(source, None, &lookup).1).unwrap_or_default(),
                "lints" => lints::look(&sources, &[]),
                "objects" | "convert" => objects::translate(&sources).1,
                "envoy_static" => sources.first().map(|source| envoy_static::translate(source).1).unwrap_or_default(),
                _ => mesh_yaml::translate(sources.first(), None, None, &[], &lookup).1,
            };
            for finding in undecoded.iter().chain(&findings) {
                assert!(CODES.contains(&finding.code.0), "{}: {finding}", case.display());
                let mends = !finding.fix.is_empty()
                    || (["objects", "convert"].contains(&name) && !finding.is_error() && !finding.why.is_empty());
                assert!(finding.place.is_some() && mends, "{}: {finding}", case.display());
                assert!(!finding.message.contains("hunter2") && !finding.why.contains("hunter2"), "{finding}");
            }
        }
    }
}
