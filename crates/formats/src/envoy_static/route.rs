//! Virtual hosts and their routes.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::policy::TrafficPolicy;
use hms_model::standalone::{Domain, HostPort, HostRoute, PathMatch, VirtualHost};

use super::Clusters;
use super::retry::{self, Tries};
use super::shape::{GUARD, LEAVE_OUT, Not, Shape, not_here};
use super::words::{self, LONGEST};
use crate::document::short;
use crate::read::{Field, Reader, Span, Table};

const FIELDS: Not = Not::Here("leave it out; header fields are not changed here");

const CONFIG: Shape = Shape::new(
    &["virtual_hosts", "ignore_port_in_host_matching"],
    &[
        ("name", Not::Needed),
        ("validate_clusters", Not::Needed),
        ("most_specific_header_mutations_wins", Not::Needed),
        ("max_direct_response_body_size_bytes", Not::Needed),
        ("metadata", Not::Needed),
        ("internal_only_headers", Not::Safe(GUARD)),
        ("response_headers_to_add", FIELDS),
        ("response_headers_to_remove", Not::Safe("remove them where they are made")),
        ("request_headers_to_add", FIELDS),
        ("request_headers_to_remove", Not::Safe("remove them before this proxy")),
        ("typed_per_filter_config", Not::Safe(GUARD)),
        ("vhds", Not::Here("write virtual_hosts: there is no control plane to ask")),
        ("cluster_specifier_plugins", Not::Here("name the cluster in the route")),
        ("request_mirror_policies", Not::Here(LEAVE_OUT)),
        ("ignore_path_parameters_in_path_matching", Not::Here(LEAVE_OUT)),
    ],
);
const HOST: Shape = Shape::new(
    &["name", "domains", "routes", "retry_policy"],
    &[
        ("metadata", Not::Needed),
        ("virtual_clusters", Not::Needed),
        ("require_tls", Not::Safe("end TLS before this proxy, and redirect there")),
        ("cors", Not::Safe(GUARD)),
        ("rate_limits", Not::Safe(GUARD)),
        ("typed_per_filter_config", Not::Safe(GUARD)),
        ("per_filter_config", Not::New("write typed_per_filter_config")),
        ("request_headers_to_add", FIELDS),
        ("request_headers_to_remove", Not::Safe("remove them before this proxy")),
        ("response_headers_to_add", FIELDS),
        ("response_headers_to_remove", Not::Safe("remove them where they are made")),
        ("include_request_attempt_count", Not::Here("leave it out; x-hms-attempt tells it from the second on")),
        ("include_attempt_count_in_response", Not::Here(LEAVE_OUT)),
        ("retry_policy_typed_config", Not::Here("write retry_policy")),
        ("hedge_policy", Not::Here(LEAVE_OUT)),
        ("include_is_timeout_retry_header", Not::Here(LEAVE_OUT)),
        ("per_request_buffer_limit_bytes", Not::Here("leave it out; bodies up to 64 KiB are kept for a retry")),
        ("request_mirror_policies", Not::Here(LEAVE_OUT)),
        ("matcher", Not::Here("write routes")),
    ],
);
const ROUTE: Shape = Shape::new(
    &["name", "match", "route"],
    &[
        ("metadata", Not::Needed),
        ("stat_prefix", Not::Needed),
        ("decorator", Not::Needed),
        ("redirect", Not::Here("let the service behind redirect")),
        ("direct_response", Not::Here("let a service behind answer")),
        ("filter_action", Not::Here(LEAVE_OUT)),
        ("non_forwarding_action", Not::Here(LEAVE_OUT)),
        ("typed_per_filter_config", Not::Safe(GUARD)),
        ("per_filter_config", Not::New("write typed_per_filter_config")),
        ("request_headers_to_add", FIELDS),
        ("request_headers_to_remove", Not::Safe("remove them before this proxy")),
        ("response_headers_to_add", FIELDS),
        ("response_headers_to_remove", Not::Safe("remove them where they are made")),
        ("tracing", Not::Here(LEAVE_OUT)),
        ("per_request_buffer_limit_bytes", Not::Here("leave it out; bodies up to 64 KiB are kept for a retry")),
    ],
);
const MATCH: Shape = Shape::new(
    &["prefix", "path", "path_separated_prefix", "case_sensitive"],
    &[
        (
            "safe_regex",
            Not::Here(
                "write prefix, path or path_separated_prefix; patterns are not read, with look-around or without",
            ),
        ),
        ("regex", Not::New("write prefix, path or path_separated_prefix")),
        ("connect_matcher", Not::Here("leave it out; CONNECT is refused")),
        ("path_match_policy", Not::Here("write prefix, path or path_separated_prefix")),
        ("headers", Not::Safe("write a virtual host of its own; fields and methods are not looked at")),
        ("query_parameters", Not::Safe("write a path of its own; queries are not looked at")),
        ("cookies", Not::Safe("write a path of its own; cookies are not looked at")),
        ("grpc", Not::Here("write the prefix of the gRPC service: prefix: /package.Service/")),
        ("runtime", Not::New("leave it out")),
        (
            "runtime_fraction",
            Not::Here("leave the guarded route out, or the guard: nothing changes it while the proxy runs"),
        ),
        ("tls_context", Not::Safe(GUARD)),
        ("dynamic_metadata", Not::Safe(GUARD)),
        ("filter_state", Not::Safe(GUARD)),
    ],
);
const ACTION: Shape = Shape::new(
    &["cluster", "timeout", "idle_timeout", "retry_policy"],
    &[
        ("cluster_not_found_response_code", Not::Needed),
        ("metadata_match", Not::Here(LEAVE_OUT)),
        ("weighted_clusters", Not::Here("name one cluster; traffic is not split here")),
        ("cluster_header", Not::Safe("name the cluster: callers must not choose it")),
        ("cluster_specifier_plugin", Not::Here("name the cluster")),
        ("inline_cluster_specifier_plugin", Not::Here("name the cluster")),
        ("prefix_rewrite", Not::Here("let the service behind take the path as it is")),
        ("path_rewrite_policy", Not::Here("let the service behind take the path as it is")),
        ("path_rewrite", Not::Here("let the service behind take the path as it is")),
        ("regex_rewrite", Not::Here("let the service behind take the path as it is")),
        ("host_rewrite", Not::New("leave it out; the host is passed on as it came")),
        ("host_rewrite_literal", Not::Here("leave it out; the host is passed on as it came")),
        ("auto_host_rewrite", Not::Here("leave it out; the host is passed on as it came")),
        ("host_rewrite_header", Not::Here("leave it out; the host is passed on as it came")),
        ("host_rewrite_path_regex", Not::Here("leave it out; the host is passed on as it came")),
        ("append_x_forwarded_host", Not::Needed),
        ("early_data_policy", Not::Needed),
        ("flush_timeout", Not::Here(LEAVE_OUT)),
        ("retry_policy_typed_config", Not::Here("write retry_policy")),
        ("request_mirror_policies", Not::Here(LEAVE_OUT)),
        ("request_mirror_policy", Not::New(LEAVE_OUT)),
        ("priority", Not::Here(LEAVE_OUT)),
        ("rate_limits", Not::Safe(GUARD)),
        ("include_vh_rate_limits", Not::Safe(GUARD)),
        ("hash_policy", Not::Here("leave it out; requests are not kept to one endpoint")),
        ("cors", Not::Safe(GUARD)),
        ("max_grpc_timeout", Not::New("leave it out")),
        ("grpc_timeout_offset", Not::New("leave it out")),
        ("upgrade_configs", Not::Here("leave it out; upgrades are not passed on here")),
        ("internal_redirect_policy", Not::Here(LEAVE_OUT)),
        ("internal_redirect_action", Not::New(LEAVE_OUT)),
        ("max_internal_redirects", Not::New(LEAVE_OUT)),
        ("hedge_policy", Not::Here(LEAVE_OUT)),
        ("max_stream_duration", Not::Here("write timeout")),
    ],
);

