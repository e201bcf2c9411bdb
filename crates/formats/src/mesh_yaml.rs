//! `mesh.yaml`, with `gateway.yaml` and `mesh-config.yaml` beside it (ruling R14): a mesh on one page.
//!
//! `gateway.yaml` holds the keys of the `gateway:` section at its top (or that one section), `mesh-config.yaml` the sections
//! `tracing:` and `defaults:`. A key stands in one file only. `${NAME}` and `${NAME:-instead}` expand in values; `$NAME` does
//! not, so `run` keeps its `$PORT`. Relative paths start from the folder of the file they stand in.

mod allow;
mod balance;
mod egress;
pub(crate) mod expand;
mod gateway;
mod paths;
pub(crate) mod policy;
mod ports;
mod probe;
pub(crate) mod service;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::authorization::AllowRule;
use hms_model::policy::{AuthorizationPolicy, Egress, JwtIssuer};
use hms_model::port::{AppProtocol, Port};
use hms_model::resource::{Declaration, Defaults, Gateway, Overlay, Resource};
use hms_model::route::Route;
use hms_model::spiffe::SpiffeId;
use hms_model::split::{Share, Split};

pub(crate) use self::egress::name_of as host_name;
use crate::compose;
use crate::document::{self, Node, Value};
use crate::read::{Field, Keys, Reader, Table};
use crate::source::Source;

/// Looks a variable up for `${NAME}`; `None` when it is not set.
pub type Lookup<'l> = &'l dyn Fn(&str) -> Option<String>;

const TOP: Keys = Keys {
    known: &["version", "project", "gateway", "defaults", "services", "allow", "tracing", "intercept", "egress"],
    later: &["versions"],
};
const BESIDE: Keys = Keys::new(&["tracing", "defaults"]);

/// What the files of a project say, resolved: service overrides lie over the file's own defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MeshFile {
    /// The project's name, if it is given: one label.
    pub project: Option<String>,
    /// How applications are captured, unless a service says otherwise.
    pub intercept: Option<Intercept>,
    /// The gateway.
    pub gateway: GatewayFile,
    /// What may leave the mesh.
    pub egress: Egress,
    /// What holds for calls to every service, and what proxies tell.
    pub defaults: Defaults,
    /// Where traces go.
    pub traces: Traces,
    /// The services by name, including those that only a route file names.
    pub services: BTreeMap<ServiceName, ServiceFile>,
    /// Rules with `to: "*"`. They are already among those of every service above, and hold for services that come later.
    pub allow_everywhere: Vec<AllowRule>,
}

/// The gateway as a file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayFile {
    /// The port for HTTPS, if it is given.
    pub https: Option<u16>,
    /// The names it answers for; empty when none are given, which means [`Gateway::default`]'s.
    pub hosts: Vec<String>,
    /// Whose tokens it takes; `None` when nothing is said.
    pub jwt: Option<Tokens>,
}

/// Whose tokens the gateway takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tokens {
    /// The issuer that is built in, for laptops; `audiences` is empty for its own default.
    BuiltIn {
        /// One of these must stand in `aud`.
        audiences: Vec<String>,
        /// The claim that holds roles, if one is named. Nothing reads it yet, and a warning says so.
        roles: Option<String>,
    },
    /// Somebody else's.
    External {
        /// The exact `iss` claim.
        issuer: String,
        /// The file with its public keys, for [`crate::jwks::parse`].
        keys_file: String,
        /// One of these must stand in `aud`; never empty.
        audiences: Vec<String>,
        /// As above.
        roles: Option<String>,
    },
}

/// Where traces go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traces {
    /// To the control plane.
    #[default]
    BuiltIn,
    /// Nowhere.
    Off,
}

/// The version of a service that has others beside it, when nobody says which it is.
pub const MAIN_VERSION: &str = "v1";

/// A further version of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionFile {
    /// Its folder, if it is another than the service's.
    pub dir: Option<String>,
    /// The command that starts it, for a shell; `None` for the service's own, or when it is to be detected.
    pub run: Option<String>,
    /// The fixed port of the application, if it is given.
    pub port: Option<u16>,
    /// Environment besides the service's.
    pub env: Environment,
    /// Its percent of the calls.
    pub percent: u32,
}

impl ServiceFile {
    /// What runs under the service's own keys, if that has a name.
    pub fn main_version(&self) -> Option<String> {
        self.version.clone().or_else(|| (!self.versions.is_empty()).then(|| MAIN_VERSION.to_owned()))
    }

    /// How its calls are divided, if it has versions.
    pub fn split(&self, name: &ServiceName) -> Option<Split> {
        /// What one percent weighs: as `hms shift` has it, which can be finer.
        const PERCENT: u32 = 10_000;
        let main = self.main_version().filter(|_| !self.versions.is_empty())?;
        let share = |version: &str, percent: u32| Share {
            service: name.clone(),
            version: version.to_owned(),
            weight: percent * PERCENT,
        };
        let given: u32 = self.versions.values().map(|version| version.percent).sum();
        let others = self.versions.iter().map(|(version, file)| share(version, file.percent));
        let shares = std::iter::once(share(&main, 100_u32.saturating_sub(given))).chain(others).collect();
        Some(Split { service: name.clone(), shares })
    }
}

