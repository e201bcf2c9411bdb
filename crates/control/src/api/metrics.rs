//! The control plane's own metrics, in Prometheus' text format (version 0.0.4).

use std::fmt::{self, Display, Write as _};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::listener::Role;
use hms_model::workload::Health;

use super::Context;
use super::table::Operation;

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/metrics", "metrics", "Metrics of the control plane, for Prometheus.", metrics)
            .open()
            .text(TYPE),
    ]
}

/// Metrics being written, line by line. Labels come from closed lists, so there are as many series as can be counted here.
struct Page(String);

impl Page {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        if writeln!(self.0, "{line}").is_err() {
            tracing::error!("cannot write a metric");
        }
    }

    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }

    fn labelled<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        self.metric(name, "gauge", help);
        for (word, value) in values {
            self.line(format_args!("{name}{{{label}=\"{word}\"}} {value}"));
        }
    }
}

async fn metrics(State(context): State<Context>) -> Response {
    let mut page = Page(String::with_capacity(4096));
    mesh(&mut page, &context);
    proxies(&mut page, &context);
    authority(&mut page, &context);
    ([(header::CONTENT_TYPE, HeaderValue::from_static(TYPE))], page.0).into_response()
}

fn mesh(page: &mut Page, context: &Context) {
    let view = context.parts().registry.view();
    let count = |health: Health| {
        let endpoints = view.mesh.services.values().flat_map(|service| service.endpoints.values());
        endpoints.filter(|endpoint| endpoint.health == health).count()
    };
    let healths = [Health::Healthy, Health::Unhealthy, Health::Draining];
    page.gauge("hms_control_services", "Services in the mesh.", view.mesh.services.len());
    page.labelled(
        "hms_control_endpoints",
        "Endpoints in the registry.",
        "health",
        healths.map(|health| (health.as_str(), count(health))),
    );
    page.gauge("hms_control_revision", "Newest revision shown.", view.revision);
    page.gauge("hms_control_findings", "Things people should know of the configuration.", view.findings.len());
    page.gauge("hms_control_uptime_seconds", "Seconds since the start.", context.0.started.elapsed().as_secs());
    page.gauge("hms_control_ready", "Whether the control plane serves.", u8::from(context.is_ready()));
}

fn proxies(page: &mut Page, context: &Context) {
    let proxies = context.parts().live.proxies();
    let revision = context.parts().registry.view().revision.0;
    let count = |role: Role| proxies.iter().filter(|proxy| proxy.hello.role == role).count();
    page.labelled(
        "hms_control_proxies",
        "Connected proxies.",
        "role",
        [Role::Sidecar, Role::Gateway, Role::Egress].map(|role| (role.as_str(), count(role))),
    );
    let behind = proxies.iter().filter(|proxy| proxy.acknowledged.is_none_or(|reached| reached < revision)).count();
    page.gauge("hms_control_proxies_behind", "Proxies that have not acknowledged the newest revision.", behind);
    let refused: usize = proxies.iter().map(|proxy| proxy.refused.len()).sum();
    page.gauge("hms_control_refused_resources", "Resources that proxies refuse at present.", refused);
    page.gauge("hms_control_subscribers", "Open discovery streams.", context.parts().live.subscribers());
}

fn authority(page: &mut Page, context: &Context) {
    let parts = context.parts();
    let now = parts.clock.now();
    let left = |end: SystemTime| end.duration_since(now).unwrap_or_default().as_secs();
    let forecast = parts.ca.forecast();
    page.counter("hms_control_ca_issued_total", "Workload certificates issued since the start.", parts.ca.issued());
    page.counter("hms_control_edge_issued_total", "Gateway certificates issued since the start.", parts.edge.issued());
    page.labelled(
        "hms_control_ca_expiry_seconds",
        "Seconds until an authority's own certificate ends.",
        "certificate",
        [("root", left(forecast.root)), ("issuer", left(forecast.issuer)), ("edge-root", left(parts.edge.not_after()))],
    );
}