/// What routes are read with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within<'c> {
    /// Where they may lead.
    pub(super) clusters: &'c Clusters,
    /// The connection manager's own idle time.
    pub(super) idle: Option<Duration>,
}

/// `route_config`.
pub(super) fn hosts(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    within: Within<'_>,
    host_port: &mut HostPort,
) -> Option<Vec<VirtualHost>> {
    let table = CONFIG.read(reader, field.node, &field.path)?;
    if let Some(field) = table.field("ignore_port_in_host_matching")
        && reader.boolean(field) == Some(true)
    {
        *host_port = HostPort::Ignored;
    }
    let list =
        reader.need(&table, "virtual_hosts", "virtual_hosts: [{ name: …, domains: [\"*\"], routes: … }]").cloned()?;
    let mut domains = BTreeMap::new();
    let items = reader.list(&list, "a list of virtual hosts")?;
    Some(items.iter().filter_map(|item| host(reader, item, within, &mut domains)).collect())
}

fn host(
    reader: &mut Reader<'_>,
    item: &Field<'_>,
    within: Within<'_>,
    domains: &mut BTreeMap<Domain, Span>,
) -> Option<VirtualHost> {
    let table = HOST.read(reader, item.node, &item.path)?;
    let name = reader.need(&table, "name", "name: tariff").cloned();
    let name = name.and_then(|field| reader.line(&field, "a virtual host's name", 256));
    let own = reader.need(&table, "domains", "domains: [\"tariff-svc\"]").cloned();
    let own = own.map(|field| self::domains(reader, &field, domains)).unwrap_or_default();
    let tries = table.field("retry_policy").and_then(|field| retry::read(reader, field));
    let mut routes = Vec::new();
    if let Some(list) = table.field("routes") {
        for item in reader.list(list, "a list of routes").unwrap_or_default() {
            routes.extend(route(reader, &item, within, tries.as_ref()));
        }
    } else {
        let finding = Finding::warning(2107, format!("`{}` has no routes", item.path));
        reader.report(item.key, finding.because("every request to it is answered with 404").fix("add routes"));
    }
    shadowed(reader, &routes);
    let routes = routes.into_iter().map(|(route, _)| route).collect();
    Some(VirtualHost { name: name?.to_owned(), domains: own, routes })
}

