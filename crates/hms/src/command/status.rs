//! `hms status`, also `ps`: what runs, how it fares, and what needs a hand.

use serde_json::{Value, json};

use super::Context;
use super::check::finding_line;
use super::services::read;
use crate::cli::Format;
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::laptop::intercept::Capture;
use crate::laptop::ipc::UnitReport;
use crate::laptop::records;
use crate::laptop::supervise::all_units;
use crate::laptop::trust::GatewayRecord;
use crate::laptop::up::summary::words;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Tone};
use crate::views::{Egress, Items, OutsideHost, Service, Summary};

/// Hosts outside that are named.
const SHOWN: usize = 3;

pub(super) async fn run(context: Context<'_>) -> Result<Exit, Failure> {
    let project = context.project()?;
    for line in records::sweep(&project) {
        context.output.note(&line);
    }
    let client = context.client()?;
    let document: Value = client.get("/v1/services").await?;
    let summary: Value = client.get("/v1/summary").await?;
    let units: Vec<UnitReport> = all_units(&project).await.into_iter().map(|(_, unit)| unit).collect();
    let outside: Value = client.get("/v1/egress").await?;
    let whole = json!({"summary": summary, "items": document.get("items"), "egress": outside, "units": units});
    if context.output.document("Status", &whole) {
        return Ok(Exit::Ok);
    }
    let services: Items<Service> = read(document)?;
    let summary: Summary = read(summary)?;
    let outside: Egress = read(outside)?;
    let wide = context.output.format() == Format::Wide;
    if services.items.is_empty() {
        context.output.line("no services yet; next: hms register FILE, or hms run NAME -- CMD");
    } else {
        let now = jiff::Timestamp::now().as_second();
        context.output.table(&table(&services.items, &units, now, wide));
    }
    context.output.line("");
    context.output.line(&context.output.tint(Tone::Strong, "Health"));
    let lines = health(&services.items, &summary, &units, GatewayRecord::read(&project).as_ref());
    for (mark, line) in lines.into_iter().chain(egress(&outside)) {
        context.output.line(&format!("  {} {}", context.output.mark(mark), crate::output::clean(&line)));
    }
    Ok(Exit::Ok)
}

/// The table; `wide` adds where the proxy listens and how the program is captured.
fn table(services: &[Service], units: &[UnitReport], now: i64, wide: bool) -> Table {
    let mut headings = vec!["SERVICE", "VERSION", "STATE", "MTLS", "RETRIES", "BREAKER", "RPS", "SUCCESS", "P95", "UP"];
    if wide {
        headings.extend(["ADDRESS", "PROGRAM", "CAPTURE", "WHY"]);
    }
    let mut table = Table::new(&headings);
    for service in services {
        let name = service.display_name();
        let mine: Vec<&UnitReport> = units.iter().filter(|unit| unit.service == name).collect();
        let up = mine.iter().filter(|unit| unit.phase == "running").map(|unit| now.saturating_sub(unit.since)).max();
        let mut row = vec![
            name.as_str().into(),
            dash(&service.versions.join(",")).into(),
            Cell::text(&service.state).tone(state_tone(&service.state)),
            Cell::text(&service.mtls).tone(if service.mtls == "ON" { Tone::Good } else { Tone::Warn }),
            Cell::number(service.retries.to_string()),
            Cell::text(&service.breaker).tone(breaker_tone(&service.breaker)),
            Cell::number(format!("{:.1}", service.rps)),
            Cell::number(service.success.map_or_else(|| "–".to_owned(), |share| format!("{:.1}%", share * 100.0))),
            Cell::number(service.p95_ms.map_or_else(|| "–".to_owned(), |p95| format!("{p95:.1}ms"))),
            Cell::number(up.map_or_else(|| "–".to_owned(), span)),
        ];
        if wide {
            let addresses: Vec<&str> = service.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
            let programs: Vec<String> = service
                .endpoints
                .iter()
                .filter_map(|endpoint| endpoint.app_port.filter(|port| *port != 0))
                .map(|port| format!(":{port}"))
                .collect();
            row.push(dash(&addresses.join(",")).into());
            row.push(dash(&programs.join(",")).into());
            let (way, why) = captured(&mine);
            row.push(way.into());
            row.push(why.into());
        }
        table.row(row);
    }
    table
}

/// How a service's programs are captured, and why so.
fn captured(mine: &[&UnitReport]) -> (String, String) {
    let ways: Vec<&Capture> = mine.iter().filter_map(|unit| unit.capture.as_ref()).collect();
    let Some(first) = ways.first() else { return ("–".to_owned(), "not started by hms".to_owned()) };
    let mut names: Vec<&str> = ways.iter().map(|way| way.mode.as_str()).collect();
    names.dedup();
    let mut why = first.why.clone();
    if first.mode.is_private() {
        why.push_str("; UDP other than DNS is refused");
    }
    if !first.fix.is_empty() {
        why = format!("{why}; for a better one: {}", first.fix);
    }
    for port in mine.iter().filter_map(|unit| unit.publish) {
        why = format!("{why}; 127.0.0.1:{port} is published and bypasses the mesh");
    }
    (names.join(","), why)
}