/// A service as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceFile {
    /// Its folder: as given, else that of its route file, else that of `mesh.yaml`.
    pub dir: String,
    /// The command that starts it, for a shell; `None` when it is to be detected or is started by somebody else.
    pub run: Option<String>,
    /// The fixed port of the application, if it is given.
    pub port: Option<u16>,
    /// How it is captured, if it is given.
    pub intercept: Option<Intercept>,
    /// Ports of the laptop's own loopback that it may use.
    pub host_ports: Vec<u16>,
    /// Where its own port is open on the laptop, around the mesh.
    pub publish: Option<u16>,
    /// What is spoken on its ports, where they do not say so themselves.
    pub protocol: AppProtocol,
    /// What callers dial, if it is given.
    pub ports: Vec<Port>,
    /// What is asked to know whether it lives.
    pub health: HealthFile,
    /// Additional environment of the application.
    pub env: Environment,
    /// The version of what runs, if it is given.
    pub version: Option<String>,
    /// Versions that run beside it, by their names.
    pub versions: BTreeMap<String, VersionFile>,
    /// Its failure domain, if it is given.
    pub zone: Option<String>,
    /// What it serves; `None` when nothing is said.
    pub route: Option<Route>,
    /// How calls to it differ from the defaults.
    pub overlay: Overlay,
    /// Who may call it; `None` while no rule names it.
    pub authorization: Option<AuthorizationPolicy>,
}

/// How the packets of an application get to its proxy, as a person may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intercept {
    /// The best that this machine allows.
    Auto,
    /// In namespaces of its own.
    Netns,
    /// By notifications of its system calls.
    Notify,
    /// By `HTTP_PROXY` and `<NAME>_URL`.
    Env,
    /// By `<NAME>_URL` alone: a port for each service.
    Port,
    /// Not at all.
    None,
}

impl Intercept {
    /// Every way, with its name.
    pub const ALL: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("netns", Self::Netns),
        ("notify", Self::Notify),
        ("env", Self::Env),
        ("port", Self::Port),
        ("none", Self::None),
    ];
}

/// How to see that an application lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthFile {
    /// The path to ask for; `None` means that accepting a connection is enough.
    pub path: Option<String>,
    /// Time between two questions. 2 s; 100 ms to 1 h.
    pub every: Duration,
    /// How long it may take until the first good answer. 30 s; 1 s to 1 h.
    pub start_within: Duration,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self { path: None, every: Duration::from_secs(2), start_within: Duration::from_secs(30) }
    }
}

/// Environment variables. Their values are never shown: people put passwords there.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Environment(pub BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl MeshFile {
    /// The resources to store: defaults, a declaration per service with the identity that `identity` gives it, routes, the
    /// gateway, and what may leave. An external issuer has no keys yet (load [`Tokens::External`]'s file), and the built-in one is not listed:
    /// whoever holds its key adds it.
    pub fn resources(&self, identity: impl Fn(&ServiceName) -> SpiffeId) -> Vec<Resource> {
        let mut resources = vec![Resource::Defaults(self.defaults.clone())];
        for (name, service) in &self.services {
            resources.push(Resource::Declaration(Declaration {
                name: name.clone(),
                identities: vec![identity(name)],
                overlay: service.overlay.clone(),
                authorization: service.authorization.clone(),
                protocol: service.protocol,
                ports: service.ports.clone(),
            }));
        }
        resources.extend(self.services.values().filter_map(|service| service.route.clone()).map(Resource::Route));
        resources.extend(self.services.iter().filter_map(|(name, service)| service.split(name)).map(Resource::Split));
        resources.push(Resource::Gateway(self.gateway.resource()));
        if self.egress != Egress::default() {
            resources.push(Resource::Egress(self.egress.clone()));
        }
        resources
    }
}

impl GatewayFile {
    fn resource(&self) -> Gateway {
        let issuers = match &self.jwt {
            Some(Tokens::External { issuer, audiences, .. }) => {
                vec![JwtIssuer { issuer: issuer.clone(), audiences: audiences.clone(), keys: Vec::new() }]
            }
            Some(Tokens::BuiltIn { .. }) | None => Vec::new(),
        };
        let hosts = if self.hosts.is_empty() { Gateway::default().hosts } else { self.hosts.clone() };
        Gateway { hosts, issuers, ..Gateway::default() }
    }
}

