//! `hms egress`: what may leave the mesh, and which hosts outside were called.

use serde_json::Value;

use super::Context;
use super::services::read;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Tone};
use crate::views::Egress;

pub(super) async fn run(context: Context<'_>) -> Result<Exit, Failure> {
    let document: Value = context.client()?.get("/v1/egress").await?;
    if context.output.document("Egress", &document) {
        return Ok(Exit::Ok);
    }
    let egress: Egress = read(document)?;
    context.output.line(sentence(&egress.default));
    match (egress.through.as_str(), egress.gateways) {
        ("gateway", 0) => context.output.note(&format!(
            "{} calls leave through an egress gateway, and none runs, so nothing leaves; next: hms up -d",
            context.output.mark(Mark::Failed)
        )),
        ("gateway", 1) => context.output.line("through the egress gateway"),
        ("gateway", many) => context.output.line(&format!("through {many} egress gateways")),
        _ => {}
    }
    let rows = table(&egress);
    if egress.hosts.is_empty() && egress.seen.is_empty() {
        context.output.note("no host is listed, and none was called");
    } else {
        context.output.table(&rows);
    }
    Ok(Exit::Ok)
}

fn sentence(default: &str) -> &'static str {
    match default {
        "allow" => "egress allow: hosts that are not listed are let through, and stand here as unmanaged",
        "deny" => "egress deny: nothing leaves the mesh, not even what is listed",
        _ => "egress listed: hosts that are not listed are refused (HMS-3202)",
    }
}

/// One row for each host and port that was called, then those listed and not called yet.
fn table(egress: &Egress) -> Table {
    let mut table = Table::new(&["HOST", "PORT", "LISTED AS", "TLS", "ALLOWED", "REFUSED", "CALLED BY"]);
    let tls = |label: &str| {
        let listed = egress.hosts.iter().find(|host| host.label == label);
        if listed.is_some_and(|host| host.tls) { "origin" } else { "–" }
    };
    for seen in &egress.seen {
        let label = seen.label.as_deref();
        let listed = match label {
            Some(label) => Cell::text(label),
            None if seen.allowed > 0 => Cell::text("unmanaged").tone(Tone::Warn),
            None => Cell::text("–"),
        };
        table.row(vec![
            seen.host.as_str().into(),
            Cell::number(seen.port.to_string()),
            listed,
            label.map_or("–", tls).into(),
            Cell::number(seen.allowed.to_string()),
            Cell::number(seen.refused.to_string()),
            seen.callers.join(", ").into(),
        ]);
    }
    for host in &egress.hosts {
        if egress.seen.iter().any(|seen| seen.label.as_deref() == Some(&host.label)) {
            continue;
        }
        let ports: Vec<String> = host.ports.iter().map(ToString::to_string).collect();
        table.row(vec![
            host.host.as_str().into(),
            Cell::number(ports.join(",")),
            host.label.as_str().into(),
            tls(&host.label).into(),
            Cell::number("0"),
            Cell::number("0"),
            "–".into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Look;

    #[test]
    fn unmanaged_hosts_stand_beside_those_that_are_listed() {
        let egress: Egress = read(json!({"default": "allow",
            "hosts": [{"label": "fema", "host": "api.fema.gov", "ports": [443], "tls": true},
                      {"label": "irs", "host": "mef.irs.gov", "ports": [443], "tls": false}],
            "seen": [{"host": "api.fema.gov", "port": 80, "label": "fema", "allowed": 3, "refused": 0, "callers": ["sync"]},
                     {"host": "example.com", "port": 443, "label": null, "allowed": 2, "refused": 0, "callers": ["a", "b"]},
                     {"host": "192.0.2.1", "port": 22, "label": null, "allowed": 0, "refused": 1, "callers": ["a"]}]}))
        .unwrap();
        insta::assert_snapshot!(table(&egress).render(Look::PLAIN), @r"
        HOST          PORT  LISTED AS  TLS     ALLOWED  REFUSED  CALLED BY
        api.fema.gov    80  fema       origin        3        0  sync
        example.com    443  unmanaged  –             2        0  a, b
        192.0.2.1       22  –          –             0        1  a
        mef.irs.gov    443  irs        –             0        0  –
        ");
    }
}
