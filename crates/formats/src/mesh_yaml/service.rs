//! `services:`, and the route files that belong to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::TrafficPolicy;
use hms_model::port::AppProtocol;
use hms_model::resource::Overlay;
use hms_model::route::Route;
use hms_model::split::MOST_SHARES;

use crate::document::{self, Value, short};
use crate::mesh_yaml::{
    Environment, HealthFile, Intercept, MAIN_VERSION, MeshFile, ServiceFile, VersionFile, paths, policy, ports, probe,
};
use crate::read::{Field, Keys, Reader, Span, Table};
use crate::route_yaml::{self, Owners};
use crate::rules::{Claims, rate_limit, rules};
use crate::source::Source;

const KEYS: Keys = Keys {
    known: &[
        "dir",
        "run",
        "port",
        "ports",
        "protocol",
        "routes",
        "rate_limit",
        "health",
        "env",
        "version",
        "zone",
        "retry",
        "timeout",
        "breaker",
        "keep_alive",
        "balance",
        "limits",
        "probe",
        "intercept",
        "host_ports",
        "publish",
        "versions",
    ],
    later: &["mtls"],
};
const VERSION: Keys = Keys::new(&["dir", "run", "port", "env", "weight"]);
const HEALTH: Keys = Keys::new(&["path", "every", "start_within"]);
const MAX_SERVICES: usize = 1000;
const MAX_VARIABLES: usize = 256;
const MAX_HOST_PORTS: usize = 64;

/// What a service's own lines leave open for its route file.
#[derive(Debug, Default)]
struct Open {
    /// The route file it names, and where.
    file: Option<(String, Span)>,
    /// Where its routes stand, if they are given here.
    routes: Option<Span>,
    /// A rate limit for routes that state none, and where it stands.
    rate_limit: Option<(hms_model::policy::RateLimit, Span)>,
    /// Where its `keep_alive` stands.
    keep_alive: Option<Span>,
    /// Whether it names no folder.
    dir: bool,
}

/// Reads `services:` and the route files into `out`, whose defaults are already there.
pub(crate) fn read_all<'a>(reader: &mut Reader<'a>, top: Option<&Table<'_>>, files: &'a [Source], out: &mut MeshFile) {
    let mut claims = Claims::default();
    let mut open: BTreeMap<ServiceName, Open> = BTreeMap::new();
    let field = top.and_then(|top| reader.need(top, "services", "services: {hello-svc: {dir: hello_svc}}")).cloned();
    if let Some(table) = field.and_then(|field| reader.open_table(field.node, &field.path)) {
        if table.fields().len() > MAX_SERVICES {
            let finding = Finding::error(2112, format!("`services` has more than {MAX_SERVICES} entries"));
            return reader.report(table.span, finding.fix("split the project"));
        }
        let policy = out.defaults.policy.clone();
        for field in table.fields() {
            let name = reader.service_name(field, field.name);
            // The rest is read even under a bad name, so that every mistake is shown at once.
            let read = service(reader, field, name.as_ref(), &policy, &mut claims);
            let (Some(name), Some((service, left))) = (name, read) else { continue };
            if out.services.contains_key(&name) {
                let finding = Finding::error(2110, format!("the service `{name}` stands twice under two spellings"));
                reader.report(field.key, finding.fix("keep one of the two"));
                continue;
            }
            open.insert(name.clone(), left);
            out.services.insert(name, service);
        }
    }
    read_files(reader, files, out, &mut open, &mut claims);
    for (name, left) in &open {
        settle(reader, name, left, files, out);
    }
}

