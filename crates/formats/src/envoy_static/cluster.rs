//! Clusters: services that stand in the file with their endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use hms_model::names::ServiceName;
use hms_model::policy::{Algorithm, TrafficPolicy};
use hms_model::standalone::{Family, StaticProtocol, StaticService, StaticTarget, Take, TargetHost};
use hms_model::workload::Health;

use super::endpoint;
use super::shape::{GUARD, LEAVE_OUT, Not, Shape, Typed, differs, not_here};
use super::words::{self, LONGEST};
use crate::document::short;
use crate::read::scalar::words as in_words;
use crate::read::{Field, Reader, Table};

/// Envoy asks for a name again after so long.
const REFRESH: Duration = Duration::from_secs(5);
const PROBED: &str = "leave it out: an endpoint that fails three times is left out for 30 s and probed";

const CLUSTER: Shape = Shape::new(
    &[
        "name",
        "type",
        "connect_timeout",
        "lb_policy",
        "load_assignment",
        "circuit_breakers",
        "dns_lookup_family",
        "dns_refresh_rate",
        "respect_dns_ttl",
        "http2_protocol_options",
        "typed_extension_protocol_options",
        "transport_socket",
    ],
    &[
        ("alt_stat_name", Not::Needed),
        ("metadata", Not::Needed),
        ("hosts", Not::New("write load_assignment with endpoints")),
        ("tls_context", Not::New("write transport_socket with an UpstreamTlsContext")),
        ("http_protocol_options", Not::Here("leave it out; HTTP/1.1 needs none")),
        ("common_http_protocol_options", Not::Here(LEAVE_OUT)),
        ("upstream_http_protocol_options", Not::Here(LEAVE_OUT)),
        ("protocol_selection", Not::New("write typed_extension_protocol_options")),
        ("eds_cluster_config", Not::Here("write load_assignment: there is no control plane to ask")),
        ("cluster_type", Not::Here("write type: STRICT_DNS, LOGICAL_DNS or STATIC")),
        ("health_checks", Not::Here(PROBED)),
        ("outlier_detection", Not::Here(PROBED)),
        ("load_balancing_policy", Not::Here("write lb_policy: ROUND_ROBIN, LEAST_REQUEST or RANDOM")),
        ("lb_subset_config", Not::Here(LEAVE_OUT)),
        ("ring_hash_lb_config", Not::Here(LEAVE_OUT)),
        ("maglev_lb_config", Not::Here(LEAVE_OUT)),
        ("least_request_lb_config", Not::Here("leave it out; two endpoints are compared")),
        ("round_robin_lb_config", Not::Here(LEAVE_OUT)),
        ("original_dst_lb_config", Not::Here(LEAVE_OUT)),
        ("common_lb_config", Not::Here(LEAVE_OUT)),
        ("transport_socket_matches", Not::Safe(GUARD)),
        ("upstream_bind_config", Not::Here(LEAVE_OUT)),
        ("upstream_connection_options", Not::Here("leave it out; an idle connection is kept 4 s")),
        ("per_connection_buffer_limit_bytes", Not::Here(LEAVE_OUT)),
        ("max_requests_per_connection", Not::Here(LEAVE_OUT)),
        ("dns_failure_refresh_rate", Not::Here("leave it out; a failed lookup is repeated like any other")),
        ("dns_resolvers", Not::New("leave it out; names are asked for as this machine does, see /etc/resolv.conf")),
        ("dns_resolution_config", Not::New("leave it out; names are asked for as this machine does")),
        ("typed_dns_resolver_config", Not::Here("leave it out; names are asked for as this machine does")),
        ("dns_jitter", Not::Needed),
        ("use_tcp_for_dns_lookups", Not::Here(LEAVE_OUT)),
        ("wait_for_warm_on_init", Not::Here("leave it out; the proxy waits at most 5 s for the first answers")),
        ("cleanup_interval", Not::Needed),
        ("close_connections_on_host_health_failure", Not::Here(LEAVE_OUT)),
        ("ignore_health_on_host_removal", Not::Here(LEAVE_OUT)),
        ("filters", Not::Here(LEAVE_OUT)),
        ("lrs_server", Not::Here(LEAVE_OUT)),
        ("lrs_report_endpoint_metrics", Not::Here(LEAVE_OUT)),
        ("track_timeout_budgets", Not::Here(LEAVE_OUT)),
        ("track_cluster_stats", Not::Here(LEAVE_OUT)),
        ("upstream_config", Not::Here(LEAVE_OUT)),
        ("preconnect_policy", Not::Here(LEAVE_OUT)),
        ("connection_pool_per_downstream_connection", Not::Here(LEAVE_OUT)),
        ("config_source_authority", Not::Here(LEAVE_OUT)),
    ],
);
const BREAKERS: Shape = Shape::new(&["thresholds"], &[("per_host_thresholds", Not::Here(LEAVE_OUT))]);
const THRESHOLDS: Shape = Shape::new(
    &["priority", "max_connections", "max_requests", "max_pending_requests"],
    &[
        ("max_retries", Not::Here("leave it out; retries are at most a fifth of the requests")),
        ("retry_budget", Not::Here("leave it out; retries are at most a fifth of the requests")),
        ("track_remaining", Not::Needed),
        ("max_connection_pools", Not::Here(LEAVE_OUT)),
    ],
);
const BOUNDED: Not = Not::Here("leave it out; streams and windows are bounded");
const HTTP2: Shape = Shape::new(
    &[],
    &[
        ("max_concurrent_streams", BOUNDED),
        ("initial_stream_window_size", BOUNDED),
        ("initial_connection_window_size", BOUNDED),
        ("hpack_table_size", BOUNDED),
        ("max_outbound_frames", BOUNDED),
        ("max_outbound_control_frames", BOUNDED),
        ("connection_keepalive", Not::Here(LEAVE_OUT)),
        ("allow_connect", Not::Here(LEAVE_OUT)),
        ("allow_metadata", Not::Here(LEAVE_OUT)),
    ],
);
const PROTOCOLS: Shape = Shape::new(
    &["@type", "explicit_http_config"],
    &[
        ("use_downstream_protocol_config", Not::Here("write explicit_http_config")),
        ("auto_config", Not::Here("write explicit_http_config; it needs TLS to choose")),
        ("common_http_protocol_options", Not::Here(LEAVE_OUT)),
        ("upstream_http_protocol_options", Not::Here(LEAVE_OUT)),
        ("http_filters", Not::Here(LEAVE_OUT)),
        ("header_validation_config", Not::Here("leave it out; heads are read strictly")),
        ("retry_policy", Not::Here("write it into the route")),
    ],
);
const EXPLICIT: Shape = Shape::new(
    &["http_protocol_options", "http2_protocol_options"],
    &[("http3_protocol_options", Not::Here("write http2_protocol_options: {}"))],
);
const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How endpoints are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Discovery {
    Static,
    Dns(Take),
}