/// What is well and what is not, worst last so it stays in sight.
fn health(
    services: &[Service],
    summary: &Summary,
    units: &[UnitReport],
    gateway: Option<&GatewayRecord>,
) -> Vec<(Mark, String)> {
    let mut lines = vec![(
        if summary.breaker == "CLOSED" && summary.mtls == "ON" { Mark::Ok } else { Mark::Warning },
        format!("{}   revision {}, {} proxies", words(summary), summary.revision, summary.proxies),
    )];
    match gateway {
        Some(gateway) => {
            let hosts = gateway.hosts.join(", ");
            lines.push((Mark::Ok, format!("gateway https://{hosts} at {}", gateway.https)));
        }
        None => lines.push((Mark::Warning, "no gateway runs here; next: hms up -d".to_owned())),
    }
    for service in services {
        let name = service.display_name();
        let unit = units.iter().find(|unit| unit.service == name);
        match (service.state.as_str(), unit) {
            ("healthy", _) | ("client", None) => {}
            ("client", Some(unit)) if matches!(unit.phase.as_str(), "running" | "starting") => {}
            // A name without routes and endpoints was a client; nobody waits for it.
            ("waiting", None) if service.routes.is_empty() => {}
            ("waiting", None) => lines.push((Mark::Warning, crate::laptop::up::waiting_hint(&name))),
            (_, Some(unit)) if unit.phase == "stopped" => {
                lines.push((Mark::Failed, format!("{name} was stopped; next: hms start {name}")));
            }
            (_, Some(unit)) if unit.phase == "exited" || unit.phase == "failed" => {
                let code = unit.exit_code.map(|code| format!(" with code {code}")).unwrap_or_default();
                let last = unit.last_lines.last().map(|line| format!(" ({line})")).unwrap_or_default();
                lines.push((Mark::Failed, format!("{name} ended{code}{last}; next: hms restart {name}")));
            }
            (state, _) => lines.push((Mark::Failed, format!("{name} is {state}; next: hms check --only services"))),
        }
    }
    for unit in units {
        if let Some(port) = unit.publish {
            let line = format!("{} is published at 127.0.0.1:{port}: calls there bypass the mesh", unit.service);
            lines.push((Mark::Warning, line));
        }
    }
    for finding in summary.findings.iter().filter_map(finding_from_json) {
        let mark = if finding.is_error() { Mark::Failed } else { Mark::Warning };
        lines.push((mark, finding_line(&finding)));
    }
    lines
}

/// What leaves the mesh and nobody listed, what was refused, and a gateway that is missing.
fn egress(egress: &Egress) -> Vec<(Mark, String)> {
    let mut lines = Vec::new();
    match (egress.through.as_str(), egress.gateways) {
        ("gateway", 0) => {
            let line = "calls leave the mesh through an egress gateway, and none runs; next: hms up -d";
            lines.push((Mark::Failed, line.to_owned()));
        }
        ("gateway", _) => lines.push((Mark::Ok, "calls leave the mesh through the egress gateway".to_owned())),
        _ => {}
    }
    let named = |what: &str, kept: &dyn Fn(&OutsideHost) -> bool| {
        let hosts: Vec<String> =
            egress.seen.iter().filter(|seen| kept(seen)).map(|seen| format!("{}:{}", seen.host, seen.port)).collect();
        let more = hosts.len().saturating_sub(SHOWN);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let shown = hosts.get(..SHOWN.min(hosts.len())).unwrap_or_default().join(", ");
        (!hosts.is_empty()).then(|| (Mark::Warning, format!("{what}: {shown}{more}; next: hms egress")))
    };
    lines.extend(named("called outside of the mesh, and not listed", &|seen| seen.label.is_none() && seen.allowed > 0));
    lines.extend(named("refused outside of the mesh", &|seen| seen.refused > 0));
    lines
}

/// The tone of a service's or endpoint's state.
pub(super) fn state_tone(state: &str) -> Tone {
    match state {
        "healthy" => Tone::Good,
        "unhealthy" => Tone::Bad,
        "client" => Tone::Plain,
        _ => Tone::Warn,
    }
}