fn service(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    name: Option<&ServiceName>,
    defaults: &TrafficPolicy,
    claims: &mut Claims,
) -> Option<(ServiceFile, Open)> {
    let table = reader.table(field.node, &field.path, KEYS)?;
    let mesh_file = reader.file_name(field.key.file);
    let mut open = Open::default();
    let dir = table.field("dir").and_then(|field| reader.line(field, "a folder", 1024));
    open.dir = dir.is_none();
    if let Some(field) = table.field("rate_limit") {
        open.rate_limit = rate_limit(reader, field).map(|limit| (limit, field.key));
    }
    let route = table.field("routes").and_then(|field| routes(reader, field, name, &mut open, claims));
    open.keep_alive = table.field("keep_alive").map(|field| field.key);
    let main = table.field("version").and_then(|field| tag(reader, field, "a version such as v1"));
    let says_health = says_probe(reader, &table);
    let protocol = table.field("protocol").and_then(|field| ports::protocol(reader, field)).unwrap_or_default();
    let mut service = ServiceFile {
        dir: dir.map_or_else(|| paths::parent(mesh_file), |dir| paths::beside(mesh_file, dir)),
        run: table.field("run").and_then(|field| command(reader, field)),
        port: table.field("port").and_then(|field| reader.port(field)),
        intercept: table.field("intercept").and_then(|field| reader.word(field, &Intercept::ALL)),
        host_ports: table.field("host_ports").map(|field| host_ports(reader, field)).unwrap_or_default(),
        publish: table.field("publish").and_then(|field| reader.port(field)),
        protocol,
        ports: table.field("ports").map(|field| ports::read(reader, field, protocol)).unwrap_or_default(),
        health: table.field("health").and_then(|field| health(reader, field)).unwrap_or_default(),
        env: table.field("env").map(|field| environment(reader, field)).unwrap_or_default(),
        version: main.clone(),
        versions: table.field("versions").map(|field| versions(reader, field, main.as_deref())).unwrap_or_default(),
        zone: table.field("zone").and_then(|field| tag(reader, field, "a zone such as eu-1a")),
        route,
        overlay: policy::overlay(reader, &table, defaults),
        authorization: None,
    };
    if says_health && defaults.probe.is_some() {
        service.overlay.probe = service.overlay.probe.take().or_else(|| probe::of_health(&service.health));
    }
    Some((service, open))
}

/// Further versions of a service, each with its share of the calls; what they leave is the main version's.
fn versions(reader: &mut Reader<'_>, field: &Field<'_>, main: Option<&str>) -> BTreeMap<String, VersionFile> {
    let mut versions = BTreeMap::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return versions };
    if table.fields().len() >= MOST_SHARES {
        let finding = Finding::error(2112, format!("`{}` has {MOST_SHARES} versions or more", field.path));
        reader.report(field.key, finding.fix("keep those that run"));
        return versions;
    }
    let mesh_file = reader.file_name(field.key.file).to_owned();
    let mut left = 100;
    for field in table.fields() {
        if field.name == main.unwrap_or(MAIN_VERSION) {
            let finding = Finding::error(2110, format!("`{}` is the version of the service itself", field.path));
            let fix = format!(
                "give it another name, or say version: beside versions: (it is {MAIN_VERSION} if nothing is said)"
            );
            reader.report(field.key, finding.fix(fix));
        } else if !is_tag(field.name) {
            let finding = Finding::error(2111, format!("`{}` is no name of a version", short(field.name)));
            reader.report(field.key, finding.because(TAG).fix("write for example v2"));
        }
        let Some(own) = reader.table(field.node, &field.path, VERSION) else { continue };
        let weight = share_of(reader, field, &own, &mut left);
        let dir = own.field("dir").and_then(|field| reader.line(field, "a folder", 1024));
        let version = VersionFile {
            dir: dir.map(|dir| paths::beside(&mesh_file, dir)),
            run: own.field("run").and_then(|field| command(reader, field)),
            port: own.field("port").and_then(|field| reader.port(field)),
            env: own.field("env").map(|field| environment(reader, field)).unwrap_or_default(),
            percent: weight,
        };
        versions.insert(field.name.to_owned(), version);
    }
    versions
}

/// A list of routes, or the name of a route file, which is kept in `open`.
fn routes(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    name: Option<&ServiceName>,
    open: &mut Open,
    claims: &mut Claims,
) -> Option<Route> {
    if let Value::Scalar(path, _) = &field.node.value {
        if path.split_once(' ').is_some_and(|(_, path)| path.trim_start().starts_with('/')) {
            reader.mismatch(field.node, &field.path, "a list of routes such as [\"GET /hello\"], or a file's name");
            return None;
        }
        let path = reader.line(field, "a list of routes, or a route file's name", 1024)?;
        open.file = Some((paths::beside(reader.file_name(field.key.file), path), field.node.span));
        return None;
    }
    open.routes = Some(field.key);
    let placeholder = ServiceName::new("unnamed").ok()?;
    let limit = open.rate_limit.as_ref().map(|(limit, _)| limit);
    let rules = rules(reader, field, name.unwrap_or(&placeholder), limit, claims);
    Some(Route { service: name?.clone(), rules })
}

