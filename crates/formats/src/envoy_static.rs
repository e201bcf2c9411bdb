//! Static files of Envoy's (S3-7): `static_resources` in YAML or JSON become what a proxy runs by without a control plane.
//!
//! The subset: listeners with one HTTP connection manager, virtual hosts, routes by path, clusters with endpoints, addresses or
//! names. Every other key is an error that names its path: one that Envoy has says what to do instead, one that it has not is
//! probably a slip. What protects something is never left out in silence, and what means something else here is said.
//! `@type` may be missing, and enumerations may be in lower case, as in the chapter; keys may be in `camelCase`, as protobuf has it.

mod cluster;
mod endpoint;
mod listener;
mod retry;
mod route;
mod shape;
mod tls;
mod tree;
mod words;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::standalone::{Standalone, StaticListener, StaticService};

use self::shape::{GUARD, LEAVE_OUT, Not, OPEN, Shape};
use crate::document::{self, short};
use crate::read::{Field, Reader, Span, nearest};
use crate::source::Source;

const NO_CONTROL: &str = "write static_resources: there is no control plane to ask";

const BOOTSTRAP: Shape = Shape::new(
    &["static_resources", "admin"],
    &[
        ("node", Not::Needed),
        ("stats_flush_interval", Not::Needed),
        ("stats_flush_on_admin", Not::Needed),
        ("memory_allocator_manager", Not::Needed),
        ("dynamic_resources", Not::Here(NO_CONTROL)),
        ("cluster_manager", Not::Here(LEAVE_OUT)),
        ("hds_config", Not::Here(NO_CONTROL)),
        ("flags_path", Not::Here(LEAVE_OUT)),
        ("stats_sinks", Not::Here("leave it out; the admin port serves /metrics")),
        ("stats_config", Not::Here("leave it out; the admin port serves /metrics")),
        ("stats_server_version_override", Not::Here(LEAVE_OUT)),
        ("watchdog", Not::New("leave it out")),
        ("watchdogs", Not::Here(LEAVE_OUT)),
        ("tracing", Not::Here("leave it out; every answer carries x-trace-id, and traceparent is passed on")),
        ("runtime", Not::New("leave it out")),
        ("layered_runtime", Not::Here("leave it out; nothing is guarded by runtime keys")),
        ("overload_manager", Not::Safe("leave it out, and start with --memory-limit and --max-connections")),
        ("use_tcp_for_dns_lookups", Not::New("leave it out; names are asked for as this machine does")),
        ("dns_resolution_config", Not::New("leave it out; names are asked for as this machine does")),
        ("typed_dns_resolver_config", Not::Here("leave it out; names are asked for as this machine does")),
        ("bootstrap_extensions", Not::Safe(GUARD)),
        ("fatal_actions", Not::Here(LEAVE_OUT)),
        ("config_sources", Not::Here(NO_CONTROL)),
        ("default_config_source", Not::Here(NO_CONTROL)),
        ("default_socket_interface", Not::Here(LEAVE_OUT)),
        ("certificate_provider_instances", Not::Safe(GUARD)),
        ("header_prefix", Not::Here(LEAVE_OUT)),
        ("enable_dispatcher_stats", Not::Here(LEAVE_OUT)),
        ("inline_headers", Not::Here(LEAVE_OUT)),
        ("perf_tracing_file_path", Not::Here(LEAVE_OUT)),
        ("default_regex_engine", Not::Here(LEAVE_OUT)),
        ("xds_delegate_extension", Not::Here(NO_CONTROL)),
        ("xds_config_tracker_extension", Not::Here(NO_CONTROL)),
        ("listener_manager", Not::Here(LEAVE_OUT)),
        ("application_log_config", Not::Here("leave it out, and set HMS_LOG")),
        ("grpc_async_client_manager_config", Not::Here(LEAVE_OUT)),
        ("deferred_stat_options", Not::Here(LEAVE_OUT)),
    ],
);
const STATIC: Shape = Shape::new(&["listeners", "clusters"], &[("secrets", Not::Safe(GUARD))]);
const ADMIN: Shape = Shape::new(
    &["address"],
    &[
        ("profile_path", Not::Needed),
        ("ignore_global_conn_limit", Not::Needed),
        ("access_log", Not::Here("leave it out")),
        ("access_log_path", Not::New("leave it out")),
        ("socket_options", Not::Here(LEAVE_OUT)),
        ("allow_paths", Not::Needed),
    ],
);

