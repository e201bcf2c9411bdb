//! The REST API's answers, as far as people see them. Fields we do not show are kept by the JSON output, which passes the
//! documents on as they came.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A list answer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Items<T> {
    /// The items, in the server's order.
    pub(crate) items: Vec<T>,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Version {
    /// The release.
    #[serde(default)]
    pub(crate) version: String,
}

/// `GET /v1/summary`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// The project's trust domain.
    pub(crate) trust_domain: String,
    /// The revision of the store.
    pub(crate) revision: u64,
    /// Known services.
    pub(crate) services: u64,
    /// Those with a healthy endpoint.
    pub(crate) healthy: u64,
    /// Connected proxies.
    pub(crate) proxies: u64,
    /// ON, PARTIAL or OFF.
    pub(crate) mtls: String,
    /// Retries so far.
    pub(crate) retries: u64,
    /// CLOSED, HALF-OPEN or OPEN: the worst.
    pub(crate) breaker: String,
    /// How long the control plane has run.
    pub(crate) uptime_seconds: u64,
    /// The gateway's names.
    pub(crate) gateway: GatewayNames,
    /// The token issuer.
    pub(crate) jwt: Issuer,
    /// Complaints about the configuration.
    pub(crate) findings: Vec<serde_json::Value>,
}

/// The names the gateway answers to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayNames {
    /// Host names.
    pub(crate) hosts: Vec<String>,
}

/// The issuer of tokens the gateway accepts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Issuer {
    /// Its name.
    pub(crate) issuer: String,
}

/// One service of `GET /v1/services`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// healthy, unhealthy or waiting.
    pub(crate) state: String,
    /// Versions of its endpoints.
    pub(crate) versions: Vec<String>,
    /// ON or OFF.
    pub(crate) mtls: String,
    /// Retries so far.
    pub(crate) retries: u64,
    /// CLOSED, HALF-OPEN or OPEN.
    pub(crate) breaker: String,
    /// Requests per second, lately.
    pub(crate) rps: f64,
    /// Share of answers that were no 5xx, 0 to 1; unknown without traffic.
    pub(crate) success: Option<f64>,
    /// 95th percentile of the latency in milliseconds.
    pub(crate) p95_ms: Option<f64>,
    /// What it serves.
    pub(crate) routes: Vec<Route>,
    /// Who serves it.
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Service {
    /// Its name as people write it.
    pub(crate) fn display_name(&self) -> String {
        if self.namespace.is_empty() || self.namespace == hms_model::names::DEFAULT_NAMESPACE {
            self.name.clone()
        } else {
            format!("{}.{}", self.name, self.namespace)
        }
    }
}

/// One route of a service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Route {
    /// `GET /sum/{a}/{b}`.
    #[serde(rename = "match")]
    pub(crate) pattern: String,
    /// `20 req/min`.
    pub(crate) rate_limit: Option<String>,
    /// File and line.
    pub(crate) origin: Option<String>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Endpoint {
    /// Its id.
    pub(crate) id: String,
    /// Where its proxy, or itself, listens.
    pub(crate) address: String,
    /// Where the program listens.
    pub(crate) app_port: Option<u16>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// healthy, unhealthy, …
    pub(crate) health: String,
    /// Who registered it.
    pub(crate) source: String,
    /// Its identity; none for plain endpoints.
    pub(crate) identity: Option<String>,
}

/// One breaker of `GET /v1/breakers`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Breaker {
    /// The service it guards.
    pub(crate) service: String,
    /// CLOSED, HALF-OPEN or OPEN.
    pub(crate) phase: String,
    /// Why.
    pub(crate) reason: String,
    /// Milliseconds until the next probe.
    pub(crate) next_probe_ms: Option<u64>,
    /// Who sees it so.
    pub(crate) seen_by: Vec<Sight>,
}