fn domains(reader: &mut Reader<'_>, field: &Field<'_>, seen: &mut BTreeMap<Domain, Span>) -> Vec<Domain> {
    let items = reader.list(field, "a list of host names").unwrap_or_default();
    if items.is_empty() {
        reader.bad(field, "a list of host names", "a virtual host answers for at least one", "write [\"*\"] for all");
    }
    let mut domains = Vec::new();
    for item in &items {
        let Some(text) = reader.text(item, "a host name") else { continue };
        match Domain::parse(text) {
            Err(why) => {
                let fix = "write for example tariff-svc, \"*.example.com\", \"example.*\" or \"*\"";
                reader.bad(item, "a host name", &why.to_string(), fix);
            }
            Ok(domain) => {
                if let Some(first) = seen.get(&domain) {
                    let first = reader.place(*first);
                    let finding = Finding::error(2110, format!("the domain `{}` stands twice", short(text)));
                    reader.report(item.key, finding.because(format!("first at {first}")).fix("keep one of the two"));
                    continue;
                }
                seen.insert(domain.clone(), item.key);
                domains.push(domain);
            }
        }
    }
    domains
}

/// A route that an earlier one leaves nothing for.
fn shadowed(reader: &mut Reader<'_>, routes: &[(HostRoute, Span)]) {
    for (index, (route, at)) in routes.iter().enumerate() {
        let covers = |earlier: &PathMatch| match (&route.path, earlier) {
            (PathMatch::Exact(own), earlier) => earlier.takes(own),
            (PathMatch::Prefix(own) | PathMatch::Segments(own), PathMatch::Prefix(other)) => {
                own.starts_with(other.as_str())
            }
            (own, earlier) => own == earlier,
        };
        if let Some((earlier, place)) = routes.iter().take(index).find(|(earlier, _)| covers(&earlier.path)) {
            let place = reader.place(*place);
            let finding = Finding::warning(2107, format!("the route {} is never taken", route.path));
            let why = format!("{} at {place} comes first and takes all of it", earlier.path);
            reader.report(*at, finding.because(why).fix("put the more particular route first"));
        }
    }
}

