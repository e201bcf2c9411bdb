//! The questions of `hms check`, one function per group.

use std::sync::Arc;
use std::time::Duration;

use hms_model::finding::Finding;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::Context;
use super::super::status::span;
use super::Item;
use crate::client::Client;
use crate::failure::finding_from_json;
use crate::laptop::sidecar::find_program;
use crate::laptop::supervise::all_units;
use crate::laptop::trust::GatewayRecord;
use crate::laptop::{ipc::UnitReport, records, up};
use crate::project::Project;
use crate::views::{Certificate, Items, Proxy, Service, Summary, proxy_name};

/// Less than this much of a certificate's life is worth a warning.
const LITTLE_LEFT: i64 = 3600;
/// Longest wait for the gateway's handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// The proxy's program, and what crashed processes left.
pub(super) fn laptop(context: Context<'_>, project: &Project) -> Vec<Item> {
    let mut items = vec![match find_program(context.settings) {
        Ok(path) => Item::ok(format!("hms-proxy {}", path.display())),
        Err(failure) => Item::of_failure("hms-proxy", &failure),
    }];
    for line in records::sweep(project) {
        items.push(Item::warning(line).because("its process ended without cleaning up; now cleaned"));
    }
    items.push(Item::ok(format!("capture env ({} living supervisors)", records::living(project).len())));
    items
}

/// Reachable, serving, every proxy in step.
pub(super) async fn control_plane(client: &Client) -> Vec<Item> {
    let begun = Instant::now();
    let mut items = Vec::new();
    match client.text("/healthz/ready").await {
        Ok(word) if word.trim() == "SERVING" => {
            let took = begun.elapsed().as_millis();
            items.push(Item::ok(format!("reachable {} SERVING ({took}ms)", client.address())));
        }
        Ok(word) => items
            .push(Item::failed(format!("{} answers `{}`", client.address(), word.trim())).fix("hms down && hms up -d")),
        Err(failure) => return vec![Item::of_failure("not reachable", &failure)],
    }
    let proxies: Items<Proxy> = match client.get("/v1/proxies").await {
        Ok(proxies) => proxies,
        Err(failure) => return vec![Item::of_failure("proxies", &failure)],
    };
    let own = env!("CARGO_PKG_VERSION");
    let refusing: Vec<&Proxy> = proxies.items.iter().filter(|proxy| !proxy.nacks.is_empty()).collect();
    let revision = proxies.items.iter().filter_map(|proxy| proxy.revision_acked).max();
    let revision = revision.map(|revision| format!(" (revision {revision})")).unwrap_or_default();
    items.push(Item::ok(format!(
        "{}/{} proxies took what they were sent{revision}",
        proxies.items.len() - refusing.len(),
        proxies.items.len()
    )));
    for proxy in refusing {
        let why: Vec<String> = proxy.nacks.iter().map(|nack| format!("{}: {}", nack.name, nack.reason)).collect();
        items.push(
            Item::failed(format!("{} {} refused part of its configuration", proxy.role, proxy_name(&proxy.id)))
                .because(why.join("; ")),
        );
    }
    for proxy in proxies.items.iter().filter(|proxy| !proxy.release.is_empty() && proxy.release != own) {
        items.push(
            Item::warning(format!("{} {} is release {}", proxy.role, proxy_name(&proxy.id), proxy.release))
                .because(format!("this is release {own}"))
                .fix("hms down && hms up -d"),
        );
    }
    items
}

