//! Listeners: one filter chain with one HTTP connection manager and one router each.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::standalone::{HostPort, StaticListener};

use super::Clusters;
use super::route::{self, Within};
use super::shape::{DIFFERS, GUARD, LEAVE_OUT, NOT_HERE, Not, OLD_FORM, OPEN, Shape, Typed, UNSAFE, differs, not_here};
use super::words::{self, LONGEST, unknown_name};
use crate::read::{Field, Reader, Table};

const LISTENER: Shape = Shape::new(
    &["name", "address", "filter_chains"],
    &[
        ("stat_prefix", Not::Needed),
        ("traffic_direction", Not::Needed),
        ("metadata", Not::Needed),
        ("enable_reuse_port", Not::Needed),
        ("ignore_global_conn_limit", Not::Needed),
        ("reuse_port", Not::New("leave it out")),
        ("bind_to_port", Not::Here("leave it out; every listener listens")),
        ("deprecated_v1", Not::New("leave it out; every listener listens")),
        ("use_original_dst", Not::Here("leave it out; redirected traffic is what `hms run` captures")),
        ("default_filter_chain", Not::Safe("write it as the only one of filter_chains")),
        ("filter_chain_matcher", Not::Safe("write one of filter_chains")),
        (
            "listener_filters",
            Not::Safe("leave them out; the protocol is detected, PROXY protocol and original_dst are not read"),
        ),
        ("listener_filters_timeout", Not::Here("leave it out; the first byte is waited for at most a minute")),
        ("continue_on_listener_filters_timeout", Not::Here(LEAVE_OUT)),
        ("per_connection_buffer_limit_bytes", Not::Here("leave it out; buffers are bounded")),
        ("transparent", Not::Here(LEAVE_OUT)),
        ("freebind", Not::Here(LEAVE_OUT)),
        ("socket_options", Not::Here(LEAVE_OUT)),
        ("tcp_fast_open_queue_length", Not::Here(LEAVE_OUT)),
        ("tcp_backlog_size", Not::Here("leave it out; it is 4096")),
        ("drain_type", Not::Here(LEAVE_OUT)),
        ("api_listener", Not::Here(LEAVE_OUT)),
        ("access_log", Not::Here("leave it out, and start with --access-log -")),
        ("udp_listener_config", Not::Here(LEAVE_OUT)),
        ("connection_balance_config", Not::Here("leave it out; connections go to the thread with the fewest")),
        ("additional_addresses", Not::Here("write a listener for each address")),
        ("internal_listener", Not::Here(LEAVE_OUT)),
        ("enable_mptcp", Not::Here(LEAVE_OUT)),
        ("max_connections_to_accept_per_socket_event", Not::Here(LEAVE_OUT)),
        ("bypass_overload_manager", Not::Here(LEAVE_OUT)),
    ],
);
const CHAIN: Shape = Shape::new(
    &["filters", "name", "filter_chain_match", "transport_socket"],
    &[
        ("metadata", Not::Needed),
        ("tls_context", Not::New("write transport_socket with a DownstreamTlsContext")),
        ("use_proxy_proto", Not::New("leave it out; PROXY protocol is not read")),
        ("transport_socket_connect_timeout", Not::Here(LEAVE_OUT)),
        ("on_demand_configuration", Not::Here(LEAVE_OUT)),
    ],
);
const FILTER: Shape = Shape::new(
    &["name", "typed_config"],
    &[
        ("config", Not::New("write typed_config")),
        ("config_discovery", Not::Here("write typed_config: there is no control plane to ask")),
        ("is_optional", Not::Here("leave the filter or this key out")),
        ("disabled", Not::Here("leave the filter out")),
    ],
);
const ROUTER: Shape = Shape::new(
    &["@type"],
    &[
        ("suppress_envoy_headers", Not::Needed),
        ("dynamic_stats", Not::Needed),
        ("start_child_span", Not::Here(LEAVE_OUT)),
        ("upstream_log", Not::Here("leave it out, and start with --access-log -")),
        ("upstream_log_options", Not::Here(LEAVE_OUT)),
        ("strict_check_headers", Not::Here(LEAVE_OUT)),
        ("respect_expected_rq_timeout", Not::Here(LEAVE_OUT)),
        ("upstream_http_filters", Not::Here(LEAVE_OUT)),
        ("suppress_grpc_request_failure_code_stats", Not::Needed),
    ],
);
const MANAGER: Shape = Shape::new(
    &[
        "@type",
        "route_config",
        "http_filters",
        "codec_type",
        "strip_any_host_port",
        "strip_matching_host_port",
        "use_remote_address",
        "normalize_path",
        "merge_slashes",
        "stream_idle_timeout",
        "generate_request_id",
    ],
    &[
        ("stat_prefix", Not::Needed),
        ("suppress_envoy_headers", Not::Needed),
        ("rds", Not::Here("write route_config: there is no control plane to ask")),
        ("scoped_routes", Not::Here("write route_config")),
        ("access_log", Not::Here("leave it out, and start with --access-log - for a line of JSON per request")),
        ("access_log_options", Not::Here("leave it out, and start with --access-log -")),
        ("tracing", Not::Here("leave it out; every answer carries x-trace-id, and traceparent is passed on")),
        ("upgrade_configs", Not::Here("leave it out; upgrades are not passed on here")),
        ("add_user_agent", Not::Here(LEAVE_OUT)),
        ("common_http_protocol_options", Not::Here("leave it out; heads, connections and idle times are bounded")),
        ("http_protocol_options", Not::Here("leave it out; HTTP/1.1 is read strictly")),
        ("http2_protocol_options", Not::Here("leave it out; streams and windows are bounded")),
        ("http3_protocol_options", Not::Here("leave it out; HTTP/3 is not spoken")),
        ("server_name", Not::Here(LEAVE_OUT)),
        ("server_header_transformation", Not::Here("leave it out; the server field is passed on as it comes")),
        ("scheme_header_transformation", Not::Here(LEAVE_OUT)),
        ("max_request_headers_kb", Not::Here("leave it out; a head has at most 32 KiB")),
        ("request_timeout", Not::Here("write timeout into the route")),
        ("request_headers_timeout", Not::Here("leave it out; a head has 10 s")),
        ("drain_timeout", Not::Here("leave it out, and start with --drain SECONDS")),
        ("delayed_close_timeout", Not::Here(LEAVE_OUT)),
        ("skip_xff_append", Not::Safe("leave it out; x-forwarded-for is always written anew")),
        ("via", Not::Here(LEAVE_OUT)),
        ("preserve_external_request_id", Not::Here(LEAVE_OUT)),
        ("always_set_request_id_in_response", Not::Here("leave it out; every answer carries x-trace-id")),
        ("request_id_extension", Not::Here(LEAVE_OUT)),
        ("forward_client_cert_details", Not::Safe("leave it out; what callers say of certificates is always removed")),
        ("set_current_client_cert_details", Not::Safe("leave it out; callers have no certificates here")),
        ("proxy_100_continue", Not::Here(LEAVE_OUT)),
        ("represent_ipv4_remote_address_as_ipv4_mapped_ipv6", Not::Here(LEAVE_OUT)),
        (
            "path_with_escaped_slashes_action",
            Not::Safe("leave it out; paths with escaped slashes are refused with 400"),
        ),
        ("path_normalization_options", Not::Here("leave it out; paths are always made canonical")),
        ("internal_address_config", Not::Safe("leave it out; nobody counts as internal")),
        ("xff_num_trusted_hops", Not::Safe("leave it out; nothing that callers say of themselves is believed")),
        (
            "original_ip_detection_extensions",
            Not::Safe("leave it out; nothing that callers say of themselves is believed"),
        ),
        ("early_header_mutation_extensions", Not::Here(LEAVE_OUT)),
        ("local_reply_config", Not::Here("leave it out; see `hms explain` for the proxy's own answers")),
        ("stream_error_on_invalid_http_message", Not::Here(LEAVE_OUT)),
        ("strip_trailing_host_dot", Not::Needed),
        ("proxy_status_config", Not::Here("leave it out; x-hms-error says why")),
        ("typed_header_validation_config", Not::Safe("leave it out; heads are read strictly")),
        ("append_x_forwarded_port", Not::Here(LEAVE_OUT)),
        ("append_local_overload", Not::Here(LEAVE_OUT)),
        ("http1_safe_max_connection_duration", Not::Here(LEAVE_OUT)),
    ],
);
const MANAGER_NAME: &str = "envoy.filters.network.http_connection_manager";
const MANAGER_TYPE: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER_NAME: &str = "envoy.filters.http.router";
const ROUTER_TYPE: &str = "envoy.extensions.filters.http.router.v3.Router";
/// Words in an extension's name that say that it decides who may do what, or runs code of the author's.
const PROTECTS: [&str; 20] = [
    "jwt",
    "rbac",
    "ext_authz",
    "ext_proc",
    "oauth",
    "csrf",
    "cors",
    "auth",
    "ratelimit",
    "rate_limit",
    "lua",
    "wasm",
    "admission",
    "bandwidth",
    "connection_limit",
    "credential",
    "golang",
    "dynamic_modules",
    "ip_tagging",
    "session",
];