/// `GET /v1/services/SVC/split`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Split {
    /// The service.
    pub(crate) service: String,
    /// The revision of the configuration.
    pub(crate) revision: u64,
    /// Who gets the calls.
    pub(crate) shares: Vec<Share>,
}

/// A part of the calls.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Share {
    /// The service that gets it.
    pub(crate) service: String,
    /// The version of it; none for every one.
    pub(crate) version: Option<String>,
    /// Its weight.
    pub(crate) weight: u32,
    /// The same in percent.
    pub(crate) percent: f64,
    /// How many endpoints it has.
    pub(crate) endpoints: u64,
}

/// `GET /v1/egress`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Egress {
    /// allow, listed or deny.
    pub(crate) default: String,
    /// sidecar or gateway.
    pub(crate) through: String,
    /// Egress gateways that are connected.
    pub(crate) gateways: u64,
    /// The hosts that are listed.
    pub(crate) hosts: Vec<ListedHost>,
    /// What was asked for.
    pub(crate) seen: Vec<OutsideHost>,
}

/// A listed host outside.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListedHost {
    /// What the mesh calls it.
    pub(crate) label: String,
    /// Its name or address.
    pub(crate) host: String,
    /// Its ports.
    pub(crate) ports: Vec<u16>,
    /// Whether the proxy begins TLS.
    pub(crate) tls: bool,
}

/// A host outside that was asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct OutsideHost {
    /// Its name or address.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// What the mesh calls it, if it is listed.
    pub(crate) label: Option<String>,
    /// Requests and connections let through.
    pub(crate) allowed: u64,
    /// Those refused.
    pub(crate) refused: u64,
    /// The callers.
    pub(crate) callers: Vec<String>,
}

/// A proxy's name as people know it: `gateway` of `gateway.hms-system/1`, `calc-svc` of `calc-svc/1`.
pub(crate) fn proxy_name(proxy: &str) -> &str {
    let service = proxy.split('/').next().unwrap_or(proxy);
    service.strip_suffix(".hms-system").unwrap_or(service)
}

/// What would become of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Why {
    pub(crate) passes: bool,
    pub(crate) steps: Vec<WhyStep>,
}

/// One decision about it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WhyStep {
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) text: String,
    pub(crate) origin: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) fix: Option<String>,
}

/// How a proxy dealt with a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Decision {
    pub(crate) proxy: String,
    pub(crate) direction: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) mtls: bool,
    pub(crate) route: String,
    pub(crate) status: u32,
    pub(crate) code: String,
    pub(crate) duration_us: u64,
    pub(crate) tries: Vec<Try>,
}

/// One try at one endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Try {
    pub(crate) endpoint: String,
    pub(crate) outcome: String,
    pub(crate) after_us: u32,
    pub(crate) took_us: u32,
    pub(crate) candidates: u32,
    pub(crate) endpoints: u32,
}

/// Which stamps are on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stamps {
    pub(crate) revision: u64,
    pub(crate) stamps: Vec<Stamp>,
}

/// One of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stamp {
    pub(crate) name: String,
    pub(crate) on: bool,
    pub(crate) does: String,
}

/// How one proxy sees a breaker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Sight {
    /// The proxy.
    pub(crate) proxy: String,
    /// CLOSED, HALF-OPEN or OPEN.
    pub(crate) phase: String,
    /// Its endpoints.
    pub(crate) endpoints: Vec<SeenEndpoint>,
}

/// How one proxy sees one endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SeenEndpoint {
    /// Its address.
    pub(crate) address: String,
    /// CLOSED, HALF-OPEN or OPEN.
    pub(crate) phase: String,
    /// Why.
    pub(crate) reason: String,
    /// Failures in a row.
    pub(crate) consecutive_failures: u32,
}

