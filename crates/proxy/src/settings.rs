//! What a proxy is told when it starts. The only reader of arguments and environment.
#![expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::message::CanonicalPath;
use hms_model::names::{DEFAULT_NAMESPACE, Label, ServiceName};
use hms_model::resource::valid_id;
use hms_model::spiffe::TrustDomain;
use hms_traffic::subset::Caller;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::capture::Mode;
use crate::capture::dns::resolver::Source;
use crate::capture::joined::Joined;
use crate::runtime::Own;

mod standalone;

/// Port of the application when nobody names one (S4-13).
pub const DEFAULT_SERVICE_PORT: u16 = 7000;

/// Where a host says who resolves its names (resolv.conf(5)).
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How the control plane is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAddress {
    /// Its socket on this host; it attests us by our process id.
    Unix(PathBuf),
    /// There is none: a file says everything.
    None,
    /// Its address, over TLS that is verified with the bundle at `bundle`; a join token proves who we are the first time.
    Tcp {
        /// Where it listens.
        address: SocketAddr,
        /// PEM file of the roots to believe.
        bundle: PathBuf,
        /// File that holds the join token, if there is one.
        join_token: Option<PathBuf>,
    },
}

/// Everything a proxy is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which kind of proxy.
    pub role: Role,
    /// The service served; of a gateway, its own name.
    pub service: ServiceName,
    /// Where the control plane is.
    pub control: ControlAddress,
    /// The file to run by instead of a control plane ([`hms_model::standalone`]).
    pub snapshot: Option<PathBuf>,
    /// The domain whose identities are believed.
    pub trust_domain: TrustDomain,
    /// Private directory, in memory where there is one: keys, last good configuration, `ports.json`.
    pub runtime_dir: PathBuf,
    /// Where other proxies connect.
    pub inbound: SocketAddr,
    /// Where the application sends what it calls.
    pub outbound: SocketAddr,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
    /// Where outside callers connect (gateway).
    pub https: SocketAddr,
    /// Where names are answered for whoever asks, beside captured applications; `None` is nowhere.
    pub dns: Option<SocketAddr>,
    /// Who is asked about names that are not the mesh's.
    pub resolver: Source,
    /// The application; `None` for a pure client.
    pub app: Option<SocketAddr>,
    /// The path that must answer below 400 for the application to be healthy; without one, accepting connections is enough.
    pub health_path: Option<CanonicalPath>,
    /// How often a listening application is asked.
    pub health_every: Duration,
    /// One listener per named upstream.
    pub upstreams: BTreeMap<ServiceName, SocketAddr>,
    /// Unique within the service.
    pub workload_id: String,
    /// Version label of the workload.
    pub version: String,
    /// Failure domain.
    pub zone: String,
    /// A socket whose closing means that our supervisor is gone.
    pub lifeline: Option<PathBuf>,
    /// How long draining may take.
    pub drain: Duration,
    /// Data threads.
    pub workers: usize,
    /// Connections that others may have open to this process; `None` is what its file descriptors allow.
    pub max_connections: Option<usize>,
    /// Bytes of memory this process may have; `None` is what its control group allows.
    pub memory_limit: Option<u64>,
    /// How the application is captured, if it is: then its shepherd hands us sockets.
    pub capture: Option<Mode>,
    /// What the network is to be that we share with the application, if it is captured that way.
    pub joined: Option<Joined>,
    /// Where the application's own port is open, around the mesh.
    pub publish: Option<SocketAddr>,
    /// Where the access log goes; `-` is standard output, `None` is nowhere.
    pub access_log: Option<PathBuf>,
}

/// Why the settings are none.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// `--help` or `--version` was asked for; the text to print.
    #[error("{0}")]
    Asked(String),
    /// An argument is wrong.
    #[error("hms-proxy: {0} (see hms-proxy --help)")]
    Bad(String),
}

impl From<lexopt::Error> for SettingsError {
    fn from(error: lexopt::Error) -> Self {
        Self::Bad(error.to_string())
    }
}