/// One listener.
pub(super) fn read(reader: &mut Reader<'_>, item: &Field<'_>, clusters: &Clusters) -> Option<StaticListener> {
    let table = LISTENER.read(reader, item.node, &item.path)?;
    let name = table.field("name").cloned();
    let name = name.and_then(|field| reader.line(&field, "a listener's name", 200));
    let address = reader.need(&table, "address", "address: { socket_address: … }").cloned();
    let address = address.and_then(|field| words::listened(reader, &field));
    if let Some((address, at)) = &address
        && !address.ip().is_loopback()
    {
        let finding = Finding::warning(OPEN, format!("this listener is reachable from other machines, on {address}"));
        let why = "the mesh's own listeners are on loopback; here the file decides";
        reader.report(at.node.span, finding.because(why).fix("write 127.0.0.1 if only this machine is to reach it"));
    }
    let chains = reader.need(&table, "filter_chains", "filter_chains: [{ filters: … }]").cloned();
    let manager = chains.and_then(|field| chain(reader, &field, clusters));
    let (address, manager) = (address?.0, manager?);
    let name = name.map_or_else(|| address.to_string(), str::to_owned);
    Some(StaticListener { name, address, host_port: manager.host_port, hosts: manager.hosts })
}

/// What a connection manager says.
struct Manager {
    host_port: HostPort,
    hosts: Vec<hms_model::standalone::VirtualHost>,
}