/// Nothing expired, nothing late.
pub(super) async fn certificates(client: &Client) -> Vec<Item> {
    let certificates: Items<Certificate> = match client.get("/v1/certificates").await {
        Ok(certificates) => certificates,
        Err(failure) => return vec![Item::of_failure("certificates", &failure)],
    };
    let now = jiff::Timestamp::now().as_second();
    let mut items = Vec::new();
    let least = certificates.items.iter().map(|certificate| certificate.not_after.saturating_sub(now)).min();
    let next = certificates.items.iter().map(|certificate| certificate.rotates_at.saturating_sub(now)).min();
    match (least, next) {
        (Some(least), Some(next)) => items.push(Item::ok(format!(
            "{} workloads, least {} left, next rotation in {}",
            certificates.items.len(),
            span(least),
            span(next)
        ))),
        _ => items.push(Item::ok("no proxy holds a certificate yet")),
    }
    for certificate in &certificates.items {
        let left = certificate.not_after.saturating_sub(now);
        let fix = "hms certificates rotate";
        if left <= 0 {
            items.push(Item::failed(format!("{} expired {} ago", certificate.identity, span(-left))).fix(fix));
        } else if certificate.failures > 0 {
            let text =
                format!("{}: {} renewals failed, {} left", certificate.identity, certificate.failures, span(left));
            items.push(Item::failed(text).because("the proxy keeps trying; the old one stays in use").fix(fix));
        } else if left < LITTLE_LEFT && certificate.rotates_at < now {
            items.push(Item::warning(format!("{} is overdue, {} left", certificate.identity, span(left))).fix(fix));
        }
    }
    items
}

/// Every service has a healthy endpoint and a closed breaker.
pub(super) async fn services(project: &Project, client: &Client) -> Vec<Item> {
    let services: Items<Service> = match client.get("/v1/services").await {
        Ok(services) => services,
        Err(failure) => return vec![Item::of_failure("services", &failure)],
    };
    if services.items.is_empty() {
        return vec![Item::ok("none yet")];
    }
    let units: Vec<UnitReport> = all_units(project).await.into_iter().map(|(_, unit)| unit).collect();
    services.items.iter().map(|service| judge(service, &units)).collect()
}

/// What is to be said about one service.
fn judge(service: &Service, units: &[UnitReport]) -> Item {
    let name = service.display_name();
    let unit = units.iter().find(|unit| unit.service == name);
    if service.state == "healthy" {
        return match service.breaker.as_str() {
            "OPEN" | "HALF-OPEN" => Item::warning(format!("{name}: breaker {}", service.breaker))
                .because("callers saw it fail lately")
                .fix(format!("hms breaker show {name}")),
            _ => Item::ok(name),
        };
    }
    let runs = |unit: &UnitReport| matches!(unit.phase.as_str(), "running" | "starting");
    if service.state == "client" && unit.is_none_or(runs) {
        return Item::ok(format!("{name} (client)"));
    }
    let text = format!("{name}: no healthy instance ({} registered)", service.endpoints.len());
    match unit {
        // It was a client; nobody waits for it.
        None if service.endpoints.is_empty() && service.routes.is_empty() => Item::ok(format!("{name} (client)")),
        None if service.endpoints.is_empty() => Item::warning(format!("{name}: nothing runs"))
            .because("its routes are registered, no program is")
            .fix(up::waiting_hint(&name).trim_start_matches("waiting: ")),
        None => Item::failed(text).because(format!("{}, not started by hms on this laptop", service.state)),
        Some(unit) => {
            let (why, verb) = match (unit.phase.as_str(), unit.exit_code) {
                ("stopped", _) => ("somebody stopped it".to_owned(), "start"),
                (_, Some(code)) => (format!("its program ended with code {code}"), "restart"),
                ("starting", _) => {
                    (format!("nothing listens on 127.0.0.1:{} yet", unit.app_port.unwrap_or_default()), "restart")
                }
                _ => ("its program runs, but its proxy finds it unhealthy".to_owned(), "restart"),
            };
            let log = unit.last_lines.last().cloned().unwrap_or_else(|| unit.log.clone());
            Item::failed(text).because(why).fix(format!("hms {verb} {name}")).log(log)
        }
    }
}