/// Reads a project's files. `route_files` are those that [`route_file_names`] lists, under these names, and any others found
/// beside them; each belongs to the service it names. Any finding that is an error means that nothing is to be applied.
pub fn translate(
    mesh: Option<&Source>,
    gateway: Option<&Source>,
    mesh_config: Option<&Source>,
    route_files: &[Source],
    lookup: Lookup<'_>,
) -> (MeshFile, Vec<Finding>) {
    let mut reader = Reader::default();
    let [mesh, gateway, mesh_config] = [mesh, gateway, mesh_config].map(|source| tree(&mut reader, source?, lookup));
    let top = mesh.as_ref().and_then(|node| reader.table(node, "", TOP));
    let beside = mesh_config.as_ref().filter(|node| says_something(node));
    let beside = beside.and_then(|node| reader.table(node, "", BESIDE));

    let mut out = MeshFile::default();
    if let Some(top) = &top {
        check_version(&mut reader, top);
        out.project = top.field("project").and_then(|field| project(&mut reader, field));
    }
    out.intercept =
        top.as_ref().and_then(|top| top.field("intercept")).and_then(|field| reader.word(field, &Intercept::ALL));
    out.gateway = {
        let section = top.as_ref().and_then(|top| top.field("gateway")).cloned();
        let section = section.and_then(|field| reader.table(field.node, &field.path, gateway::KEYS));
        let alone = gateway.as_ref().filter(|node| says_something(node));
        let alone = alone.and_then(|node| reader.table(gateway::inside(node), "", gateway::KEYS));
        let merged = reader.merge(section, alone);
        merged.map(|table| gateway::read(&mut reader, &table)).unwrap_or_default()
    };
    if let Some(table) = section(&mut reader, top.as_ref(), beside.as_ref(), "defaults", policy::DEFAULTS) {
        out.defaults.policy = policy::defaults(&mut reader, &table);
    }
    if let Some(table) = section(&mut reader, top.as_ref(), beside.as_ref(), "tracing", policy::TRACING) {
        (out.defaults.telemetry, out.traces) = policy::tracing(&mut reader, &table);
    }
    if let Some(field) = top.as_ref().and_then(|top| top.field("egress")) {
        out.egress = egress::read(&mut reader, field, &out.defaults.policy);
    }
    service::read_all(&mut reader, top.as_ref(), route_files, &mut out);
    if let Some(field) = top.as_ref().and_then(|top| top.field("allow")) {
        allow::read(&mut reader, field, &mut out);
    }
    (out, reader.into_findings())
}

/// The route files that a `mesh.yaml` names, as paths that start where its own name does. To be read and handed to
/// [`translate`] under these names.
pub fn route_file_names(mesh: &Source, lookup: Lookup<'_>) -> Vec<String> {
    let mut reader = Reader::default();
    let Some(root) = tree(&mut reader, mesh, lookup) else { return Vec::new() };
    let Some(top) = reader.open_table(&root, "") else { return Vec::new() };
    let Some(services) = top.field("services").cloned() else { return Vec::new() };
    let Some(services) = reader.open_table(services.node, "services") else { return Vec::new() };
    let mut names = Vec::new();
    for service in services.fields() {
        if let Some(table) = reader.open_table(service.node, &service.path)
            && let Some(Value::Scalar(path, _)) = table.field("routes").map(|field| &field.node.value)
        {
            let name = paths::beside(&mesh.name, path);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Parses a file and expands its variables.
fn tree<'a>(reader: &mut Reader<'a>, source: &'a Source, lookup: Lookup<'_>) -> Option<Node> {
    let file = reader.add(source)?;
    let mut root = document::parse(reader, file)?;
    if compose::is_compose(&root) {
        root = compose::as_mesh(reader, root);
    }
    expand::expand(reader, &mut root, lookup);
    Some(root)
}

/// An empty side file is as good as none.
fn says_something(node: &Node) -> bool {
    !matches!(node.value, Value::Null)
}

/// A section that may stand in `mesh.yaml` or in `mesh-config.yaml`.
fn section<'n>(
    reader: &mut Reader<'_>,
    top: Option<&Table<'n>>,
    beside: Option<&Table<'n>>,
    name: &str,
    keys: Keys,
) -> Option<Table<'n>> {
    let [first, second] = [top, beside].map(|table| {
        let field = table.and_then(|table| table.field(name))?;
        reader.table(field.node, &field.path, keys)
    });
    reader.merge(first, second)
}

fn check_version(reader: &mut Reader<'_>, top: &Table<'_>) {
    let Some(field) = top.field("version") else { return };
    if reader.whole(field, "the version of this format, which is 1", 0..=u32::MAX).is_some_and(|version| version != 1) {
        let finding = Finding::error(
            2120,
            format!("version {} of this format is not available in this release", reader.shown(field.node)),
        );
        reader.report(field.node.span, finding.because("this release reads version 1").fix("write version: 1"));
    }
}

fn project(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field, "the project's name")?;
    match Label::new(text) {
        Ok(label) => Some(label.to_string()),
        Err(error) => {
            let finding = Finding::error(2111, format!("`{}` is no name of a project", reader.named(field.node, text)));
            reader.report(field.node.span, finding.because(error.to_string()).fix("use letters a-z, digits and -"));
            None
        }
    }
}