/// Reads a file. With an error there is nothing to run by.
pub fn translate(source: &Source) -> (Option<Standalone>, Vec<Finding>) {
    let mut reader = Reader::default();
    let standalone = read(&mut reader, source);
    let clean = standalone.filter(|_| !reader.has_errors(0));
    (clean, reader.into_findings())
}

/// Whether a file is meant as one of these: its top has keys that only Envoy's have.
pub fn recognises(source: &Source) -> bool {
    const TOPS: [&str; 6] = [
        "static_resources",
        "staticResources",
        "dynamic_resources",
        "dynamicResources",
        "layered_runtime",
        "layeredRuntime",
    ];
    let mut reader = Reader::default();
    let Some(file) = reader.add(source) else { return false };
    match document::parse(&mut reader, file).map(|root| root.value) {
        Some(document::Value::Map(entries)) => entries.iter().any(|entry| TOPS.contains(&entry.key.as_str())),
        Some(_) => false,
        // What cannot be read as a whole is still recognised, for its findings.
        None => source.text.lines().any(|line| {
            let line = line.trim_start_matches(['{', ' ', '"']);
            TOPS.iter().any(|top| line.strip_prefix(top).is_some_and(|rest| rest.starts_with([':', '"', ' '])))
        }),
    }
}

fn read<'a>(reader: &mut Reader<'a>, source: &'a Source) -> Option<Standalone> {
    let file = reader.add(source)?;
    let is_json = source.name.to_ascii_lowercase().ends_with(".json");
    let mut root = if is_json { document::parse_json(reader, file)? } else { document::parse(reader, file)? };
    tree::fold(reader, &mut root);
    let table = BOOTSTRAP.read(reader, &root, "")?;
    let admin = table.field("admin").and_then(|field| admin(reader, field));
    let resources =
        reader.need(&table, "static_resources", "static_resources: { listeners: …, clusters: … }").cloned()?;
    let table = STATIC.read(reader, resources.node, &resources.path)?;
    let clusters = table.field("clusters").map(|field| clusters(reader, field)).unwrap_or_default();
    let list = reader.need(&table, "listeners", "listeners: [{ name: listener_0, … }]").cloned()?;
    let listeners = listeners(reader, &list, &clusters);
    clusters.leads_back(reader, &listeners);
    let services = clusters.known.into_values().map(|(service, _)| service).collect();
    Some(Standalone { admin, listeners, services })
}