/// Listening, with a certificate that the user's own authority signed, and able to check tokens.
pub(super) async fn gateway(project: &Project, client: &Client) -> Vec<Item> {
    let Some(gateway) = GatewayRecord::read(project) else {
        return vec![Item::failed("none runs here").because("no supervisor announced one").fix("hms up -d")];
    };
    let host = gateway.hosts.first().cloned().unwrap_or_else(|| "gateway.local".to_owned());
    let mut items = Vec::new();
    let root = client.text("/v1/ca/edge").await;
    let shown = match root {
        Ok(root) => handshake(&gateway, &host, &root).await,
        Err(failure) => Err(failure.to_string()),
    };
    items.push(match shown {
        Ok(()) => Item::ok(format!("https://{host} at {} trusted", gateway.https)),
        Err(why) => {
            Item::failed(format!("https://{host} at {}", gateway.https)).because(why).fix("hms down && hms up -d")
        }
    });
    let summary: Summary = client.get("/v1/summary").await.unwrap_or_default();
    items.push(if summary.jwt.issuer.is_empty() {
        Item::warning("no token issuer").because("every call through the gateway will be a 401")
    } else {
        Item::ok(format!("tokens of {}", summary.jwt.issuer))
    });
    items
}

/// A handshake as a client would make it.
async fn handshake(gateway: &GatewayRecord, host: &str, root: &str) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(root.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("the edge authority's certificate: {error:?}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connect = async {
        let stream = TcpStream::connect(gateway.https).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    match tokio::time::timeout(HANDSHAKE, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no handshake within {} s", HANDSHAKE.as_secs())),
    }
}

/// A finding on one line, with where it is.
pub(in super::super) fn finding_line(finding: &Finding) -> String {
    let at = finding.place.as_ref().map(|place| format!(" ({}:{})", place.file, place.line)).unwrap_or_default();
    format!("{} {}{at}", finding.code, finding.message)
}

/// What the control plane says about the configuration it holds.
pub(super) async fn configuration(client: &Client) -> Vec<Item> {
    let summary: Summary = match client.get("/v1/summary").await {
        Ok(summary) => summary,
        Err(failure) => return vec![Item::of_failure("configuration", &failure)],
    };
    let findings: Vec<_> = summary.findings.iter().filter_map(finding_from_json).collect();
    if findings.is_empty() {
        return vec![Item::ok(format!("revision {}, no findings", summary.revision))];
    }
    findings
        .into_iter()
        .map(|finding| {
            let text = finding_line(&finding);
            let item = if finding.is_error() { Item::failed(text) } else { Item::warning(text) };
            let fix = if finding.fix.is_empty() { format!("hms explain {}", finding.code) } else { finding.fix };
            item.because(finding.why).fix(fix)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Mark;

    fn service(state: &str, breaker: &str, endpoints: usize) -> Service {
        let endpoints: Vec<_> = (0..endpoints).map(|n| json!({"id": n.to_string()})).collect();
        serde_json::from_value(json!({"name": "calc-svc", "state": state, "breaker": breaker, "endpoints": endpoints,
            "routes": [{"match": "GET /sum"}]}))
        .unwrap()
    }

    fn unit(phase: &str, code: Option<u8>) -> UnitReport {
        serde_json::from_value(json!({"service": "calc-svc", "phase": phase, "version": null, "since": 0, "app_pid": 1,
            "app_port": 8000, "exit_code": code, "proxy_pid": 2, "inbound": null, "outbound": null, "upstreams": {},
            "log": "", "last_lines": ["ModuleNotFoundError: fastapi"], "command": ""}))
        .unwrap()
    }

    #[test]
    fn a_service_is_judged_by_what_is_known_of_its_program() {
        assert_eq!(judge(&service("healthy", "CLOSED", 1), &[]).mark, Mark::Ok);
        assert_eq!(judge(&service("healthy", "HALF-OPEN", 1), &[]).mark, Mark::Warning);
        assert_eq!(
            judge(&service("waiting", "OPEN", 0), &[]).fix,
            "hms run calc-svc -p 8000 -- uvicorn app:app --port 8000"
        );
        let ended = judge(&service("unhealthy", "OPEN", 1), &[unit("exited", Some(1))]);
        assert_eq!((ended.fix.as_str(), ended.log.as_str()), ("hms restart calc-svc", "ModuleNotFoundError: fastapi"));
        assert_eq!(judge(&service("unhealthy", "OPEN", 1), &[unit("stopped", None)]).fix, "hms start calc-svc");
    }
}