/// One cluster; `None` without a usable name or with mistakes that leave nothing of it.
pub(super) fn read(reader: &mut Reader<'_>, item: &Field<'_>) -> Option<(String, StaticService)> {
    let table = CLUSTER.read(reader, item.node, &item.path)?;
    let name = reader.need(&table, "name", "name: tariff_cluster").cloned();
    let name = name.and_then(|field| Some((reader.line(&field, "a cluster's name", 256)?, field)));
    let discovery = table.field("type").map_or(Some(Discovery::Static), |field| discovery(reader, field));
    if let Some(field) = table.field("transport_socket") {
        super::tls::upstream(reader, field);
    }
    let policy = policy(reader, &table);
    let protocol = protocol(reader, &table);
    let (family, every) = lookups(reader, &table, discovery);
    let example = "load_assignment: { cluster_name: …, endpoints: … }";
    let assignment = reader.need(&table, "load_assignment", example).cloned();
    let targets = assignment.map(|field| {
        let how = endpoint::How { discovery: discovery.unwrap_or(Discovery::Static), family, every };
        endpoint::targets(reader, &field, how, name.as_ref().map(|(name, _)| *name))
    });
    let (name, at) = name?;
    let service = service_name(reader, name, &at)?;
    let targets = targets.unwrap_or_default();
    Some((name.to_owned(), StaticService { name: service, policy, protocol, targets }))
}