fn command(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    const WANTS: &str = "a command such as uvicorn app:app --port $PORT";
    let text = reader.text(field, WANTS)?.trim();
    if text.is_empty() || text.len() > 8192 {
        reader.bad(field, WANTS, "it has 1 to 8192 bytes", "write the command, or leave `run` out");
        return None;
    }
    Some(text.to_owned())
}

/// Ports without repetition.
fn host_ports(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<u16> {
    let Some(items) = reader.list(field, "a list of ports such as [5432]") else { return Vec::new() };
    if items.len() > MAX_HOST_PORTS {
        let finding = Finding::error(2112, format!("`{}` has more than {MAX_HOST_PORTS} ports", field.path));
        reader.report(field.key, finding.fix("list those it needs"));
        return Vec::new();
    }
    let ports: BTreeSet<u16> = items.iter().filter_map(|item| reader.port(item)).collect();
    ports.into_iter().collect()
}

fn health(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HealthFile> {
    const WANTS: &str = "a path such as /health";
    let table = reader.table(field.node, &field.path, HEALTH)?;
    let mut health = HealthFile::default();
    if let Some(field) = table.field("path")
        && let Some(path) = reader.line(field, WANTS, 1024)
    {
        if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            health.path = Some(path.to_owned());
        } else {
            reader.bad(field, WANTS, "it starts with / and has no blanks", "write for example /health");
        }
    }
    let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
    if let Some(every) = table.field("every").and_then(|field| reader.duration(field, bounds)) {
        health.every = every;
    }
    let bounds = Duration::from_secs(1)..=Duration::from_hours(1);
    if let Some(within) = table.field("start_within").and_then(|field| reader.duration(field, bounds)) {
        health.start_within = within;
    }
    Some(health)
}

/// Whether `health` says what is asked: `health: {path}` is the short form of `probe`, so both are too much.
fn says_probe(reader: &mut Reader<'_>, table: &Table<'_>) -> bool {
    let Some(health) = table.field("health") else { return false };
    let Value::Map(entries) = &health.node.value else { return false };
    let Some(entry) = entries.iter().find(|entry| matches!(&*entry.key, "path" | "every")) else { return false };
    if let Some(probe) = table.field("probe") {
        let finding =
            Finding::error(2110, format!("`{}` and `{}.{}` say the same", probe.path, health.path, entry.key));
        reader.report(probe.key, finding.because("an application is asked one thing").fix("keep probe"));
    }
    true
}

fn environment(reader: &mut Reader<'_>, field: &Field<'_>) -> Environment {
    let mut variables = BTreeMap::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return Environment(variables) };
    if table.fields().len() > MAX_VARIABLES {
        let finding = Finding::error(2112, format!("`{}` has more than {MAX_VARIABLES} variables", field.path));
        reader.report(field.key, finding.fix("put them into a file that the application reads"));
        return Environment(variables);
    }
    for field in table.fields() {
        let mut bytes = field.name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let finding = Finding::error(2111, format!("`{}` is no name of a variable", short(field.name)));
            reader
                .report(field.key, finding.because("it has letters, digits and _").fix("write for example LOG_LEVEL"));
        }
        if let Some(text) = reader.text(field, "a text; \"\" for an empty one") {
            if text.contains('\0') {
                let finding = Finding::error(2105, format!("`{}` contains a NUL", field.path));
                reader.report(field.key, finding.fix("remove it"));
            } else {
                variables.insert(field.name.to_owned(), text.to_owned());
            }
        }
    }
    Environment(variables)
}

/// A short word that becomes a label of metrics.
fn tag(reader: &mut Reader<'_>, field: &Field<'_>, wants: &str) -> Option<String> {
    let text = reader.text(field, wants)?;
    if !is_tag(text) {
        reader.bad(field, wants, TAG, "shorten it to one such word");
        return None;
    }
    Some(text.to_owned())
}

/// What such a word is.
const TAG: &str = "it has 1 to 63 letters, digits, dots, - and _";

fn is_tag(text: &str) -> bool {
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    (1..=63).contains(&text.len()) && fits
}