fn route(
    reader: &mut Reader<'_>,
    item: &Field<'_>,
    within: Within<'_>,
    tries: Option<&Tries>,
) -> Option<(HostRoute, Span)> {
    let table = ROUTE.read(reader, item.node, &item.path)?;
    let matches = reader.need(&table, "match", "match: { prefix: \"/\" }").cloned();
    let path = matches.as_ref().and_then(|field| path(reader, field));
    let other = ["redirect", "direct_response", "filter_action", "non_forwarding_action"];
    let elsewhere =
        reader.open_table(item.node, &item.path).is_some_and(|t| other.iter().any(|name| t.field(name).is_some()));
    let action = if elsewhere { table.field("route") } else { reader.need(&table, "route", "route: { cluster: … }") };
    let action = action.cloned();
    let (service, policy) = action.and_then(|field| self::action(reader, &field, within, tries))?;
    let at = matches.map_or(item.key, |field| field.key);
    Some((HostRoute { path: path?, service, policy, origin: reader.origin(item.key) }, at))
}

fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathMatch> {
    type Make = fn(String) -> PathMatch;
    const KINDS: [(&str, Make); 3] =
        [("prefix", PathMatch::Prefix), ("path", PathMatch::Exact), ("path_separated_prefix", PathMatch::Segments)];
    let table = MATCH.read(reader, field.node, &field.path)?;
    if let Some(case) = table.field("case_sensitive")
        && reader.boolean(case) == Some(false)
    {
        reader.report(case.key, not_here("matching paths in any case").fix("leave it out, and write each spelling"));
    }
    let given: Vec<_> = KINDS.iter().filter_map(|(name, make)| Some((table.field(name)?.clone(), make))).collect();
    if let [_, (second, _), ..] = given.as_slice() {
        let finding = Finding::error(2110, format!("`{}` says in two ways which paths are meant", field.path));
        reader.report(second.key, finding.fix("keep one of the two"));
    }
    let Some((own, make)) = given.into_iter().next() else {
        let all = reader.open_table(field.node, &field.path)?;
        if !all.fields().iter().any(|field| MATCH.others.iter().any(|(name, _)| *name == field.name)) {
            reader.need(&table, "prefix", "prefix: \"/\"");
        }
        return None;
    };
    let matches = make(reader.line(&own, "a path", 4096)?.to_owned());
    if matches.can_match() {
        return Some(matches);
    }
    let why =
        "paths are compared in canonical form: they start with /, without //, . and .., and without needless %-escapes";
    let fix = if own.name == "path_separated_prefix" {
        "write it without / at its end"
    } else {
        "write it as it is sent, for example /tariff"
    };
    reader.bad(&own, "a path that a request can have", why, fix);
    None
}

fn action(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    within: Within<'_>,
    tries: Option<&Tries>,
) -> Option<(hms_model::names::ServiceName, TrafficPolicy)> {
    let table = ACTION.read(reader, field.node, &field.path)?;
    let times = times(reader, &table);
    let own = table.field("retry_policy").and_then(|field| retry::read(reader, field));
    let named = ["weighted_clusters", "cluster_header", "cluster_specifier_plugin", "inline_cluster_specifier_plugin"];
    let elsewhere =
        reader.open_table(field.node, &field.path).is_some_and(|t| named.iter().any(|name| t.field(name).is_some()));
    let cluster =
        if elsewhere { table.field("cluster") } else { reader.need(&table, "cluster", "cluster: tariff_cluster") };
    let cluster = cluster.cloned()?;
    let name = reader.line(&cluster, "the name of a cluster", 256)?;
    let Some(service) = within.clusters.get(name) else {
        within.clusters.unknown(reader, &cluster, name);
        return None;
    };
    let mut policy = service.policy.clone();
    if let Some(request) = times.request {
        policy.timeouts.request = (!request.is_zero()).then_some(request);
    }
    policy.timeouts.idle = times.idle.or(within.idle).unwrap_or(policy.timeouts.idle);
    if let Some(tries) = own.as_ref().or(tries) {
        policy.retry = tries.retry.clone();
        policy.timeouts.attempt = tries.attempt;
    }
    Some((service.name.clone(), policy))
}

struct Times {
    request: Option<Duration>,
    idle: Option<Duration>,
}

fn times(reader: &mut Reader<'_>, table: &Table<'_>) -> Times {
    let mut time =
        |name: &str| table.field(name).and_then(|field| words::duration(reader, field, Duration::ZERO..=LONGEST));
    let request = time("timeout");
    let idle = time("idle_timeout").map(|idle| if idle.is_zero() { LONGEST } else { idle });
    Times { request, idle }
}