/// Closed is green, half-open yellow, open red.
pub(super) fn breaker_tone(phase: &str) -> Tone {
    match phase {
        "CLOSED" => Tone::Good,
        "OPEN" => Tone::Bad,
        _ => Tone::Warn,
    }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

/// A span of seconds, in its two largest units: `45s`, `3m20s`, `5h02m`, `3d04h`.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Look;

    fn services() -> Vec<Service> {
        let items: Items<Service> = read(json!({"items": [
            {"name": "hello-svc", "namespace": "default", "state": "healthy", "versions": [], "mtls": "ON", "retries": 0,
             "breaker": "CLOSED", "rps": 2.12, "success": 1.0, "p95_ms": 1.84,
             "endpoints": [{"address": "127.0.0.1:41001", "app_port": 8000, "health": "healthy"}]},
            {"name": "calc-svc", "namespace": "default", "state": "unhealthy", "versions": ["v1", "v2"], "mtls": "ON",
             "retries": 12, "breaker": "OPEN", "rps": 0.0, "success": null, "p95_ms": null}]}))
        .unwrap();
        items.items
    }

    fn unit(service: &str, phase: &str) -> UnitReport {
        serde_json::from_value(json!({"service": service, "phase": phase, "version": null, "since": 1000, "app_pid": 1,
            "app_port": 8000, "exit_code": 1, "proxy_pid": 2, "inbound": null, "outbound": null, "upstreams": {},
            "log": "", "last_lines": ["ModuleNotFoundError: fastapi"], "command": "",
            "capture": {"mode": "netns", "why": "a network of its own, set up in 38 ms"}}))
        .unwrap()
    }

    #[test]
    fn the_table_has_the_promised_columns() {
        let units = [unit("hello-svc", "running")];
        insta::assert_snapshot!(table(&services(), &units, 1200, false).render(Look::PLAIN), @r"
        SERVICE    VERSION  STATE      MTLS  RETRIES  BREAKER  RPS  SUCCESS  P95    UP
        hello-svc  –        healthy    ON          0  CLOSED   2.1   100.0%  1.8ms  3m20s
        calc-svc   v1,v2    unhealthy  ON         12  OPEN     0.0        –      –      –
        ");
        insta::assert_snapshot!(table(&services(), &units, 1200, true).render(Look { unicode: false, ..Look::PLAIN }), @r"
        SERVICE    VERSION  STATE      MTLS  RETRIES  BREAKER  RPS  SUCCESS  P95    UP     ADDRESS          PROGRAM  CAPTURE  WHY
        hello-svc  -        healthy    ON          0  CLOSED   2.1   100.0%  1.8ms  3m20s  127.0.0.1:41001  :8000    netns    a network of its own, set up in 38 ms; UDP other than DNS is refused
        calc-svc   v1,v2    unhealthy  ON         12  OPEN     0.0        -      -      -  -                -        -        not started by hms
        ");
    }

    #[test]
    fn health_names_the_next_command() {
        let summary =
            Summary { mtls: "ON".into(), breaker: "OPEN".into(), revision: 42, proxies: 3, ..Summary::default() };
        let lines: Vec<String> = health(&services(), &summary, &[unit("calc-svc", "exited")], None)
            .into_iter()
            .map(|(mark, line)| format!("{mark:?} {line}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        Warning mTLS: ON, Retries: 0, Breaker: OPEN   revision 42, 3 proxies
        Warning no gateway runs here; next: hms up -d
        Failed calc-svc ended with code 1 (ModuleNotFoundError: fastapi); next: hms restart calc-svc
        ");
    }

    #[test]
    fn what_leaves_the_mesh_is_told_in_a_line_or_two() {
        let seen = |host: &str, label: Option<&str>, allowed: u64, refused: u64| {
            json!({"host": host, "port": 443,
            "label": label, "allowed": allowed, "refused": refused, "callers": ["a"]})
        };
        let rows =
            [seen("api.fema.gov", Some("fema"), 9, 0), seen("a.example", None, 1, 0), seen("b.example", None, 0, 2)];
        let text = |through: &str, gateways: u64, rows: &[Value]| {
            let view: Egress = read(json!({"through": through, "gateways": gateways, "seen": rows})).unwrap();
            let lines = egress(&view).into_iter().map(|(mark, line)| format!("{mark:?} {line}"));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(text("sidecar", 0, &[]), "", "nothing to say");
        insta::assert_snapshot!(text("gateway", 0, &rows), @r"
        Failed calls leave the mesh through an egress gateway, and none runs; next: hms up -d
        Warning called outside of the mesh, and not listed: a.example:443; next: hms egress
        Warning refused outside of the mesh: b.example:443; next: hms egress
        ");
        let many: Vec<Value> = ["a", "b", "c", "d", "e"].map(|host| seen(host, None, 1, 0)).into();
        insta::assert_snapshot!(text("gateway", 2, &many), @r"
        Ok calls leave the mesh through the egress gateway
        Warning called outside of the mesh, and not listed: a:443, b:443, c:443 and 2 more; next: hms egress
        ");
    }

    #[test]
    fn spans_keep_their_two_largest_units() {
        assert_eq!([5, 200, 18_130, 273_600].map(span), ["5s", "3m20s", "5h02m", "3d04h"]);
    }
}