/// Reads every route file and gives its routes to its service.
fn read_files<'a>(
    reader: &mut Reader<'a>,
    files: &'a [Source],
    out: &mut MeshFile,
    open: &mut BTreeMap<ServiceName, Open>,
    claims: &mut Claims,
) {
    let mut owners = Owners::default();
    for source in files {
        let Some(file) = reader.add(source) else { continue };
        let Some(root) = document::parse(reader, file) else { continue };
        let Some(read) = route_yaml::read(reader, &root, "", claims) else { continue };
        owners.own(reader, &read);
        let name = read.file.service.clone();
        let path = paths::tidy(&source.name);
        let named_by = open
            .iter()
            .find(|(other, left)| **other != name && left.file.as_ref().is_some_and(|(wanted, _)| *wanted == path));
        if let Some((other, _)) = named_by {
            let finding =
                Finding::error(2110, format!("this file is about `{name}`, but `{other}` names it as its own"))
                    .because("a route file belongs to the service it names")
                    .fix(format!("write service: {other} here, or correct `services.{other}.routes`"));
            reader.report(read.at, finding);
            continue;
        }
        let folder = paths::parent(&source.name);
        let service = out.services.entry(name.clone()).or_insert_with(|| ServiceFile::from_route_file(folder.clone()));
        let left = open.entry(name.clone()).or_default();
        if left.dir && left.file.is_some() {
            service.dir = folder;
        }
        merge_file(reader, service, left, read);
    }
}

/// Joins a service's own lines with its route file; what both state is a finding.
fn merge_file(reader: &mut Reader<'_>, service: &mut ServiceFile, left: &Open, read: route_yaml::Read) {
    let name = &read.file.service;
    let pairs = [
        ("routes", left.routes, Some(read.at)),
        ("rate_limit", left.rate_limit.as_ref().map(|(_, span)| *span), read.rate_limit),
        ("keep_alive", left.keep_alive, read.keep_alive),
    ];
    for (key, own, file) in pairs {
        if let (Some(own), Some(file)) = (own, file) {
            let finding = Finding::error(2110, format!("`{key}` of `{name}` is given in two files"))
                .because(format!("at {} and at {}", reader.place(own), reader.place(file)))
                .fix("keep one of the two");
            reader.report(file, finding);
        }
    }
    if read.file.keep_alive.is_some() {
        service.overlay.keep_alive = read.file.keep_alive;
    }
    let mut route = read.file.route;
    for rule in &mut route.rules {
        let own = rule.rate_limit.take();
        rule.rate_limit = own.or_else(|| left.rate_limit.as_ref().map(|(limit, _)| limit.clone()));
    }
    service.route.get_or_insert(route);
}

/// What is left to say when every file has been read.
fn settle(reader: &mut Reader<'_>, name: &ServiceName, left: &Open, files: &[Source], out: &MeshFile) {
    if let Some((path, span)) = &left.file
        && !files.iter().any(|source| paths::tidy(&source.name) == *path)
    {
        let finding = Finding::error(2101, format!("the route file `{}` cannot be read", short(path)))
            .because(format!("`services.{name}.routes` names it, relative to this file"))
            .fix("correct the path, or list the routes here");
        reader.report(*span, finding);
    }
    let routed = out.services.get(name).is_some_and(|service| service.route.is_some());
    if let (Some((_, span)), false, None) = (&left.rate_limit, routed, &left.file) {
        let span = *span;
        let finding = Finding::warning(2107, format!("the rate limit of `{name}` has no effect"))
            .because("a bucket belongs to a route, and the service has none");
        reader.report(span, finding.fix("add routes: [\"* /*\"] to limit everything"));
    }
}

impl ServiceFile {
    /// A service of which only a route file is known; how it runs is to be detected.
    fn from_route_file(dir: String) -> Self {
        Self {
            versions: BTreeMap::new(),
            dir,
            run: None,
            port: None,
            intercept: None,
            host_ports: Vec::new(),
            publish: None,
            protocol: AppProtocol::Detect,
            ports: Vec::new(),
            health: HealthFile::default(),
            env: Environment::default(),
            version: None,
            zone: None,
            route: None,
            overlay: Overlay::default(),
            authorization: None,
        }
    }
}

/// The percentage that a version takes of what is left to give away.
pub(crate) fn share_of(reader: &mut Reader<'_>, field: &Field<'_>, own: &Table<'_>, left: &mut u32) -> u32 {
    let weight = own.field("weight").and_then(|field| reader.whole(field, "a percentage of the calls", 0..=100));
    let weight = weight.unwrap_or_default();
    if weight > *left {
        let finding = Finding::error(2105, format!("`{}` gives away more than 100 %", field.path));
        let why = "what a version gets another one loses";
        reader.report(field.key, finding.because(why).fix(format!("leave at most {left} to it")));
    }
    *left = left.saturating_sub(weight);
    weight
}