fn chain(reader: &mut Reader<'_>, field: &Field<'_>, clusters: &Clusters) -> Option<Manager> {
    let item = only(reader, field, "filter chain", "write a listener for each, on ports of their own")?;
    let table = CHAIN.read(reader, item.node, &item.path)?;
    if let Some(matches) = table.field("filter_chain_match")
        && reader.open_table(matches.node, &matches.path).is_some_and(|table| !table.fields().is_empty())
    {
        let finding = super::shape::unsafe_without(&format!("`{}`", matches.path));
        reader.report(matches.key, finding.fix("leave it out if every connection to the port is meant"));
    }
    if let Some(socket) = table.field("transport_socket") {
        super::tls::downstream(reader, socket);
    }
    let filters =
        reader.need(&table, "filters", "filters: [{ name: envoy.filters.network.http_connection_manager, … }]");
    let filters = filters.cloned()?;
    let item = only(reader, &filters, "network filter", "leave only the HTTP connection manager")?;
    let found = extension(reader, &item, &Kind::MANAGER)?;
    let Some(config) = found.config else {
        let finding = Finding::error(2102, format!("the key `typed_config` is missing in `{}`", item.path));
        reader.report(item.key, finding.fix("add it: typed_config: { route_config: …, http_filters: … }"));
        return None;
    };
    manager(reader, &config, clusters)
}

