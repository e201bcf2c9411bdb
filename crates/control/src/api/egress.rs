//! What may leave the mesh, and what was asked for.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use hms_model::listener::Role;
use hms_model::policy::egress::Unlisted;
use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::table::Operation;
use crate::live::OutsideReport;

pub(super) fn operations() -> Vec<Operation> {
    let summary = "What may leave the mesh, and which hosts outside were asked for.";
    vec![Operation::new(Method::GET, "/v1/egress", "showEgress", summary, show).answers::<EgressView>(StatusCode::OK)]
}

/// What may leave the mesh.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Egress")]
struct EgressView {
    /// What becomes of hosts that are not listed: `allow`, `listed` (they are refused) or `deny` (so are those listed).
    default: &'static str,
    /// Which proxy calls them: the `sidecar` beside the caller, or an egress `gateway`.
    through: &'static str,
    /// Egress gateways that are connected.
    gateways: usize,
    /// The hosts that are listed.
    hosts: Vec<ListedView>,
    /// Hosts that were asked for since the proxies began. Those without a label are unmanaged.
    seen: Vec<SeenView>,
}

/// A listed host.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "EgressHost")]
struct ListedView {
    /// What the mesh calls it.
    label: String,
    /// Its name or address.
    host: String,
    /// Its ports.
    ports: Vec<u16>,
    /// Whether the proxy begins TLS to it for applications that speak in clear text.
    tls: bool,
}

/// A host that was asked for.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OutsideHost")]
struct SeenView {
    /// Its name, or its address where no name is known.
    host: String,
    /// The port.
    port: u16,
    /// What the mesh calls it; null when it is not listed.
    label: Option<String>,
    /// Requests and unread connections that were let through.
    allowed: u64,
    /// Those that were not.
    refused: u64,
    /// The callers.
    callers: BTreeSet<String>,
}

async fn show(State(context): State<Context>) -> Json<EgressView> {
    let view = context.parts().registry.view();
    let (egress, live) = (&view.mesh.egress, &context.parts().live);
    let hosts = egress.hosts.iter().map(|(label, host)| ListedView {
        label: label.to_string(),
        host: host.host.clone(),
        ports: host.ports.clone(),
        tls: host.tls.is_some(),
    });
    Json(EgressView {
        default: egress.unlisted.unwrap_or(Unlisted::Refused).as_str(),
        through: egress.through.as_str(),
        gateways: live.proxies().iter().filter(|proxy| proxy.hello.role == Role::Egress).count(),
        hosts: hosts.collect(),
        seen: together(live.outside()),
    })
}

/// One row for each host and port, whoever called. What an egress gateway let through was counted by its callers' proxies already;
/// what it refused had been let through by them.
fn together(reports: Vec<(Option<String>, OutsideReport)>) -> Vec<SeenView> {
    let mut seen: BTreeMap<(String, u16), SeenView> = BTreeMap::new();
    let (called, passed): (Vec<_>, Vec<_>) = reports.into_iter().partition(|(caller, _)| caller.is_some());
    for (caller, report) in called.into_iter().chain(passed) {
        let OutsideReport { host, port, label, allowed, refused } = report;
        let view = seen.entry((host.clone(), port)).or_insert_with(|| SeenView {
            host,
            port,
            label: None,
            allowed: 0,
            refused: 0,
            callers: BTreeSet::new(),
        });
        if !label.is_empty() {
            view.label = Some(label);
        }
        view.allowed = match &caller {
            Some(_) => view.allowed.saturating_add(allowed),
            None => view.allowed.saturating_sub(refused),
        };
        view.refused = view.refused.saturating_add(refused);
        view.callers.extend(caller);
    }
    seen.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_callers_asked_for_is_one_row() {
        let report = |label: &str, allowed| OutsideReport {
            host: "a.example".to_owned(),
            port: 443,
            label: label.to_owned(),
            allowed,
            refused: 1,
        };
        let seen = together(vec![
            (None, report("a", 4)),
            (Some("web".to_owned()), report("", 2)),
            (Some("batch".to_owned()), report("a", 3)),
        ]);
        let [row] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(
            (row.allowed, row.refused, row.label.as_deref()),
            (4, 3, Some("a")),
            "the gateway refused one of five"
        );
        assert_eq!(row.callers, ["batch".to_owned(), "web".to_owned()].into());
    }
}