const HELP: &str = "hms-proxy: the data plane of HMS Mesh. Usually started by `hms up` or `hms run`.

  --role sidecar|gateway|egress which kind of proxy (sidecar)
  --service NAME[.NAMESPACE]    the service served
  --control unix:PATH           the control plane's socket, or
  --control https://IP:PORT --bundle FILE.pem [--join-token-file FILE]
  --snapshot FILE               no control plane: listeners and services from a file that `hms proxy run` writes
  --trust-domain DOMAIN         whose identities are believed
  --runtime-dir DIR             private directory for keys and the last good configuration
  --inbound IP:PORT             where other proxies connect (127.0.0.1:0); 0.0.0.0 is our address towards the control plane
  --outbound IP:PORT            where the application sends its calls (127.0.0.1:0)
  --admin IP:PORT               health and metrics (127.0.0.1:0)
  --https IP:PORT               where outside callers connect (gateway, 127.0.0.1:8443)
  --dns IP:PORT                 answer names there, over UDP and TCP (nowhere)
  --resolver IP:PORT[,IP:PORT]  who knows the names that are not the mesh's (those of /etc/resolv.conf)
  --app IP:PORT|none            the application (127.0.0.1:$SERVICE_PORT, default port 7000)
  --health-path PATH            healthy is who answers GET PATH below 400 (else: who accepts connections)
  --health-every MILLISECONDS   how often (1000)
  --upstream NAME=IP:PORT       a listener of its own for one service; may be repeated
  --workload-id ID  --workload-version V  --zone Z
  --lifeline PATH               leave when this socket closes
  --drain SECONDS               how long draining may take (5)
  --workers N                   data threads (sidecar 1, gateway one per processor)
  --max-connections N           connections taken at the same time (half of the open files allowed)
  --memory-limit MEBIBYTES      memory that may be used (the control group's limit)
  --capture netns|notify        the application is captured; its shepherd hands out sockets
  --capture joined              it lives in our own network namespace, whose rules we set up (needs CAP_NET_ADMIN, CAP_SETGID)
  --user UID                    who we are after that (joined; needs CAP_SETUID)
  --open PORT[,PORT]            ports of the application that others reach around the mesh (joined)
  --publish IP:PORT             where the application's own port is open, around the mesh
  --access-log FILE|-           JSON lines, one per request
";

impl Settings {
    /// What this proxy is to its tables.
    pub fn own(&self) -> Own {
        let id = format!("{}/{}", self.service, self.workload_id);
        Own { service: self.service.clone(), caller: Caller { id, zone: self.zone.clone() } }
    }

    /// Reads arguments (without the program's name) and `SERVICE_PORT`, `HMS_LOG`.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, SettingsError> {
        let mut raw = Raw::default();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                    return Err(SettingsError::Asked(HELP.to_owned()));
                }
                lexopt::Arg::Long("version") | lexopt::Arg::Short('V') => {
                    return Err(SettingsError::Asked(format!("hms-proxy {}\n", env!("CARGO_PKG_VERSION"))));
                }
                lexopt::Arg::Long("upstream") => raw.upstreams.push(text(parser.value()?)?),
                lexopt::Arg::Long(name) => {
                    let name = name.to_owned();
                    if !KNOWN.contains(&name.as_str()) {
                        return Err(SettingsError::Bad(format!("there is no --{name}")));
                    }
                    let value = text(parser.value()?)?;
                    if raw.values.insert(name.clone(), value).is_some() {
                        return Err(SettingsError::Bad(format!("--{name} stands twice")));
                    }
                }
                other => return Err(other.unexpected().into()),
            }
        }
        raw.resolve(std::env::var("SERVICE_PORT").ok().as_deref())
    }
}

/// The filter of the process's own log, from `HMS_LOG`; `info` without one.
pub fn log_filter() -> Targets {
    filter_of(std::env::var("HMS_LOG").ok().as_deref())
}