fn discovery(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Discovery> {
    let found = words::word(
        reader,
        field,
        &[
            ("STATIC", Ok(Discovery::Static)),
            ("STRICT_DNS", Ok(Discovery::Dns(Take::All))),
            ("LOGICAL_DNS", Ok(Discovery::Dns(Take::First))),
            ("EDS", Err("there is no control plane to ask for endpoints; write type: STRICT_DNS with load_assignment")),
            ("ORIGINAL_DST", Err("write the endpoints into load_assignment")),
        ],
    )?;
    match found {
        Ok(discovery) => Some(discovery),
        Err(fix) => {
            let what = format!("`{}`: {}", field.path, reader.shown(field.node));
            reader.report(field.node.span, not_here(&what).fix(fix));
            None
        }
    }
}

/// `tariff_cluster` is called `tariff-cluster`: names of services are labels.
fn service_name(reader: &mut Reader<'_>, name: &str, at: &Field<'_>) -> Option<ServiceName> {
    let folded = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    match ServiceName::new(folded.trim_matches('-')) {
        Ok(name) => Some(name),
        Err(error) => {
            let why = format!("in metrics it is called `{}`, and {error}", short(&folded));
            reader.bad(at, "a name that metrics can carry", &why, "write for example tariff_cluster");
            None
        }
    }
}

fn policy(reader: &mut Reader<'_>, table: &Table<'_>) -> TrafficPolicy {
    let mut policy = TrafficPolicy { balance: Algorithm::RoundRobin.into(), ..TrafficPolicy::default() };
    policy.timeouts.connect = Duration::from_secs(5);
    policy.limits.pending = 1024;
    if let Some(field) = table.field("connect_timeout") {
        let bounds = Duration::from_millis(1)..=LONGEST;
        policy.timeouts.connect = words::duration(reader, field, bounds).unwrap_or(policy.timeouts.connect);
    }
    if let Some(field) = table.field("lb_policy") {
        policy.balance = balance(reader, field).unwrap_or_default().into();
    }
    if let Some(field) = table.field("circuit_breakers") {
        breakers(reader, field, &mut policy);
    }
    policy
}

fn balance(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Algorithm> {
    let known = [
        ("ROUND_ROBIN", Some(Algorithm::RoundRobin)),
        ("LEAST_REQUEST", Some(Algorithm::LeastRequest)),
        ("RANDOM", Some(Algorithm::Random)),
        ("RING_HASH", None),
        ("MAGLEV", None),
        ("CLUSTER_PROVIDED", None),
        ("LOAD_BALANCING_POLICY_CONFIG", None),
    ];
    let found = words::word(reader, field, &known)?;
    if found.is_none() {
        let what = format!("`{}`: {}", field.path, reader.shown(field.node));
        reader.report(field.node.span, not_here(&what).fix("write ROUND_ROBIN, LEAST_REQUEST or RANDOM"));
    }
    found
}

/// `thresholds: [{ max_connections: 100, max_requests: 1000 }]`.
fn breakers(reader: &mut Reader<'_>, field: &Field<'_>, policy: &mut TrafficPolicy) {
    let Some(table) = BREAKERS.read(reader, field.node, &field.path) else { return };
    let Some(list) = table.field("thresholds") else { return };
    for item in reader.list(list, "a list of thresholds").unwrap_or_default() {
        let Some(table) = THRESHOLDS.read(reader, item.node, &item.path) else { continue };
        if let Some(priority) = table.field("priority")
            && words::word(reader, priority, &[("DEFAULT", true), ("HIGH", false)]) == Some(false)
        {
            reader.report(priority.key, not_here("the priority HIGH").fix("leave these thresholds out"));
            continue;
        }
        for (name, least, limit) in [
            ("max_connections", 1, &mut policy.limits.connections),
            ("max_requests", 1, &mut policy.limits.requests),
            ("max_pending_requests", 0, &mut policy.limits.pending),
        ] {
            if let Some(field) = table.field(name) {
                *limit = reader.whole(field, "a number", least..=1_000_000).unwrap_or(*limit);
            }
        }
    }
}

fn lookups(reader: &mut Reader<'_>, table: &Table<'_>, discovery: Option<Discovery>) -> (Family, Duration) {
    let mut family = Family::Both;
    if let Some(field) = table.field("dns_lookup_family") {
        let known = [
            ("AUTO", Family::Both),
            ("ALL", Family::Both),
            ("V4_ONLY", Family::V4),
            ("V6_ONLY", Family::V6),
            ("V4_PREFERRED", Family::V4First),
        ];
        family = words::word(reader, field, &known).unwrap_or_default();
    }
    let mut every = REFRESH;
    if let Some(field) = table.field("dns_refresh_rate") {
        let bounds = Duration::from_secs(1)..=Duration::from_hours(1);
        every = words::duration(reader, field, bounds).unwrap_or(every);
    }
    if let Some(field) = table.field("respect_dns_ttl")
        && reader.boolean(field) == Some(true)
        && matches!(discovery, Some(Discovery::Dns(_)))
    {
        let what = format!("`{}`: names are asked for every {} whatever their TTL", field.path, in_words(every));
        let why = "the system's resolver is asked, which keeps to the TTL and does not tell it";
        differs(reader, field.key, what, why, "set dns_refresh_rate if that is too often or too rare");
    }
    (family, every)
}

/// HTTP/2 if the file says that the cluster speaks it.
fn protocol(reader: &mut Reader<'_>, table: &Table<'_>) -> StaticProtocol {
    let mut protocol = StaticProtocol::Http1;
    if let Some(field) = table.field("http2_protocol_options")
        && HTTP2.read(reader, field.node, &field.path).is_some()
    {
        protocol = StaticProtocol::Http2;
    }
    let Some(field) = table.field("typed_extension_protocol_options") else { return protocol };
    let Some(options) = reader.open_table(field.node, &field.path) else { return protocol };
    for extension in options.fields() {
        if extension.name != HTTP_PROTOCOL_OPTIONS {
            let finding = words::unknown_name("the extension", extension.name, HTTP_PROTOCOL_OPTIONS);
            reader.report(extension.key, finding.fix(LEAVE_OUT));
            continue;
        }
        let Some(typed) = Typed::of(reader, extension) else { continue };
        if typed.message.is_some_and(|message| message != HTTP_PROTOCOL_OPTIONS) {
            let fix = format!("write type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}");
            reader.bad(extension, "the options of the protocol", "`@type` names another message", &fix);
        }
        if explicit(reader, extension) == Some(StaticProtocol::Http2) {
            protocol = StaticProtocol::Http2;
        }
    }
    protocol
}

fn explicit(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<StaticProtocol> {
    let table = PROTOCOLS.read(reader, field.node, &field.path)?;
    let explicit =
        reader.need(&table, "explicit_http_config", "explicit_http_config: { http2_protocol_options: {} }")?;
    let table = EXPLICIT.read(reader, explicit.node, &explicit.path)?;
    for (name, protocol) in
        [("http2_protocol_options", StaticProtocol::Http2), ("http_protocol_options", StaticProtocol::Http1)]
    {
        if let Some(options) = table.field(name) {
            HTTP2.read(reader, options.node, &options.path)?;
            return Some(protocol);
        }
    }
    None
}

/// The finding that a cluster leads back to a listener of the same file: each request would come again until the end.
pub(super) fn leads_back(target: &StaticTarget, listener: SocketAddr) -> bool {
    let TargetHost::Address(ip) = target.host else { return false };
    let same = ip == listener.ip() || (listener.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified()));
    target.port == listener.port() && listener.port() != 0 && same && target.health == Health::Healthy
}