/// The one item of a list of which there may be no other.
fn only<'n>(reader: &mut Reader<'_>, field: &Field<'n>, what: &str, fix: &str) -> Option<Field<'n>> {
    let items = reader.list(field, &format!("a list with one {what}"))?;
    if items.is_empty() {
        reader.bad(field, &format!("a list with one {what}"), "", &format!("add the {what}"));
    }
    for more in items.iter().skip(1) {
        reader.report(more.key, not_here(&format!("a second {what}")).fix(fix));
    }
    items.into_iter().next()
}

/// A kind of extension of which one is known.
struct Kind {
    what: &'static str,
    name: &'static str,
    message: &'static str,
    /// Names that Envoy itself has given up.
    old: &'static [&'static str],
}

impl Kind {
    const MANAGER: Self = Self {
        what: "the network filter",
        name: MANAGER_NAME,
        message: MANAGER_TYPE,
        old: &["envoy.http_connection_manager"],
    };
    const ROUTER: Self =
        Self { what: "the HTTP filter", name: ROUTER_NAME, message: ROUTER_TYPE, old: &["envoy.router"] };
}

/// An extension that is the one that is known.
struct Extension<'n> {
    config: Option<Field<'n>>,
}

/// Reads `{name, typed_config}` if it is the extension that is known; says so if it is another.
fn extension<'n>(reader: &mut Reader<'_>, item: &Field<'n>, kind: &Kind) -> Option<Extension<'n>> {
    let table = FILTER.read(reader, item.node, &item.path)?;
    let name_field = reader.need(&table, "name", &format!("name: {}", kind.name)).cloned()?;
    let name = reader.text(&name_field, "the name of a filter")?;
    let config = table.field("typed_config").cloned();
    let typed = match &config {
        Some(config) => Some(Typed::of(reader, config)?),
        None => None,
    };
    if kind.old.contains(&name) {
        let finding = Finding::error(OLD_FORM, format!("`{name}` is a name of Envoy's v2 API"));
        reader.report(name_field.node.span, finding.fix(format!("write {}", kind.name)));
        return None;
    }
    let message = typed.as_ref().and_then(|typed| typed.message);
    // With `@type` the name is a label, as it is to Envoy.
    if message.is_some_and(|message| message == kind.message) || (message.is_none() && name == kind.name) {
        if let (Some(config), None) = (&config, message) {
            let what = format!("`{}` has no @type and is read as {}", config.path, kind.name);
            let why = "the filter's name says what is meant; Envoy refuses to guess";
            let fix = format!("add \"@type\": type.googleapis.com/{}", kind.message);
            reader.report(config.key, Finding::warning(DIFFERS, what).because(why).fix(fix));
        }
        return Some(Extension { config });
    }
    let mut finding = unknown_name(kind.what, message.unwrap_or(name), kind.name).fix(LEAVE_OUT);
    if PROTECTS.iter().any(|word| name.contains(word) || message.is_some_and(|message| message.contains(word))) {
        finding.code.0 = UNSAFE;
        finding = finding.because("it decides who may do what, or changes requests; it is never left out in silence");
        finding = finding.fix(GUARD);
    }
    if let Some(open) = config.as_ref().and_then(|config| fails_open(reader, config)) {
        let why = "requests would pass unchecked while its service is away";
        reader.report(
            open.key,
            Finding::warning(UNSAFE, format!("`{}` fails open", open.path)).because(why).fix("write false"),
        );
    }
    reader.report(name_field.node.span, finding);
    None
}

fn fails_open<'n>(reader: &mut Reader<'_>, config: &Field<'n>) -> Option<Field<'n>> {
    let table = reader.open_table(config.node, &config.path)?;
    let field = table.field("failure_mode_allow").cloned()?;
    (reader.boolean(&field) == Some(true)).then_some(field)
}