/// Without the regular expressions of `EnvFilter`, which nobody needs here and which are 150 KB of this program. What cannot be
/// read is as if it were not there: a word too much must not leave anybody without a log.
fn filter_of(text: Option<&str>) -> Targets {
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

const KNOWN: [&str; 31] = [
    "open",
    "user",
    "capture",
    "publish",
    "dns",
    "resolver",
    "snapshot",
    "memory-limit",
    "max-connections",
    "health-path",
    "health-every",
    "role",
    "service",
    "control",
    "bundle",
    "join-token-file",
    "trust-domain",
    "runtime-dir",
    "inbound",
    "outbound",
    "admin",
    "https",
    "app",
    "workload-id",
    "workload-version",
    "zone",
    "lifeline",
    "drain",
    "workers",
    "access-log",
    "upstream",
];

fn text(value: OsString) -> Result<String, SettingsError> {
    value.into_string().map_err(|bad| SettingsError::Bad(format!("{} is not UTF-8", bad.display())))
}

/// What was said, before it means anything.
#[derive(Default)]
struct Raw {
    values: BTreeMap<String, String>,
    upstreams: Vec<String>,
}

impl Raw {
    fn resolve(mut self, service_port: Option<&str>) -> Result<Settings, SettingsError> {
        if let Some(snapshot) = self.values.remove("snapshot") {
            return self.standalone(snapshot.into());
        }
        let role = match self.values.remove("role").as_deref() {
            None | Some("sidecar") => Role::Sidecar,
            Some("gateway") => Role::Gateway,
            Some("egress") => Role::Egress,
            Some(other) => {
                return Err(SettingsError::Bad(format!("`{other}` is no role (sidecar, gateway, egress)")));
            }
        };
        let service = match (self.values.remove("service"), role) {
            (Some(name), _) => service_name(&name)?,
            (None, Role::Gateway) => service_name("gateway.hms-system")?,
            (None, Role::Egress) => service_name("egress.hms-system")?,
            (None, _) => return Err(SettingsError::Bad("--service is missing".to_owned())),
        };
        let trust_domain = self.required("trust-domain")?;
        let (version, zone) = self.labels()?;
        let workload_id = self.workload_id()?;
        let capture = self.capture()?;
        Ok(Settings {
            role,
            control: self.control()?,
            snapshot: None,
            trust_domain: TrustDomain::new(&trust_domain).map_err(|why| SettingsError::Bad(why.to_string()))?,
            runtime_dir: self.required("runtime-dir")?.into(),
            inbound: self.address("inbound", 0)?,
            outbound: self.address("outbound", 0)?,
            admin: self.address("admin", 0)?,
            https: self.address("https", 8443)?,
            joined: self.joined(capture)?,
            dns: self.dns()?,
            resolver: self.resolver()?,
            app: self.app(service_port)?,
            health_path: self.health_path()?,
            health_every: Duration::from_millis(self.number("health-every", 1000, 3_600_000)?.max(100)),
            upstreams: self.upstreams()?,
            workload_id,
            version,
            zone,
            lifeline: self.values.remove("lifeline").map(PathBuf::from),
            drain: Duration::from_secs(self.number("drain", 5, 3600)?),
            workers: self.workers(role)?,
            max_connections: self.max_connections()?,
            memory_limit: self.memory_limit()?,
            capture,
            publish: self.publish()?,
            access_log: self.values.remove("access-log").map(PathBuf::from),
            service,
        })
    }

    /// Version and zone.
    fn labels(&mut self) -> Result<(String, String), SettingsError> {
        let version = self.values.remove("workload-version").unwrap_or_else(|| "latest".to_owned());
        let zone = self.values.remove("zone").unwrap_or_default();
        for (word, value) in [("--workload-version", &version), ("--zone", &zone)] {
            if value.len() > 63 || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            {
                return Err(SettingsError::Bad(format!("{word} takes up to 63 letters, digits, '.', '_' and '-'")));
            }
        }
        Ok((version, zone))
    }

    fn workload_id(&mut self) -> Result<String, SettingsError> {
        let id = self.values.remove("workload-id").unwrap_or_else(|| format!("pid-{}", std::process::id()));
        if valid_id(&id) { Ok(id) } else { Err(SettingsError::Bad(format!("`{id}` is no workload id"))) }
    }

    fn max_connections(&mut self) -> Result<Option<usize>, SettingsError> {
        let most = self.optional("max-connections", 1 << 20)?;
        Ok(most.and_then(|most| usize::try_from(most.max(1)).ok()))
    }

    fn memory_limit(&mut self) -> Result<Option<u64>, SettingsError> {
        Ok(self.optional("memory-limit", 1 << 24)?.map(|mebibytes| mebibytes << 20))
    }

    fn required(&mut self, name: &str) -> Result<String, SettingsError> {
        self.values.remove(name).ok_or_else(|| SettingsError::Bad(format!("--{name} is missing")))
    }

    fn number(&mut self, name: &str, default: u64, most: u64) -> Result<u64, SettingsError> {
        match self.values.remove(name) {
            None => Ok(default),
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|n| *n <= most)
                .ok_or_else(|| SettingsError::Bad(format!("--{name} takes a number up to {most}, not `{digits}`"))),
        }
    }

    fn address(&mut self, name: &str, default_port: u16) -> Result<SocketAddr, SettingsError> {
        match self.values.remove(name) {
            None => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port)),
            Some(text) => socket_address(name, &text),
        }
    }

    fn control(&mut self) -> Result<ControlAddress, SettingsError> {
        let control = self.required("control")?;
        if let Some(path) = control.strip_prefix("unix:") {
            return Ok(ControlAddress::Unix(path.into()));
        }
        let Some(address) = control.strip_prefix("https://") else {
            return Err(SettingsError::Bad("--control takes unix:PATH or https://IP:PORT".to_owned()));
        };
        Ok(ControlAddress::Tcp {
            address: socket_address("control", address)?,
            bundle: self.required("bundle")?.into(),
            join_token: self.values.remove("join-token-file").map(PathBuf::from),
        })
    }

    fn app(&mut self, service_port: Option<&str>) -> Result<Option<SocketAddr>, SettingsError> {
        match self.values.remove("app").as_deref() {
            Some("none") => Ok(None),
            Some(text) => socket_address("app", text).map(Some),
            None => {
                let port = match service_port {
                    None => DEFAULT_SERVICE_PORT,
                    Some(digits) => digits
                        .parse()
                        .ok()
                        .filter(|port| *port != 0)
                        .ok_or_else(|| SettingsError::Bad(format!("SERVICE_PORT is no port: `{digits}`")))?,
                };
                Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
            }
        }
    }

    /// A sidecar has one data thread, a gateway as many as the processors it may use (its CPU quota counts).
    fn workers(&mut self, role: Role) -> Result<usize, SettingsError> {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let default = if matches!(role, Role::Gateway | Role::Egress) { processors() } else { 1 };
        let asked = self.number("workers", u64::try_from(default).unwrap_or(1), 256)?;
        Ok(usize::try_from(asked).unwrap_or(1).max(1))
    }

    /// Whoever can ask gets answers of the host's resolvers, and datagrams have any sender they like: so nobody outside can ask.
    fn dns(&mut self) -> Result<Option<SocketAddr>, SettingsError> {
        let Some(text) = self.values.remove("dns") else { return Ok(None) };
        let address = socket_address("dns", &text)?;
        if !address.ip().is_loopback() {
            return Err(SettingsError::Bad(format!("--dns takes an address of loopback, not `{address}`")));
        }
        Ok(Some(address))
    }

    fn resolver(&mut self) -> Result<Source, SettingsError> {
        let Some(text) = self.values.remove("resolver") else { return Ok(Source::File(RESOLV_CONF.into())) };
        let servers = text.split(',').map(|server| socket_address("resolver", server));
        servers.collect::<Result<_, _>>().map(Source::Servers)
    }

    fn optional(&mut self, name: &str, most: u64) -> Result<Option<u64>, SettingsError> {
        self.values.contains_key(name).then(|| self.number(name, 0, most)).transpose()
    }

    fn joined(&mut self, capture: Option<Mode>) -> Result<Option<Joined>, SettingsError> {
        let user = self.optional("user", u64::from(u32::MAX - 1))?.and_then(|user| u32::try_from(user).ok());
        let open = self.values.remove("open").unwrap_or_default();
        let port = |port: &str| port.parse().ok().filter(|port| *port != 0);
        let ports = open.split(',').filter(|_| !open.is_empty()).map(port).collect::<Option<Vec<u16>>>();
        let open = ports.ok_or_else(|| SettingsError::Bad(format!("--open takes PORT[,PORT], not `{open}`")))?;
        match capture {
            Some(Mode::Joined) => Ok(Some(Joined { user, open })),
            _ if user.is_some() || !open.is_empty() => {
                Err(SettingsError::Bad("--user and --open mean nothing without --capture joined".to_owned()))
            }
            _ => Ok(None),
        }
    }

    fn capture(&mut self) -> Result<Option<Mode>, SettingsError> {
        let read = |text: String| {
            let wrong = || SettingsError::Bad(format!("--capture takes netns, notify or joined, not `{text}`"));
            Mode::parse(&text).filter(|mode| *mode != Mode::None).ok_or_else(wrong)
        };
        self.values.remove("capture").map(read).transpose()
    }

    fn publish(&mut self) -> Result<Option<SocketAddr>, SettingsError> {
        self.values.remove("publish").map(|text| socket_address("publish", &text)).transpose()
    }

    fn health_path(&mut self) -> Result<Option<CanonicalPath>, SettingsError> {
        let read = |text: String| {
            CanonicalPath::parse(&text).map_err(|why| SettingsError::Bad(format!("--health-path {text}: {why}")))
        };
        self.values.remove("health-path").map(read).transpose()
    }

    fn upstreams(&self) -> Result<BTreeMap<ServiceName, SocketAddr>, SettingsError> {
        let read = |text: &String| {
            let (name, address) = text
                .split_once('=')
                .ok_or_else(|| SettingsError::Bad(format!("--upstream takes NAME=IP:PORT, not `{text}`")))?;
            Ok((service_name(name)?, socket_address("upstream", address)?))
        };
        self.upstreams.iter().map(read).collect()
    }
}