fn admin(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<SocketAddr> {
    let table = ADMIN.read(reader, field.node, &field.path)?;
    let address = table.field("address").cloned()?;
    let (address, at) = words::listened(reader, &address)?;
    if !address.ip().is_loopback() {
        let finding = Finding::warning(OPEN, format!("the admin port is reachable from other machines, on {address}"));
        let why = "it tells what runs here and how much; it answers only to loopback names all the same";
        reader.report(at.node.span, finding.because(why).fix("write 127.0.0.1"));
    }
    Some(address)
}

fn clusters(reader: &mut Reader<'_>, field: &Field<'_>) -> Clusters {
    let mut clusters = Clusters::default();
    let mut called: BTreeMap<ServiceName, (String, Span)> = BTreeMap::new();
    for item in reader.list(field, "a list of clusters").unwrap_or_default() {
        let Some((name, service)) = cluster::read(reader, &item) else {
            clusters.unreadable = true;
            continue;
        };
        if let Some((other, first)) = called.get(&service.name) {
            let place = reader.place(*first);
            let message = if *other == name {
                format!("the cluster `{}` stands twice", short(&name))
            } else {
                format!("the clusters `{}` and `{}` are both called {} here", short(other), short(&name), service.name)
            };
            let finding = Finding::error(2110, message).because(format!("first at {place}"));
            reader.report(item.key, finding.fix("give one of them another name"));
            continue;
        }
        called.insert(service.name.clone(), (name.clone(), item.key));
        clusters.known.insert(name, (service, item.key));
    }
    clusters
}

fn listeners(reader: &mut Reader<'_>, field: &Field<'_>, clusters: &Clusters) -> Vec<StaticListener> {
    let items = reader.list(field, "a list of listeners").unwrap_or_default();
    if items.is_empty() && matches!(field.node.value, document::Value::List(_)) {
        let finding = Finding::error(2102, format!("`{}` is empty", field.path));
        reader
            .report(field.node.span, finding.because("a proxy without listeners serves nobody").fix("add a listener"));
    }
    let mut listeners: Vec<(StaticListener, Span)> = Vec::new();
    for item in &items {
        let Some(listener) = listener::read(reader, item, clusters) else { continue };
        let same = |other: &StaticListener| {
            other.name == listener.name || (other.address == listener.address && other.address.port() != 0)
        };
        if let Some((other, first)) = listeners.iter().find(|(other, _)| same(other)) {
            let first = reader.place(*first);
            let what = if other.name == listener.name {
                format!("name `{}`", short(&other.name))
            } else {
                format!("address {}", other.address)
            };
            let finding = Finding::error(2110, format!("two listeners have the {what}"));
            reader.report(item.key, finding.because(format!("first at {first}")).fix("give one of them another"));
            continue;
        }
        listeners.push((listener, item.key));
    }
    listeners.into_iter().map(|(listener, _)| listener).collect()
}

/// The clusters of a file by the names they have there.
#[derive(Debug, Default)]
struct Clusters {
    known: BTreeMap<String, (StaticService, Span)>,
    /// One of them could not be read; that no route finds it follows from that.
    unreadable: bool,
}

impl Clusters {
    fn get(&self, name: &str) -> Option<&StaticService> {
        self.known.get(name).map(|(service, _)| service)
    }

    /// The finding that a route leads to a cluster that is not there.
    fn unknown(&self, reader: &mut Reader<'_>, field: &Field<'_>, name: &str) {
        if self.unreadable {
            return;
        }
        let known: Vec<&str> = self.known.keys().map(String::as_str).take(8).collect();
        let finding = Finding::error(2105, format!("there is no cluster `{}`", short(name)));
        let why = if known.is_empty() {
            "the file has none".to_owned()
        } else {
            format!("there is {}", short(&known.join(", ")))
        };
        let fix = nearest(name, &known)
            .map_or_else(|| "add it to static_resources.clusters".to_owned(), |near| format!("write {}", short(near)));
        reader.report(field.node.span, finding.because(why).fix(fix));
    }

    /// The finding that a cluster is the proxy itself: its requests would come again and again.
    fn leads_back(&self, reader: &mut Reader<'_>, listeners: &[StaticListener]) {
        for (name, (service, at)) in &self.known {
            let leads_here = |listener: &StaticListener| {
                let mut routes = listener.hosts.iter().flat_map(|host| &host.routes);
                routes.any(|route| route.service == service.name)
            };
            let back = |listener: &&StaticListener| {
                leads_here(listener)
                    && service.targets.iter().any(|target| cluster::leads_back(target, listener.address))
            };
            if let Some(listener) = listeners.iter().find(back) {
                let message =
                    format!("the cluster `{}` leads back to the listener {}", short(name), short(&listener.name));
                let finding = Finding::error(2105, message)
                    .because("a request would come again until the connections are used up");
                reader.report(*at, finding.fix("write the address of the service itself"));
            }
        }
    }
}