fn manager(reader: &mut Reader<'_>, config: &Field<'_>, clusters: &Clusters) -> Option<Manager> {
    let table = MANAGER.read(reader, config.node, &config.path)?;
    if let Some(field) = table.field("codec_type") {
        let known = [("AUTO", true), ("HTTP1", false), ("HTTP2", false), ("HTTP3", false)];
        if words::word(reader, field, &known) == Some(false) {
            let what = format!("`{}`: {}", field.path, reader.shown(field.node));
            reader.report(
                field.node.span,
                not_here(&what).fix("leave it out; HTTP/1.1 and HTTP/2 are told apart by their first bytes"),
            );
        }
    }
    always(reader, &table);
    let filters = reader.need(&table, "http_filters", "http_filters: [{ name: envoy.filters.http.router }]").cloned();
    if let Some(filters) = &filters {
        http_filters(reader, filters);
    }
    let idle =
        table.field("stream_idle_timeout").and_then(|field| words::duration(reader, field, Duration::ZERO..=LONGEST));
    // 0 s turns Envoy's off; the longest that is taken is as good as none.
    let idle = idle.map(|idle| if idle.is_zero() { LONGEST } else { idle });
    let mut host_port = host_port(reader, &table);
    let routes = reader.need(&table, "route_config", "route_config: { virtual_hosts: … }").cloned()?;
    let hosts = route::hosts(reader, &routes, Within { clusters, idle }, &mut host_port)?;
    Some(Manager { host_port, hosts })
}

/// Settings whose one value is what always happens here.
fn always(reader: &mut Reader<'_>, table: &Table<'_>) {
    let fixed = [
        (
            "use_remote_address",
            "x-forwarded-for is always the address of the connection's other end",
            "nothing that a caller says of itself is believed",
        ),
        ("normalize_path", "paths are always made canonical", "what is decided on is what is sent on"),
        ("merge_slashes", "slashes in paths are always merged", "what is decided on is what is sent on"),
    ];
    for (name, what, why) in fixed {
        if let Some(field) = table.field(name)
            && reader.boolean(field) == Some(false)
        {
            differs(reader, field.key, format!("`{}`: {what}", field.path), why, "leave it out or write true");
        }
    }
    if let Some(field) = table.field("generate_request_id")
        && reader.boolean(field) == Some(true)
    {
        let what = format!("`{}`: no x-request-id is made", field.path);
        differs(reader, field.key, what, "traceparent and x-trace-id name a request here", "leave it out");
    }
}

fn host_port(reader: &mut Reader<'_>, table: &Table<'_>) -> HostPort {
    let mut is_on = |name: &str| table.field(name).and_then(|field| reader.boolean(field)) == Some(true);
    match (is_on("strip_any_host_port"), is_on("strip_matching_host_port")) {
        (true, _) => HostPort::Ignored,
        (false, true) => HostPort::IgnoredIfOwn,
        (false, false) => HostPort::Kept,
    }
}

/// Exactly one router, at the end.
fn http_filters(reader: &mut Reader<'_>, field: &Field<'_>) {
    let items = reader.list(field, "a list of filters").unwrap_or_default();
    let mut router = None;
    for item in &items {
        if let Some(at) = router {
            let place = reader.place(at);
            let finding = Finding::error(NOT_HERE, "a filter stands after the router, where nothing reaches it");
            reader.report(item.key, finding.because(format!("the router is at {place}")).fix("put the router last"));
        }
        if let Some(found) = extension(reader, item, &Kind::ROUTER) {
            router = Some(item.key);
            if let Some(config) = found.config {
                ROUTER.read(reader, config.node, &config.path);
            }
        }
    }
    if router.is_none() && !reader.has_errors(field.key.file) {
        let finding = Finding::error(2102, format!("`{}` has no router", field.path));
        reader.report(field.key, finding.fix(format!("add it as the last: {{ name: {ROUTER_NAME} }}")));
    }
}