fn service_name(text: &str) -> Result<ServiceName, SettingsError> {
    let (name, namespace) = text.split_once('.').unwrap_or((text, DEFAULT_NAMESPACE));
    let checked = Label::new(namespace).and_then(|_| ServiceName::in_namespace(namespace, name));
    checked.map_err(|why| SettingsError::Bad(format!("--service {text}: {why}")))
}

fn socket_address(name: &str, text: &str) -> Result<SocketAddr, SettingsError> {
    text.parse().map_err(|_unreadable| SettingsError::Bad(format!("--{name} takes IP:PORT, not `{text}`")))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, SettingsError> {
        Settings::parse(arguments.iter().map(OsString::from))
    }

    const LEAST: [&str; 8] =
        ["--service", "calc-svc", "--control", "unix:/c", "--trust-domain", "k.hms", "--runtime-dir", "/r"];

    #[test]
    fn the_log_is_filtered_by_level_and_by_part() {
        let enabled = |text: Option<&str>, part: &str, level: Level| filter_of(text).would_enable(part, &level);
        assert!(enabled(None, "hms_proxy::app", Level::INFO) && !enabled(None, "hms_proxy::app", Level::DEBUG));
        let parts = Some("warn,hms_proxy::egress=debug");
        assert!(enabled(parts, "hms_proxy::egress::names", Level::DEBUG));
        assert!(!enabled(parts, "hms_proxy::app", Level::INFO));
        assert!(enabled(Some("hms_proxy=loud"), "hms_proxy", Level::INFO), "what cannot be read changes nothing");
    }

    #[test]
    fn a_sidecar_needs_four_things_and_defaults_the_rest() {
        let settings = parse(&LEAST).unwrap();
        assert_eq!(settings.role, Role::Sidecar);
        assert_eq!(settings.app, Some("127.0.0.1:7000".parse().unwrap()));
        assert!(settings.inbound.ip().is_loopback());
    }

    #[test]
    fn every_wrong_argument_is_named() {
        for (more, word) in [
            (["--role", "router"], "router"),
            (["--app", "x"], "--app"),
            (["--upstream", "calc"], "--upstream"),
            (["--resolver", "9.9.9.9"], "--resolver"),
            (["--dns", "0.0.0.0:53"], "--dns"),
            (["--drain", "soon"], "--drain"),
            (["--nothing", "x"], "--nothing"),
            (["--open", "80"], "--capture joined"),
            (["--open", "80,x"], "--open"),
            (["--service", "again"], "--service"),
        ] {
            let mut arguments = LEAST.to_vec();
            arguments.extend(more);
            let message = parse(&arguments).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
        assert!(parse(&[]).unwrap_err().to_string().contains("--service"));
    }
}