/// One certificate of `GET /v1/certificates`; times are Unix seconds here, RFC 3339 on the wire.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Certificate {
    /// The identity in it.
    pub(crate) identity: String,
    /// Its serial number, hex.
    pub(crate) serial: String,
    /// The proxy that holds it.
    pub(crate) proxy: String,
    /// Valid until.
    #[serde(deserialize_with = "unix_seconds")]
    pub(crate) not_after: i64,
    /// Renewed at.
    #[serde(deserialize_with = "unix_seconds")]
    pub(crate) rotates_at: i64,
    /// Failed renewals since the last success.
    pub(crate) failures: u32,
}

/// Reads a time of RFC 3339 as Unix seconds.
fn unix_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second).map_err(D::Error::custom)
}

/// One result of a rotation.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rotated {
    /// The identity.
    pub(crate) identity: String,
    /// The new serial number.
    pub(crate) serial: Option<String>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// One proxy of `GET /v1/proxies`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Proxy {
    /// Its id.
    pub(crate) id: String,
    /// sidecar or gateway.
    pub(crate) role: String,
    /// The service beside it; none for a client or a gateway.
    pub(crate) service: Option<String>,
    /// Its release.
    pub(crate) release: String,
    /// The revision it applied; none before the first.
    pub(crate) revision_acked: Option<u64>,
    /// What it refused.
    pub(crate) nacks: Vec<Nack>,
}

/// A resource a proxy refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Nack {
    /// The resource.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

/// One event of `GET /v1/tap/{service}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TapEvent {
    /// Unix microseconds.
    pub(crate) time_us: i64,
    /// inbound or outbound.
    pub(crate) direction: String,
    /// The calling service.
    pub(crate) source: String,
    /// The called service.
    pub(crate) destination: String,
    /// The method.
    pub(crate) method: String,
    /// The path as sent.
    pub(crate) path: String,
    /// The status.
    pub(crate) status: u16,
    /// How long it took, in microseconds.
    pub(crate) duration_us: u64,
    /// Whether the hop was mutually authenticated.
    pub(crate) mtls: bool,
    /// Which try this was, from 1.
    pub(crate) attempt: u32,
    /// The trace.
    pub(crate) trace_id: String,
    /// The refusal's code, if the mesh answered itself.
    pub(crate) code: String,
    /// Of a connection that nobody reads (method `TCP`): the port or host it was for.
    pub(crate) authority: String,
    /// Bytes towards its caller.
    pub(crate) bytes_sent: u64,
    /// Bytes of its caller.
    pub(crate) bytes_received: u64,
}

/// `POST /v1/jwt`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Token {
    /// The token.
    pub(crate) token: String,
}

/// `POST /v1/route-files` and `PUT /v1/mesh`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Applied {
    /// The services, in the order of the files.
    pub(crate) registered: Vec<String>,
    /// The revision of the configuration that has them.
    #[serde(default)]
    pub(crate) revision: u64,
    /// What is another now.
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
    /// Warnings.
    pub(crate) findings: Vec<serde_json::Value>,
}

/// What became of a resource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Change {
    /// added, changed or removed.
    #[serde(rename = "change")]
    pub(crate) what: String,
    /// declaration, route, split, …
    pub(crate) kind: String,
    /// Its namespace; mesh for what there is one of.
    pub(crate) namespace: String,
    /// Its name; mesh for what there is one of.
    pub(crate) name: String,
    /// What it was; only of a dry run.
    pub(crate) before: Option<serde_json::Value>,
    /// What it would be; only of a dry run.
    pub(crate) after: Option<serde_json::Value>,
}

/// One of `GET /v1/revisions`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Revision {
    /// Its number.
    #[serde(rename = "revision")]
    pub(crate) number: u64,
    /// When it began to hold (RFC 3339).
    pub(crate) time: String,
    /// Who made it.
    pub(crate) actor: String,
    /// What it changed; unknown for the oldest that is kept.
    pub(crate) changes: Option<Vec<Change>>,
}

/// One named text sent to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NamedText {
    /// The name as the person wrote it.
    pub(crate) name: String,
    /// The content.
    pub(crate) text: String,
}
